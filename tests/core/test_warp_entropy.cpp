// Coded streams by the device's code, on an emulated device: they must be the CPU's.
#include <catch2/catch.hpp>
#include <cstdint>
#include <random>
#include <vector>

#include "core/warp.h"
#include "cuda/entropy.h"
#include "cuda/planes_jobs.h"
#include "device_stream_cases.h"
#include "emulated_device.h"

using namespace lmgc;
using test::Bytes;
using test::EmulatedDevice;

TEST_CASE("warps write the CPU's streams and read them") {
  std::vector<std::size_t> sizes = {255,  256,  257,  511,   512,   2047,  2048,  2049,   5000,
                                    8191, 8192, 8193, 65535, 65536, 65537, 65600, 131072, 140001};
  for (std::size_t size = 0; size <= 70; ++size) sizes.push_back(size);
  for (const int segment_bits : {5, 6, 7, 8})
    test::check_device_streams<EmulatedDevice>(segment_bits, sizes);
}

// Of all numbers of tables, as far as clusters of segments come out so.
TEST_CASE("warps write and read streams of many tables") {
  std::vector<std::size_t> seen(most_tables + 1);
  for (const int segment_bits : {5, 6, 8}) {
    std::vector<Bytes> all;
    for (int kinds = 1; kinds <= 40; ++kinds) {
      std::mt19937 random(static_cast<unsigned>(kinds));
      Bytes data(150000 + static_cast<std::size_t>(kinds));
      for (std::size_t i = 0; i < data.size(); ++i) {
        const auto kind = static_cast<int>((i >> segment_bits) * 0x9E3779B9u % 65537) % kinds;
        data[i] = static_cast<std::uint8_t>(6 * kind + static_cast<int>(random() % 5));
      }
      all.push_back(std::move(data));
    }
    const std::vector<Bytes> streams =
        test::encoded_streams_on(EmulatedDevice(), all, segment_bits);
    std::vector<Bytes> back;
    for (std::size_t k = 0; k < all.size(); ++k) {
      REQUIRE(streams[k] == test::encoded_stream(all[k], segment_bits));
      ByteReader in(streams[k].data(), streams[k].size());
      StreamHead head;
      REQUIRE(read_head(in, all[k].size(), head) == Status::ok);
      ++seen[static_cast<std::size_t>(head.table_count())];
      back.emplace_back(all[k].size());
    }
    REQUIRE(test::decoded_streams_on(EmulatedDevice(), streams, back) ==
            std::vector<Status>(all.size(), Status::ok));
    REQUIRE(back == all);
  }
  CHECK(seen[1] > 0);
  CHECK(seen[2] + seen[3] + seen[4] > 0);
  CHECK(seen[most_tables] > 0);
}

TEST_CASE("warps refuse the damaged streams that the CPU refuses") {
  test::check_device_stream_damage<EmulatedDevice>({1, 40, 300, 3000, 70000}, 300);
}

TEST_CASE("parts of any size are copied and filled, however they are shared") {
  for (const std::size_t size : {0, 1, 31, 500, 262143, 262144, 262145, 600000}) {
    CAPTURE(size);
    const Bytes data = test::some_bytes("uniform", size);
    EmulatedDevice device;
    const auto allocate = [&](std::size_t bytes) { return device.allocate(bytes); };
    auto* const copy = static_cast<std::uint8_t*>(device.allocate(size));
    auto* const filled = static_cast<std::uint8_t*>(device.allocate(size));
    std::vector<cuda::CopyParts::Part> parts;
    cuda::add_part(data.data(), copy, size, parts);
    cuda::add_part(nullptr, filled, size, parts, 7);
    REQUIRE(cuda::copy_parts(parts, allocate, nullptr) == 0);
    CHECK(Bytes(copy, copy + size) == data);
    CHECK(Bytes(filled, filled + size) == Bytes(size, 7));
  }
}

TEST_CASE("a task finds its item, past items without tasks") {
  struct Item {
    int number;
    std::int64_t first_task = 0;
  };
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<Item> items;
    std::vector<int> owners;
    for (int number = 0; number < 1 + round % 40; ++number) {
      items.push_back({number, static_cast<std::int64_t>(owners.size())});
      owners.insert(owners.end(), random() % 4, number);
    }
    const cuda::TaskList<Item> list{items.data(), static_cast<std::int32_t>(items.size())};
    for (std::size_t task = 0; task < owners.size(); ++task)
      REQUIRE(list.item_of(static_cast<std::int64_t>(task)).number == owners[task]);
  }
}
