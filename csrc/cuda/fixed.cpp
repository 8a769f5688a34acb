// The encoder's host side; the device's is fixed_jobs.h. Plain C++, so that tests can run it with
// another device (tests/core/emulated_device.h).
#include "cuda/fixed.h"

#include <utility>

#include "cuda/launch.h"

namespace lmgc::cuda {
namespace {

std::int64_t pieces_of(std::int64_t elements) {
  return (elements + piece_elements - 1) / piece_elements;
}
std::int64_t glances_of(std::int64_t elements) {
  return (elements + glance_elements - 1) / glance_elements;
}
std::int64_t blocks_of(std::int64_t elements) {
  return (elements + block_elements - 1) / block_elements;
}

void add_encode_entries(const std::vector<rans::Table>& tables,
                        std::vector<rans::EncodeEntry>& entries) {
  const std::size_t first = entries.size();
  entries.resize(first + 256 * tables.size());  // absent symbols have no limit
  for (std::size_t t = 0; t < tables.size(); ++t)
    rans::fill_encode_entries(tables[t], entries.data() + first + 256 * t);
}

}  // namespace

void know_weights(const FixedHead& head, const LiveShape& shape, FloatFormat format,
                  Uploads& uploads, KnownMatrix& known) {
  known.format = FixedFormat(format);
  known.columns = shape.columns;
  if (!head.predicted()) return;
  known.base = head.low_rank.factors.base();
  uploads.add(head.low_rank.row_weights, &known.row_weights);
  uploads.add(head.low_rank.column_weights, &known.column_weights);
}

void know_scales(const FixedHead& head, Uploads& uploads, KnownMatrix& known) {
  uploads.add(head.scales.rows, &known.row_scales);
  if (head.has_column_scales) uploads.add(head.scales.columns, &known.column_scales);
}

int FixedEncoder::prepare(std::vector<FixedMatrix> matrices, const Parallel& parallel,
                          const Allocate& allocate, void* stream) {
  matrices_.clear();
  std::vector<Matrix> all(matrices.size());
  Uploads weights;
  for (std::size_t k = 0; k < all.size(); ++k) {
    Matrix& matrix = all[k];
    matrix.own = std::move(matrices[k]);
    auto& [input, head, product] = matrix.own;
    matrix.factors = code_factors(input.shape, input.past, head, parallel);
    know_weights(head, input.shape, input.format, weights, matrix.known);
  }
  matrices_ = std::move(all);
  if (int error = weights.upload(allocate, stream)) return error;
  if (int error = find_levels(allocate, stream)) return error;
  if (int error = find_scales(allocate, stream)) return error;
  if (int error = split(parallel, allocate, stream)) return error;
  return code_blocks(parallel, allocate, stream);
}

template <class Body>
int FixedEncoder::for_each_lot(const Body& body) {
  std::vector<Share> without;
  for (Matrix& matrix : matrices_) {
    const FixedInput& input = matrix.own.input;
    MatrixPart whole{matrix.known, input.words, 0, input.shape.elements};
    if (!matrix.own.head.predicted()) without.push_back({&matrix, whole});
  }
  if (!without.empty()) {
    if (int error = body(without)) return error;
  }
  for (Matrix& matrix : matrices_) {
    if (!matrix.own.head.predicted()) continue;
    const FixedInput& input = matrix.own.input;
    const int error = matrix.own.product.for_each_panel(
        input.shape.elements,
        [&](std::int64_t first, std::int64_t count, const std::int64_t* predictions) {
          MatrixPart part{matrix.known, input.words, first, count};
          part.known.product = predictions;
          part.known.first_product = first;
          return body(std::vector<Share>{{&matrix, part}});
        });
    if (error) return error;
  }
  return 0;
}

int FixedEncoder::find_levels(const Allocate& allocate, void* stream) {
  // Levels are looked at before there are contexts and symbols, which take their place.
  for (Matrix& matrix : matrices_) {
    const auto elements = static_cast<std::size_t>(matrix.own.input.shape.elements);
    if (int error = allocate_array(allocate, elements, &matrix.levels)) return error;
    matrix.contexts = reinterpret_cast<std::uint8_t*>(matrix.levels);
    matrix.symbols = matrix.contexts + elements;
  }
  return for_each_lot([&](const std::vector<Share>& shares) {
    TaskListBuilder<FindLevels::Matrix> list;
    for (const auto& [matrix, part] : shares)
      list.add({part, matrix->levels}, glances_of(part.count));
    return list.launch_warps<FindLevels>(allocate, stream);
  });
}

int FixedEncoder::find_scales(const Allocate& allocate, void* stream) {
  std::vector<ResidualScales> all;
  std::vector<std::size_t> at(1, 0);  // of each matrix's sums
  for (const Matrix& matrix : matrices_) {
    const auto& [words, format, shape, may_have_columns, past] = matrix.own.input;
    all.emplace_back(ResidualShape{shape.elements, shape.rows, shape.columns, scale_floor(format)},
                     may_have_columns);
    at.push_back(at.back() + static_cast<std::size_t>(std::max(shape.rows, shape.columns)));
  }
  std::vector<LineSum> sums(at.back());
  const std::size_t sums_size = sums.size() * sizeof sums[0];
  std::int64_t* device_sums = nullptr;
  static_assert(sizeof(LineSum) == 2 * sizeof *device_sums);
  if (int error = allocate_array(allocate, 2 * sums.size(), &device_sums)) return error;
  const auto is_due = [](const ResidualScales& scales) { return !scales.done(); };
  while (std::any_of(all.begin(), all.end(), is_due)) {
    Uploads uploads;
    std::vector<LevelPass> passes(all.size());
    for (std::size_t k = 0; k < all.size(); ++k) {
      if (all[k].done()) continue;
      const LiveShape& shape = matrices_[k].own.input.shape;
      passes[k] = all[k].pass();
      uploads.add(passes[k].rows, static_cast<std::size_t>(shape.rows), &passes[k].rows);
      if (passes[k].columns != nullptr)
        uploads.add(passes[k].columns, static_cast<std::size_t>(shape.columns), &passes[k].columns);
    }
    if (int error = uploads.upload(allocate, stream)) return error;
    if (int error = clear(device_sums, sums_size, stream)) return error;
    TaskListBuilder<MatrixLevels> by_row, by_column;
    for (std::size_t k = 0; k < all.size(); ++k) {
      if (all[k].done()) continue;
      const LiveShape& shape = matrices_[k].own.input.shape;
      const MatrixLevels own{passes[k],  matrices_[k].levels, shape.elements,
                             shape.rows, shape.columns,       device_sums + 2 * at[k]};
      if (passes[k].by_row) {
        by_row.add(own, SumRows::tasks(shape.rows, shape.columns));
      } else {
        by_column.add(own, SumColumns::tasks(shape.rows, shape.columns));
      }
    }
    if (int error = by_row.launch_warps<SumRows>(allocate, stream)) return error;
    if (int error = by_column.launch_warps<SumColumns>(allocate, stream)) return error;
    if (int error = download(sums.data(), device_sums, sums_size, stream)) return error;
    for (std::size_t k = 0; k < all.size(); ++k) {
      if (!all[k].done()) all[k].take(sums.data() + at[k]);
    }
  }
  Uploads uploads;
  for (std::size_t k = 0; k < all.size(); ++k) {
    FixedHead& head = matrices_[k].own.head;
    head.has_column_scales = all[k].has_columns();
    head.scales = all[k].scales();
    know_scales(head, uploads, matrices_[k].known);
  }
  return uploads.upload(allocate, stream);
}

int FixedEncoder::split(const Parallel& parallel, const Allocate& allocate, void* stream) {
  std::vector<std::size_t> at(1, 0);  // of each matrix's contexts
  for (const Matrix& matrix : matrices_)
    at.push_back(at.back() + static_cast<std::size_t>(contexts_of(matrix.own.head.fraction())));
  ContextCounts counts(at.back());
  const std::size_t counts_size = counts.size() * sizeof counts[0];
  std::uint32_t* device_counts = nullptr;
  if (int error = allocate_array(allocate, 256 * counts.size(), &device_counts)) return error;
  if (int error = clear(device_counts, counts_size, stream)) return error;
  for (std::size_t k = 0; k < matrices_.size(); ++k)
    matrices_[k].counts = device_counts + 256 * at[k];
  if (int error = for_each_lot(
          [&](const std::vector<Share>& shares) { return split_shares(shares, allocate, stream); }))
    return error;
  if (int error = download(counts.data(), device_counts, counts_size, stream)) return error;
  parallel(static_cast<std::int64_t>(matrices_.size()), [&](std::int64_t task) {
    const auto k = static_cast<std::size_t>(task);
    FixedHead& head = matrices_[k].own.head;
    const ContextCounts own(counts.data() + at[k], counts.data() + at[k + 1]);
    fit_digits(own, head.fraction(), head.residuals);
  });
  return 0;
}

// Tails lie block after block, each block's from a whole word on.
int FixedEncoder::split_shares(const std::vector<Share>& shares, const Allocate& allocate,
                               void* stream) {
  TaskListBuilder<SplitPieces::Matrix> splits;
  TaskListBuilder<WriteTails::Matrix> writes;
  for (const auto& [matrix, part] : shares) {
    const std::int64_t pieces = pieces_of(part.count);
    splits.add({part, matrix->contexts, matrix->symbols, matrix->counts}, pieces);
    writes.add({part}, pieces);
  }
  std::vector<std::uint32_t> bits(static_cast<std::size_t>(splits.tasks()));
  std::uint32_t* piece_bits = nullptr;
  if (int error = allocate_array(allocate, bits.size(), &piece_bits)) return error;
  SplitPieces split_job{{}, piece_bits};
  if (int error = splits.upload(allocate, stream, &split_job.matrices)) return error;
  if (int error = launch_warps(splits.tasks(), split_job, stream)) return error;
  if (int error = download(bits.data(), piece_bits, bits.size() * sizeof bits[0], stream))
    return error;

  std::vector<std::uint64_t> piece_at, block_at;
  std::uint64_t at = 0;
  for (const auto& [matrix, part] : shares) {
    for (std::int64_t piece = 0; piece < pieces_of(part.count); ++piece) {
      if (piece % pieces_in_block == 0) {
        at = (at + 31) / 32 * 32;
        block_at.push_back(at);
        matrix->tail_sizes.push_back(0);
      }
      const std::uint32_t own = bits[piece_at.size()];
      piece_at.push_back(at);
      at += own;
      matrix->tail_sizes.back() = static_cast<std::uint32_t>((at - block_at.back() + 7) / 8);
    }
  }
  // One word more than there are, for bits that are put across words.
  const auto words = static_cast<std::size_t>(at / 32 + 2);
  WriteTails write_job{};
  if (int error = allocate_array(allocate, words, &write_job.tails)) return error;
  if (int error = clear(write_job.tails, words * sizeof *write_job.tails, stream)) return error;
  std::uint64_t* device_at = nullptr;
  if (int error = upload_array(piece_at, allocate, stream, &device_at)) return error;
  write_job.piece_at = device_at;
  std::size_t block = 0;
  for (const auto& [matrix, part] : shares) {
    for (std::int64_t b = 0; b < blocks_of(part.count); ++b)
      matrix->tails.push_back(
          reinterpret_cast<const std::uint8_t*>(write_job.tails + block_at[block++] / 32));
  }
  if (int error = writes.upload(allocate, stream, &write_job.matrices)) return error;
  return launch_warps(writes.tasks(), write_job, stream);
}

int FixedEncoder::code_blocks(const Parallel& parallel, const Allocate& allocate, void* stream) {
  std::vector<rans::EncodeEntry> entries;
  std::vector<std::size_t> entries_at;
  std::vector<std::int64_t> strides;
  std::size_t room_size = 0;
  for (const Matrix& matrix : matrices_) {
    const FixedHead& head = matrix.own.head;
    const std::int64_t elements = matrix.own.input.shape.elements;
    entries_at.push_back(entries.size());
    add_encode_entries(
        mixture_tables(head.residuals.mixture, head.residuals.contexts, head.fraction(), parallel),
        entries);
    const std::size_t bound = rans::block_bound(part_of(0, block_elements, elements));
    strides.push_back(static_cast<std::int64_t>((bound + 3) & ~std::size_t{3}));
    room_size += static_cast<std::size_t>(blocks_of(elements) * strides.back());
  }
  rans::EncodeEntry* device_entries = nullptr;
  std::uint8_t* room = nullptr;
  if (int error = upload_array(entries, allocate, stream, &device_entries)) return error;
  if (int error = allocate_array(allocate, room_size, &room)) return error;
  TaskListBuilder<EncodeBlocks::Matrix> list;
  std::vector<const std::uint8_t*> rooms;
  for (std::size_t k = 0; k < matrices_.size(); ++k) {
    const Matrix& matrix = matrices_[k];
    const std::int64_t elements = matrix.own.input.shape.elements;
    list.add({matrix.contexts, matrix.symbols, elements, device_entries + entries_at[k], room,
              strides[k]},
             blocks_of(elements));
    rooms.push_back(room);
    room += blocks_of(elements) * strides[k];
  }
  std::vector<DigitsBlockSize> sizes(static_cast<std::size_t>(list.tasks()));
  EncodeBlocks job{};
  if (int error = allocate_array(allocate, sizes.size(), &job.sizes)) return error;
  if (int error = list.upload(allocate, stream, &job.matrices)) return error;
  if (int error = launch_warps(list.tasks(), job, stream)) return error;
  if (int error = download(sizes.data(), job.sizes, sizes.size() * sizeof sizes[0], stream))
    return error;
  const DigitsBlockSize* own_sizes = sizes.data();
  for (std::size_t k = 0; k < matrices_.size(); ++k) {
    finish(matrices_[k], rooms[k], strides[k], own_sizes);
    own_sizes += blocks_of(matrices_[k].own.input.shape.elements);
  }
  return 0;
}

void FixedEncoder::finish(Matrix& matrix, const std::uint8_t* room, std::int64_t stride,
                          const DigitsBlockSize* sizes) {
  matrix.own.product = {};  // and what it holds
  FixedHead& head = matrix.own.head;
  const std::int64_t elements = matrix.own.input.shape.elements;
  std::vector<DigitsBlockSize>& blocks = head.residuals.blocks;
  blocks.assign(sizes, sizes + blocks_of(elements));
  for (std::size_t b = 0; b < blocks.size(); ++b) blocks[b].tails = matrix.tail_sizes[b];

  matrix.head_bytes = write_fixed_head(head);
  std::uint64_t at = matrix.head_bytes.size() + matrix.factors.body_size();
  const auto add = [&](const std::uint8_t* from, std::uint64_t bytes) {
    matrix.parts.push_back({from, at, bytes});
    at += bytes;
  };
  for (std::int64_t b = 0; b < blocks_of(elements); ++b) {
    const DigitsBlockSize& size = blocks[static_cast<std::size_t>(b)];
    const std::uint32_t count = part_of(b, block_elements, elements);
    const std::uint64_t words = block_size(count, size.words);
    add(room + (b + 1) * stride - words, words);
    add(matrix.symbols + b * block_elements + count - size.escapes, size.escapes);
    add(matrix.tails[static_cast<std::size_t>(b)], size.tails);
  }
  matrix.size = static_cast<std::size_t>(at);
}

int FixedEncoder::write(const std::vector<FixedTarget>& targets, const Allocate& allocate,
                        void* stream) const {
  std::vector<std::uint8_t> sides;
  std::vector<std::size_t> at(1, 0);  // of each target's
  for (const FixedTarget& target : targets) {
    const Matrix& matrix = matrices_[target.matrix];
    sides.insert(sides.end(), matrix.head_bytes.begin(), matrix.head_bytes.end());
    const std::size_t body = sides.size();
    sides.resize(body + static_cast<std::size_t>(matrix.factors.body_size()));
    matrix.factors.write_body(sides.data() + body);
    at.push_back(sides.size());
  }
  std::uint8_t* device_sides = nullptr;
  if (int error = upload_array(sides, allocate, stream, &device_sides)) return error;
  std::vector<CopyParts::Part> parts;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const auto& [k, out] = targets[i];
    add_part(device_sides + at[i], out, at[i + 1] - at[i], parts);
    for (const auto& [from, place, size] : matrices_[k].parts)
      add_part(from, out + place, size, parts);
  }
  return copy_parts(parts, allocate, stream);
}

}  // namespace lmgc::cuda
