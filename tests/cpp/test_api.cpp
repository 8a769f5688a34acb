// The C++ face, from outside: what lmgc_torch/lmgc.h promises. test_cpp.py runs it with a folder of
// priors, a file with a frame that Python wrote of torch.arange(1000), and a file to write to.
#include <ATen/ATen.h>
#include <lmgc_torch/lmgc.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

namespace {

int checks = 0, failures = 0;

void check(bool good, const char* what, int line) {
  ++checks;
  if (good) return;
  ++failures;
  std::fprintf(stderr, "test_api.cpp:%d: %s\n", line, what);
}

#define EXPECT(condition) check((condition), #condition, __LINE__)

// Whether `work` raises a Kind whose message holds `says`.
template <class Kind, class Work>
bool raises(const std::string& says, Work work) {
  try {
    work();
  } catch (const Kind& error) {
    const std::string message = error.what_without_backtrace();
    if (message.find(says) != std::string::npos) return true;
    std::fprintf(stderr, "the message is: %s\n", message.c_str());
  }
  return false;
}

bool identical(const at::Tensor& one, const at::Tensor& two) {
  const auto bytes = [](const at::Tensor& tensor) {
    return tensor.contiguous().flatten().view(at::kByte);
  };
  return one.scalar_type() == two.scalar_type() && one.sizes() == two.sizes() &&
         at::equal(bytes(one), bytes(two));
}

at::Tensor gradient(at::IntArrayRef sizes) {
  return at::randn(sizes) * at::exp(2 * at::randn({sizes[0], 1}));
}

void round_trips(const std::string& priors) {
  at::Tensor odd = at::zeros({5});
  odd[0] = std::numeric_limits<float>::quiet_NaN();
  odd[1] = -0.0;
  odd[2] = std::numeric_limits<float>::infinity();
  odd[3] = std::numeric_limits<float>::denorm_min();
  const std::vector<at::Tensor> tensors = {gradient({64, 48}),
                                           gradient({32, 16}).to(at::kBFloat16).t(),
                                           odd,
                                           at::arange(100),
                                           at::ones({}, at::kBool),
                                           at::empty({0, 3})};
  for (const char* method : {"auto", "raw", "planes", "scale", "lowrank", "lm", "lmgc"}) {
    lmgc::CompressOptions options;
    options.method = method;
    options.metadata = "of mine";
    if (options.method == "lm") options.prior = lmgc::Prior::load(priors + "/residual.pt");
    if (options.method == "lmgc") options.prior = lmgc::Prior::load(priors + "/default.pt");
    const at::Tensor frame = lmgc::compress(tensors, options);
    const std::vector<at::Tensor> restored = lmgc::decompress(frame, options.prior);
    EXPECT(restored.size() == tensors.size());
    for (std::size_t i = 0; i < restored.size(); ++i) EXPECT(identical(restored[i], tensors[i]));

    const lmgc::FrameInfo info = lmgc::info(frame);
    EXPECT(info.metadata == "of mine");
    EXPECT(info.bytes == frame.numel() && info.header_bytes > 0);
    EXPECT(info.tensors.size() == tensors.size());
    EXPECT(info.needs_prior == options.prior.has_value());
    std::int64_t sections = 0, raw = 0;
    for (std::size_t i = 0; i < info.tensors.size(); ++i) {
      EXPECT(info.tensors[i].dtype == tensors[i].scalar_type());
      EXPECT(at::IntArrayRef(info.tensors[i].sizes) == tensors[i].sizes());
      EXPECT(info.tensors[i].raw_bytes == static_cast<std::int64_t>(tensors[i].nbytes()));
      sections += info.tensors[i].section_bytes;
      raw += info.tensors[i].raw_bytes;
    }
    EXPECT(sections + info.header_bytes == info.bytes);
    EXPECT(raw == info.raw_bytes());
  }
  EXPECT(lmgc::decompress(lmgc::compress({})).empty());
}

void warm_starts() {
  lmgc::CompressOptions options;
  options.method = "lowrank";
  options.warm_start = lmgc::WarmStart();
  const std::vector<at::Tensor> tensors = {at::mm(at::randn({96, 4}), at::randn({4, 80}))};
  for (int step = 0; step < 3; ++step)
    EXPECT(identical(lmgc::decompress(lmgc::compress(tensors, options))[0], tensors[0]));
  options.warm_start->clear();
  options.method = "planes";  // which ignores it
  EXPECT(identical(lmgc::decompress(lmgc::compress(tensors, options))[0], tensors[0]));
}

void past_frames() {
  lmgc::CompressOptions options;
  options.method = "lowrank";
  options.past = lmgc::PastFrame();
  const lmgc::PastFrame receiver, late;
  const at::Tensor left = at::randn({200, 6}), right = at::randn({6, 160});
  for (int step = 0; step < 3; ++step) {
    // Of the same spaces every time, so that frames gain by the one before.
    const at::Tensor tensor = at::mm(at::mm(left, at::randn({6, 6})), right);
    const at::Tensor frame = lmgc::compress({tensor}, options);
    EXPECT(lmgc::info(frame).needs_past == (step > 0));
    if (step > 0) {
      EXPECT(raises<lmgc::PastMismatchError>("", [&] { lmgc::decompress(frame); }));
      EXPECT(raises<lmgc::PastMismatchError>("", [&] { lmgc::decompress(frame, late); }));
    }
    EXPECT(identical(lmgc::decompress(frame, receiver)[0], tensor));
  }
  options.past->clear();
  const at::Tensor alone = at::mm(left, right);
  EXPECT(identical(lmgc::decompress(lmgc::compress({alone}, options))[0], alone));
}

void priors(const std::string& folder) {
  const lmgc::Prior residual = lmgc::Prior::load(folder + "/residual.pt");
  EXPECT(residual.portable() && residual.device() == at::kCPU);
  EXPECT(residual.fingerprint().size() == 32);
  const lmgc::Prior other = lmgc::Prior::load(folder + "/default.pt");
  EXPECT(other.fingerprint() != residual.fingerprint());
  EXPECT(raises<c10::ValueError>("no-such-file", [&] { lmgc::Prior::load("/no-such-file"); }));

  lmgc::CompressOptions options;
  options.method = "lm";
  const std::vector<at::Tensor> tensors = {gradient({128, 128})};
  EXPECT(raises<c10::ValueError>("needs a prior", [&] { lmgc::compress(tensors, options); }));
  options.prior = other;  // made for lmgc
  EXPECT(raises<c10::ValueError>("", [&] { lmgc::compress(tensors, options); }));
  options.prior = residual;
  const at::Tensor frame = lmgc::compress(tensors, options);
  EXPECT(lmgc::info(frame).needs_prior);
  EXPECT(raises<lmgc::PriorMismatchError>("", [&] { lmgc::decompress(frame, other); }));
  EXPECT(raises<lmgc::Error>("", [&] { lmgc::decompress(frame, other); }));
  EXPECT(raises<lmgc::PriorMismatchError>("with a prior", [&] { lmgc::decompress(frame); }));
}

void errors() {
  lmgc::CompressOptions options;
  options.method = "best";
  EXPECT(raises<c10::ValueError>("'best'", [&] { lmgc::compress({at::ones({3})}, options); }));
  EXPECT(raises<c10::ValueError>("tensor 1", [] {
    lmgc::compress({at::ones({3}), at::Tensor()});
  }));
  EXPECT(raises<c10::ValueError>("undefined", [] { lmgc::decompress(at::Tensor()); }));
  EXPECT(raises<c10::ValueError>("undefined", [] { lmgc::info(at::Tensor()); }));
  EXPECT(raises<c10::ValueError>("uint8", [] { lmgc::decompress(at::ones({9})); }));

  const at::Tensor frame = lmgc::compress({gradient({40, 30})});
  for (std::int64_t i = 0; i < frame.numel(); i += 97) {
    at::Tensor damaged = frame.clone();
    damaged[i].bitwise_xor_(16);
    EXPECT(raises<lmgc::CorruptFrameError>("", [&] { lmgc::decompress(damaged); }));
    const at::Tensor cut = frame.narrow(0, 0, i);
    EXPECT(raises<lmgc::CorruptFrameError>("", [&] { lmgc::decompress(cut); }));
    EXPECT(raises<lmgc::CorruptFrameError>("", [&] { lmgc::info(cut); }));
  }
  EXPECT(lmgc::decompress(frame, std::nullopt, 4800)[0].numel() == 1200);
  EXPECT(raises<lmgc::TooLargeError>("4800", [&] { lmgc::decompress(frame, std::nullopt, 4799); }));
  EXPECT(raises<lmgc::TooLargeError>("", [&] { lmgc::decompress(frame, lmgc::PastFrame(), 9); }));
  EXPECT(raises<c10::ValueError>("-1", [&] { lmgc::decompress(frame, std::nullopt, -1); }));
  // The class alone says what it is: its name is not in the message as well.
  try {
    lmgc::decompress(at::zeros({9}, at::kByte));
  } catch (const c10::Error& error) {
    EXPECT(error.msg().find("CorruptFrameError") == std::string::npos);
  }
}

void python(const char* from, const char* to) {
  std::ifstream in(from, std::ios::binary);
  std::vector<char> bytes{std::istreambuf_iterator<char>(in), {}};
  const at::Tensor frame =
      at::from_blob(bytes.data(), {static_cast<std::int64_t>(bytes.size())}, at::kByte);
  const std::vector<at::Tensor> tensors = lmgc::decompress(frame);
  EXPECT(tensors.size() == 1 && identical(tensors[0], at::arange(1000)));

  lmgc::CompressOptions options;
  options.metadata = R"({"lmgc":1,"names":["all","half"]})";
  const at::Tensor ours = lmgc::compress({at::arange(1000), at::arange(500)}, options);
  std::ofstream out(to, std::ios::binary);
  out.write(reinterpret_cast<const char*>(ours.const_data_ptr<std::uint8_t>()), ours.numel());
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) return EXIT_FAILURE;
  at::manual_seed(1);
  round_trips(arguments[1]);
  warm_starts();
  past_frames();
  priors(arguments[1]);
  errors();
  python(arguments[2], arguments[3]);
  std::printf("%s: %d checks, %d failed\n", lmgc::version().c_str(), checks, failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
