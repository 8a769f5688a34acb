// Coded streams of csrc/cuda on some device (device_cases.h says what it has) and of csrc/core,
// which must agree.
#pragma once

#include <catch2/catch.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "core/entropy.h"
#include "cuda/entropy.h"
#include "stream_cases.h"

namespace lmgc::test {

using Bytes = std::vector<std::uint8_t>;

// Head and body of each, coded all at once into places of any alignment.
template <class Device>
std::vector<Bytes> encoded_streams_on(Device&& device, const std::vector<Bytes>& all,
                                      int segment_bits) {
  const auto allocate = [&](std::size_t bytes) { return device.allocate(bytes); };
  std::vector<cuda::StreamInput> inputs;
  for (const Bytes& data : all) {
    auto* const there = static_cast<std::uint8_t*>(device.allocate(data.size()));
    device.write(there, data.data(), data.size());
    inputs.push_back({there, data.size(), segment_bits});
  }
  std::vector<cuda::CodedStream> coded;
  REQUIRE(cuda::code_streams(inputs, run_backwards, allocate, nullptr, coded) == 0);
  std::vector<std::uint8_t*> bodies;
  std::vector<cuda::CopyParts::Part> parts;
  for (std::size_t k = 0; k < all.size(); ++k) {
    const std::size_t size = body_size(coded[k].head, all[k].size());
    bodies.push_back(static_cast<std::uint8_t*>(device.allocate(size + k % 4)) + k % 4);
    cuda::add_body(coded[k], inputs[k].data, all[k].size(), bodies[k], parts);
  }
  REQUIRE(cuda::copy_parts(parts, allocate, nullptr) == 0);
  std::vector<Bytes> streams;
  for (std::size_t k = 0; k < all.size(); ++k) {
    ByteWriter out;
    write_head(coded[k].head, out);
    streams.push_back(out.take());
    const std::size_t head = streams[k].size(), body = body_size(coded[k].head, all[k].size());
    streams[k].resize(head + body);
    device.read(streams[k].data() + head, bodies[k], body);
  }
  return streams;
}

// What core's decode_stream says of each of the streams of data[k].size() symbols, all decoded at
// once.
template <class Device>
std::vector<Status> decoded_streams_on(Device&& device, const std::vector<Bytes>& streams,
                                       std::vector<Bytes>& data) {
  const auto allocate = [&](std::size_t bytes) { return device.allocate(bytes); };
  std::vector<Status> statuses(streams.size(), Status::ok);
  std::vector<StreamHead> heads(streams.size());
  std::vector<cuda::StreamSource> sources;
  std::vector<std::size_t> which;
  for (std::size_t k = 0; k < streams.size(); ++k) {
    ByteReader in(streams[k].data(), streams[k].size());
    statuses[k] = read_head(in, data[k].size(), heads[k]);
    if (statuses[k] != Status::ok) continue;
    const std::size_t size = body_size(heads[k], data[k].size());
    const std::uint8_t* const body = in.bytes(size);
    if (body == nullptr) {
      statuses[k] = Status::truncated;
      continue;
    }
    auto* const there = static_cast<std::uint8_t*>(device.allocate(size + k % 4)) + k % 4;
    device.write(there, body, size);
    auto* const failed = static_cast<std::int32_t*>(device.allocate(sizeof(std::int32_t)));
    const std::int32_t zero = 0;
    device.write(failed, &zero, sizeof zero);
    auto* const out = static_cast<std::uint8_t*>(device.allocate(data[k].size()));
    sources.push_back({&heads[k], there, data[k].size(), out, failed});
    which.push_back(k);
  }
  REQUIRE(cuda::decode_streams(sources, allocate, nullptr) == 0);
  for (std::size_t i = 0; i < which.size(); ++i) {
    const std::size_t k = which[i];
    std::int32_t failed = 0;
    device.read(&failed, sources[i].failed, sizeof failed);
    if (failed != 0) statuses[k] = Status::bad_stream;
    device.read(data[k].data(), sources[i].out, data[k].size());
  }
  return statuses;
}

inline Bytes encoded_stream(const Bytes& data, int segment_bits) {
  ByteWriter out;
  encode_stream(data.data(), data.size(), out, run_serially, segment_bits);
  return out.take();
}

// Streams of all kinds and these sizes, both ways, against csrc/core.
template <class Device>
void check_device_streams(int segment_bits, const std::vector<std::size_t>& sizes) {
  CAPTURE(segment_bits);
  std::vector<Bytes> all, back;
  for (const auto& kind : byte_kinds) {
    for (const std::size_t size : sizes) {
      all.push_back(some_bytes(kind, size));
      back.emplace_back(size, std::uint8_t{1});
    }
  }
  const std::vector<Bytes> streams = encoded_streams_on(Device(), all, segment_bits);
  for (std::size_t k = 0; k < all.size(); ++k) {
    CAPTURE(byte_kinds[k / sizes.size()], all[k].size());
    REQUIRE(streams[k] == encoded_stream(all[k], segment_bits));
  }
  REQUIRE(decoded_streams_on(Device(), streams, back) ==
          std::vector<Status>(all.size(), Status::ok));
  REQUIRE(back == all);
}

// Damaged streams of all kinds and these sizes, about `limit` of each.
template <class Device>
void check_device_stream_damage(const std::vector<std::size_t>& sizes, std::size_t limit) {
  for (const auto& kind : byte_kinds) {
    for (const std::size_t size : sizes) {
      CAPTURE(kind, size);
      std::vector<Bytes> streams;
      for_each_damage(encoded_stream(some_bytes(kind, size), 6), limit,
                      [&](const Bytes& bad) { streams.push_back(bad); });
      std::vector<Bytes> by_device(streams.size(), Bytes(size));
      const std::vector<Status> statuses = decoded_streams_on(Device(), streams, by_device);
      for (std::size_t k = 0; k < streams.size(); ++k) {
        Bytes by_core(size);
        ByteReader in(streams[k].data(), streams[k].size());
        const Status status = decode_stream(in, size, by_core.data(), run_serially);
        REQUIRE(statuses[k] == status);
        if (status == Status::ok) REQUIRE(by_device[k] == by_core);
      }
    }
  }
}

}  // namespace lmgc::test
