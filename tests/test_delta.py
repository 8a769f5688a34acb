"""Tensors that are told relative to a reference which the receiver holds as well."""

import pytest
import torch
from helpers import FLOATS, all_identical, identical, resealed
from hypothesis import given, settings
from hypothesis import strategies as st

import lmgc_torch
from lmgc_torch import (
    CorruptFrameError,
    ReferenceMismatchError,
    compress,
    decompress,
    info,
    reference,
)

OPS = torch.ops.lmgc
METHODS = ["auto", "lowrank", "scale"]


def two_steps(
    shape: tuple[int, ...], dtype: torch.dtype, change: float = 1e-3, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns weights and those of some steps before."""
    generator = torch.Generator().manual_seed(seed)
    before, step = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return (before + change * step).to(dtype), before.to(dtype)


def check(
    tensors: list[torch.Tensor], references: list[torch.Tensor], method: str
) -> lmgc_torch.FrameInfo:
    """Compresses, checks what both decoders make of it, and returns what is in the frame."""
    frame = compress(tensors, method=method, reference=references)
    back = decompress(frame, reference=references)
    assert all_identical(tensors, back)
    flat = [one.contiguous().view(-1).view(torch.uint8) for one in (*tensors, *references)]
    raw = [one.numpy().tobytes() for one in flat]
    if sum(tensor.numel() for tensor in tensors) < 5000:
        told = reference.decode(bytes(frame.numpy()), reference=raw[len(tensors) :])
        assert [one.data for one in told] == raw[: len(tensors)]
    return info(frame)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(60, 70), (500,), (8, 6, 5, 5), (2, 40)])
def test_a_reference_makes_it_smaller(shape: tuple[int, ...], dtype: torch.dtype, method: str):
    now, before = two_steps(shape, dtype)
    about = check([now], [before], method)
    assert about.version == 3
    assert about.tensors[0].needs_reference
    assert "needs the reference" in str(about)
    assert about.bytes < 0.95 * compress([now], method=method).numel()


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_has_not_changed_takes_next_to_nothing(dtype: torch.dtype):
    for shape in ((200, 300), (5000,), (16, 8, 5, 5)):
        now, _ = two_steps(shape, dtype)
        assert check([now], [now.clone()], "auto").bytes < 200 + now.nbytes / 50


def test_a_difference_of_low_rank():
    generator = torch.Generator().manual_seed(1)
    before = torch.randn(200, 300, generator=generator)
    left, right = (torch.randn(n, 4, generator=generator) for n in (200, 300))
    now = before + 0.01 * left @ right.T
    about = check([now], [before], "lowrank")
    assert about.tensors[0].rank > 0
    scale = check([now], [before], "scale")
    assert scale.tensors[0].rank == 0
    assert about.bytes < 0.9 * scale.bytes


def test_elements_that_all_shrink():
    generator = torch.Generator().manual_seed(2)
    before = torch.rand(100, 200, generator=generator) * 1e-8
    now = 0.999 * before + 1e-13 * torch.rand(100, 200, generator=generator)
    other = 1.001 * before * torch.rand(100, 200, generator=generator)
    assert check([now], [before], "scale").bytes < 0.5 * now.nbytes
    check([other], [before], "scale")


def test_the_smaller_of_with_and_without():
    now, _ = two_steps((60, 70), torch.float32)
    _, other = two_steps((60, 70), torch.float32, seed=5)
    for method in METHODS:
        about = check([now], [other], method)
        assert not about.tensors[0].needs_reference
        assert about.version == 1
        assert about.bytes == compress([now], method=method).numel()


def test_short_floats():
    now, before = two_steps((60, 70), torch.bfloat16)
    about = check([now.float()], [before.float()], "auto")
    assert about.tensors[0].needs_reference
    assert about.bytes < 0.6 * check([now], [before], "auto").bytes + now.nbytes / 4
    # The reference has bits that the tensor lacks.
    _, whole = two_steps((60, 70), torch.float32)
    assert check([now.float()], [whole], "auto").tensors[0].needs_reference


def test_forms():
    now, before = two_steps((30, 40), torch.float32)
    more = {"bias": now[0].clone(), "step": torch.tensor(7), "empty": torch.empty(0)}
    tensors = {"weight": now, **more}
    references = {"weight": before, "step": torch.tensor(6), "unused": now}
    frame = compress(tensors, reference=references)
    back = decompress(frame, reference=references)
    assert list(back) == list(tensors)
    assert all(identical(back[name], tensors[name]) for name in tensors)
    assert [t.needs_reference for t in info(frame).tensors] == [True, False, False, False]
    assert identical(decompress(compress(now, reference=before), reference=before), now)
    # Other shapes and dtypes are no references.
    for other in (before.double(), before.T.contiguous(), torch.zeros(30, 40, dtype=torch.int32)):
        about = info(compress([now], reference=[other]))
        assert not about.tensors[0].needs_reference


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_any_numbers_come_back(data: st.DataObject):
    dtype = data.draw(st.sampled_from(FLOATS))
    shape = data.draw(st.sampled_from([(40,), (20, 33), (6, 5, 4, 4), (3,), ()]))
    change = data.draw(st.sampled_from([0.0, 1e-6, 1e-2, 1.0, 100.0]))
    now, before = two_steps(shape, dtype, change, data.draw(st.integers(0, 2**16)))
    size = data.draw(st.sampled_from([1.0, 2.0**-100, 2.0**100, 2.0**-1040]))
    now, before = now * size, before * data.draw(st.sampled_from([1.0, size]))
    values = [0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1e-45, 3e38]
    for tensor in (now, before):
        for value in data.draw(st.lists(st.sampled_from(values), max_size=3)):
            if tensor.dim() > 0:
                tensor[data.draw(st.integers(0, shape[0] - 1))] = value
    check([now], [before], data.draw(st.sampled_from(METHODS)))


# ---- what does not fit ---------------------------------------------------------------------------


def test_another_reference_is_refused():
    now, before = two_steps((30, 40), torch.float32)
    frame = compress([now], reference=[before])
    for other in (before + 1, before[:20].clone(), before.double(), torch.empty(0)):
        with pytest.raises(ReferenceMismatchError, match="tensor 0"):
            decompress(frame, reference=[other])
        raw = other.reshape(-1).view(torch.uint8).numpy().tobytes()
        with pytest.raises(ReferenceMismatchError):
            reference.decode(bytes(frame.numpy()), reference=[raw])
    with pytest.raises(ReferenceMismatchError, match="pass the same one"):
        decompress(frame)


def test_wrong_arguments():
    now, before = two_steps((30, 40), torch.float32)
    for wrong in (before, [before, before], {"weight": before}, []):
        with pytest.raises(ValueError, match="reference"):
            compress([now, now, now], reference=wrong)
    with pytest.raises(ValueError, match="the reference must be a dict"):
        compress({"weight": now}, reference=[before])
    with pytest.raises(TypeError):
        compress([now], reference=[7])
    past = lmgc_torch.PastFrame()
    with pytest.raises(ValueError, match="goes neither with"):
        compress([now], reference=[before], past=past)
    with pytest.raises(ValueError, match="does not go with past"):
        decompress(compress([now]), reference=[before], past=past)
    with pytest.raises(ValueError, match="references are for"):
        OPS.compress.reference([now], [before], method="planes")
    for method in ("raw", "planes", "lm"):
        frame = compress([now], method=method, reference=[before])
        assert torch.equal(frame, compress([now], method=method))


def test_damage_is_an_error_on_both_sides():
    now, before = two_steps((30, 34), torch.float32)
    frame = bytes(compress([now], method="scale", reference=[before]).numpy())
    raw = before.view(-1).view(torch.uint8).numpy().tobytes()
    header = info(frame).header_bytes
    generator = torch.Generator().manual_seed(0)
    places = [*range(header, header + 100)]
    places += torch.randint(header, len(frame), (100,), generator=generator).tolist()
    refused = 0
    for place in places:
        bad = bytearray(frame)
        bad[place] ^= 1 << int(torch.randint(8, (), generator=generator))
        outcomes = []
        for decode in (
            lambda data: decompress(data, reference=[before])[0],
            lambda data: reference.decode(data, reference=[raw]),
        ):
            try:
                decoded = decode(resealed(bytes(bad)))
            except (CorruptFrameError, ReferenceMismatchError) as error:
                outcomes.append(type(error))
                continue
            outcomes.append(None)
            if isinstance(decoded, torch.Tensor):
                assert identical(decoded, now)  # the data's checksum has seen to it
        assert outcomes[0] == outcomes[1], place
        refused += outcomes[0] is not None
    assert refused > 150
