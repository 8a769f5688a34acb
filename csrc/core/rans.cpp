#include "core/rans.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "core/bits.h"

namespace lmgc::rans {
namespace {

constexpr int significant_bits = 5;
constexpr int most_exponent = 12;  // every frequency but the rest's is below 4096

constexpr int most_gamma_zeros = significant_bits - 1;

// 0 when there is no value of at most five bits.
std::uint32_t get_gamma(BitReader& bits) {
  const int extra = bits.get_unary(most_gamma_zeros + 1);
  if (extra > most_gamma_zeros) return 0;
  return 1u << extra | static_cast<std::uint32_t>(bits.get(extra));
}

// The nearest number of at most five significant bits.
std::uint32_t rounded(std::uint32_t value) {
  const int extra = std::bit_width(value) - significant_bits;
  if (extra <= 0) return value;
  return (value + (1u << (extra - 1))) >> extra << extra;
}

// The symbols from the first to the last that has a frequency, but for the rest.
template <class Body>
void for_each_written(const Table& table, const Body& body) {
  int first = 0, last = 255;
  while (table.frequency[first] == 0) ++first;
  while (table.frequency[last] == 0) --last;
  for (int symbol = first; symbol <= last; ++symbol) {
    if (symbol != table.rest) body(static_cast<std::uint32_t>(table.frequency[symbol]));
  }
}

// Each as the step from the exponent before it in an Elias gamma code (as many zeros as the step
// has bits after its first, a one, those bits), then the bits after the frequency's own first.
struct WrittenFrequency {
  std::uint64_t bits;
  int count;
};
WrittenFrequency written(std::uint32_t frequency, int& previous) {
  const int exponent = std::bit_width(frequency);
  const int step = exponent - std::exchange(previous, exponent);
  const auto value = static_cast<std::uint32_t>(step >= 0 ? 2 * step + 1 : -2 * step);
  const int extra = std::bit_width(value) - 1;
  const std::uint64_t gamma = std::uint64_t{1} << extra | std::uint64_t{value & ((1u << extra) - 1)}
                                                              << (extra + 1);
  if (exponent < 2) return {gamma, 2 * extra + 1};
  const int kept = std::min(exponent, significant_bits) - 1;
  const std::uint64_t low = frequency >> (exponent - 1 - kept) & ((1u << kept) - 1);
  return {gamma | low << (2 * extra + 1), 2 * extra + 1 + kept};
}

void write_table(const Table& table, BitWriter& bits) {
  int first = 0, last = 255;
  while (table.frequency[first] == 0) ++first;
  while (table.frequency[last] == 0) --last;
  bits.put(static_cast<std::uint32_t>(first), 8);
  bits.put(static_cast<std::uint32_t>(last), 8);
  bits.put(table.rest, 8);
  int previous = 0;
  for_each_written(table, [&](std::uint32_t frequency) {
    const WrittenFrequency one = written(frequency, previous);
    bits.put(one.bits, one.count);
  });
}

// False when the bits are no table. Reads zeros past the end, which the caller finds out.
bool read_table(BitReader& bits, Table& table) {
  const auto first = static_cast<std::uint32_t>(bits.get(8));
  const auto last = static_cast<std::uint32_t>(bits.get(8));
  const auto rest = static_cast<std::uint32_t>(bits.get(8));
  if (rest < first || rest > last) return false;
  table.rest = static_cast<std::uint8_t>(rest);
  std::uint32_t sum = 0;
  int exponent = 0;
  for (std::uint32_t symbol = first; symbol <= last; ++symbol) {
    if (symbol == rest) continue;
    const std::uint32_t code = get_gamma(bits);
    if (code == 0) return false;
    exponent += code & 1 ? static_cast<int>(code >> 1) : -static_cast<int>(code >> 1);
    if (exponent < 0 || exponent > most_exponent) return false;
    if (exponent == 0) continue;
    const int kept = std::min(exponent, significant_bits) - 1;
    const std::uint32_t frequency = (1u << kept | static_cast<std::uint32_t>(bits.get(kept)))
                                    << (exponent - 1 - kept);
    table.frequency[symbol] = static_cast<std::uint16_t>(frequency);
    sum += frequency;
  }
  if (sum >= probability_one) return false;
  table.frequency[rest] = static_cast<std::uint16_t>(probability_one - sum);
  return true;
}

}  // namespace

Table normalize(const Counts& counts) {
  Table table;
  int first = 0, last = 255;
  while (first < 255 && counts[first] == 0) ++first;
  while (last > first && counts[last] == 0) --last;
  std::uint64_t total = 0;
  int rest = first;
  for (int symbol = first; symbol <= last; ++symbol) {
    total += counts[symbol];
    if (counts[symbol] > counts[rest]) rest = symbol;
  }
  table.rest = static_cast<std::uint8_t>(rest);

  // Symbols rarer than 1 in 4096 take a whole slot; the others share what that leaves.
  std::uint64_t shared_slots = probability_one, shared_total = total;
  for (int symbol = first; symbol <= last; ++symbol) {
    const std::uint64_t count = counts[symbol];
    if (count != 0 && count * probability_one < total) {
      --shared_slots;
      shared_total -= count;
    }
  }

  // Rounding errors are handed on from symbol to symbol (in 256ths), so that little of them is left
  // for the most frequent one.
  std::int64_t left = probability_one, error = 0;
  for (int symbol = first; symbol <= last; ++symbol) {
    const std::uint64_t count = counts[symbol];
    if (count == 0 || symbol == rest) continue;
    std::uint32_t frequency = 1;
    if (count * probability_one >= total) {
      const auto ideal = static_cast<std::int64_t>((count * shared_slots << 8) / shared_total);
      const std::int64_t wanted = ideal + error;
      frequency =
          rounded(static_cast<std::uint32_t>(std::max<std::int64_t>(1, (wanted + 128) >> 8)));
      error = wanted - (std::int64_t{frequency} << 8);
    }
    table.frequency[symbol] = static_cast<std::uint16_t>(frequency);
    left -= frequency;
  }
  while (left < 1) {  // only with many symbols just above 1 in 4096
    auto& largest = *std::max_element(table.frequency.begin(), table.frequency.end());
    const auto smaller = static_cast<std::uint16_t>(rounded(largest - std::max(1, largest >> 4)));
    left += largest - smaller;
    largest = smaller;
  }
  table.frequency[table.rest] = static_cast<std::uint16_t>(left);
  return table;
}

std::size_t tables_size(const Table* tables, int count) {
  int bits = 0;
  for (int i = 0; i < count; ++i) {
    bits += 24;
    int previous = 0;
    for_each_written(tables[i],
                     [&](std::uint32_t frequency) { bits += written(frequency, previous).count; });
  }
  return static_cast<std::size_t>(bits + 7) / 8;
}

void write_tables(const Table* tables, int count, ByteWriter& out) {
  BitWriter bits;
  for (int i = 0; i < count; ++i) write_table(tables[i], bits);
  const std::vector<std::uint8_t> bytes = bits.take();
  out.bytes(bytes.data(), bytes.size());
}

Status read_tables(ByteReader& in, int count, std::vector<Table>& tables) {
  tables.assign(static_cast<std::size_t>(count), Table{});
  ByteReader ahead = in;
  const std::size_t left = in.left();
  BitReader bits(ahead.bytes(left), left);
  for (Table& table : tables) {
    const bool valid = read_table(bits, table);
    if (!bits.ok()) return Status::truncated;
    if (!valid) return Status::bad_table;
  }
  in.bytes(bits.bytes_used());
  return Status::ok;
}

void fill_encode_entries(const Table& table, EncodeEntry* entries) {
  std::uint32_t start = 0;
  for (int symbol = 0; symbol < 256; ++symbol) {
    const std::uint32_t frequency = table.frequency[symbol];
    if (frequency != 0) entries[symbol] = encode_entry(start, frequency);
    start += frequency;
  }
}

void fill_decode_entries(const Table& table, DecodeEntry* entries) {
  for (std::uint32_t symbol = 0; symbol < 256; ++symbol) {
    const std::uint32_t frequency = table.frequency[symbol];
    if (frequency == 0) continue;
    DecodeEntry entry = decode_entry(symbol, frequency, 0);
    constexpr DecodeEntry one = decode_entry(0, 1, 1);
    std::uint32_t offset = 0;
    for (; offset + 4 <= frequency; offset += 4, entry += 4 * one) {
      const DecodeEntry four[4] = {entry, entry + one, entry + 2 * one, entry + 3 * one};
      std::memcpy(entries + offset, four, sizeof four);
    }
    for (; offset < frequency; ++offset, entry += one) entries[offset] = entry;
    entries += frequency;
  }
}

}  // namespace lmgc::rans
