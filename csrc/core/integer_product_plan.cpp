#include "core/integer_product_plan.h"

#include <algorithm>
#include <bit>
#include <optional>

namespace lmgc {
namespace {

constexpr int entry_bits = 15;  // of the magnitude of what is multiplied
constexpr std::uint64_t most_sum = (std::uint64_t{1} << 31) - 1;
constexpr int most_limbs = 4;
// What a layer costs beside its terms, in terms: its sums are widened and added up.
constexpr std::size_t layer_cost = 16;
// Products of two limbs of at most as many bits: few terms of which few fit a layer, or more terms
// in fewer layers.
constexpr int term_bits[] = {2 * entry_bits, 27, 25, 23, 21, 19};

int width_of(std::uint64_t magnitude) { return static_cast<int>(std::bit_width(magnitude)); }

// The largest magnitude of each component's entries.
std::vector<std::uint32_t> largest_of(const Factor& factor, std::size_t rank) {
  std::vector<std::uint32_t> largest(rank, 0);
  const std::int32_t* entry = factor.entries.data();
  const std::int32_t* const end = entry + factor.entries.size();
  for (; entry != end; entry += rank) {
    for (std::size_t c = 0; c < rank; ++c) {
      const auto bits = static_cast<std::uint32_t>(entry[c]);
      largest[c] = std::max(largest[c], entry[c] < 0 ? 0 - bits : bits);
    }
  }
  return largest;
}

// Entries of up to `largest` in `count` limbs.
struct Cut {
  std::uint64_t largest = 0;
  int count = 1, bits = 0;  // of each limb but the highest

  Cut(std::uint64_t largest_entry, int limbs) : largest(largest_entry), count(limbs) {
    if (count > 1) bits = (width_of(largest) + count) / count;
  }
  int below(int limb) const { return limb * bits; }
  // The largest magnitude of a limb; the highest may be one more for what is carried.
  std::uint64_t largest_limb(int limb) const {
    if (limb + 1 < count) return std::uint64_t{1} << (bits - 1);
    return count == 1 ? largest : (largest >> below(limb)) + 1;
  }
  std::uint64_t largest_of_all() const {
    return std::max(largest_limb(0), largest_limb(count - 1));
  }
  EntryLimb limb(int limb) const {
    EntryLimb result;
    result.below = below(limb);
    if (limb + 1 < count) result.bits = bits;
    for (int lower = 0; lower < limb; ++lower)
      result.carry += std::int64_t{1} << (below(lower) + bits - 1);
    return result;
  }
};

// A term before it has a layer.
struct Candidate {
  ProductTerm term;
  int shift = 0;                     // its product counts 2^shift times
  std::uint64_t largest = 0;         // the product's magnitude
  int room_of_u = 0, room_of_v = 0;  // powers of two that its limbs may be multiplied by
};

struct Component {
  std::int64_t number;
  int gain;
  std::uint64_t largest_u, largest_v;
};

void add_candidates(const Component& component, const Cut& u, const Cut& v,
                    std::vector<Candidate>& candidates) {
  for (int k = 0; k < u.count; ++k) {
    for (int l = 0; l < v.count; ++l) {
      const std::uint64_t of_u = u.largest_limb(k), of_v = v.largest_limb(l);
      candidates.push_back({{component.number, u.limb(k), v.limb(l)},
                            component.gain + u.below(k) + v.below(l),
                            of_u * of_v,
                            entry_bits - width_of(of_u),
                            entry_bits - width_of(of_v)});
    }
  }
}

// The fewest terms whose products have no more than so many bits.
void cut_component(const Component& component, int bits, std::vector<Candidate>& candidates) {
  constexpr std::uint64_t most_entry = (std::uint64_t{1} << entry_bits) - 1;
  std::optional<std::pair<Cut, Cut>> best;
  std::uint64_t best_product = 0;
  for (int of_u = 1; of_u <= most_limbs; ++of_u) {
    for (int of_v = 1; of_v <= most_limbs; ++of_v) {
      const Cut u(component.largest_u, of_u), v(component.largest_v, of_v);
      const std::uint64_t largest_u = u.largest_of_all(), largest_v = v.largest_of_all();
      const std::uint64_t product = largest_u * largest_v;
      if (std::max(largest_u, largest_v) > most_entry || product > std::uint64_t{1} << bits)
        continue;
      const int terms = of_u * of_v;
      const int best_terms = best ? best->first.count * best->second.count : terms + 1;
      if (terms > best_terms || (terms == best_terms && product >= best_product)) continue;
      best = {u, v};
      best_product = product;
    }
  }
  add_candidates(component, best->first, best->second, candidates);
}

// Takes terms, the lightest first, as long as all of them fit.
class LayerBuilder {
 public:
  // `is_bounded`: sums are known to fit.
  explicit LayerBuilder(bool is_bounded) : is_bounded_(is_bounded) {}

  bool add(const Candidate& candidate) {
    const int lower = candidates_.empty() ? 0 : shift_ - candidate.shift;
    if (!candidates_.empty() && candidate.shift < least_shift_) return false;
    if (!is_bounded_) {
      if (lower > entry_bits * 2 || (sum_ << lower) + candidate.largest > most_sum) return false;
      sum_ = (sum_ << lower) + candidate.largest;
    }
    const int least = candidate.shift - candidate.room_of_u - candidate.room_of_v;
    least_shift_ = candidates_.empty() ? least : std::max(least_shift_, least);
    shift_ = candidate.shift;
    candidates_.push_back(candidate);
    return true;
  }

  ProductLayer layer() const {
    ProductLayer result;
    result.shift = shift_;
    for (const Candidate& own : candidates_) {
      const int gain = own.shift - shift_;
      ProductTerm term = own.term;
      term.v.gain = std::min(gain, own.room_of_v);
      term.u.gain = gain - term.v.gain;
      result.terms.push_back(term);
    }
    return result;
  }

 private:
  bool is_bounded_;
  std::vector<Candidate> candidates_;
  int shift_ = 0, least_shift_ = 0;
  std::uint64_t sum_ = 0;  // of all products, in units of 2^shift_
};

std::vector<ProductLayer> layers_of(const std::vector<Component>& components, int bits,
                                    bool is_bounded) {
  std::vector<Candidate> candidates;
  for (const Component& component : components) cut_component(component, bits, candidates);
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.shift > b.shift; });
  std::vector<ProductLayer> layers;
  LayerBuilder builder(is_bounded);
  for (const Candidate& candidate : candidates) {
    if (builder.add(candidate)) continue;
    layers.push_back(builder.layer());
    builder = LayerBuilder(is_bounded);
    builder.add(candidate);
  }
  layers.push_back(builder.layer());
  return layers;
}

std::size_t cost_of(const std::vector<ProductLayer>& layers) {
  std::size_t cost = 0;
  for (const ProductLayer& layer : layers) cost += layer.terms.size() + layer_cost;
  return cost;
}

}  // namespace

std::vector<ProductLayer> plan_layers(const Factors& factors, std::uint64_t bound) {
  const auto rank = static_cast<std::size_t>(factors.rank);
  const std::vector<std::uint32_t> u = largest_of(factors.u, rank), v = largest_of(factors.v, rank);
  std::vector<Component> components;
  for (std::size_t c = 0; c < rank; ++c) {
    if (u[c] == 0 || v[c] == 0) continue;
    components.push_back(
        {static_cast<std::int64_t>(c), factors.exponents[c] - factors.base(), u[c], v[c]});
  }
  if (components.empty()) return {};
  std::vector<ProductLayer> best;
  for (const int bits : term_bits) {
    // Limbs may add up to more than what they are limbs of.
    const bool is_bounded = bits == 2 * entry_bits && bound <= most_sum &&
                            std::ranges::all_of(components, [](const Component& component) {
                              return width_of(component.largest_u) <= entry_bits &&
                                     width_of(component.largest_v) <= entry_bits;
                            });
    std::vector<ProductLayer> layers = layers_of(components, bits, is_bounded);
    if (best.empty() || cost_of(layers) < cost_of(best)) best = std::move(layers);
    if (best.size() == 1 && best[0].terms.size() == components.size()) break;
  }
  return best;
}

}  // namespace lmgc
