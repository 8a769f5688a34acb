#include "core/lanes.h"

#include "core/bytes.h"
#include "core/cdf.h"
#include "core/range_coder.h"

namespace lmgc {
namespace {

constexpr std::uint8_t flag_elide_zeros = 1;
constexpr std::uint8_t flag_scales = 2;

// Sign or exponent bits in this symbol: where the information is.
bool is_head(FloatFormat format, const SymbolPlan& plan, int symbol) {
  return format.is_float() && plan.shift[symbol] + plan.bits > format.mantissa_bits;
}

// Whether a model could save a hundredth of the symbol's bits at most, by the excess of the
// collision probability over uniform's: bits saved <= excess / (2 ln 2). What sampling alone would
// show (2 * (values - 1) / n) is allowed for.
bool nearly_uniform(const std::uint64_t* counts, int values, std::uint64_t total) {
  __extension__ using Wide = unsigned __int128;
  Wide squares = 0;
  for (int v = 0; v < values; ++v) squares += static_cast<Wide>(counts[v]) * counts[v];
  const Wide n = total;
  return 1000 * static_cast<Wide>(values) * squares <=
         1055 * n * n + 2000 * static_cast<Wide>(values) * n;
}

}  // namespace

void complete_plan(FloatFormat format, const SerializeOptions& options,
                   const std::uint8_t* constant, SymbolPlan& plan) {
  plan.bits = static_cast<std::uint8_t>(symbol_bits(options.separator));
  plan.symbols = static_cast<std::uint8_t>(symbols_per_element(format.bytes, options.separator));
  plan.sign_mask = format.is_float() ? std::uint64_t{1} << (format.bits() - 1) : 0;
  plan.coded_count = plan.raw_bits = 0;
  plan.lm_mask = plan.raw_mask = plan.constant_word = 0;
  for (int s = 0; s < plan.symbols; ++s) {
    plan.shift[s] = static_cast<std::uint8_t>(symbol_shift(s, format.bytes, options));
    const std::uint64_t mask = ((std::uint64_t{1} << plan.bits) - 1) << plan.shift[s];
    switch (plan.mode[s]) {
      case SymbolMode::lm:
        plan.coded[plan.coded_count++] = static_cast<std::uint8_t>(s);
        plan.lm_mask |= mask;
        break;
      case SymbolMode::raw:
        plan.raw_bits = static_cast<std::uint8_t>(plan.raw_bits + plan.bits);
        plan.raw_mask |= mask;
        break;
      case SymbolMode::constant:
        plan.constant_word |= (static_cast<std::uint64_t>(constant[s]) << plan.shift[s]) & mask;
        break;
    }
  }
}

SymbolPlan make_plan(FloatFormat format, const SerializeOptions& options, bool bypass,
                     const std::uint64_t* counts) {
  SymbolPlan plan;
  std::uint8_t constant[most_symbols] = {};
  complete_plan(format, options, constant, plan);
  if (!bypass) return plan;
  const std::uint64_t total = counts[0];
  const int values = 1 << plan.bits;
  for (int s = 0; s < plan.symbols; ++s) {
    if (is_head(format, plan, s)) continue;
    const std::uint64_t* count = counts + 1 + (s << plan.bits);
    int distinct = 0;
    for (int v = 0; v < values; ++v) {
      if (count[v] == 0) continue;
      ++distinct;
      constant[s] = static_cast<std::uint8_t>(v);
    }
    if (distinct <= 1) {
      plan.mode[s] = SymbolMode::constant;
    } else if (nearly_uniform(count, values, total)) {
      plan.mode[s] = SymbolMode::raw;
    }
  }
  complete_plan(format, options, constant, plan);
  if (plan.coded_count == 0) {  // lanes need at least one coded symbol
    plan.mode[0] = SymbolMode::lm;
    complete_plan(format, options, constant, plan);
  }
  return plan;
}

void set_zero_flag(std::uint64_t with_prefix, std::uint64_t zeros, SymbolPlan& plan) {
  plan.elide_zeros =
      plan.sign_mask != 0 && zeros != 0 && (plan.raw_bits != 0 || plan.constant_word != 0);
  if (!plan.elide_zeros) return;
  const std::uint64_t frequency = (zeros * cdf_total + with_prefix / 2) / with_prefix;
  plan.zero_frequency = static_cast<std::uint32_t>(frequency < 1               ? 1
                                                   : frequency > cdf_total - 1 ? cdf_total - 1
                                                                               : frequency);
}

std::vector<std::uint8_t> write_section(const LmgcSection& section) {
  const SymbolPlan& plan = section.plan;
  ByteWriter out;
  out.fixed(static_cast<std::uint8_t>((plan.elide_zeros ? flag_elide_zeros : 0) |
                                      (section.has_scales ? flag_scales : 0)));
  for (int s = 0; s < plan.symbols; s += 4) {
    std::uint8_t modes = 0;
    for (int i = s; i < plan.symbols && i < s + 4; ++i) {
      modes = static_cast<std::uint8_t>(modes | static_cast<int>(plan.mode[i]) << (2 * (i - s)));
    }
    out.fixed(modes);
  }
  for (int s = 0; s < plan.symbols; ++s) {
    if (plan.mode[s] == SymbolMode::constant)
      out.fixed(static_cast<std::uint8_t>(plan.symbol_of(plan.constant_word, s)));
  }
  if (plan.elide_zeros) out.fixed(static_cast<std::uint16_t>(plan.zero_frequency));
  out.varint(section.lane_elements);
  if (section.has_scales) {
    out.varint(section.scales.size());
    out.bytes(section.scales.data(), section.scales.size());
  }
  for (const auto size : section.lane_sizes) out.varint(size);
  return out.take();
}

Status parse_section(const std::uint8_t* data, std::size_t available, std::size_t size,
                     FloatFormat format, const SerializeOptions& options, std::int64_t elements,
                     LmgcSection& section) {
  section = LmgcSection{};
  if (elements <= 0) return Status::bad_section;
  ByteReader in(data, available);
  const auto short_of_bytes = [&] {
    return available < size ? Status::truncated : Status::bad_section;
  };

  const auto flags = in.fixed<std::uint8_t>();
  if (flags & ~(flag_elide_zeros | flag_scales)) return Status::bad_section;
  SymbolPlan& plan = section.plan;
  std::uint8_t constant[most_symbols] = {};
  complete_plan(format, options, constant, plan);
  for (int s = 0; s < plan.symbols; s += 4) {
    const auto modes = in.fixed<std::uint8_t>();
    for (int i = s; i < plan.symbols && i < s + 4; ++i) {
      const int mode = (modes >> (2 * (i - s))) & 3;
      if (mode > static_cast<int>(SymbolMode::constant)) return Status::bad_section;
      plan.mode[i] = static_cast<SymbolMode>(mode);
    }
  }
  for (int s = 0; s < plan.symbols; ++s) {
    if (plan.mode[s] != SymbolMode::constant) continue;
    constant[s] = in.fixed<std::uint8_t>();
    if (constant[s] >> plan.bits != 0) return Status::bad_section;
  }
  complete_plan(format, options, constant, plan);
  plan.elide_zeros = (flags & flag_elide_zeros) != 0;
  if (plan.elide_zeros) {
    plan.zero_frequency = in.fixed<std::uint16_t>();
    if (in.ok() && (plan.zero_frequency == 0 || !format.is_float())) return Status::bad_section;
  }
  section.lane_elements = in.varint();
  section.has_scales = (flags & flag_scales) != 0;
  if (section.has_scales) {
    const std::uint64_t scales_size = in.varint();
    if (const std::uint8_t* first = in.bytes(scales_size))
      section.scales.assign(first, first + scales_size);
  }
  if (!in.ok()) return short_of_bytes();
  if (plan.coded_count == 0 || section.lane_elements == 0 ||
      section.lane_elements > most_lane_elements)
    return Status::bad_section;
  if (section.has_scales && !format.is_float()) return Status::bad_section;

  const std::uint64_t lanes =
      (static_cast<std::uint64_t>(elements) - 1) / section.lane_elements + 1;
  if (lanes > size) return Status::bad_section;  // each takes a byte at least
  if (lanes > in.left()) return short_of_bytes();
  section.lane_sizes.resize(static_cast<std::size_t>(lanes));
  std::uint64_t total = 0;
  std::uint64_t left = static_cast<std::uint64_t>(elements);
  for (auto& lane_size : section.lane_sizes) {
    lane_size = in.varint();
    if (lane_size > size - total) return Status::bad_section;
    total += lane_size;
    const std::uint64_t count = left < section.lane_elements ? left : section.lane_elements;
    if (in.ok() && count * plan.coded_count > most_symbols_in_lane(lane_size)) {
      return Status::bad_section;
    }
    left -= count;
  }
  if (!in.ok()) return short_of_bytes();
  section.lanes_offset = in.position();
  if (total > size - section.lanes_offset) return Status::bad_section;
  section.tails_offset = section.lanes_offset + total;
  return Status::ok;
}

}  // namespace lmgc
