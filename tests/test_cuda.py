"""CPU and CUDA write the same bytes and read each other's."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from helpers import (
    DTYPES,
    FLOATS,
    METHODS,
    all_identical,
    bits,
    from_bytes,
    gradient,
    identical,
    op_info,
    ops,
    resealed,
    to_bytes,
    write_prior,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_priors import SeenPrior, loaded, low_rank, paying, with_dead_lines

from lmgc_torch import CorruptFrameError, Prior, PriorMismatchError, compress, decompress, info
from lmgc_torch import prior as prior_module
from lmgc_torch.near_lossless import (
    AbsoluteBound,
    BlockBits,
    KeepBits,
    Loss,
    RelativeBound,
    Threshold,
    TopK,
)

pytestmark = pytest.mark.cuda

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

every_method = pytest.mark.parametrize("method", [*METHODS, "scale", "lowrank"])
# These fit a prediction in floating point: each device has its own, and reads the other's.
OWN_FITS = ("auto", "lowrank", "lm")


@pytest.fixture(scope="module")
def cuda_prior(prior: Prior) -> Prior:
    return copy.deepcopy(prior).to("cuda")


@pytest.fixture(scope="module")
def cuda_feature_prior(feature_prior: Prior) -> Prior:
    return copy.deepcopy(feature_prior).to("cuda")


def check(
    tensors: list[torch.Tensor], priors: tuple[Prior, Prior], **options
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compresses on both devices and decodes each frame on each device.

    The bytes are the same unless a prediction was fitted.
    """
    there = [tensor.to(CUDA) for tensor in tensors]
    frames = (
        compress(tensors, prior=priors[0], **options),
        compress(there, prior=priors[1], **options),
    )
    assert frames[0].device == CPU
    assert frames[1].device == (CUDA if tensors else CPU)
    if options.get("method", "auto") not in OWN_FITS:
        assert torch.equal(frames[0], frames[1].cpu())
    for frame in frames:
        assert all_identical(decompress(frame.cpu(), prior=priors[0]), tensors)
        assert all_identical(decompress(frame.to(CUDA), prior=priors[1]), there)
    return frames


@every_method
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type(method: str, dtype: torch.dtype, prior: Prior, cuda_prior: Prior):
    generator = torch.Generator().manual_seed(3)
    random = torch.randint(0, 256, (600 * dtype.itemsize,), generator=generator).byte()
    tensors = [
        from_bytes(to_bytes(random), dtype, (20, 30)),
        from_bytes(bytes(600 * dtype.itemsize), dtype, (600,)),
        from_bytes(to_bytes(random % 3), dtype, (600,)),
        from_bytes(to_bytes(random[: dtype.itemsize]), dtype, ()),
        from_bytes(b"", dtype, (0, 3)),
    ]
    check(tensors, (prior, cuda_prior), method=method)


@every_method
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1,), (257,), (64, 300), (32, 16, 3, 3), (70_001,)])
def test_gradients(
    method: str, dtype: torch.dtype, shape: tuple[int, ...], prior: Prior, cuda_prior: Prior
):
    check([gradient(*shape, dtype=dtype)], (prior, cuda_prior), method=method)


@pytest.mark.parametrize("dtype", FLOATS)
def test_context_features(dtype: torch.dtype, feature_prior: Prior, cuda_feature_prior: Prior):
    tensors = [gradient(64, 300, dtype=dtype), gradient(32, 16, 3, 3, dtype=dtype)]
    tensors.append(gradient(999, dtype=dtype))
    check(tensors, (feature_prior, cuda_feature_prior), method="lmgc", lane_elements=500)


@settings(max_examples=30)
@given(
    separator=st.sampled_from(["none", "space", "comma_space", "0x"]),
    bytes_per_group=st.sampled_from([None, 1, 2, 3, 4, 8]),
    byte_order=st.sampled_from(["big", "little"]),
    window=st.sampled_from(["disjoint", "sliding"]),
    lane_elements=st.sampled_from([None, 1, 7, 64]),
    bypass=st.booleans(),
    dtype=st.sampled_from(FLOATS),
)
def test_options(prior: Prior, cuda_prior: Prior, dtype: torch.dtype, **options):
    check([gradient(20, 30, dtype=dtype)], (prior, cuda_prior), method="lmgc", **options)


@every_method
def test_many_tensors(method: str, prior: Prior, cuda_prior: Prior):
    tensors = [gradient(10 + i, 7, dtype=FLOATS[i % 4], seed=i) for i in range(50)]
    check(tensors, (prior, cuda_prior), method=method)


def test_no_tensors(prior: Prior, cuda_prior: Prior):
    check([], (prior, cuda_prior))


def batch_gradient(*shape: int, rank: int = 4, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A matrix of low rank but for noise, with some lines of zeros, in the given shape."""
    generator = torch.Generator().manual_seed(5)
    columns = torch.Size(shape[1:]).numel()
    left = torch.randn(shape[0], rank, generator=generator)
    right = torch.randn(rank, columns, generator=generator)
    values = (left @ right + 0.02 * torch.randn(shape[0], columns, generator=generator)) * 1e-3
    values[::7] = 0
    values[:, ::11] = 0
    return values.to(dtype).view(shape)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(64, 300), (700, 40), (48, 32, 3, 3), (300, 900)])
def test_predictions(dtype: torch.dtype, shape: tuple[int, ...], prior: Prior, cuda_prior: Prior):
    tensor = batch_gradient(*shape, dtype=dtype)
    for frame in check([tensor], (prior, cuda_prior), method="lowrank"):
        assert info(frame).tensors[0].method == "lowrank"
        assert op_info(frame) == op_info(frame.cpu())


def test_predictions_by_dimension_1(prior: Prior, cuda_prior: Prior):
    """Kernels whose taps share factors: the matrix is dimension 1 by the rest."""
    tensor = batch_gradient(32, 40 * 9, rank=3).view(32, 40, 3, 3).transpose(0, 1).contiguous()
    check([tensor], (prior, cuda_prior), method="lowrank")


def test_large_predictions(prior: Prior, cuda_prior: Prior):
    """More than one panel of the product."""
    check([batch_gradient(4000, 5000, rank=20)], (prior, cuda_prior), method="lowrank")


@pytest.mark.parametrize("dtype", FLOATS)
def test_scales_are_the_same(dtype: torch.dtype, prior: Prior, cuda_prior: Prior):
    generator = torch.Generator().manual_seed(2)
    special = torch.randint(-(2**15), 2**15, (64, 80 * dtype.itemsize // 2), generator=generator)
    tensors = [
        batch_gradient(300, 900, dtype=dtype),
        batch_gradient(20, 70_000, dtype=dtype),
        batch_gradient(48, 32, 3, 3, dtype=dtype),
        torch.zeros(30, 40, dtype=dtype),
        special.short().view(dtype),
        gradient(70_001, dtype=dtype),
        gradient(3, dtype=dtype),
    ]
    check(tensors, (prior, cuda_prior), method="scale")


@pytest.mark.parametrize("method", ["raw", "planes", "scale"])
def test_large(method: str, prior: Prior, cuda_prior: Prior):
    tensors = [gradient(4000, 5000), gradient(3_000_001, dtype=torch.bfloat16)]
    check(tensors, (prior, cuda_prior), method=method)


def test_large_with_a_prior(prior: Prior, cuda_prior: Prior):
    check([gradient(1000, 2000)], (prior, cuda_prior), method="lmgc")


@every_method
def test_layouts(method: str, prior: Prior, cuda_prior: Prior):
    matrix = gradient(40, 60)
    views = {
        "transposed": lambda m: m.t(),
        "strided": lambda m: m[::2, 1::3],
        "offset": lambda m: m[5:, 7:],
        "expanded": lambda m: m[:, :1].expand(40, 50),
        "negative": lambda m: torch.complex(m, m).conj().imag,
        "conjugate": lambda m: torch.complex(m, m).conj(),
        "unaligned": lambda m: m.flatten()[1:],
    }
    for view in views.values():
        there = compress(view(matrix.cuda()), method=method, prior=cuda_prior)
        here = compress(view(matrix), method=method, prior=prior)
        if method not in OWN_FITS:
            assert torch.equal(there.cpu(), here)
        assert torch.equal(bits(decompress(there, prior=cuda_prior)).cpu(), bits(view(matrix)))


@every_method
def test_other_streams(method: str, prior: Prior, cuda_prior: Prior):
    """Work goes onto the current stream: what was queued there before is done first."""
    stream = torch.cuda.Stream()
    expected = gradient(300, 400)
    with torch.cuda.stream(stream):
        later = torch.zeros(300, 400, device=CUDA)
        torch.cuda._sleep(20_000_000)
        later.copy_(expected.cuda())
        frame = compress(later, method=method, prior=cuda_prior)
        torch.cuda._sleep(20_000_000)
        back = decompress(frame, prior=cuda_prior)
    stream.synchronize()
    if method not in OWN_FITS:
        assert torch.equal(frame.cpu(), compress(expected, method=method, prior=prior))
    assert identical(back.cpu(), expected)


@every_method
def test_memory_is_given_back(method: str, cuda_prior: Prior):
    tensor = gradient(500, 600).cuda()
    decompress(compress(tensor, method=method, prior=cuda_prior), prior=cuda_prior)
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        decompress(compress(tensor, method=method, prior=cuda_prior), prior=cuda_prior)
    assert torch.cuda.memory_allocated() == before


def test_memory_limit_is_kept(cuda_prior: Prior):
    tensor = gradient(2000, 1000).cuda()
    torch.cuda.synchronize()
    frames = []
    for limit in (2**24, 2**28):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        frames.append(compress(tensor, method="lmgc", prior=cuda_prior, memory_limit=limit))
        assert torch.cuda.max_memory_allocated() - before < 2 * limit + 4 * tensor.nbytes
    assert torch.equal(*frames)


@every_method
def test_info_is_the_same(method: str, prior: Prior, cuda_prior: Prior):
    frame = compress({"w": gradient(64, 65).cuda()}, method=method, prior=cuda_prior)
    assert op_info(frame) == op_info(frame.cpu())
    assert str(info(frame)) == str(info(frame.cpu()))


# ---- method lm -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def residual_priors(residual_prior: Prior) -> tuple[Prior, Prior]:
    return residual_prior, copy.deepcopy(residual_prior).to("cuda")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("lane_elements", [None, 100])
def test_lm_without_predictions(
    dtype: torch.dtype, lane_elements: int | None, residual_priors: tuple[Prior, Prior]
):
    """Nothing is fitted: the bytes are the same."""
    tensors = [
        low_rank(64, 300, rank=0, noise=1.0, dtype=dtype),
        low_rank(9000, rank=0, noise=1.0, dtype=dtype),
        low_rank(48, 32, 3, 3, rank=0, noise=1.0, dtype=dtype).relu(),
        with_dead_lines(low_rank(100, 90, rank=0, noise=1.0, dtype=dtype)),
        torch.zeros(30, 40, dtype=dtype),
        torch.empty(0, 3, dtype=dtype),
    ]
    frames = check(tensors, residual_priors, method="lm", lane_elements=lane_elements)
    if lane_elements is None:
        assert "lm" in {tensor.method for tensor in info(frames[0]).tensors}
    assert torch.equal(frames[0], frames[1].cpu())


@pytest.mark.parametrize("dtype", FLOATS)
def test_lm_with_predictions(dtype: torch.dtype, residual_priors: tuple[Prior, Prior]):
    """Each device has its own, and reads the other's."""
    tensors = [
        low_rank(64, 300, dtype=dtype),
        low_rank(48, 32, 3, 3, dtype=dtype),
        with_dead_lines(low_rank(100, 90, dtype=dtype)),
        low_rank(20, 70_000, rank=1, dtype=dtype),
    ]
    for frame in check(tensors, residual_priors, method="lm"):
        methods = [tensor.method for tensor in info(frame).tensors]
        assert methods[:2] == ["lm", "lm"]
        assert op_info(frame) == op_info(frame.cpu())


def test_both_engines_of_lm(residual_priors: tuple[Prior, Prior]):
    tensors = [paying().cuda(), low_rank(64, 300).cuda()]
    fast = residual_priors[1]
    slow = copy.deepcopy(fast).use_native(False)
    assert (fast.native, slow.native) == (True, False)
    frames = [compress(tensors, method="lm", prior=p, lane_elements=300) for p in (fast, slow)]
    assert torch.equal(*frames)
    for prior in (fast, slow):
        assert all_identical(decompress(frames[0], prior=prior), tensors)


def test_lm_finds_its_prior():
    frame = compress(paying().cuda(), method="lm")
    assert info(frame).method == "lm"
    assert identical(decompress(frame), paying().cuda())
    assert identical(decompress(frame.cpu()), paying())


@pytest.mark.parametrize("portable", [True, False])
def test_lm_with_another_prior(portable: bool, tmp_path: Path):
    tensors = [paying(), low_rank(64, 300)]
    here = loaded(SeenPrior(tensors, ["digit", "context"], portable=portable), tmp_path)
    there = copy.deepcopy(here).to("cuda")
    moved = [tensor.cuda() for tensor in tensors]
    frame = compress(moved, method="lm", prior=there, lane_elements=100)
    assert all_identical(decompress(frame, prior=there), moved)
    if portable:
        assert all_identical(decompress(frame.cpu(), prior=here), tensors)


# ---- priors and devices --------------------------------------------------------------------------


def test_priors_move(prior: Prior):
    moved = copy.deepcopy(prior).to("cuda")
    assert moved.device == CUDA
    assert moved.fingerprint == prior.fingerprint
    assert prior.device == CPU
    assert pickle.loads(pickle.dumps(moved)).device == CUDA
    assert moved.to("cpu").device == CPU


def test_everything_must_be_on_one_device(prior: Prior, cuda_prior: Prior):
    tensor = gradient(100)
    with pytest.raises(ValueError, match="tensor 1 is on cuda:0"):
        compress([tensor, tensor.cuda()])
    with pytest.raises(ValueError, match="prior is on cuda:0"):
        compress(tensor, method="lmgc", prior=cuda_prior)
    with pytest.raises(ValueError, match="prior is on cpu"):
        compress(tensor.cuda(), method="lmgc", prior=prior)
    frame = compress(tensor, method="lmgc", prior=prior)
    with pytest.raises(ValueError, match="prior is on cuda:0"):
        decompress(frame, prior=cuda_prior)
    with pytest.raises(ValueError, match="prior is on cpu"):
        decompress(frame.cuda(), prior=prior)


def test_files_are_loaded_to_the_data_s_device(tmp_path):
    path = write_prior(tmp_path / "table.pt")
    frame = compress(gradient(1000).cuda(), method="lmgc", prior=path)
    assert identical(decompress(frame, prior=path), gradient(1000).cuda())
    assert identical(decompress(frame.cpu(), prior=path), gradient(1000))


@pytest.mark.skipif(
    prior_module.DEFAULTS["lmgc"] not in prior_module.bundled(),
    reason="the default prior is not bundled",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_default_prior_is_portable(dtype: torch.dtype):
    tensors = [gradient(300, 500, dtype=dtype), gradient(32, 16, 3, 3, dtype=dtype)]
    here = compress(tensors, method="lmgc")
    there = compress([tensor.cuda() for tensor in tensors], method="lmgc")
    assert torch.equal(here, there.cpu())
    assert all_identical(decompress(there.cpu()), tensors)
    assert all_identical(decompress(here.cuda()), [tensor.cuda() for tensor in tensors])


def test_a_bound_prior_decodes_on_its_device_only(bound_prior: Prior):
    there = copy.deepcopy(bound_prior).to("cuda")
    frame = compress(gradient(1000).cuda(), method="lmgc", prior=there)
    if info(frame).prior is None:
        pytest.skip("this device does not compute the same probabilities twice")
    assert identical(decompress(frame, prior=there), gradient(1000).cuda())
    with pytest.raises(PriorMismatchError, match="environment"):
        decompress(frame.cpu(), prior=bound_prior)


# ---- damaged frames ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["raw", "planes", "lm", "lmgc", "scale", "lowrank"])
def test_damaged_frames(
    method: str, prior: Prior, cuda_prior: Prior, residual_priors: tuple[Prior, Prior]
):
    """What the CPU says of a damaged frame, CUDA says too, and survives it."""
    tensors = [gradient(8, 40), gradient(100, dtype=torch.bfloat16)]
    if method == "lm":
        tensors[1] = paying()
        prior, cuda_prior = residual_priors
    if method == "lowrank":
        tensors = [batch_gradient(64, 90, rank=1, dtype=torch.bfloat16)]
    frame = to_bytes(compress(tensors, method=method, prior=prior, lane_elements=100))

    def outcome(data: bytes, device: torch.device, model: Prior) -> object:
        try:
            given = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)
            return [to_bytes(bits(tensor)) for tensor in decompress(given, prior=model)]
        except (CorruptFrameError, PriorMismatchError) as error:
            return type(error)

    for position in range(10, len(frame), 7 if len(frame) < 3000 else 37):
        changed = bytearray(frame)
        changed[position] ^= 0x55
        for data in (bytes(changed), resealed(bytes(changed))):
            assert outcome(data, CPU, prior) == outcome(data, CUDA, cuda_prior)
    for size in range(0, len(frame), 29):
        if size > 0:
            assert outcome(frame[:size], CUDA, cuda_prior) is CorruptFrameError
    with pytest.raises(CorruptFrameError):
        decompress(torch.empty(0, dtype=torch.uint8, device=CUDA))
    torch.cuda.synchronize()
    assert outcome(frame, CUDA, cuda_prior) == outcome(frame, CPU, prior)


# ---- PyTorch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["raw", "planes", "scale"])
def test_opcheck(method: str):
    torch.library.opcheck(ops().compress.default, ([gradient(8, 40).cuda()],), {"method": method})


def test_compile():
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.lmgc.compress([x * 2])

    x = gradient(50, 20).cuda()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        frame = torch.compile(function, backend="aot_eager", fullgraph=True)(x)
    assert torch.equal(frame, function(x))


# ---- short floats and tunable loss ---------------------------------------------------------------

LOSSES = [
    KeepBits(3),
    RelativeBound(0.01),
    AbsoluteBound(1e-3),
    BlockBits(6, 32),
    BlockBits(4),
    TopK(0.1),
    Threshold(0.01),
]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_loss_is_the_same(loss: Loss, dtype: torch.dtype, prior: Prior, cuda_prior: Prior):
    generator = torch.Generator().manual_seed(3)
    any_bits = torch.randint(0, 256, (3000 * dtype.itemsize,), generator=generator).byte()
    tensors = [from_bytes(to_bytes(any_bits), dtype, (50, 60)), gradient(40, 70).to(dtype)]
    rounded = loss(tensors)
    assert all_identical([tensor.cpu() for tensor in loss([t.cuda() for t in tensors])], rounded)
    for method in ("scale", "lowrank", "planes"):
        check(rounded, (prior, cuda_prior), method=method)
