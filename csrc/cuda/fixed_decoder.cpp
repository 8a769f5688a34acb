// The decoder's host side, as fixed.cpp is the encoder's.
#include <algorithm>

#include "cuda/fixed.h"
#include "cuda/launch.h"

namespace lmgc::cuda {
namespace {

class Decoder {
 public:
  Decoder(const std::vector<FixedCoded>& matrices, const Allocate& allocate, void* stream)
      : allocate_(allocate), stream_(stream), matrices_(matrices.size()) {
    for (std::size_t k = 0; k < matrices.size(); ++k) matrices_[k].own = &matrices[k];
  }

  int run(const Parallel& parallel, std::vector<Status>& statuses) {
    if (int error = upload(parallel)) return error;
    std::int32_t* failed = nullptr;
    std::vector<std::int32_t> failures(matrices_.size());
    const std::size_t failed_size = failures.size() * sizeof *failed;
    if (int error = allocate_array(allocate_, failures.size(), &failed)) return error;
    if (int error = clear(failed, failed_size, stream_)) return error;
    for (std::size_t k = 0; k < matrices_.size(); ++k) matrices_[k].failed = failed + k;
    if (int error = decode_without()) return error;
    if (int error = decode_predicted()) return error;
    if (int error = download(failures.data(), failed, failed_size, stream_)) return error;
    statuses.clear();
    for (const std::int32_t failure : failures)
      statuses.push_back(failure == 0 ? Status::ok : Status::bad_stream);
    return 0;
  }

 private:
  struct Matrix {
    const FixedCoded* own = nullptr;
    KnownMatrix known{FixedFormat(float_format(DType::float32))};
    const DecodeBlocks::Place* places = nullptr;
    const rans::DecodeEntry* entries = nullptr;
    std::int32_t* failed = nullptr;

    const FixedHead& head() const { return own->source->head; }
    std::int64_t elements() const { return own->source->shape.elements; }
  };
  // Elements of a matrix, whole blocks or the last ones, and room for their symbols.
  struct Share {
    const Matrix* matrix;
    MatrixPart part;
    std::uint8_t* symbols;
  };

  int upload(const Parallel& parallel) {
    Uploads uploads;
    std::vector<rans::Table> tables;
    for (Matrix& matrix : matrices_) {
      const FixedHead& head = matrix.head();
      know_weights(head, matrix.own->source->shape, matrix.own->format, uploads, matrix.known);
      know_scales(head, uploads, matrix.known);
      std::vector<DecodeBlocks::Place> places;
      std::uint64_t at = 0;
      for (std::size_t b = 0; b < head.residuals.blocks.size(); ++b) {
        const DigitsBlockSize& size = head.residuals.blocks[b];
        places.push_back({at, size});
        const auto block = static_cast<std::int64_t>(b);
        at += digits_block_size(size, part_of(block, block_elements, matrix.elements()));
      }
      uploads.add(places, &matrix.places);
      const auto own = mixture_tables(head.residuals.mixture, head.residuals.contexts,
                                      head.fraction(), parallel);
      tables.insert(tables.end(), own.begin(), own.end());
    }
    if (int error = uploads.upload(allocate_, stream_)) return error;
    rans::DecodeEntry* entries = nullptr;
    if (int error = make_decode_entries(tables, allocate_, stream_, &entries)) return error;
    for (Matrix& matrix : matrices_) {
      matrix.entries = entries;
      entries += std::size_t{rans::probability_one} * matrix.head().residuals.contexts;
    }
    return 0;
  }

  int decode_without() {
    std::size_t size = 0;
    for (const Matrix& matrix : matrices_)
      size += matrix.head().predicted() ? 0 : static_cast<std::size_t>(matrix.elements());
    std::uint8_t* symbols = nullptr;
    if (int error = allocate_array(allocate_, size, &symbols)) return error;
    std::vector<Share> shares;
    for (const Matrix& matrix : matrices_) {
      if (matrix.head().predicted()) continue;
      shares.push_back({&matrix, {matrix.known, nullptr, 0, matrix.elements()}, symbols});
      symbols += matrix.elements();
    }
    return decode(shares);
  }

  // One after the other, so that they share the room for symbols.
  int decode_predicted() {
    std::int64_t most = 0;
    for (const Matrix& matrix : matrices_) {
      if (matrix.head().predicted())
        most = std::max(most, std::min(matrix.own->product.most_elements, matrix.elements()));
    }
    std::uint8_t* symbols = nullptr;
    if (int error = allocate_array(allocate_, static_cast<std::size_t>(most), &symbols))
      return error;
    for (const Matrix& matrix : matrices_) {
      if (!matrix.head().predicted()) continue;
      const int error = matrix.own->product.for_each_panel(
          matrix.elements(),
          [&](std::int64_t first, std::int64_t count, const std::int64_t* predictions) {
            Share share{&matrix, {matrix.known, nullptr, first, count}, symbols};
            share.part.known.product = predictions;
            share.part.known.first_product = first;
            return decode({share});
          });
      if (error) return error;
    }
    return 0;
  }

  int decode(const std::vector<Share>& shares) {
    TaskListBuilder<FindContexts::Matrix> contexts;
    TaskListBuilder<DecodeBlocks::Matrix> blocks;
    for (const auto& [matrix, part, symbols] : shares) {
      contexts.add({part, symbols}, (part.count + glance_elements - 1) / glance_elements);
      blocks.add({part.known, matrix->own->source->residuals, matrix->places, matrix->elements(),
                  part.first / block_elements, matrix->entries, matrix->head().residuals.contexts,
                  symbols, matrix->own->words, matrix->failed},
                 (part.count + block_elements - 1) / block_elements);
    }
    if (int error = contexts.launch_warps<FindContexts>(allocate_, stream_)) return error;
    return blocks.launch_warps<DecodeBlocks>(allocate_, stream_);
  }

  const Allocate& allocate_;
  void* const stream_;
  std::vector<Matrix> matrices_;
};

}  // namespace

int decode_fixed(const std::vector<FixedCoded>& matrices, const Parallel& parallel,
                 const Allocate& allocate, void* stream, std::vector<Status>& statuses) {
  return Decoder(matrices, allocate, stream).run(parallel, statuses);
}

}  // namespace lmgc::cuda
