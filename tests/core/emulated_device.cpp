#include "emulated_device.h"

#include "core/digit_lane.h"
#include "core/lane_coding.h"
#include "core/lane_tails.h"
#include "core/near_lossless.h"
#include "core/predict.h"
#include "core/serialize.h"
#include "core/short_floats.h"
#include "core/warp.h"
#include "cuda/checksum_jobs.h"
#include "cuda/entropy_jobs.h"
#include "cuda/fixed_jobs.h"
#include "cuda/launch.h"
#include "cuda/planes_jobs.h"
#include "cuda/survey_jobs.h"

namespace lmgc {

namespace {
test::DeviceCounts counts;
}  // namespace

test::DeviceCounts test::device_counts() { return counts; }

namespace cuda {

int out_of_memory() { return 2; }
int upload(void* device, const void* host, std::size_t bytes, void*) {
  if (bytes != 0) std::memcpy(device, host, bytes);
  return 0;
}
int download(void* host, const void* device, std::size_t bytes, void*) {
  ++counts.waits;
  if (bytes != 0) std::memcpy(host, device, bytes);
  return 0;
}
int clear(void* device, std::size_t bytes, void*) {
  if (bytes != 0) std::memset(device, 0, bytes);
  return 0;
}

// Backwards: nothing may depend on the order of threads, or of warps.
template <class Body>
int launch(std::int64_t count, const Body& body, void*) {
  ++counts.launches;
  for (std::int64_t i = count; i-- > 0;) body(i);
  return 0;
}
template <class Body>
int launch_warps(std::int64_t count, const Body& body, void*) {
  ++counts.launches;
  for (std::int64_t i = count; i-- > 0;) body(HostWarp(), i);
  return 0;
}
template <class Body>
int launch_blocks(std::int64_t count, const Body& body, void*) {
  ++counts.launches;
  for (std::int64_t i = count; i-- > 0;) {
    typename Body::Shared shared;
    std::memset(&shared, 0xA5, sizeof shared);
    body(HostBlock(), shared, i);
  }
  return 0;
}

#define EMULATE(Body) template int launch<Body>(std::int64_t, const Body&, void*)
#define EMULATE_WARPS(Body) template int launch_warps<Body>(std::int64_t, const Body&, void*)
#define EMULATE_BLOCKS(Body) template int launch_blocks<Body>(std::int64_t, const Body&, void*)
#define EMULATE_WIDTHS(Job) \
  EMULATE_WARPS(Job<1>);    \
  EMULATE_WARPS(Job<2>);    \
  EMULATE_WARPS(Job<4>);    \
  EMULATE_WARPS(Job<8>);    \
  EMULATE_WARPS(Job<16>)

EMULATE(SumLevels);
EMULATE(FeaturesOfTensor);
EMULATE(RoundMantissas);
EMULATE(RoundToPowers);
EMULATE(ShortenWords);
EMULATE(LengthenWords);

EMULATE(SerializeText);
EMULATE(DeserializeText);
EMULATE(SerializeTokens);
EMULATE(DeserializeTokens16);
EMULATE(DeserializeTokens32);
EMULATE(DeserializeTokens64);

EMULATE(CountSymbols);
EMULATE(CountZeros);
EMULATE(PrepareWindows);
EMULATE(CodeWindows);
EMULATE(EncodeLanes);
EMULATE(CopyLanes);
EMULATE(MeasureTails);
EMULATE(PackTails);
EMULATE(UnpackTails);
EMULATE(StartLanes);
EMULATE(StepFeatures);
EMULATE(StepRecall);
EMULATE(StepDecode);
EMULATE(StepEncode);

EMULATE(EncodeDigitLane);
EMULATE(DecodeDigitLane);

EMULATE_WARPS(SumBlocks);

EMULATE(FillDecodeEntries);
EMULATE_WARPS(CopyParts);
EMULATE_WARPS(GatherUnits);
EMULATE_BLOCKS(NameSegments);
EMULATE_WARPS(EncodeStreams);
EMULATE_WARPS(DecodeStreams);

EMULATE_WIDTHS(MaskChunks);
EMULATE_WIDTHS(SplitChunks);
EMULATE_WIDTHS(JoinChunks);
EMULATE(PickSums);
EMULATE_WARPS(CountChunks);
EMULATE_WARPS(SumStretches);
EMULATE_WARPS(AddUp);

EMULATE_WARPS(SurveyBits);
EMULATE_WARPS(SurveyLines);

EMULATE_WARPS(FindLevels);
EMULATE_WARPS(SumRows);
EMULATE_WARPS(SumColumns);
EMULATE_WARPS(SplitPieces);
EMULATE_WARPS(WriteTails);
EMULATE_WARPS(EncodeBlocks);
EMULATE_WARPS(FindContexts);
EMULATE_WARPS(DecodeBlocks);

}  // namespace cuda
}  // namespace lmgc
