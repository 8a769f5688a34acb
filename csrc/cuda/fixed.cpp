// The host's side; the device's is fixed_jobs.h. Plain C++, so that tests can run it with another
// device (tests/core/emulated_device.h).
#include "cuda/fixed.h"

#include <algorithm>
#include <utility>

#include "cuda/launch.h"

namespace lmgc::cuda {
namespace {

std::int64_t pieces_of(std::int64_t elements) {
  return (elements + piece_elements - 1) / piece_elements;
}
std::int64_t blocks_of(std::int64_t elements) {
  return (elements + block_elements - 1) / block_elements;
}
// Where nothing is predicted, everything is one panel.
std::int64_t panel_of(const FixedHead& head, const DeviceProduct& product, std::int64_t elements) {
  return head.predicted() ? std::min(product.most_elements, elements) : elements;
}

// Calls body(first, count, product) for one panel after the other until one fails.
template <class Body>
int for_each_panel(const FixedHead& head, std::int64_t elements, const DeviceProduct& product,
                   const Body& body) {
  const std::int64_t panel = panel_of(head, product, elements);
  for (std::int64_t first = 0; first < elements; first += panel) {
    const std::int64_t count = std::min(panel, elements - first);
    const std::int64_t* const predictions =
        head.predicted() ? product.panel(first, count) : nullptr;
    if (const int error = body(first, count, predictions)) return error;
  }
  return 0;
}

std::vector<rans::EncodeEntry> encode_entries(const std::vector<rans::Table>& tables) {
  std::vector<rans::EncodeEntry> entries(256 * tables.size());  // absent symbols have no limit
  for (std::size_t t = 0; t < tables.size(); ++t)
    rans::fill_encode_entries(tables[t], entries.data() + 256 * t);
  return entries;
}

}  // namespace

// ---- the head -----------------------------------------------------------------------------------

int DeviceHead::upload_weights(const FixedHead& head, const LiveShape& shape, FloatFormat format,
                               const Allocate& allocate, void* stream) {
  known_.format = FixedFormat(format);
  known_.columns = shape.columns;
  if (!head.predicted()) return 0;
  known_.base = head.low_rank.factors.base();
  std::int16_t *rows = nullptr, *columns = nullptr;
  if (int error = upload_array(head.low_rank.row_weights, allocate, stream, &rows)) return error;
  if (int error = upload_array(head.low_rank.column_weights, allocate, stream, &columns))
    return error;
  known_.row_weights = rows;
  known_.column_weights = columns;
  return 0;
}

int DeviceHead::upload_scales(const FixedHead& head, const Allocate& allocate, void* stream) {
  std::int16_t *rows = nullptr, *columns = nullptr;
  if (int error = upload_array(head.scales.rows, allocate, stream, &rows)) return error;
  known_.row_scales = rows;
  if (!head.has_column_scales) return 0;
  if (int error = upload_array(head.scales.columns, allocate, stream, &columns)) return error;
  known_.column_scales = columns;
  return 0;
}

KnownMatrix DeviceHead::with(const std::int64_t* product, std::int64_t first) const {
  KnownMatrix known = known_;
  known.product = product;
  known.first_product = first;
  return known;
}

// ---- encoder ------------------------------------------------------------------------------------

int FixedEncoder::prepare(const FixedInput& input, FixedHead head, const DeviceProduct& product,
                          const Parallel& parallel, const Allocate& allocate, void* stream) {
  *this = {};
  input_ = input;
  head_ = std::move(head);
  factors_ = code_factors(input.shape, input.past, head_, parallel);
  if (int error = known_.upload_weights(head_, input.shape, input.format, allocate, stream))
    return error;
  // Levels are looked at before there are contexts and symbols, which take their place.
  const auto elements = static_cast<std::size_t>(input.shape.elements);
  std::int16_t* levels = nullptr;
  if (int error = allocate_array(allocate, elements, &levels)) return error;
  auto* const contexts = reinterpret_cast<std::uint8_t*>(levels);
  std::uint8_t* const symbols = contexts + elements;
  if (int error = find_scales(product, levels, allocate, stream)) return error;
  if (int error = known_.upload_scales(head_, allocate, stream)) return error;
  if (int error = split(product, contexts, symbols, allocate, stream)) return error;
  return code_blocks(contexts, symbols, parallel, allocate, stream);
}

int FixedEncoder::find_scales(const DeviceProduct& product, std::int16_t* levels,
                              const Allocate& allocate, void* stream) {
  const LiveShape& shape = input_.shape;
  if (int error = for_each_panel(
          head_, shape.elements, product,
          [&](std::int64_t first, std::int64_t count, const std::int64_t* predictions) {
            const FindLevels job{known_.with(predictions, first), input_.words, first, levels};
            return launch(count, job, stream);
          }))
    return error;

  std::int32_t *rows = nullptr, *columns = nullptr;
  std::int64_t* device_sums = nullptr;
  const auto most_lines = static_cast<std::size_t>(std::max(shape.rows, shape.columns));
  static_assert(sizeof(LineSum) == 2 * sizeof *device_sums);
  const auto bytes = [](std::int64_t lines) {
    return static_cast<std::size_t>(lines) * sizeof(std::int32_t);
  };
  if (int error = allocate_array(allocate, static_cast<std::size_t>(shape.rows), &rows))
    return error;
  if (int error = allocate_array(allocate, static_cast<std::size_t>(shape.columns), &columns))
    return error;
  if (int error = allocate_array(allocate, 2 * most_lines, &device_sums)) return error;
  int failure = 0;
  const auto sum_lines = [&](const LevelPass& pass, std::vector<LineSum>& sums) {
    const LevelPass own{pass.by_row, pass.refine, rows,
                        pass.columns == nullptr ? nullptr : columns};
    const std::size_t sums_size = sums.size() * sizeof(LineSum);
    failure = clear(device_sums, sums_size, stream);
    if (!failure) failure = upload(rows, pass.rows, bytes(shape.rows), stream);
    if (!failure && own.columns != nullptr)
      failure = upload(columns, pass.columns, bytes(shape.columns), stream);
    if (!failure && pass.by_row) {
      const SumRows job{own, levels, shape.elements, shape.columns, device_sums};
      failure = launch_warps(shape.rows * SumRows::stretches(shape.columns), job, stream);
    } else if (!failure) {
      const SumColumns job{own, levels, shape.rows, shape.columns, device_sums};
      const std::int64_t stretches = (shape.rows + row_stretch - 1) / row_stretch;
      failure = launch_warps(stretches * SumColumns::groups(shape.columns), job, stream);
    }
    if (!failure) failure = download(sums.data(), device_sums, sums_size, stream);
    return failure == 0;
  };
  residual_scales({shape.elements, shape.rows, shape.columns, scale_floor(input_.format)},
                  input_.may_have_column_scales, sum_lines, head_.has_column_scales, head_.scales);
  return failure;
}

int FixedEncoder::split(const DeviceProduct& product, std::uint8_t* contexts, std::uint8_t* symbols,
                        const Allocate& allocate, void* stream) {
  ContextCounts counts(static_cast<std::size_t>(contexts_of(head_.fraction())));
  const std::size_t counts_size = counts.size() * sizeof counts[0];
  std::uint32_t *device_counts = nullptr, *piece_bits = nullptr;
  if (int error = allocate_array(allocate, 256 * counts.size(), &device_counts)) return error;
  if (int error = clear(device_counts, counts_size, stream)) return error;
  const std::int64_t panel = panel_of(head_, product, input_.shape.elements);
  if (int error = allocate_array(allocate, static_cast<std::size_t>(pieces_of(panel)), &piece_bits))
    return error;
  if (int error = for_each_panel(
          head_, input_.shape.elements, product,
          [&](std::int64_t first, std::int64_t count, const std::int64_t* predictions) {
            const KnownMatrix known = known_.with(predictions, first);
            const SplitPieces job{known,    input_.words, first,         count,
                                  contexts, symbols,      device_counts, piece_bits};
            if (int failure = launch_warps(pieces_of(count), job, stream)) return failure;
            return write_panel_tails(known, first, count, piece_bits, allocate, stream);
          }))
    return error;
  if (int error = download(counts.data(), device_counts, counts_size, stream)) return error;
  fit_digits(counts, head_.fraction(), head_.residuals);
  return 0;
}

// The tails of a panel's blocks one after the other, each from a whole word on.
int FixedEncoder::write_panel_tails(const KnownMatrix& known, std::int64_t first,
                                    std::int64_t count, const std::uint32_t* piece_bits,
                                    const Allocate& allocate, void* stream) {
  std::vector<std::uint32_t> bits(static_cast<std::size_t>(pieces_of(count)));
  if (int error = download(bits.data(), piece_bits, bits.size() * sizeof bits[0], stream))
    return error;
  std::vector<std::uint64_t> piece_at;
  std::vector<std::uint64_t> block_at;
  std::uint64_t at = 0;
  for (std::size_t piece = 0; piece < bits.size(); ++piece) {
    if (piece % pieces_in_block == 0) {
      at = (at + 31) / 32 * 32;
      block_at.push_back(at);
      tail_sizes_.push_back(0);
    }
    piece_at.push_back(at);
    at += bits[piece];
    tail_sizes_.back() = static_cast<std::uint32_t>((at - block_at.back() + 7) / 8);
  }
  // One word more than there are, for bits that are put across words.
  const auto words = static_cast<std::size_t>(at / 32 + 2);
  std::uint32_t* tails = nullptr;
  std::uint64_t* device_at = nullptr;
  if (int error = allocate_array(allocate, words, &tails)) return error;
  if (int error = clear(tails, words * sizeof *tails, stream)) return error;
  if (int error = upload_array(piece_at, allocate, stream, &device_at)) return error;
  for (const std::uint64_t bit : block_at)
    tails_.push_back(reinterpret_cast<const std::uint8_t*>(tails + bit / 32));
  const WriteTails job{known, input_.words, first, count, device_at, tails};
  return launch_warps(pieces_of(count), job, stream);
}

int FixedEncoder::code_blocks(const std::uint8_t* contexts, std::uint8_t* symbols,
                              const Parallel& parallel, const Allocate& allocate, void* stream) {
  const std::int64_t elements = input_.shape.elements, blocks = blocks_of(elements);
  DigitsHead& digits = head_.residuals;
  rans::EncodeEntry* entries = nullptr;
  if (int error = upload_array(encode_entries(mixture_tables(digits.mixture, digits.contexts,
                                                             head_.fraction(), parallel)),
                               allocate, stream, &entries))
    return error;
  const auto stride = static_cast<std::int64_t>(
      (rans::block_bound(part_of(0, block_elements, elements)) + 3) & ~std::size_t{3});
  std::uint8_t* room = nullptr;
  DigitsBlockSize* sizes = nullptr;
  if (int error = allocate_array(allocate, static_cast<std::size_t>(blocks * stride), &room))
    return error;
  if (int error = allocate_array(allocate, static_cast<std::size_t>(blocks), &sizes)) return error;
  const EncodeBlocks job{contexts, symbols, elements, entries, room, stride, sizes};
  if (int error = launch_warps(blocks, job, stream)) return error;
  digits.blocks.resize(static_cast<std::size_t>(blocks));
  if (int error = download(digits.blocks.data(), sizes,
                           digits.blocks.size() * sizeof digits.blocks[0], stream))
    return error;
  for (std::size_t b = 0; b < digits.blocks.size(); ++b) digits.blocks[b].tails = tail_sizes_[b];

  head_bytes_ = write_fixed_head(head_);
  std::uint64_t at = head_bytes_.size() + factors_.body_size();
  for (std::int64_t b = 0; b < blocks; ++b) {
    const DigitsBlockSize& size = digits.blocks[static_cast<std::size_t>(b)];
    const std::uint32_t count = part_of(b, block_elements, elements);
    const std::uint64_t words = block_size(count, size.words);
    const auto add = [&](const std::uint8_t* from, std::uint64_t bytes) {
      parts_.push_back({from, at, bytes});
      at += bytes;
    };
    add(room + (b + 1) * stride - words, words);
    add(symbols + b * block_elements + count - size.escapes, size.escapes);
    add(tails_[static_cast<std::size_t>(b)], size.tails);
  }
  size_ = static_cast<std::size_t>(at);
  return 0;
}

int FixedEncoder::write(std::uint8_t* out, const Allocate& allocate, void* stream) const {
  std::vector<std::uint8_t> side = head_bytes_;
  side.resize(head_bytes_.size() + static_cast<std::size_t>(factors_.body_size()));
  factors_.write_body(side.data() + head_bytes_.size());
  if (int error = upload(out, side.data(), side.size(), stream)) return error;
  std::vector<CopyParts::Part> parts;
  for (const auto& [from, at, part_size] : parts_) add_part(from, out + at, part_size, parts);
  return copy_parts(parts, allocate, stream);
}

// ---- decoder ------------------------------------------------------------------------------------

int decode_fixed(const FixedSource& source, FloatFormat format, const DeviceProduct& product,
                 void* words, const Parallel& parallel, const Allocate& allocate, void* stream,
                 Status& status) {
  status = Status::ok;
  const std::int64_t elements = source.shape.elements;
  if (elements == 0) return 0;
  const FixedHead& head = source.head;
  DeviceHead known;
  if (int error = known.upload_weights(head, source.shape, format, allocate, stream)) return error;
  if (int error = known.upload_scales(head, allocate, stream)) return error;
  rans::DecodeEntry* entries = nullptr;
  if (int error =
          make_decode_entries(mixture_tables(head.residuals.mixture, head.residuals.contexts,
                                             head.fraction(), parallel),
                              allocate, stream, &entries))
    return error;
  std::vector<DecodeBlocks::Place> places;
  std::uint64_t at = 0;
  for (std::size_t b = 0; b < head.residuals.blocks.size(); ++b) {
    const DigitsBlockSize& size = head.residuals.blocks[b];
    places.push_back({at, size});
    at += digits_block_size(size, part_of(static_cast<std::int64_t>(b), block_elements, elements));
  }
  DecodeBlocks::Place* device_places = nullptr;
  if (int error = upload_array(places, allocate, stream, &device_places)) return error;
  std::uint8_t* symbols = nullptr;
  const std::int64_t panel = panel_of(head, product, elements);
  if (int error = allocate_array(allocate, static_cast<std::size_t>(panel), &symbols)) return error;
  std::int32_t* failed = nullptr;
  if (int error = allocate_array(allocate, 1, &failed)) return error;
  if (int error = clear(failed, sizeof *failed, stream)) return error;

  if (int error = for_each_panel(
          head, elements, product,
          [&](std::int64_t first, std::int64_t count, const std::int64_t* predictions) {
            const KnownMatrix own = known.with(predictions, first);
            if (int failure = launch(count, FindContexts{own, first, symbols}, stream))
              return failure;
            const DecodeBlocks job{
                own,     source.residuals,        device_places, elements, first / block_elements,
                entries, head.residuals.contexts, symbols,       words,    failed};
            return launch_warps(blocks_of(count), job, stream);
          }))
    return error;
  std::int32_t failure = 0;
  if (int error = download(&failure, failed, sizeof failure, stream)) return error;
  if (failure != 0) status = Status::bad_stream;
  return 0;
}

}  // namespace lmgc::cuda
