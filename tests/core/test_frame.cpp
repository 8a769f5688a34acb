// Frame headers: round trips and hostile bytes.
#include "core/frame.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/checksum.h"

using namespace lmgc;

namespace {

FrameHeader sample() {
  FrameHeader header;
  header.metadata = "{\"names\": [\"a\"]}";
  header.has_prior = true;
  header.prior.serialize = {Separator::comma_space, 4, ByteOrder::little};
  header.prior.window_tokens = 300;
  header.prior.fingerprint[0] = 0x0123456789abcdef;
  header.prior.probe = 42;
  header.prior.portable = false;
  header.prior.batch_lanes = 64;
  header.prior.environment = "torch, CPU";
  TensorRecord record;
  record.dtype = DType::float32;
  record.method = Method::lmgc;
  record.sizes = {3, 5, 7};
  record.data_checksum = 0xdeadbeef;
  record.section_size = 100;
  header.tensors.push_back(record);
  record = TensorRecord{};
  record.dtype = DType::complex128;
  record.section_size = 16;  // 0-d
  header.tensors.push_back(record);
  record = TensorRecord{};
  record.dtype = DType::bool8;
  record.sizes = {0, 1000000};
  header.tensors.push_back(record);
  header.payload_checksum = 99;
  return header;
}

std::vector<std::uint8_t> frame_of(const FrameHeader& header, std::size_t payload) {
  std::vector<std::uint8_t> bytes = write_header(header);
  bytes.resize(bytes.size() + payload);
  return bytes;
}

// Its prior says nothing of how text is written, as method lm demands: its digits are no text.
FrameHeader lm_sample() {
  FrameHeader header = sample();
  header.prior.serialize = {Separator::none, 0, ByteOrder::big};
  header.tensors[0].method = Method::lm;
  return header;
}

// Five tensors: the first, the third and the fourth are one record, which is the second.
FrameHeader joined_sample() {
  FrameHeader header;
  TensorRecord record;
  record.dtype = DType::float64;
  record.sizes = {2};
  record.section_size = 16;
  record.data_checksum = 11;
  header.tensors.push_back(record);
  record = TensorRecord{};
  record.method = Method::planes;
  record.joined = {{0, {3, 2}, 1, 24}, {2, {}, 2, 4}, {3, {5}, 3, 20}};
  record.sizes = {12};
  record.section_size = 40;
  header.tensors.push_back(record);
  record = TensorRecord{};
  record.sizes = {0};
  header.tensors.push_back(record);
  return header;
}

// The same bytes with a valid header checksum, so that the parser itself is tested.
void seal(std::vector<std::uint8_t>& bytes, std::size_t header_size) {
  const std::uint64_t sum = checksum(bytes.data(), header_size - 8);
  std::memcpy(bytes.data() + header_size - 8, &sum, 8);
}

}  // namespace

TEST_CASE("a header reads back as it was written") {
  const FrameHeader header = sample();
  const auto bytes = frame_of(header, 116);
  FrameHeader read;
  REQUIRE(parse_header(bytes.data(), bytes.size(), bytes.size(), read) == Status::ok);
  REQUIRE(read.metadata == header.metadata);
  REQUIRE(read.has_prior);
  REQUIRE(read.prior.serialize.separator == Separator::comma_space);
  REQUIRE(read.prior.serialize.bytes_per_group == 4);
  REQUIRE(read.prior.serialize.byte_order == ByteOrder::little);
  REQUIRE(read.prior.window_tokens == 300);
  REQUIRE(read.prior.fingerprint[0] == 0x0123456789abcdef);
  REQUIRE(read.prior.probe == 42);
  REQUIRE_FALSE(read.prior.portable);
  REQUIRE(read.prior.batch_lanes == 64);
  REQUIRE(read.prior.environment == "torch, CPU");
  REQUIRE(read.payload_checksum == 99);
  REQUIRE(read.tensors.size() == 3);
  REQUIRE(read.tensors[0].sizes == std::vector<std::int64_t>{3, 5, 7});
  REQUIRE(read.tensors[0].elements == 105);
  REQUIRE(read.tensors[0].bytes == 420);
  REQUIRE(read.tensors[0].data_checksum == 0xdeadbeef);
  REQUIRE(read.tensors[1].elements == 1);
  REQUIRE(read.tensors[1].section_offset == read.header_size + 100);
  REQUIRE(read.tensors[2].elements == 0);
}

TEST_CASE("a header is of the oldest version that can express it") {
  FrameHeader header = sample(), read;
  REQUIRE(required_version(header) == 1);
  auto bytes = frame_of(header, 116);
  const std::size_t size = bytes.size();
  REQUIRE(parse_header(bytes.data(), size, size, read) == Status::ok);
  REQUIRE(read.version == 1);
  REQUIRE(read.prior.window == WindowKind::disjoint);

  header.prior.window = WindowKind::sliding;
  REQUIRE(required_version(header) == 2);
  bytes = frame_of(header, 116);
  REQUIRE(bytes.size() == size + 1);
  REQUIRE(parse_header(bytes.data(), bytes.size(), bytes.size(), read) == Status::ok);
  REQUIRE(read.version == 2);
  REQUIRE(read.prior.window == WindowKind::sliding);
  REQUIRE(read.prior.window_tokens == 300);
  for (const std::uint8_t version : {0, 1, 5, 255}) {  // 1 has no such field: all behind it moves
    auto bad = bytes;
    bad[4] = version;
    seal(bad, bad.size() - 116);
    REQUIRE(parse_header(bad.data(), bad.size(), bad.size(), read) != Status::ok);
  }

  header.has_prior = false;  // what is not there needs no version
  REQUIRE(required_version(header) == 1);

  header.past = 0x0123456789ABCDEF;
  REQUIRE(required_version(header) == 3);
  for (auto& record : header.tensors)
    if (record.method == Method::lmgc || record.method == Method::lm)
      record.method = Method::planes;
  bytes = frame_of(header, 116);
  REQUIRE(parse_header(bytes.data(), bytes.size(), bytes.size(), read) == Status::ok);
  REQUIRE(read.version == 3);
  REQUIRE(read.past == header.past);
  REQUIRE(read.identity != 0);
  for (const std::uint8_t version : {1, 2}) {  // which have no such flag
    auto bad = bytes;
    bad[4] = version;
    seal(bad, bad.size() - 116);
    REQUIRE(parse_header(bad.data(), bad.size(), bad.size(), read) == Status::bad_header);
  }
}

TEST_CASE("short floats need version 3 and a method that codes them") {
  FrameHeader header, read;
  TensorRecord record;
  record.method = Method::scale;
  record.sizes = {100};
  record.section_size = 40;
  record.spare = {16, 200};
  header.tensors = {record};
  record.method = Method::planes;  // says nothing of what it could spare
  header.tensors.push_back(record);
  REQUIRE(required_version(header) == 3);
  const auto bytes = frame_of(header, 80);
  const std::size_t size = bytes.size();
  REQUIRE(parse_header(bytes.data(), size, size, read) == Status::ok);
  REQUIRE(read.tensors[0].method == Method::scale);
  REQUIRE(read.tensors[0].spare.mantissa_bits == 16);
  REQUIRE(read.tensors[0].spare.exponents == 200);
  REQUIRE_FALSE(read.tensors[1].spare.any());

  const std::size_t at = 12;  // the first record: dtype, method, bits, exponents
  REQUIRE(bytes[at + 1] == (128 | 3));
  const auto refused = [&](std::size_t byte, std::uint8_t value) {
    auto bad = bytes;
    bad[byte] = value;
    seal(bad, size - 80);
    return parse_header(bad.data(), size, size, read) == Status::bad_header;
  };
  CHECK(refused(4, 1));
  CHECK(refused(4, 2));
  for (const int method : {0, 1, 2, 5, 6, 127}) {  // lm without a prior block
    CHECK(refused(at + 1, static_cast<std::uint8_t>(128 | method)));
  }
  for (const int type : {0, 1, 16, 25}) CHECK(refused(at, static_cast<std::uint8_t>(type)));
  for (const int bits : {0, 21, 23, 255}) CHECK(refused(at + 2, static_cast<std::uint8_t>(bits)));
  CHECK(refused(at + 4, 2));  // 328 exponents
  CHECK_FALSE(refused(at + 2, 20));
  CHECK_FALSE(refused(at + 3, 253 - 128 | 128));
  CHECK(refused(at + 3, 254 - 128 | 128));
}

TEST_CASE("method lm needs version 2 and a prior") {
  FrameHeader header = lm_sample(), read;
  header.tensors[0].method = Method::lmgc;
  const auto old = frame_of(header, 116);
  REQUIRE(parse_header(old.data(), old.size(), old.size(), read) == Status::ok);
  header.tensors[0].method = Method::lm;
  REQUIRE(required_version(header) == 2);
  const auto bytes = frame_of(header, 116);
  REQUIRE(bytes[4] == 2);
  REQUIRE(parse_header(bytes.data(), bytes.size(), bytes.size(), read) == Status::ok);
  REQUIRE(read.version == 2);
  REQUIRE(read.tensors[0].method == Method::lm);
  REQUIRE(read.tensors[0].section_size == 100);

  // A header of version 1, but for the method, is the same without the field for windows.
  auto bad = old;
  const std::uint8_t record[] = {static_cast<std::uint8_t>(DType::float32),
                                 static_cast<std::uint8_t>(Method::lmgc),
                                 3,
                                 3,
                                 5,
                                 7};
  const auto at = std::search(bad.begin(), bad.end(), std::begin(record), std::end(record));
  REQUIRE(at != bad.end());
  REQUIRE(bad.size() + 1 == bytes.size());
  at[1] = static_cast<std::uint8_t>(Method::lm);
  seal(bad, bad.size() - 116);
  REQUIRE(bad[4] == 1);
  REQUIRE(parse_header(bad.data(), bad.size(), bad.size(), read) == Status::bad_header);

  header.has_prior = false;
  REQUIRE(required_version(header) == 2);
  bad = frame_of(header, 116);
  REQUIRE(parse_header(bad.data(), bad.size(), bad.size(), read) == Status::bad_header);
}

TEST_CASE("a frame with method lm says nothing of text and has no sliding windows") {
  const auto status_of = [](auto change) {
    FrameHeader header = lm_sample(), read;
    change(header.prior);
    const auto bytes = frame_of(header, 116);
    return parse_header(bytes.data(), bytes.size(), bytes.size(), read);
  };
  REQUIRE(status_of([](PriorBlock&) {}) == Status::ok);
  REQUIRE(status_of([](PriorBlock& prior) { prior.serialize.separator = Separator::space; }) ==
          Status::bad_header);
  REQUIRE(status_of([](PriorBlock& prior) { prior.serialize.bytes_per_group = 1; }) ==
          Status::bad_header);
  REQUIRE(status_of([](PriorBlock& prior) { prior.serialize.byte_order = ByteOrder::little; }) ==
          Status::bad_header);
  REQUIRE(status_of([](PriorBlock& prior) { prior.window = WindowKind::sliding; }) ==
          Status::bad_header);
}

TEST_CASE("only floats, and some of them, have method lm") {
  FrameHeader header = lm_sample(), read;
  header.tensors.resize(1);
  TensorRecord& record = header.tensors[0];
  record.sizes = {7, 4};
  record.section_size = 28;
  int floats = 0;
  for (int dtype = 0; dtype < 256; ++dtype) {
    CAPTURE(dtype);
    record.dtype = static_cast<DType>(dtype);
    const bool is_float = float_format(record.dtype).is_float();
    floats += is_float;
    const auto bytes = frame_of(header, 28);
    REQUIRE(parse_header(bytes.data(), bytes.size(), bytes.size(), read) ==
            (is_float ? Status::ok : Status::bad_header));
  }
  REQUIRE(floats == 4);
  record.dtype = DType::float32;
  record.sizes = {7, 0};
  record.section_size = 0;
  const auto empty = frame_of(header, 0);
  REQUIRE(parse_header(empty.data(), empty.size(), empty.size(), read) == Status::bad_header);
  record.sizes = {7, 4};
  record.section_size = 113;  // more than the tensor itself
  const auto large = frame_of(header, 113);
  REQUIRE(parse_header(large.data(), large.size(), large.size(), read) == Status::bad_section);
}

TEST_CASE("methods have names, and codes beyond them are refused") {
  REQUIRE(std::string(name(Method::lm)) == "lm");
  FrameHeader header = sample(), read;
  for (int method = methods; method < 256; ++method) {
    header.tensors[0].method = static_cast<Method>(method);
    REQUIRE(std::string(name(header.tensors[0].method)) == "unknown");
    const auto bytes = frame_of(header, 116);
    REQUIRE(parse_header(bytes.data(), bytes.size(), bytes.size(), read) == Status::bad_header);
  }
}

TEST_CASE("every truncation and every flipped bit of a header is noticed") {
  const auto good = frame_of(sample(), 116);
  const std::size_t header_size = good.size() - 116;
  FrameHeader read;
  for (std::size_t size = 0; size < good.size(); ++size) {
    REQUIRE(parse_header(good.data(), size, size, read) != Status::ok);
  }
  for (std::size_t i = 0; i < header_size; ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      auto bad = good;
      bad[i] = static_cast<std::uint8_t>(bad[i] ^ (1 << bit));
      REQUIRE(parse_header(bad.data(), bad.size(), bad.size(), read) != Status::ok);
    }
  }
}

TEST_CASE("headers with a good checksum and bad fields are rejected or harmless") {
  const int kind = GENERATE(0, 1, 2);
  const std::size_t payload = kind == 2 ? 56 : 116;
  FrameHeader header = kind == 2 ? joined_sample() : sample();
  if (kind == 1) header.prior.window = WindowKind::sliding;
  const auto good = frame_of(header, payload);
  const std::size_t header_size = good.size() - payload;
  FrameHeader read;
  for (std::size_t i = 4; i + 8 < header_size; ++i) {
    for (int value = 0; value < 256; ++value) {
      auto bad = good;
      bad[i] = static_cast<std::uint8_t>(value);
      seal(bad, header_size);
      if (parse_header(bad.data(), bad.size(), bad.size(), read) != Status::ok) continue;
      std::uint64_t total = read.header_size;
      for (const auto& record : read.tensors) {
        REQUIRE(record.section_offset == total);
        REQUIRE(record.section_size <= record.bytes);
        total += record.section_size;
      }
      REQUIRE(total == bad.size());
    }
  }
}

TEST_CASE("joined tensors read back as they were written, at their places") {
  const FrameHeader header = joined_sample();
  REQUIRE(required_version(header) == 4);
  const auto bytes = frame_of(header, 56);
  FrameHeader read;
  REQUIRE(parse_header(bytes.data(), bytes.size(), bytes.size(), read) == Status::ok);
  REQUIRE(read.version == 4);
  REQUIRE(write_header(read) == write_header(header));
  REQUIRE(read.tensors[1].bytes == 48);
  REQUIRE(read.tensors[1].elements == 12);
  REQUIRE(read.tensors[1].sizes == std::vector<std::int64_t>{12});
  REQUIRE(decoded_bytes(read) == 64);

  const std::vector<ListedTensor> list = listed(read);
  REQUIRE(list.size() == 5);
  const std::size_t records[] = {1, 0, 1, 1, 2};
  const std::uint64_t offsets[] = {0, 0, 24, 28, 0}, sizes[] = {24, 16, 4, 20, 0};
  const std::uint32_t checksums[] = {1, 11, 2, 3, 0};
  std::uint64_t shares = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    REQUIRE(list[i].record == records[i]);
    REQUIRE(list[i].offset == offsets[i]);
    REQUIRE(list[i].bytes == sizes[i]);
    REQUIRE(list[i].data_checksum == checksums[i]);
    const TensorRecord& record = read.tensors[list[i].record];
    shares += list[i].share(record.section_size, record);
  }
  REQUIRE(*list[0].sizes == std::vector<std::int64_t>{3, 2});
  REQUIRE(list[2].sizes->empty());
  REQUIRE(shares == 56);
}

TEST_CASE("joined tensors that contradict each other are rejected") {
  const auto status_of = [](const FrameHeader& header, std::size_t payload) {
    const auto bytes = frame_of(header, payload);
    FrameHeader read;
    return parse_header(bytes.data(), bytes.size(), bytes.size(), read);
  };
  FrameHeader header = joined_sample();
  std::vector<JoinedTensor>& joined = header.tensors[1].joined;
  SECTION("one alone") { joined.resize(1); }
  SECTION("an empty one") { joined[1].sizes = {0}; }
  SECTION("a place behind the list") { joined[2].place = 5; }
  SECTION("a place that no number holds") {
    joined[1].place = UINT64_MAX - 1;
    joined[2].place = UINT64_MAX;
  }
  SECTION("bytes that no number holds") {
    joined[0].sizes = {INT64_MAX / 6};
    joined[2].sizes = {INT64_MAX / 6};
  }
  SECTION("sizes that no number holds") { joined[0].sizes = {INT64_MAX, INT64_MAX}; }
  REQUIRE(status_of(header, 56) == Status::bad_header);

  header = joined_sample();
  header.tensors.push_back(header.tensors[1]);  // at the same places
  REQUIRE(status_of(header, 96) == Status::bad_header);
  header = joined_sample();
  header.tensors[1].section_size = 49;  // more than all of them
  REQUIRE(status_of(header, 65) == Status::bad_section);
  header = joined_sample();
  header.tensors[1].method = Method::raw;
  REQUIRE(status_of(header, 56) == Status::bad_section);
}

TEST_CASE("no version before the fourth has joined tensors") {
  const auto good = frame_of(joined_sample(), 56);
  FrameHeader read;
  for (std::uint8_t version = 1; version < 4; ++version) {
    auto bytes = good;
    bytes[4] = version;
    seal(bytes, good.size() - 56);
    REQUIRE(parse_header(bytes.data(), bytes.size(), bytes.size(), read) == Status::bad_header);
  }
}

TEST_CASE("sizes that overflow are rejected") {
  for (const std::vector<std::int64_t>& sizes : {std::vector<std::int64_t>{INT64_MAX, 2},
                                                 {INT64_MAX / 2},
                                                 {std::int64_t{1} << 32, std::int64_t{1} << 32},
                                                 {0, INT64_MAX, 3}}) {
    FrameHeader header;
    TensorRecord record;
    record.sizes = sizes;
    header.tensors.push_back(record);
    const auto bytes = frame_of(header, 0);
    FrameHeader read;
    REQUIRE(parse_header(bytes.data(), bytes.size(), bytes.size(), read) == Status::bad_header);
  }
}

TEST_CASE("a header can be fetched piecewise") {
  const auto bytes = frame_of(sample(), 116);
  FrameHeader read;
  REQUIRE(parse_header(bytes.data(), 12, bytes.size(), read) == Status::truncated);
  REQUIRE(read.header_size == bytes.size() - 116);
  REQUIRE(parse_header(bytes.data(), read.header_size, bytes.size(), read) == Status::ok);
}

TEST_CASE("varints read what was written and nothing longer") {
  ByteWriter out;
  const std::vector<std::uint64_t> values = {0, 1, 127, 128, 300, 1u << 31, UINT64_MAX};
  for (const auto value : values) out.varint(value);
  ByteReader in(out.view().data(), out.size());
  for (const auto value : values) REQUIRE(in.varint() == value);
  REQUIRE(in.ok());
  REQUIRE(in.left() == 0);
  const std::vector<std::uint8_t> endless(11, 0xFF);
  ByteReader bad(endless.data(), endless.size());
  bad.varint();
  REQUIRE_FALSE(bad.ok());
}

TEST_CASE("metadata is UTF-8") {
  const auto status_of = [](const std::string& metadata) {
    FrameHeader header, read;
    header.metadata = metadata;
    const auto bytes = write_header(header);
    return parse_header(bytes.data(), bytes.size(), bytes.size(), read);
  };
  for (const char* good : {"", "plain", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"}) {
    REQUIRE(status_of(good) == Status::ok);
  }
  for (const char* bad : {"\xFF", "\x80", "\xC3", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80",
                          "\xF5\x80\x80\x80", "\xE2\x82"}) {
    REQUIRE(status_of(bad) == Status::bad_header);
  }
}

TEST_CASE("bytes of all tensors are added up as far as numbers go") {
  FrameHeader header;
  CHECK(decoded_bytes(header) == 0);
  header.tensors.resize(2);
  for (TensorRecord& record : header.tensors) record.bytes = INT64_MAX;
  CHECK(decoded_bytes(header) == UINT64_MAX - 1);
  header.tensors.push_back(header.tensors[0]);
  CHECK(decoded_bytes(header) == UINT64_MAX);
  header.tensors.push_back(header.tensors[0]);
  CHECK(decoded_bytes(header) == UINT64_MAX);
}
