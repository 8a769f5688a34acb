#include "cuda/entropy.h"

#include <algorithm>
#include <array>
#include <vector>

#include "core/rans_block.h"
#include "core/segments.h"
#include "cuda/kernel.cuh"

namespace lmgc::cuda {
namespace {

constexpr unsigned threads = 256;
constexpr unsigned warps = threads / warp_size;
constexpr std::int64_t most_grid =
    132 * 16;  // where a grid strides: enough for the largest device known
constexpr std::uint64_t block_stride =
    (rans::block_bound(rans::block_symbols) + 3) & ~std::uint64_t{3};

std::int64_t blocks_for(std::int64_t work, std::int64_t per_block) {
  return (work + per_block - 1) / per_block;
}

// ---- names --------------------------------------------------------------------------------------

// A thread block copies one sampled segment.
__global__ void gather_segments(const std::uint8_t* data, std::int64_t segments, int segment_bits,
                                std::uint8_t* sample) {
  const std::uint8_t* from = data + (sampled_segment(blockIdx.x, segments) << segment_bits);
  std::uint8_t* to = sample + (static_cast<std::int64_t>(blockIdx.x) << segment_bits);
  for (int i = static_cast<int>(threadIdx.x); i < 1 << segment_bits;
       i += static_cast<int>(blockDim.x)) {
    to[i] = from[i];
  }
}

// A warp names one segment after the other. Costs of two tables share a 32-bit sum: neither half
// can overflow, see TableCosts.
__global__ void name_segments(const std::uint8_t* data, std::int64_t symbols, int segment_bits,
                              int tables, const uint4* costs, std::uint8_t* names,
                              unsigned long long* counts) {
  __shared__ unsigned own[most_tables][256];
  for (unsigned i = threadIdx.x; i < most_tables * 256; i += threads) own[i / 256][i % 256] = 0;
  __syncthreads();
  const std::int64_t segments = (symbols + (std::int64_t{1} << segment_bits) - 1) >> segment_bits;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * warps;
  for (std::int64_t segment = warp_index(); segment < segments; segment += stride) {
    const std::int64_t first = segment << segment_bits;
    const std::int64_t last = min(first + (std::int64_t{1} << segment_bits), symbols);
    unsigned sums[most_tables / 2] = {};
    for (std::int64_t i = first + lane_index(); i < last; i += warp_size) {
      const uint4 low = costs[2 * data[i]], high = costs[2 * data[i] + 1];
      const unsigned pairs[most_tables / 2] = {low.x,  low.y,  low.z,  low.w,
                                               high.x, high.y, high.z, high.w};
      for (int t = 0; t < most_tables / 2; ++t) sums[t] += pairs[t];
    }
    std::uint16_t cost[most_tables];
    for (int t = 0; t < most_tables / 2; ++t) {
      for (unsigned distance = warp_size / 2; distance > 0; distance /= 2) {
        sums[t] += __shfl_xor_sync(whole_warp, sums[t], distance);
      }
      cost[2 * t] = static_cast<std::uint16_t>(sums[t]);
      cost[2 * t + 1] = static_cast<std::uint16_t>(sums[t] >> 16);
    }
    const int table = cheapest(cost, tables);
    if (lane_index() == 0) names[segment] = static_cast<std::uint8_t>(table);
    for (std::int64_t i = first + lane_index(); i < last; i += warp_size)
      atomicAdd(&own[table][data[i]], 1u);
  }
  __syncthreads();
  for (unsigned i = threadIdx.x; i < static_cast<unsigned>(tables) * 256; i += threads) {
    const unsigned count = own[i / 256][i % 256];
    if (count != 0) atomicAdd(counts + i, static_cast<unsigned long long>(count));
  }
}

struct Renaming {
  std::array<std::uint8_t, most_tables> name;
};

// names[i] becomes its new name; a thread makes one byte of `packed`.
__global__ void pack_names(std::uint8_t* names, std::int64_t segments, Renaming renaming, int bits,
                           std::int64_t packed_size, std::uint8_t* packed) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= packed_size) return;
  const int per_byte = 8 / bits;
  unsigned byte = 0;
  for (int i = 0; i < per_byte; ++i) {
    const std::int64_t segment = at * per_byte + i;
    if (segment >= segments) break;
    const std::uint8_t name = renaming.name[names[segment]];
    names[segment] = name;
    byte |= static_cast<unsigned>(name) << (i * bits);
  }
  packed[at] = static_cast<std::uint8_t>(byte);
}

// ---- blocks -------------------------------------------------------------------------------------

// A warp codes one block, a lane of the warp one lane of the block; see core/rans_block.cpp.
// `names` is null where there is one table.
__global__ void encode_blocks(const std::uint8_t* data, std::uint64_t symbols,
                              const std::uint8_t* names, int segment_bits,
                              const rans::EncodeEntry* entries, std::uint8_t* scratch,
                              std::uint32_t* block_words) {
  const auto block = static_cast<std::uint64_t>(warp_index());
  if (block >= stream_blocks(symbols)) return;
  const std::uint32_t count = symbols_in_block(symbols, block);
  const auto lanes = static_cast<std::uint32_t>(rans::lanes_of(count));
  const std::uint8_t* own = data + block * rans::block_symbols;
  const std::uint8_t* own_names =
      names == nullptr ? nullptr : names + (block << (rans::block_bits - segment_bits));
  auto* const end = reinterpret_cast<std::uint16_t*>(scratch + (block + 1) * block_stride);
  std::uint16_t* at = end;
  const std::uint32_t lane = lane_index();
  std::uint32_t state = rans::lower_bound;
  for (std::uint32_t step = (count - 1) / lanes + 1; step-- > 0;) {
    const std::uint32_t i = step * lanes + lane;
    const bool active = lane < lanes && i < count;
    rans::EncodeEntry entry{};
    bool send = false;
    if (active) {
      const std::uint32_t table = own_names == nullptr ? 0 : own_names[i >> segment_bits];
      entry = entries[256 * table + own[i]];
      send = rans::must_send(state, entry);
    }
    const unsigned senders = __ballot_sync(whole_warp, send);
    at -= __popc(senders);
    if (send) {
      at[lanes_before(senders)] = static_cast<std::uint16_t>(state);
      state >>= rans::word_bits;
    }
    if (active) state = rans::put(state, entry);
  }
  if (lane < lanes) {
    std::uint16_t* const place = at - 2 * (lanes - lane);
    place[0] = static_cast<std::uint16_t>(state);
    place[1] = static_cast<std::uint16_t>(state >> 16);
  }
  if (lane == 0) block_words[block] = static_cast<std::uint32_t>(end - at);
}

// A thread block copies one coded block from its place in `scratch` to out + offsets[block].
__global__ void copy_blocks(const std::uint8_t* scratch, const std::uint64_t* offsets,
                            std::uint8_t* out) {
  const std::uint64_t block = blockIdx.x;
  const std::uint64_t size = offsets[block + 1] - offsets[block];
  const std::uint8_t* from = scratch + (block + 1) * block_stride - size;
  std::uint8_t* to = out + offsets[block];
  for (std::uint64_t i = threadIdx.x; i < size; i += blockDim.x) to[i] = from[i];
}

// A thread block makes one decoding table.
__global__ void make_decode_entries(const std::uint16_t* frequencies, rans::DecodeEntry* entries) {
  __shared__ std::uint32_t ends[256];  // start + frequency of each symbol
  const std::uint16_t* own = frequencies + 256 * blockIdx.x;
  if (threadIdx.x == 0) {
    std::uint32_t end = 0;
    for (int symbol = 0; symbol < 256; ++symbol) ends[symbol] = end += own[symbol];
  }
  __syncthreads();
  for (std::uint32_t slot = threadIdx.x; slot < rans::probability_one; slot += blockDim.x) {
    std::uint32_t symbol = 0;  // the first that ends beyond the slot
    for (std::uint32_t half = 128; half > 0; half /= 2) {
      if (ends[symbol + half - 1] <= slot) symbol += half;
    }
    const std::uint32_t frequency = own[symbol];
    entries[rans::probability_one * blockIdx.x + slot] =
        rans::decode_entry(symbol, frequency, slot + frequency - ends[symbol]);
  }
}

__device__ inline std::uint32_t load_word(const std::uint8_t* at) {
  return at[0] | static_cast<std::uint32_t>(at[1]) << 8;
}

// A warp decodes one block. A damaged one is decoded to its end, with zeros for the words it lacks.
__global__ void decode_blocks(const std::uint8_t* body, const std::uint64_t* offsets,
                              std::uint64_t symbols, int segment_bits, int tables,
                              const rans::DecodeEntry* entries, std::uint8_t* out, int* failed) {
  const auto block = static_cast<std::uint64_t>(warp_index());
  if (block >= stream_blocks(symbols)) return;
  const std::uint32_t count = symbols_in_block(symbols, block);
  const auto lanes = static_cast<std::uint32_t>(rans::lanes_of(count));
  const std::uint32_t lane = lane_index();
  const std::uint8_t* const words_at = body + offsets[block] + 4 * lanes;
  const auto words =
      static_cast<std::uint32_t>((offsets[block + 1] - offsets[block] - 4 * lanes) / 2);
  const auto bits = static_cast<std::uint32_t>(name_bits(tables));
  std::uint8_t* const own = out + block * rans::block_symbols;
  const std::uint64_t first_segment = block << (rans::block_bits - segment_bits);

  std::uint32_t state = rans::lower_bound;
  if (lane < lanes) {
    const std::uint8_t* const at = body + offsets[block] + 4 * lane;
    state = load_word(at) | load_word(at + 2) << 16;
  }
  bool good = state >= rans::lower_bound && state >> 31 == 0;
  state &= 0x7FFFFFFFu;
  std::uint32_t used = 0;
  for (std::uint32_t step = 0; step * lanes < count; ++step) {
    const std::uint32_t i = step * lanes + lane;
    const bool active = lane < lanes && i < count;
    bool receive = false;
    if (active) {
      std::uint32_t table = 0;
      if (bits != 0) {
        const std::uint64_t bit = (first_segment + (i >> segment_bits)) * bits;
        table = body[bit / 8] >> (bit % 8) & ((1u << bits) - 1);
        if (table >= static_cast<std::uint32_t>(tables)) {
          good = false;
          table = 0;
        }
      }
      const rans::DecodeEntry entry = entries[rans::probability_one * table + rans::slot_of(state)];
      own[i] = rans::symbol_of(entry);
      state = rans::get(state, entry);
      receive = rans::must_receive(state);
    }
    const unsigned receivers = __ballot_sync(whole_warp, receive);
    if (receive) {
      const std::uint32_t word = used + lanes_before(receivers);
      state = rans::receive(state, word < words ? load_word(words_at + 2 * std::size_t{word}) : 0);
    }
    used += static_cast<std::uint32_t>(__popc(receivers));
  }
  good = good && used == words && state == rans::lower_bound;
  if (!__all_sync(whole_warp, good) && lane == 0) atomicOr(failed, 1);
}

// Offsets of the blocks from the end of the names, or from the beginning of the body.
std::vector<std::uint64_t> block_offsets(const StreamHead& head, std::uint64_t symbols,
                                         std::uint64_t first) {
  std::vector<std::uint64_t> offsets(1, first);
  for (std::uint64_t block = 0; block < head.block_words.size(); ++block) {
    offsets.push_back(offsets.back() +
                      block_size(symbols_in_block(symbols, block), head.block_words[block]));
  }
  return offsets;
}

}  // namespace

// ---- host side ----------------------------------------------------------------------------------

int code_stream(const std::uint8_t* data, std::uint64_t symbols, int segment_bits,
                const Allocate& allocate, void* stream, CodedStream& coded) {
  coded = {};
  if (symbols == 0) return 0;
  const auto count = static_cast<std::int64_t>(symbols);
  const std::int64_t segments = count >> segment_bits;  // whole ones
  const std::int64_t sampled = sampled_segments(segments);
  std::vector<std::uint8_t> sample(static_cast<std::size_t>(sampled) << segment_bits);
  std::uint8_t* device_sample = nullptr;
  if (int error = allocate_array(allocate, sample.size(), &device_sample)) return error;
  if (int error = start(gather_segments, sampled, threads, stream, data, segments, segment_bits,
                        device_sample)) {
    return error;
  }
  if (int error = download(sample.data(), device_sample, sample.size(), stream)) return error;
  const TableCosts costs = choose_tables(sample.data(), sampled, segment_bits, count);
  if (!worthwhile(costs.estimated_bits / 8, symbols)) return 0;

  const std::int64_t all_segments = segments + ((segments << segment_bits) < count ? 1 : 0);
  uint4* device_costs = nullptr;
  std::uint8_t* names = nullptr;
  unsigned long long* device_counts = nullptr;
  std::array<rans::Counts, most_tables> counts;
  static_assert(sizeof counts == sizeof(unsigned long long) * 256 * most_tables);
  static_assert(sizeof costs.cost == 2 * sizeof(uint4) * 256);
  if (int error = allocate_array(allocate, 2 * 256, &device_costs)) return error;
  if (int error = allocate_array(allocate, static_cast<std::size_t>(all_segments), &names))
    return error;
  if (int error = allocate_array(allocate, 256 * most_tables, &device_counts)) return error;
  if (int error = upload(device_costs, costs.cost.data(), sizeof costs.cost, stream)) return error;
  if (int error = clear(device_counts, sizeof counts, stream)) return error;
  if (int error = start(name_segments, std::min(blocks_for(all_segments, warps), most_grid),
                        threads, stream, data, count, segment_bits, costs.tables, device_costs,
                        names, device_counts)) {
    return error;
  }
  if (int error = download(counts.data(), device_counts, sizeof counts, stream)) return error;
  NamedTables settled = settle_tables(counts, costs.tables, symbols, segment_bits);
  if (settled.constant) {
    coded.head.kind = StreamKind::constant;
    coded.head.constant = settled.tables[0].rest;
    return 0;
  }
  if (!worthwhile(settled.estimated_size, symbols)) return 0;

  StreamHead head;
  head.kind = StreamKind::rans;
  head.segment_bits = static_cast<std::uint8_t>(segment_bits);
  head.tables = std::move(settled.tables);
  const int tables = head.table_count();
  std::uint8_t* packed = nullptr;
  const std::uint64_t packed_size = names_size(symbols, segment_bits, tables);
  if (tables > 1) {
    if (int error = allocate_array(allocate, packed_size, &packed)) return error;
    const auto size = static_cast<std::int64_t>(packed_size);
    if (int error =
            start(pack_names, blocks_for(size, threads), threads, stream, names, all_segments,
                  Renaming{settled.renamed}, name_bits(tables), size, packed)) {
      return error;
    }
  }
  std::vector<rans::EncodeEntry> entries(256 * head.tables.size());
  for (int t = 0; t < tables; ++t)
    rans::fill_encode_entries(head.tables[t], entries.data() + 256 * t);
  rans::EncodeEntry* device_entries = nullptr;
  if (int error = upload_array(entries, allocate, stream, &device_entries)) return error;
  const std::uint64_t blocks = stream_blocks(symbols);
  std::uint8_t* scratch = nullptr;
  std::uint32_t* words = nullptr;
  if (int error = allocate_array(allocate, blocks * block_stride, &scratch)) return error;
  if (int error = allocate_array(allocate, blocks, &words)) return error;
  if (int error = start(encode_blocks, blocks_for(static_cast<std::int64_t>(blocks), warps),
                        threads, stream, data, symbols, tables > 1 ? names : nullptr, segment_bits,
                        device_entries, scratch, words)) {
    return error;
  }
  head.block_words.resize(blocks);
  if (int error = download(head.block_words.data(), words, blocks * sizeof *words, stream))
    return error;
  if (!is_smaller_than_raw(head, symbols)) return 0;
  coded.head = std::move(head);
  coded.names = packed;
  coded.blocks = scratch;
  return 0;
}

int write_body(const CodedStream& coded, const std::uint8_t* data, std::uint64_t symbols,
               std::uint8_t* out, const Allocate& allocate, void* stream) {
  if (coded.head.kind == StreamKind::constant) return 0;
  if (coded.head.kind == StreamKind::raw) return copy_on_device(out, data, symbols, stream);
  const std::uint64_t packed_size =
      names_size(symbols, coded.head.segment_bits, coded.head.table_count());
  if (int error = copy_on_device(out, coded.names, packed_size, stream)) return error;
  std::uint64_t* offsets = nullptr;
  if (int error = upload_array(block_offsets(coded.head, symbols, packed_size), allocate, stream,
                               &offsets)) {
    return error;
  }
  return start(copy_blocks, static_cast<std::int64_t>(stream_blocks(symbols)), threads, stream,
               coded.blocks, offsets, out);
}

int decode_stream(const StreamHead& head, const std::uint8_t* body, std::uint64_t symbols,
                  const Allocate& allocate, void* stream, std::uint8_t* out, int* failed) {
  if (symbols == 0) return 0;
  if (head.kind == StreamKind::raw) return copy_on_device(out, body, symbols, stream);
  if (head.kind == StreamKind::constant) {
    return cudaMemsetAsync(out, head.constant, symbols, static_cast<cudaStream_t>(stream));
  }
  const int tables = head.table_count();
  std::vector<std::uint16_t> frequencies;
  for (const rans::Table& table : head.tables) {
    frequencies.insert(frequencies.end(), table.frequency.begin(), table.frequency.end());
  }
  std::uint16_t* device_frequencies = nullptr;
  std::uint64_t* offsets = nullptr;
  rans::DecodeEntry* entries = nullptr;
  if (int error = upload_array(frequencies, allocate, stream, &device_frequencies)) return error;
  if (int error =
          upload_array(block_offsets(head, symbols, names_size(symbols, head.segment_bits, tables)),
                       allocate, stream, &offsets)) {
    return error;
  }
  if (int error = allocate_array(allocate, rans::probability_one * head.tables.size(), &entries))
    return error;
  if (int error = start(make_decode_entries, tables, threads, stream, device_frequencies, entries))
    return error;
  const auto blocks = static_cast<std::int64_t>(stream_blocks(symbols));
  return start(decode_blocks, blocks_for(blocks, warps), threads, stream, body, offsets, symbols,
               static_cast<int>(head.segment_bits), tables, entries, out, failed);
}

}  // namespace lmgc::cuda
