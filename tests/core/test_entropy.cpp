#include <bit>
#include <catch2/catch.hpp>
#include <cstdint>
#include <random>
#include <vector>

#include "core/entropy.h"
#include "stream_cases.h"

namespace {

using namespace lmgc;
using lmgc::test::byte_kinds;
using lmgc::test::some_bytes;

using Bytes = std::vector<std::uint8_t>;

Bytes encoded(const Bytes& data, int segment_bits, const Parallel& parallel = run_serially) {
  ByteWriter out;
  encode_stream(data.data(), data.size(), out, parallel, segment_bits);
  return out.take();
}

Status decoded(const Bytes& coded, Bytes& data, const Parallel& parallel = run_serially) {
  ByteReader in(coded.data(), coded.size());
  const Status status = decode_stream(in, data.size(), data.data(), parallel);
  return status == Status::ok && in.left() != 0 ? Status::bad_section : status;
}

std::vector<std::size_t> sizes() {
  std::vector<std::size_t> all;
  for (std::size_t size = 0; size <= 70; ++size) all.push_back(size);
  for (const std::size_t size :
       {127,  128,  129,  255,   256,   257,   511,   512,    2047,   2048,  2049,
        5000, 8191, 8192, 65535, 65536, 65537, 65600, 131072, 140001, 300000}) {
    all.push_back(size);
  }
  return all;
}

}  // namespace

TEST_CASE("streams of all sizes and kinds decode to what they were") {
  for (const auto& kind : byte_kinds) {
    for (const std::size_t size : sizes()) {
      for (const int segment_bits : {5, 6, 8}) {
        const Bytes data = some_bytes(kind, size);
        const Bytes coded = encoded(data, segment_bits);
        Bytes back(size, 1);
        CAPTURE(kind, size, segment_bits);
        REQUIRE(coded.size() <= size + 1);
        REQUIRE(decoded(coded, back) == Status::ok);
        REQUIRE(back == data);
      }
    }
  }
}

TEST_CASE("streams take the form that suits them") {
  const auto kind_of = [](const Bytes& coded) { return static_cast<StreamKind>(coded.at(0)); };
  CHECK(kind_of(encoded(some_bytes("constant", 100000), 8)) == StreamKind::constant);
  CHECK(kind_of(encoded(some_bytes("uniform", 100000), 8)) == StreamKind::raw);
  CHECK(kind_of(encoded(some_bytes("skewed", 100000), 8)) == StreamKind::rans);
  CHECK(encoded(some_bytes("constant", 100000), 8).size() == 2);
  CHECK(encoded(some_bytes("one differs", 100000), 8).size() < 300);
  // rows of 7 symbols each: log2(7) = 2.807 bits a symbol with tables of their own, 3.807 with one
  CHECK(encoded(some_bytes("two rows", 1 << 18), 8).size() < (1 << 18) * 2.84 / 8);
}

TEST_CASE("streams do not depend on how work is shared") {
  for (const auto& kind : byte_kinds) {
    const Bytes data = some_bytes(kind, 400001);
    const Bytes coded = encoded(data, 8);
    CHECK(encoded(data, 8, test::run_backwards) == coded);
    CHECK(encoded(data, 8, test::run_on_threads) == coded);
    Bytes back(data.size());
    REQUIRE(decoded(coded, back, test::run_on_threads) == Status::ok);
    CHECK(back == data);
  }
}

TEST_CASE("damaged streams give a status, never a crash") {
  for (const auto& kind : byte_kinds) {
    for (const std::size_t size : {1, 40, 300, 3000, 70000}) {
      const Bytes good = encoded(some_bytes(kind, size), 6);
      test::for_each_damage(good, 2000, [&](const Bytes& bad) {
        Bytes back(size);
        decoded(bad, back);
        if (bad.size() < good.size()) CHECK(decoded(bad, back) != Status::ok);
      });
    }
  }
  std::mt19937 random(5);
  for (int round = 0; round < 20000; ++round) {
    Bytes bad(random() % 200), back(random() % 2000);
    for (auto& byte : bad) byte = static_cast<std::uint8_t>(random());
    if (!bad.empty()) bad[0] = static_cast<std::uint8_t>(random() % 4);
    decoded(bad, back);
  }
}

TEST_CASE("a stream that names a table it does not have is refused") {
  const Bytes data = some_bytes("two rows", 1 << 16);
  Bytes coded = encoded(data, 8);
  ByteReader in(coded.data(), coded.size());
  StreamHead head;
  REQUIRE(read_head(in, data.size(), head) == Status::ok);
  REQUIRE(head.table_count() > 1);
  const int tables = head.table_count();
  if (tables == 3 || (tables > 4 && tables < 16)) {
    coded[in.position()] = 0xFF;
    Bytes back(data.size());
    CHECK(decoded(coded, back) == Status::bad_stream);
  }
}

TEST_CASE("names pack into whole bytes") {
  for (const int tables : {1, 2, 3, 4, 5, 16}) {
    for (const std::uint64_t segments : {0, 1, 7, 8, 9, 100}) {
      const Bytes names(segments, static_cast<std::uint8_t>(tables - 1));
      CHECK(pack_names(names.data(), segments, tables).size() ==
            names_size(segments << 8, 8, tables));
    }
  }
}
