// Trains a small network for a few steps, compresses its gradients, and shows that every bit comes
// back: what a program sends to another machine, or stores, instead of the gradients themselves.
#include <lmgc_torch/lmgc.h>
#include <torch/torch.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

constexpr std::int64_t classes = 10, pixels = 28 * 28, batch = 64;
constexpr int steps = 30, report_every = 10;

// Pictures of ten patterns with noise, and which of them each one is.
struct Pictures {
  torch::Tensor patterns = torch::randn({classes, pixels});

  std::pair<torch::Tensor, torch::Tensor> draw() const {
    const torch::Tensor labels = torch::randint(classes, {batch});
    return {patterns.index_select(0, labels) + 2 * torch::randn({batch, pixels}), labels};
  }
};

std::vector<at::Tensor> gradients_of(const torch::nn::Module& net) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : net.parameters()) gradients.push_back(parameter.grad());
  return gradients;
}

// Whether bits are the same: torch::equal of floats takes 0.0 for -0.0, and no NaN for another.
bool identical(const at::Tensor& one, const at::Tensor& two) {
  return one.dtype() == two.dtype() && one.sizes() == two.sizes() &&
         torch::equal(one.contiguous().view(torch::kByte), two.contiguous().view(torch::kByte));
}

// Compresses, decompresses, compares; one line of the table.
void report(int step, const std::vector<at::Tensor>& gradients,
            const lmgc::CompressOptions& options) {
  const at::Tensor frame = lmgc::compress(gradients, options);
  const std::vector<at::Tensor> restored = lmgc::decompress(frame, options.prior);
  bool same = restored.size() == gradients.size();
  for (std::size_t i = 0; same && i < gradients.size(); ++i)
    same = identical(gradients[i], restored[i]);
  if (!same) {
    std::fprintf(stderr, "method %s: the gradients did not come back\n", options.method.c_str());
    std::exit(EXIT_FAILURE);
  }
  const lmgc::FrameInfo info = lmgc::info(frame);
  std::printf("%4d  %-8s %10lld %10lld %7.1f %%   every bit came back\n", step,
              options.method.c_str(), static_cast<long long>(info.raw_bytes()),
              static_cast<long long>(info.bytes),
              100.0 * static_cast<double>(info.bytes) / static_cast<double>(info.raw_bytes()));
}

}  // namespace

int main() try {
  std::printf("lmgc_torch %s\nstep  method          raw      frame\n", lmgc::version().c_str());
  torch::manual_seed(0);
  const Pictures pictures;
  torch::nn::Sequential net(torch::nn::Linear(pixels, 128), torch::nn::ReLU(),
                            torch::nn::Linear(128, classes));
  torch::optim::SGD optimizer(net->parameters(), 0.05);

  // The bundled prior of method "lm", and what "lowrank" learns from step to step.
  const lmgc::Prior prior = lmgc::Prior::load(std::string(PRIORS_DIR) + "/residual.pt");
  const lmgc::WarmStart warm_start;

  for (int step = 1; step <= steps; ++step) {
    const auto [inputs, labels] = pictures.draw();
    optimizer.zero_grad();
    torch::nn::functional::cross_entropy(net->forward(inputs), labels).backward();
    if (step % report_every == 0) {
      const std::vector<at::Tensor> gradients = gradients_of(*net);
      lmgc::CompressOptions options;
      options.method = "planes";
      report(step, gradients, options);
      options.method = "lowrank";
      options.warm_start = warm_start;
      report(step, gradients, options);
      options.method = "lm";
      options.prior = prior;
      report(step, gradients, options);
    }
    optimizer.step();
  }

  // Bytes that were changed on their way are an error with a name, never other gradients.
  at::Tensor damaged = lmgc::compress(gradients_of(*net));
  damaged[damaged.numel() / 2].bitwise_xor_(1);
  try {
    lmgc::decompress(damaged);
    std::fprintf(stderr, "a changed frame was not noticed\n");
    return EXIT_FAILURE;
  } catch (const lmgc::CorruptFrameError& error) {
    std::printf("one bit changed: %s\n", error.what_without_backtrace());
  }
  return EXIT_SUCCESS;
} catch (const c10::Error& error) {
  std::fprintf(stderr, "%s\n", error.what_without_backtrace());
  return EXIT_FAILURE;
}
