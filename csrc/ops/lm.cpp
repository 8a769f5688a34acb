#include "ops/lm.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/integer_product.h"
#include "ops/digit_coders.h"
#include "ops/digit_module.h"
#include "ops/error.h"
#include "ops/fixed_view.h"
#include "ops/for_each.h"
#include "ops/upload.h"

namespace lmgc::ops {
namespace {

constexpr std::int64_t group_elements = std::int64_t{1} << 24;

// Consecutive tensors whose symbols are in memory together. The same on both sides, so that bound
// priors see the same batches.
template <class Tensor>
std::vector<std::pair<std::size_t, std::size_t>> groups_of(const std::vector<Tensor>& tensors) {
  std::vector<std::pair<std::size_t, std::size_t>> groups;
  std::int64_t elements = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::int64_t own = tensors[i].elements();
    if (groups.empty() || elements + own > group_elements) {
      groups.emplace_back(i, i);
      elements = 0;
    }
    elements += own;
    groups.back().second = i + 1;
  }
  return groups;
}

template <class Tensor>
std::vector<std::int64_t> bytes_in(const std::vector<Tensor>& tensors, std::size_t begin,
                                   std::size_t end) {
  std::vector<std::int64_t> sizes;
  for (std::size_t i = begin; i < end; ++i)
    sizes.push_back(tensors[i].elements() * tensors[i].format.bytes);
  return sizes;
}

Product product_of(const FixedHead& head, std::int64_t columns) {
  const Factors& factors = head.low_rank.factors;
  if (factors.rank == 0) return {};
  return exact_product(factors, columns, product_bound(factors, aten_parallel()), aten_parallel());
}

// Matrices and lanes as a coder takes them.
struct Batch {
  std::vector<DigitMatrix> matrices;
  std::vector<DigitLane> lanes;
  std::vector<LaneBytes> bytes;  // decoder

  void add(const DigitGeometry& geometry, const std::vector<Known>& known,
           std::vector<std::uint8_t>& symbols, std::int64_t lane_elements) {
    const auto elements = static_cast<std::int64_t>(known.size());
    append_digit_lanes(static_cast<std::int32_t>(matrices.size()), elements, lane_elements, lanes);
    matrices.push_back({geometry, elements, known.data(), symbols.data()});
  }
};

Section section_of(std::vector<std::uint8_t> bytes) {
  const auto size = static_cast<std::int64_t>(bytes.size());
  const at::Tensor host = upload(bytes, at::kCPU);
  return {size, [host](const at::Tensor& out) { out.copy_(host); }};
}

// A section under way.
struct Decoding {
  at::Tensor section;  // on the host
  LmSource source;
  std::vector<Known> u_known, v_known, known;
  std::vector<std::uint8_t> u_symbols, v_symbols, symbols;
  Product product;
};

}  // namespace

std::vector<DigitStream> streams_of(const LmTensor& tensor) {
  const FixedHead& head = *tensor.head;
  const FixedView view =
      view_of(tensor.bytes.cpu(), tensor.format, tensor.sizes, head.by_dimension_1);
  std::vector<DigitStream> streams;
  if (view.shape.elements == 0) return streams;
  const std::int64_t taps = taps_of(tensor.sizes.data(), tensor.sizes.size());
  const Factors& factors = head.low_rank.factors;
  if (head.predicted()) {
    streams.push_back(factor_stream(factors.u, view.shape.rows, factors.rank, 1, aten_parallel()));
    streams.push_back(
        factor_stream(factors.v, view.shape.columns, factors.rank, taps, aten_parallel()));
  }
  const bool flat = matrix_shape(tensor.sizes.data(), tensor.sizes.size()).flat;
  const at::Tensor words = shorten_words(view.live, tensor.format, tensor.spare);
  const FixedInput input{words.data_ptr(), shortened(tensor.format, tensor.spare), view.shape,
                         !flat};
  streams.push_back(residual_stream(input, head, taps, flat, product_of(head, view.shape.columns),
                                    aten_parallel()));
  return streams;
}

std::vector<Section> encode_lm(const std::vector<LmTensor>& tensors, const Prior& prior,
                               const LmOptions& options) {
  const auto coder =
      digit_coder(prior, options.memory_limit,
                  prior.portable() ? 0 : bound_digit_lanes(prior, options.memory_limit));
  std::vector<Section> sections(tensors.size());
  for (const auto& [begin, end] : groups_of(tensors)) {
    std::vector<std::vector<DigitStream>> streams(end - begin);
    for_each_tensor(at::kCPU, bytes_in(tensors, begin, end), [&, first = begin](std::size_t i) {
      streams[i] = streams_of(tensors[first + i]);
    });
    Batch batch;
    std::vector<std::int64_t> lane_elements;
    for (auto& own : streams) {
      for (DigitStream& stream : own) {
        lane_elements.push_back(lane_elements_of(stream.geometry.columns, options.lane_elements));
        batch.add(stream.geometry, stream.known, stream.symbols, lane_elements.back());
      }
    }
    std::vector<CodedLane> lanes = coder->encode(batch.matrices, batch.lanes);

    std::size_t lane = 0, matrix = 0;
    for (std::size_t i = begin; i < end; ++i) {
      std::vector<CodedDigitStream> coded;
      for (DigitStream& stream : streams[i - begin]) {
        CodedDigitStream own;
        own.lane_elements = lane_elements[matrix];
        for (; lane < lanes.size() && batch.lanes[lane].matrix == static_cast<std::int32_t>(matrix);
             ++lane)
          own.lanes.push_back(std::move(lanes[lane]));
        own.tails = std::move(stream.tails);
        coded.push_back(std::move(own));
        ++matrix;
      }
      sections[i] = section_of(write_lm_section(*tensors[i].head, coded));
    }
  }
  return sections;
}

LmSource read_lm_section(const at::Tensor& frame, std::int64_t offset, std::int64_t size,
                         const std::vector<std::int64_t>& sizes, const std::string& where) {
  const at::Tensor section = frame.narrow(0, offset, size).cpu();
  LmSource source;
  check_frame(read_lm(section.data_ptr<std::uint8_t>(), static_cast<std::size_t>(size),
                      sizes.data(), sizes.size(), source),
              where);
  return source;
}

void decode_lm(const at::Tensor& frame, const std::vector<LmSourceTensor>& sources,
               const Prior& prior, const PriorBlock& block, std::int64_t memory_limit) {
  const auto coder = digit_coder(prior, memory_limit,
                                 static_cast<std::int64_t>(std::min<std::uint64_t>(
                                     block.batch_lanes, std::uint64_t{1} << 20)));
  const Parallel parallel = aten_parallel();
  for (const auto& [begin, end] : groups_of(sources)) {
    std::vector<Decoding> decodings(end - begin);
    const auto for_each = [&, first = begin, last = end](const auto& body) {
      for_each_tensor(at::kCPU, bytes_in(sources, first, last),
                      [&](std::size_t i) { body(decodings[i], sources[first + i]); });
    };
    const auto decode = [&](Batch& batch) {
      coder->decode(batch.matrices, batch.lanes, batch.bytes);
    };

    for_each([&](Decoding& own, const LmSourceTensor& tensor) {
      own.section = frame.narrow(0, tensor.offset, tensor.size).cpu();
      check_frame(read_lm(own.section.template data_ptr<std::uint8_t>(),
                          static_cast<std::size_t>(tensor.size), tensor.sizes.data(),
                          tensor.sizes.size(), own.source),
                  tensor.where);
      const FixedSource& fixed = own.source.fixed;
      const Factors& factors = fixed.head.low_rank.factors;
      if (factors.rank == 0) return;
      own.u_known = factor_known(factors.u, fixed.shape.rows, factors.rank, parallel);
      own.v_known = factor_known(factors.v, fixed.shape.columns, factors.rank, parallel);
      own.u_symbols.resize(own.u_known.size());
      own.v_symbols.resize(own.v_known.size());
    });
    Batch factors_batch;
    const auto add = [](Batch& batch, const DigitGeometry& geometry,
                        const std::vector<Known>& known, std::vector<std::uint8_t>& symbols,
                        const StreamSource& stream) {
      batch.add(geometry, known, symbols, stream.lane_elements);
      batch.bytes.insert(batch.bytes.end(), stream.lanes.begin(), stream.lanes.end());
    };
    for (std::size_t i = 0; i < decodings.size(); ++i) {
      Decoding& own = decodings[i];
      const LiveShape& shape = own.source.fixed.shape;
      if (own.u_known.empty()) continue;
      const auto& sizes = sources[begin + i].sizes;
      const std::int64_t taps = taps_of(sizes.data(), sizes.size());
      add(factors_batch, digit_geometry(shape.rows, 1, DigitKind::factor, false), own.u_known,
          own.u_symbols, own.source.u);
      add(factors_batch, digit_geometry(shape.columns, taps, DigitKind::factor, false), own.v_known,
          own.v_symbols, own.source.v);
    }
    decode(factors_batch);

    for_each([&](Decoding& own, const LmSourceTensor& tensor) {
      FixedSource& fixed = own.source.fixed;
      Factors& factors = fixed.head.low_rank.factors;
      if (factors.rank != 0) {
        Status status = join_factor(own.u_symbols.data(), own.source.u.tails, fixed.shape.rows,
                                    factors.rank, factors.u, parallel);
        if (status == Status::ok)
          status = join_factor(own.v_symbols.data(), own.source.v.tails, fixed.shape.columns,
                               factors.rank, factors.v, parallel);
        check_frame(status, tensor.where);
        const std::uint64_t bound = product_bound(factors, parallel);
        check_frame(
            bound < std::uint64_t{1} << most_product_bits ? Status::ok : Status::bad_section,
            tensor.where);
        own.product = exact_product(factors, fixed.shape.columns, bound, parallel);
      }
      if (fixed.shape.elements == 0) return;
      own.known =
          residual_known(fixed, shortened(tensor.format, tensor.spare), own.product, parallel);
      own.symbols.resize(own.known.size());
    });
    Batch residuals_batch;
    for (std::size_t i = 0; i < decodings.size(); ++i) {
      Decoding& own = decodings[i];
      if (own.known.empty()) continue;
      const auto& sizes = sources[begin + i].sizes;
      const bool flat = matrix_shape(sizes.data(), sizes.size()).flat;
      const FixedHead& head = own.source.fixed.head;
      add(residuals_batch,
          digit_geometry(own.source.fixed.shape.columns,
                         flat ? 1 : taps_of(sizes.data(), sizes.size()),
                         head.predicted() ? DigitKind::predicted : DigitKind::unpredicted, flat),
          own.known, own.symbols, own.source.residuals);
    }
    decode(residuals_batch);

    for_each([&](Decoding& own, const LmSourceTensor& tensor) {
      const FixedSource& fixed = own.source.fixed;
      const at::Tensor bytes = tensor.room();
      const at::Tensor host = bytes.is_cpu() ? bytes : at::empty({bytes.numel()}, at::kByte);
      const at::Tensor live = live_room(host, tensor.format, tensor.spare, fixed.head, fixed.shape);
      if (fixed.shape.elements != 0) {
        check_frame(
            join_residuals(fixed, shortened(tensor.format, tensor.spare), own.symbols.data(),
                           own.source.residuals.tails, own.product, live.data_ptr(), parallel),
            tensor.where);
      }
      put_live(live, fixed.head, tensor.format, tensor.spare, tensor.sizes, host);
      if (!bytes.is_cpu()) bytes.copy_(host);
    });
  }
}

}  // namespace lmgc::ops
