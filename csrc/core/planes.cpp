#include "core/planes.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>

#include "core/histogram.h"
#include "core/integer_math.h"
#include "core/scratch.h"

namespace lmgc {
namespace {

constexpr std::int64_t task_elements = 1 << 16;  // a multiple of 8: tasks share no byte of the mask
constexpr std::uint8_t masked_flag = 1;

std::int64_t tasks_of(std::int64_t elements) {
  return (elements + task_elements - 1) / task_elements;
}

// ---- choice -------------------------------------------------------------------------------------

using Counts = std::array<std::uint32_t, 256>;

// Bits that the symbols counted in a sample take with a table made for all `elements` of which it
// is the sample: their entropy is too small by about 0.72 bits (185 / 256) a distinct symbol, and
// each takes about 6 bits in the table, of which the sample pays its share.
std::uint64_t coded_bits(const Counts& counts, std::int64_t sampled, std::int64_t elements) {
  const std::uint64_t total = std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
  if (total == 0) return 0;
  const std::uint32_t whole = log2_fixed(total);
  std::uint64_t bits = 0, distinct = 0;
  for (const std::uint32_t count : counts) {
    if (count == 0) continue;
    bits += std::uint64_t{count} * (whole - log2_of_count(count));
    ++distinct;
  }
  const auto table = (6 * distinct + 32) * static_cast<std::uint64_t>(sampled) /
                     static_cast<std::uint64_t>(elements);
  return ((bits + (distinct - 1) * 185) >> log2_fraction_bits) + table;
}

// Before a closer look: several tables may find twice what one does.
bool worth_a_try(std::uint64_t coded, std::uint64_t raw) { return coded < raw - (raw >> 8); }

}  // namespace

PlanesChoice choose_planes(const void* sample, std::int64_t elements, FloatFormat format) {
  const std::int64_t count = sample_size(elements);
  const int planes = format.bytes;
  constexpr std::int64_t piece = 1024;
  std::uint64_t zeros = 0;
  std::uint8_t bytes[most_planes][piece];
  std::uint8_t mask[piece / 8];
  std::uint8_t* rows[most_planes];
  for (int p = 0; p < most_planes; ++p) rows[p] = bytes[p];
  std::vector<Histogram> seen(static_cast<std::size_t>(planes) + 1);  // the last of the mask
  for (std::int64_t first = 0; first < count; first += piece) {
    const std::int64_t own = std::min(piece, count - first);
    split_planes(sample, first, own, format, rows);
    for (int p = 0; p < planes; ++p) seen[p].add(bytes[p], own);
    if (planes == 1) continue;
    zeros += static_cast<std::uint64_t>(own - mask_zeros(sample, first, own, format, mask));
    seen[planes].add(mask, (own + 7) / 8);
  }
  std::array<Counts, most_planes + 1> counts{};
  for (int p = 0; p <= planes; ++p) seen[p].add_to(counts[p].data());
  const auto bits_of = [&](int p) { return coded_bits(counts[p], count, elements); };

  const auto decide = [&](std::uint64_t symbols, std::array<bool, most_planes>& coded) {
    std::uint64_t bits = 0;
    for (int p = 0; p < planes; ++p) {
      const std::uint64_t own = bits_of(p);
      coded[p] = worth_a_try(own, 8 * symbols);
      bits += coded[p] ? own : 8 * symbols;
    }
    return bits;
  };
  const auto all = static_cast<std::uint64_t>(count);
  PlanesChoice whole, masked;
  masked.masked = true;
  const std::uint64_t whole_bits = decide(all, whole.coded);
  if (zeros == 0) return whole;
  for (int p = 0; p < planes; ++p) counts[p][0] -= static_cast<std::uint32_t>(zeros);
  const std::uint64_t masked_bits = decide(all - zeros, masked.coded) + bits_of(planes);
  const std::uint64_t margin = all * static_cast<std::uint64_t>(planes) * 8 >> 9;
  if (zeros == all) masked.coded.fill(true);  // nothing is known about the others, if there are any
  return zeros == all || masked_bits + margin < whole_bits ? masked : whole;
}

bool mask_pays(const StreamHead& stream, std::int64_t elements, std::int64_t kept,
               FloatFormat format) {
  const std::uint64_t taken = varint_size(static_cast<std::uint64_t>(kept)) + head_size(stream) +
                              body_size(stream, mask_symbols(elements));
  return taken < static_cast<std::uint64_t>(elements - kept) * format.bytes;
}

// ---- heads --------------------------------------------------------------------------------------

void write_planes_head(const PlanesHead& head, FloatFormat format, ByteWriter& out) {
  out.fixed(static_cast<std::uint8_t>(head.masked ? masked_flag : 0));
  if (head.masked) {
    out.varint(static_cast<std::uint64_t>(head.kept));
    write_head(head.mask, out);
  }
  for (int p = 0; p < format.bytes; ++p) write_head(head.planes[p], out);
}

Status read_planes_head(ByteReader& in, std::int64_t elements, FloatFormat format,
                        PlanesHead& head) {
  const auto flags = in.fixed<std::uint8_t>();
  if (!in.ok()) return Status::truncated;
  if (flags > masked_flag) return Status::bad_section;
  head.masked = flags == masked_flag;
  head.kept = elements;
  if (head.masked) {
    const std::uint64_t kept = in.varint();
    if (!in.ok()) return Status::truncated;
    if (kept > static_cast<std::uint64_t>(elements)) return Status::bad_section;
    head.kept = static_cast<std::int64_t>(kept);
    const Status status = read_head(in, mask_symbols(elements), head.mask);
    if (status != Status::ok) return status;
  }
  for (int p = 0; p < format.bytes; ++p) {
    const Status status = read_head(in, static_cast<std::uint64_t>(head.kept), head.planes[p]);
    if (status != Status::ok) return status;
  }
  return Status::ok;
}

std::uint64_t planes_body_size(const PlanesHead& head, std::int64_t elements, FloatFormat format) {
  std::uint64_t size = head.masked ? body_size(head.mask, mask_symbols(elements)) : 0;
  for (int p = 0; p < format.bytes; ++p) {
    size += body_size(head.planes[p], static_cast<std::uint64_t>(head.kept));
  }
  return size;
}

// ---- encoder ------------------------------------------------------------------------------------

PlanesEncoder::PlanesEncoder(const void* data, std::int64_t elements, FloatFormat format,
                             const Parallel& parallel)
    : data_(data), elements_(elements), format_(format), kept_(elements) {
  const std::int64_t count = sample_size(elements);
  const auto* bytes = static_cast<const std::uint8_t*>(data);
  const std::size_t width = format.bytes;
  const void* sample = data;
  std::unique_ptr<std::uint64_t[]> copy;
  if (count < elements) {
    copy = std::make_unique_for_overwrite<std::uint64_t[]>(static_cast<std::size_t>(count) * width /
                                                           8);
    auto* at = reinterpret_cast<std::uint8_t*>(copy.get());
    for (std::int64_t i = 0; i < count; i += sample_run, at += sample_run * width) {
      std::memcpy(at, bytes + static_cast<std::size_t>(sample_element(i, elements)) * width,
                  sample_run * width);
    }
    sample = copy.get();
  }
  PlanesChoice choice = choose_planes(sample, elements, format);
  masked_ = choice.masked;
  if (masked_) make_mask(parallel);
  if (masked_ && !mask_pays(mask_stream_.head, elements, kept_, format)) {
    masked_ = false;
    kept_ = elements;
    choice.coded.fill(true);
  }
  code_planes(choice, parallel);

  PlanesHead head;
  head.masked = masked_;
  head.kept = kept_;
  head.mask = mask_stream_.head;
  for (int p = 0; p < format.bytes; ++p) head.planes[p] = planes_[p].head;
  ByteWriter head_bytes;
  write_planes_head(head, format, head_bytes);
  head_bytes_ = head_bytes.take();
  size_ = head_bytes_.size() + planes_body_size(head, elements, format);
}

void PlanesEncoder::make_mask(const Parallel& parallel) {
  mask_.resize(static_cast<std::size_t>(mask_symbols(elements_)));
  const std::int64_t tasks = tasks_of(elements_);
  kept_before_.resize(static_cast<std::size_t>(tasks) + 1);
  parallel(tasks, [&](std::int64_t task) {
    const std::int64_t first = task * task_elements;
    kept_before_[task + 1] = mask_zeros(data_, first, std::min(task_elements, elements_ - first),
                                        format_, mask_.data() + first / 8);
  });
  std::partial_sum(kept_before_.begin(), kept_before_.end(), kept_before_.begin());
  kept_ = kept_before_.back();
  mask_stream_ = code_stream(mask_.data(), mask_.size(), mask_segment_bits, parallel);
  if (mask_stream_.head.kind != StreamKind::raw) mask_ = {};
}

void PlanesEncoder::code_planes(const PlanesChoice& choice, const Parallel& parallel) {
  const auto kept = static_cast<std::size_t>(kept_);
  if (kept == 0) return;
  for (int p = 0; p < format_.bytes; ++p) {
    if (!choice.coded[p]) continue;
    TableCosts costs;
    if (!masked_) {  // where the sample is enough to see that it would not pay, it stays raw
      costs = sample_tables(p);
      if (!worthwhile(costs.estimated_bits / 8, kept)) continue;
    }
    const Scratch bytes(kept);
    std::uint8_t* targets[most_planes] = {};
    targets[p] = bytes.data();
    split(targets, parallel);
    planes_[p] = masked_ ? code_stream(bytes.data(), kept, plane_segment_bits, parallel)
                         : code_stream(bytes.data(), kept, plane_segment_bits, costs, parallel);
  }
}

TableCosts PlanesEncoder::sample_tables(int plane) const {
  const std::int64_t segments = kept_ >> plane_segment_bits;
  const std::int64_t sampled = sampled_segments(segments);
  const Scratch sample(static_cast<std::size_t>(sampled) << plane_segment_bits);
  std::uint8_t* targets[most_planes] = {};
  for (std::int64_t i = 0; i < sampled; ++i) {
    targets[plane] = sample.data() + (i << plane_segment_bits);
    split_planes(data_, sampled_segment(i, segments) << plane_segment_bits,
                 std::int64_t{1} << plane_segment_bits, format_, targets);
  }
  return choose_tables(sample.data(), sampled, plane_segment_bits, kept_);
}

void PlanesEncoder::split(std::uint8_t* const* planes, const Parallel& parallel) const {
  if (std::all_of(planes, planes + format_.bytes, [](auto* plane) { return plane == nullptr; }))
    return;
  parallel(tasks_of(elements_), [&](std::int64_t task) {
    const std::int64_t first = task * task_elements;
    const std::int64_t count = std::min(task_elements, elements_ - first);
    const std::int64_t before = masked_ ? kept_before_[task] : first;
    std::uint8_t* own[most_planes] = {};
    for (int p = 0; p < format_.bytes; ++p) own[p] = planes[p] ? planes[p] + before : nullptr;
    if (masked_) {
      split_kept_planes(data_, first, count, format_, own);
    } else {
      split_planes(data_, first, count, format_, own);
    }
  });
}

void PlanesEncoder::write(std::uint8_t* out, const Parallel& parallel) const {
  std::memcpy(out, head_bytes_.data(), head_bytes_.size());
  out += head_bytes_.size();
  if (masked_) {
    write_body(mask_stream_, mask_.data(), mask_symbols(elements_), out, parallel);
    out += body_size(mask_stream_.head, mask_symbols(elements_));
  }
  std::uint8_t* raw[most_planes] = {};
  for (int p = 0; p < format_.bytes; ++p) {
    const StreamHead& head = planes_[p].head;
    if (head.kind == StreamKind::raw) {
      raw[p] = out;
    } else {
      write_body(planes_[p], nullptr, static_cast<std::uint64_t>(kept_), out, parallel);
    }
    out += body_size(head, static_cast<std::uint64_t>(kept_));
  }
  split(raw, parallel);
}

std::vector<std::uint8_t> encode_planes(const void* data, std::int64_t elements, FloatFormat format,
                                        const Parallel& parallel) {
  const PlanesEncoder encoder(data, elements, format, parallel);
  std::vector<std::uint8_t> section(encoder.size());
  encoder.write(section.data(), parallel);
  return section;
}

// ---- decoder ------------------------------------------------------------------------------------

namespace {

// Finds the element that is the n-th kept one.
class MaskIndex {
 public:
  MaskIndex(const std::uint8_t* mask, std::int64_t elements, const Parallel& parallel)
      : mask_(mask), elements_(elements) {
    const std::int64_t groups = (elements + group - 1) / group;
    before_.resize(static_cast<std::size_t>(groups) + 1);
    constexpr std::int64_t groups_per_task = 256;
    parallel((groups + groups_per_task - 1) / groups_per_task, [&](std::int64_t task) {
      const std::int64_t end = std::min(groups, (task + 1) * groups_per_task);
      for (std::int64_t g = task * groups_per_task; g < end; ++g) {
        before_[g + 1] = count_ones(mask, g * group, std::min(group, elements - g * group));
      }
    });
    std::partial_sum(before_.begin(), before_.end(), before_.begin());
  }

  std::int64_t kept() const { return before_.back(); }

  // The element with `n` kept ones before it that is kept itself; 0 <= n < kept().
  std::int64_t element(std::int64_t n) const {
    const auto after = std::upper_bound(before_.begin(), before_.end(), n);
    std::int64_t i = (after - before_.begin() - 1) * group;
    n -= after[-1];
    for (std::int64_t ones;
         n >= (ones = count_ones(mask_, i, std::min<std::int64_t>(64, elements_ - i)));) {
      n -= ones;
      i += 64;
    }
    for (;; ++i) {
      if ((mask_[i >> 3] >> (i & 7) & 1) != 0 && n-- == 0) return i;
    }
  }

 private:
  static constexpr std::int64_t group = 4096;
  const std::uint8_t* mask_;
  std::int64_t elements_;
  std::vector<std::int64_t> before_;
};

}  // namespace

Status PlanesDecoder::open(const std::uint8_t* section, std::size_t size, std::int64_t elements,
                           FloatFormat format) {
  ByteReader in(section, size);
  PlanesHead head;
  const Status status = read_planes_head(in, elements, format, head);
  if (status != Status::ok) return status;
  elements_ = elements;
  kept_ = head.kept;
  format_ = format;
  masked_ = head.masked;
  if (masked_) {
    const std::uint8_t* body = in.bytes(body_size(head.mask, mask_symbols(elements)));
    if (body == nullptr) return Status::truncated;
    mask_.open(std::move(head.mask), body, mask_symbols(elements));
  }
  const auto kept = static_cast<std::uint64_t>(kept_);
  for (int p = 0; p < format.bytes; ++p) {
    const std::uint8_t* body = in.bytes(body_size(head.planes[p], kept));
    if (body == nullptr) return Status::truncated;
    planes_[p].open(std::move(head.planes[p]), body, kept);
  }
  return in.left() == 0 ? Status::ok : Status::bad_section;
}

Status PlanesDecoder::decode(void* out, const Parallel& parallel) const {
  std::atomic<Status> worst{Status::ok};
  std::vector<std::uint8_t> mask;
  std::unique_ptr<MaskIndex> index;
  if (masked_) {
    mask.resize(static_cast<std::size_t>(mask_symbols(elements_)));
    for_each_blocks(mask.size(), parallel, [&](std::uint64_t first, int blocks) {
      const Status own = mask_.decode(first, blocks, mask.data() + first * rans::block_symbols);
      if (own != Status::ok) worst = own;
    });
    if (worst != Status::ok) return worst;
    index = std::make_unique<MaskIndex>(mask.data(), elements_, parallel);
    if (index->kept() != kept_) return Status::bad_section;
    if (kept_ == 0) {
      std::memset(out, 0, static_cast<std::size_t>(elements_) * format_.bytes);
      return Status::ok;
    }
  }

  const auto not_raw = static_cast<std::size_t>(
      std::count_if(planes_.begin(), planes_.begin() + format_.bytes,
                    [](const StreamDecoder& plane) { return plane.raw() == nullptr; }));
  const auto kept = static_cast<std::uint64_t>(kept_);
  for_each_blocks(kept, parallel, [&](std::uint64_t block, int blocks) {
    const auto first = static_cast<std::int64_t>(block << rans::block_bits);
    const auto count = static_cast<std::int64_t>(symbols_in_blocks(kept, block, blocks));
    const Scratch scratch(not_raw * static_cast<std::size_t>(count));
    std::uint8_t* decoded = scratch.data();
    const std::uint8_t* bytes[most_planes];
    for (int p = 0; p < format_.bytes; ++p) {
      if (planes_[p].raw() != nullptr) {
        bytes[p] = planes_[p].raw() + first;
        continue;
      }
      const Status own = planes_[p].decode(block, blocks, decoded);
      bytes[p] = decoded;
      decoded += count;
      if (own != Status::ok) {
        worst = own;
        return;
      }
    }
    if (!masked_) {
      join_planes(bytes, count, format_, out, first);
      return;
    }
    // zeros belong to the blocks of the kept element before them, those before the first to block 0
    const std::int64_t begin = block == 0 ? 0 : index->element(first);
    const std::int64_t end = first + count == kept_ ? elements_ : index->element(first + count);
    join_kept_planes(bytes, format_, mask.data(), begin, end, out);
  });
  return worst;
}

Status decode_planes(const std::uint8_t* section, std::size_t size, std::int64_t elements,
                     FloatFormat format, void* out, const Parallel& parallel) {
  PlanesDecoder decoder;
  const Status status = decoder.open(section, size, elements, format);
  return status == Status::ok ? decoder.decode(out, parallel) : status;
}

}  // namespace lmgc
