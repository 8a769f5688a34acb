// Live matrices of all kinds, coded by csrc/cuda on some device and by csrc/core, which must agree.
// `Device` has
//   void* allocate(std::size_t)                  memory of the device
//   void read(void* host, const void*, std::size_t)   after all that was enqueued
//   void write(void*, const void* host, std::size_t)
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/fixed_section.h"
#include "cuda/fixed.h"
#include "fixed_cases.h"
#include "stream_cases.h"

namespace lmgc::test {

using Bytes = std::vector<std::uint8_t>;

inline const std::vector<std::string> live_kinds = {"noise",   "zeros", "constant", "tiny",
                                                    "outlier", "any",   "integers", "huge"};

// A tensor of `sizes`, all of whose lines are live.
struct LiveCase {
  LiveCase(const std::string& kind, const std::vector<std::int64_t>& sizes, FloatFormat format,
           std::int64_t rank, int factor_bits = 5)
      : sizes(sizes), format(format) {
    const MatrixShape whole = matrix_shape(sizes.data(), sizes.size());
    shape = {whole.elements, whole.rows, whole.columns};
    may_have_columns = !whole.flat;
    std::mt19937_64 random(static_cast<std::uint64_t>(shape.elements + rank) + format.bytes);
    std::normal_distribution<double> normal;
    if (rank > 0) make_low_rank(rank, std::exp2(factor_bits), random);
    const FixedFormat fixed(format);
    words.resize(static_cast<std::size_t>(shape.elements) * format.bytes / 8 + 1);
    std::vector<std::int64_t> values(static_cast<std::size_t>(rank > 0 ? shape.elements : 0));
    if (rank > 0)
      multiply_factors(head.low_rank.factors, shape.columns, 0, shape.elements, values.data());
    for (std::int64_t i = 0; i < shape.elements; ++i) {
      const auto row = static_cast<std::size_t>(i / shape.columns);
      const auto column = static_cast<std::size_t>(i % shape.columns);
      double x = std::exp2(row % 7 - 9.0 + column % 3) * normal(random);
      if (rank > 0) {
        const LowRank& low_rank = head.low_rank;
        x += std::ldexp(
            static_cast<double>(values[static_cast<std::size_t>(i)]),
            low_rank.factors.base() + low_rank.row_weights[row] + low_rank.column_weights[column]);
      }
      if (kind == "zeros" && random() % 8 != 0) x = random() % 8 != 0 ? 0.0 : -0.0;
      if (kind == "constant") x = 0.1;
      if (kind == "tiny") x = std::ldexp(x, fixed.least + 1);
      if (kind == "outlier" && random() % 20 == 0) x *= std::exp2(random() % 12);
      if (kind == "integers") x = std::round(x * 512);
      if (kind == "huge") x = std::ldexp(x, fixed.bias + 4);
      const bool any = kind == "any" && random() % 4 == 0;
      store_word(words.data(), format.bytes, i, any ? some_word(random, fixed) : word_of(x, fixed));
    }
  }

  void make_low_rank(std::int64_t rank, double size, std::mt19937_64& random) {
    std::normal_distribution<double> normal(0, size);
    Factors& factors = head.low_rank.factors;
    factors.rank = rank;
    for (std::int64_t c = 0; c < rank; ++c)
      factors.exponents.push_back(static_cast<std::int16_t>(-static_cast<int>(random() % 4) - 14));
    for (std::int64_t i = 0; i < shape.rows * rank; ++i)
      factors.u.entries.push_back(static_cast<std::int32_t>(normal(random)));
    for (std::int64_t i = 0; i < shape.columns * rank; ++i)
      factors.v.entries.push_back(static_cast<std::int32_t>(normal(random)));
    for (std::int64_t i = 0; i < shape.rows; ++i)
      head.low_rank.row_weights.push_back(static_cast<std::int16_t>(random() % 5));
    for (std::int64_t i = 0; i < shape.columns; ++i)
      head.low_rank.column_weights.push_back(static_cast<std::int16_t>(random() % 4));
  }

  std::size_t bytes() const { return static_cast<std::size_t>(shape.elements) * format.bytes; }
  FixedInput input(const void* data) const { return {data, format, shape, may_have_columns}; }

  std::vector<std::int64_t> sizes;
  FloatFormat format;
  LiveShape shape;
  bool may_have_columns = false;
  FixedHead head;
  std::vector<std::uint64_t> words;
};

inline Product product_of(const FixedHead& head, std::int64_t columns) {
  if (!head.predicted()) return {};
  return [&factors = head.low_rank.factors, columns](std::int64_t first, std::int64_t count,
                                                     std::int64_t* out) {
    multiply_factors(factors, columns, first, count, out);
  };
}

template <class Device>
cuda::DeviceProduct device_product(Device& device, const FixedHead& head, std::int64_t columns,
                                   std::int64_t panel) {
  const auto elements = [&device, product = product_of(head, columns)](std::int64_t first,
                                                                       std::int64_t count) {
    std::vector<std::int64_t> values(static_cast<std::size_t>(count));
    product(first, count, values.data());
    void* const there = device.allocate(values.size() * sizeof values[0]);
    device.write(there, values.data(), values.size() * sizeof values[0]);
    return static_cast<const std::int64_t*>(there);
  };
  return {elements, panel};
}

inline Bytes encoded(const LiveCase& own) {
  const FixedSection section = encode_fixed(own.input(own.words.data()), own.head,
                                            product_of(own.head, own.shape.columns), run_serially);
  Bytes bytes(section.size());
  section.write(bytes.data());
  return bytes;
}

// All of them at once; sections lie anywhere, elements are aligned.
template <class Device>
std::vector<Bytes> encoded_on(Device&& device, const std::vector<LiveCase>& cases,
                              std::int64_t panel) {
  const auto allocate = [&](std::size_t bytes) { return device.allocate(bytes); };
  std::vector<cuda::FixedMatrix> matrices;
  for (const LiveCase& own : cases) {
    void* const words = device.allocate(own.bytes());
    device.write(words, own.words.data(), own.bytes());
    matrices.push_back(
        {own.input(words), own.head, device_product(device, own.head, own.shape.columns, panel)});
  }
  cuda::FixedEncoder encoder;
  REQUIRE(encoder.prepare(std::move(matrices), run_backwards, allocate, nullptr) == 0);
  std::vector<cuda::FixedTarget> targets;
  for (std::size_t k = cases.size(); k-- > 0;) {
    const std::size_t offset = k % 4;
    auto* const room = static_cast<std::uint8_t*>(device.allocate(encoder.size(k) + offset));
    targets.push_back({k, room + offset});
  }
  REQUIRE(encoder.write(targets, allocate, nullptr) == 0);
  std::vector<Bytes> sections(cases.size());
  for (const auto& [k, out] : targets) {
    sections[k].resize(encoder.size(k));
    device.read(sections[k].data(), out, sections[k].size());
  }
  return sections;
}

// What a section's first block is said to consist of, moved between its parts.
struct Moved {
  int words = 0, escapes = 0, tails = 0;

  void apply(FixedSource& source) const {
    DigitsBlockSize& size = source.head.residuals.blocks[0];
    size.words += static_cast<std::uint32_t>(words);
    size.escapes += static_cast<std::uint32_t>(escapes);
    size.tails += static_cast<std::uint32_t>(tails);
  }
};

inline Status decoded(const Bytes& section, const LiveCase& own, std::vector<std::uint64_t>& words,
                      const Moved& moved = {}) {
  FixedSource source;
  const Status status =
      read_fixed(section.data(), section.size(), own.sizes.data(), own.sizes.size(),
                 own.head.predicted(), true, run_serially, source);
  if (status != Status::ok) return status;
  moved.apply(source);
  words.assign(own.words.size() + 1, 0);
  return decode_fixed(source, own.format, product_of(source.head, source.shape.columns),
                      words.data(), run_serially);
}

// Of sections[k], whose matrix is like cases[k], all at once; section k lies `offset + k` bytes, or
// up to three less, from an aligned place.
template <class Device>
std::vector<Status> decoded_on(Device&& device, const std::vector<Bytes>& sections,
                               std::size_t offset, const std::vector<LiveCase>& cases,
                               std::int64_t panel, std::vector<std::vector<std::uint64_t>>& words,
                               const Moved& moved = {}) {
  const auto allocate = [&](std::size_t bytes) { return device.allocate(bytes); };
  std::vector<FixedSource> sources(sections.size());
  std::vector<Status> statuses;
  std::vector<std::size_t> which;
  std::vector<cuda::FixedCoded> matrices;
  for (std::size_t k = 0; k < sections.size(); ++k) {
    const Bytes& section = sections[k];
    const LiveCase& own = cases[k];
    FixedSource& source = sources[k];
    statuses.push_back(read_fixed(section.data(), section.size(), own.sizes.data(),
                                  own.sizes.size(), own.head.predicted(), true, run_serially,
                                  source));
    if (statuses[k] != Status::ok) continue;
    moved.apply(source);
    const std::size_t shift = (offset + k) % 4;
    auto* const there = static_cast<std::uint8_t*>(device.allocate(section.size() + shift)) + shift;
    device.write(there, section.data(), section.size());
    source.residuals = there + source.sizes.side;
    matrices.push_back({&source, own.format,
                        device_product(device, source.head, source.shape.columns, panel),
                        device.allocate(own.bytes())});
    which.push_back(k);
  }
  std::vector<Status> decoded;
  REQUIRE(cuda::decode_fixed(matrices, run_backwards, allocate, nullptr, decoded) == 0);
  words.assign(sections.size(), {});
  for (std::size_t i = 0; i < which.size(); ++i) {
    const std::size_t k = which[i];
    statuses[k] = decoded[i];
    words[k].assign(cases[k].words.size() + 1, 0);
    device.read(words[k].data(), matrices[i].words, cases[k].bytes());
  }
  return statuses;
}

// Both ways, against csrc/core.
template <class Device>
void check_device(const std::vector<LiveCase>& cases, std::int64_t panel) {
  std::vector<Bytes> sections;
  for (const LiveCase& own : cases) sections.push_back(encoded(own));
  REQUIRE(encoded_on(Device(), cases, panel) == sections);
  std::vector<std::vector<std::uint64_t>> back;
  for (const std::size_t offset : {0, 1, 2, 3}) {
    REQUIRE(decoded_on(Device(), sections, offset, cases, panel, back) ==
            std::vector<Status>(cases.size(), Status::ok));
    for (std::size_t k = 0; k < cases.size(); ++k)
      REQUIRE(std::memcmp(back[k].data(), cases[k].words.data(), cases[k].bytes()) == 0);
  }
}

// Damaged sections among good ones: what is refused is what the CPU refuses, and nothing else.
// Damaged ones are about `limit`.
template <class Device>
void check_device_damage(const LiveCase& own, std::size_t limit) {
  const Bytes good = encoded(own);
  std::vector<Bytes> sections(1, good);
  for_each_damage(good, limit, [&](const Bytes& bad) { sections.push_back(bad); });
  sections.push_back(good);
  std::vector<std::vector<std::uint64_t>> by_device;
  const std::vector<Status> statuses =
      decoded_on(Device(), sections, 1, std::vector<LiveCase>(sections.size(), own),
                 rans::block_symbols, by_device);
  int accepted = 0, refused = 0;
  for (std::size_t k = 0; k < sections.size(); ++k) {
    std::vector<std::uint64_t> by_core;
    const Status status = decoded(sections[k], own, by_core);
    REQUIRE(statuses[k] == status);
    if (status == Status::ok) REQUIRE(by_device[k] == by_core);
    ++(status == Status::ok ? accepted : refused);
  }
  CHECK(accepted > 2);
  CHECK(refused > 0);
  CHECK(statuses.front() == Status::ok);
  CHECK(statuses.back() == Status::ok);
}

}  // namespace lmgc::test
