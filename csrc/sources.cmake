# What is compiled, layer by layer; tests too. Included by CMakeLists.txt.

# Torch-free C++20.
set(LMGC_CORE_SOURCES
  csrc/core/version.cpp
  csrc/core/status.cpp
  csrc/core/isa.cpp
  csrc/core/checksum.cpp
  csrc/core/float_format.cpp
  csrc/core/rice.cpp
  csrc/core/predict.cpp
  csrc/core/lanes.cpp
  csrc/core/frame.cpp
  csrc/core/serialize.cpp
  csrc/core/rans.cpp
  csrc/core/rans_block.cpp
  csrc/core/rans_contexts.cpp
  csrc/core/segments.cpp
  csrc/core/entropy.cpp
  csrc/core/plane_bytes.cpp
  csrc/core/planes.cpp
  csrc/core/mixture.cpp
  csrc/core/digits.cpp
  csrc/core/factors.cpp
  csrc/core/projection.cpp
  csrc/core/integer_product.cpp
  csrc/core/integer_product_plan.cpp
  csrc/core/residual_scales.cpp
  csrc/core/fixed_kernels.cpp
  csrc/core/fixed_blocks.cpp
  csrc/core/fixed_factors.cpp
  csrc/core/fixed_section.cpp
  csrc/core/digit_context.cpp
  csrc/core/digit_prior.cpp
  csrc/core/digit_kernels.cpp
  csrc/core/digit_engine.cpp
  csrc/core/lm_section.cpp
)

# Torch-free CUDA.
set(LMGC_CUDA_SOURCES
  csrc/cuda/runtime.cu
  csrc/cuda/memory.cu
  csrc/cuda/entropy.cpp
  csrc/cuda/entropy.cu
  csrc/cuda/heads.cpp
  csrc/cuda/planes.cpp
  csrc/cuda/planes_chunks.cpp
  csrc/cuda/planes_decoder.cpp
  csrc/cuda/planes.cu
  csrc/cuda/fixed.cpp
  csrc/cuda/fixed_decoder.cpp
  csrc/cuda/fixed.cu
  csrc/cuda/serialize.cu
  csrc/cuda/short_floats.cu
  csrc/cuda/survey.cpp
  csrc/cuda/survey.cu
  csrc/cuda/near_lossless.cu
  csrc/cuda/checksum.cpp
  csrc/cuda/checksum.cu
  csrc/cuda/predict.cu
  csrc/cuda/lane_coding.cu
  csrc/cuda/digit_lane.cu
)

# TORCH_LIBRARY registrations, argument checks, dispatch.
set(LMGC_OPS_SOURCES
  csrc/ops/library.cpp
  csrc/ops/for_each.cpp
  csrc/ops/team.cpp
  csrc/ops/panels.cpp
  csrc/ops/dtype.cpp
  csrc/ops/options.cpp
  csrc/ops/delta.cpp
  csrc/ops/past_frame.cpp
  csrc/ops/projection.cpp
  csrc/ops/serialize.cpp
  csrc/ops/checksum.cpp
  csrc/ops/joining.cpp
  csrc/ops/scales.cpp
  csrc/ops/features.cpp
  csrc/ops/prior_contract.cpp
  csrc/ops/prior_state.cpp
  csrc/ops/prior_probe.cpp
  csrc/ops/prior.cpp
  csrc/ops/lane_group.cpp
  csrc/ops/lmgc_encode.cpp
  csrc/ops/lmgc_decode.cpp
  csrc/ops/planes.cpp
  csrc/ops/spectrum.cpp
  csrc/ops/rank_choice.cpp
  csrc/ops/low_rank.cpp
  csrc/ops/panel_product.cpp
  csrc/ops/fixed_view.cpp
  csrc/ops/fixed.cpp
  csrc/ops/fixed_device.cpp
  csrc/ops/near_lossless.cpp
  csrc/ops/native_prior.cpp
  csrc/ops/digit_module.cpp
  csrc/ops/digit_coders.cpp
  csrc/ops/lm.cpp
  csrc/ops/warm_start.cpp
  csrc/ops/tables.cpp
  csrc/ops/compress.cpp
  csrc/ops/decompress.cpp
  csrc/ops/info.cpp
)
set(LMGC_API_SOURCES  # the C++ face: what programs with LibTorch call
  csrc/api/lmgc.cpp
)
set(LMGC_OPS_CUDA_SOURCES  # host C++ compiled only when CUDA is on
  csrc/ops/digit_device.cpp
)

# The small Python module.
set(LMGC_PYBIND_SOURCES
  csrc/pybind/module.cpp
)

# Catch2.
set(LMGC_CORE_TEST_SOURCES
  tests/core/main.cpp
  tests/core/allocations.cpp
  tests/core/test_version.cpp
  tests/core/test_cdf.cpp
  tests/core/test_range_coder.cpp
  tests/core/test_predict.cpp
  tests/core/test_lanes.cpp
  tests/core/test_checksum.cpp
  tests/core/test_frame.cpp
  tests/core/test_short_floats.cpp
  tests/core/test_segments.cpp
  tests/core/test_serialize.cpp
  tests/core/test_rans.cpp
  tests/core/test_rans_contexts.cpp
  tests/core/test_entropy.cpp
  tests/core/test_planes.cpp
  tests/core/test_bits.cpp
  tests/core/test_rice.cpp
  tests/core/test_mixture.cpp
  tests/core/test_fixed.cpp
  tests/core/test_fixed_kernels.cpp
  tests/core/test_digits.cpp
  tests/core/test_factors.cpp
  tests/core/test_delta.cpp
  tests/core/test_projection.cpp
  tests/core/test_integer_product.cpp
  tests/core/test_residual_scales.cpp
  tests/core/test_fixed_section.cpp
  tests/core/test_digit_context.cpp
  tests/core/plain_digit_context.cpp
  tests/core/test_digit_prior.cpp
  tests/core/test_digit_kernels.cpp
  tests/core/test_digit_engine.cpp
  tests/core/test_lm_section.cpp
  tests/core/test_lm_damage.cpp
  tests/core/test_device_lanes.cpp
  tests/core/test_device_words.cpp
  tests/core/test_warp_checksum.cpp
  tests/core/test_warp_digits.cpp
  tests/core/test_warp_entropy.cpp
  tests/core/test_warp_planes.cpp
  tests/core/test_warp_survey.cpp
  tests/core/emulated_device.cpp  # behind the host's side of the real one:
  csrc/cuda/checksum.cpp
  csrc/cuda/entropy.cpp
  csrc/cuda/fixed.cpp
  csrc/cuda/fixed_decoder.cpp
  csrc/cuda/heads.cpp
  csrc/cuda/planes.cpp
  csrc/cuda/planes_chunks.cpp
  csrc/cuda/planes_decoder.cpp
  csrc/cuda/survey.cpp
)
set(LMGC_CUDA_TEST_SOURCES  # host C++ (.cpp) against lmgc_cuda; needs a GPU to run
  tests/cuda/test_checksum.cpp
  tests/cuda/test_entropy.cpp
  tests/cuda/test_planes.cpp
  tests/cuda/test_fixed.cpp
  tests/cuda/test_survey.cpp
)

# libFuzzer, one program each.
set(LMGC_FUZZ_TARGETS fuzz_frame fuzz_planes fuzz_fixed fuzz_lm fuzz_round_trip)

# Core sources compiled for a newer x86-64 than the baseline, as "file|flags"; other architectures
# leave them out. They are called only behind has_isa of csrc/core/isa.h. Everything in such a file but
# its entry points needs internal linkage, and it should include little: an inline function of a
# shared header, compiled here, may be the copy that the linker keeps for everyone.
set(LMGC_X86_ISA_SOURCES
  "csrc/core/checksum_avx512.cpp|-mavx512f -mavx512dq"
  "csrc/core/digit_kernels_avx2.cpp|-mavx2"
  "csrc/core/digit_kernels_avx512.cpp|-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni"
  "csrc/core/digit_slots_avx512.cpp|-mavx512f -mavx512bw -mavx512dq -mavx512vl"
  "csrc/core/digit_coding_avx512.cpp|-mavx512f -mavx512bw -mavx512dq -mavx512vl"
  "csrc/core/fixed_kernels_avx512.cpp|-mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl"
  "csrc/core/fixed_reference_avx512.cpp|-mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl"
  "csrc/core/fixed_sums_avx512.cpp|-mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl"
  "csrc/core/fixed_tails_avx512.cpp|-mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl"
  "csrc/core/integer_product_avx2.cpp|-mavx2"
  "csrc/core/integer_product_avx512.cpp|-mavx512f -mavx512bw"
  "csrc/core/integer_product_vnni.cpp|-mavx512f -mavx512bw -mavx512vnni"
  "csrc/core/plane_kernels_avx512.cpp|-mavx512f -mavx512bw -mavx512vl -mavx512vbmi -mavx512vbmi2"
  "csrc/core/rans_avx2.cpp|-mavx2"
  "csrc/core/rans_avx512.cpp|-mavx512f -mavx512bw -mavx512vl"
  "csrc/core/rans_contexts_avx2.cpp|-mavx2"
  "csrc/core/rans_contexts_avx512.cpp|-mavx512f -mavx512bw -mavx512vl"
  "csrc/core/segment_kernels_avx512.cpp|-mavx512f -mavx512bw -mavx512vl -mavx512vbmi"
)
