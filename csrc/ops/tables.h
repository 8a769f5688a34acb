// Methods that code every tensor on its own, with tables or as it is.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/frame.h"
#include "ops/fixed.h"
#include "ops/section.h"
#include "ops/warm_start.h"

namespace lmgc::ops {

// A frame before it has bytes.
struct Frame {
  FrameHeader header;
  std::vector<Section> sections;

  // Takes a section for tensor i if it is smaller than the one that is there.
  void offer(std::size_t i, Method method, Section section) {
    if (section.size >= sections[i].size) return;
    header.tensors[i].method = method;
    sections[i] = std::move(section);
  }
};

// How a tensor's fixed section begins; null where it has none.
using FixedHeads = std::vector<std::shared_ptr<const FixedHead>>;

// The factors that tensors had in a past frame; null where there were none.
using PastTensors = std::vector<std::shared_ptr<const PastFactors>>;

// Which methods may code a tensor of floats; other types have planes.
enum class Tables { planes, scale, lowrank, all };

Section raw_section(const at::Tensor& bytes);

// What is known of a list of tensors beside them; joined ones share what the first of them has.
struct Beside {
  std::vector<std::size_t> places;                // in the lists below, of each record
  std::vector<TensorMemory>* memories = nullptr;  // kept up to date
  const PastTensors* past = nullptr;              // of the frame that this one may name
  // Bytes of tensors of the same types and sizes, or undefined, all on the CPU.
  const std::vector<at::Tensor>* references = nullptr;
};

// Codes every tensor by the methods of `tables`: the smallest section of them, or raw bytes.
// `limits`: of the search for predictions. Returns what was found out for the fixed serializer;
// frame.sections have projections where it has.
FixedHeads use_tables(Tables tables, const std::vector<at::Tensor>& bytes, const at::Device& device,
                      const Beside& beside, const SearchLimits& limits, Frame& frame);

}  // namespace lmgc::ops
