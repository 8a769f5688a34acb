"""Warm starts: sequences of lists come back bit for bit, and hardly larger than without one."""

import copy
import pickle
import threading

import pytest
import torch
from helpers import FLOATS, all_identical, identical
from hypothesis import given, settings
from hypothesis import strategies as st

import lmgc_torch
from lmgc_torch import WarmStart, compress, decompress, info

OPS = torch.ops.lmgc


def drifting(
    steps: int,
    shape: tuple[int, ...] = (96, 160),
    rank: int = 12,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> list[torch.Tensor]:
    """Returns a sequence of nearly low-rank tensors: factors that drift, other noise each step."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = shape[0], torch.Size(shape[1:]).numel()

    def normal(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator)

    left, right = normal(rows, rank), normal(rank, columns)
    lines = torch.exp2(normal(rows, 1))
    result = []
    for _ in range(steps):
        left, right = left + 0.3 * normal(rows, rank), right + 0.3 * normal(rank, columns)
        matrix = left @ right + 0.02 * normal(rows, columns)
        result.append((lines * matrix * 1e-3).reshape(shape).to(dtype))
    return result


def sizes_of(lists: list[list[torch.Tensor]], warm: WarmStart | None, method: str) -> list[int]:
    """Compresses lists one after the other, checks what comes back, and returns the sizes."""
    sizes = []
    for tensors in lists:
        frame = compress(tensors, method=method, warm_start=warm)
        back = decompress(frame)
        assert len(back) == len(tensors)
        assert all_identical(tensors, back)
        sizes.append(frame.numel())
    return sizes


@pytest.mark.parametrize("method", ["lowrank", "auto"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(96, 160), (160, 96), (24, 16, 5, 5)])
def test_sequences_are_hardly_larger_than_without(
    shape: tuple[int, ...], dtype: torch.dtype, method: str
):
    lists = [[tensor] for tensor in drifting(6, shape, dtype=dtype)]
    cold = sizes_of(lists, None, method)
    warm = sizes_of(lists, WarmStart(), method)
    raw = lists[0][0].nbytes
    assert warm[0] == cold[0]
    for own, other in zip(warm, cold, strict=True):
        assert own <= other + 0.01 * raw


def test_a_convolution_is_seen_by_dimension_1_again():
    # The columns of dimension 1 by the rest are of low rank, those of dimension 0 are not.
    tensors = [t.transpose(0, 1).contiguous() for t in drifting(4, (64, 32, 3, 3), rank=6)]
    lists = [[tensor] for tensor in tensors]
    cold = sizes_of(lists, None, "lowrank")
    warm = sizes_of(lists, WarmStart(), "lowrank")
    assert max(w - c for w, c in zip(warm, cold, strict=True)) < 0.01 * tensors[0].nbytes


@pytest.mark.parametrize("ranks", [(4, 24, 48), (48, 24, 4), (16, 0, 16)])
def test_ranks_grow_and_shrink(ranks: tuple[int, ...]):
    lists = []
    for k, rank in enumerate(ranks):
        generator = torch.Generator().manual_seed(k)
        for _ in range(6):
            left = torch.randn(128, rank, generator=generator)
            right = torch.randn(rank, 192, generator=generator)
            noise = torch.randn(128, 192, generator=generator)
            lists.append([left @ right + 0.01 * noise])
    cold = sizes_of(lists, None, "lowrank")
    warm = sizes_of(lists, WarmStart(), "lowrank")
    scale = sizes_of(lists, None, "scale")
    for k in range(len(ranks)):
        last = 6 * k + 5  # of those of one rank
        if ranks[k] != 0 and 0 not in ranks:
            assert warm[last] <= cold[last] + 0.01 * lists[0][0].nbytes
    assert all(w <= s + 64 for w, s in zip(warm, scale, strict=True))


def special(value: float, shape: tuple[int, int] = (96, 160)) -> torch.Tensor:
    tensor = drifting(1, shape)[0]
    tensor[3, 5] = value
    tensor[40, ::7] = value
    return tensor


def test_numbers_that_are_none_and_zeros():
    tensors = [
        *drifting(2),
        special(float("nan")),
        special(float("inf")),
        drifting(1)[0],
        torch.zeros(96, 160),
        drifting(1)[0],
        torch.full((96, 160), float("nan")),
        -torch.zeros(96, 160),
        special(-0.0),
        special(1e-45),
        torch.full((96, 160), 3.4e38),
        torch.randn(96, 160) * 1e-44,
        *drifting(2),
    ]
    for method in ("lowrank", "auto"):
        lists = [[tensor] for tensor in tensors]
        warm = sizes_of(lists, WarmStart(), method)
        scale = sizes_of(lists, None, "scale")
        assert all(w <= s + 64 for w, s in zip(warm, scale, strict=True))


def test_lines_of_zeros_come_and_go():
    lists = []
    for k, tensor in enumerate(drifting(6)):
        tensor[k : 3 * k] = 0
        tensor[:, 5 * k : 7 * k] = 0
        lists.append([tensor])
    cold = sizes_of(lists, None, "lowrank")
    warm = sizes_of(lists, WarmStart(), "lowrank")
    assert all(w <= 1.01 * c for w, c in zip(warm, cold, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrices_that_are_of_low_rank_but_for_rounding(dtype: torch.dtype):
    lists = []
    for k in range(4):
        generator = torch.Generator().manual_seed(k)
        left = torch.randn(200, 8, generator=generator, dtype=torch.float64)
        right = torch.randn(8, 300, generator=generator, dtype=torch.float64)
        lists.append([(left @ right).to(dtype)])
    cold = sizes_of(lists, None, "lowrank")
    warm = sizes_of(lists, WarmStart(), "lowrank")
    assert all(w <= 1.05 * c for w, c in zip(warm, cold, strict=True))


def test_changes_of_size_by_many_octaves():
    lists = [[tensor * 2.0**k] for tensor, k in zip(drifting(5), (0, 60, -60, 100, 0), strict=True)]
    cold = sizes_of(lists, None, "lowrank")
    warm = sizes_of(lists, WarmStart(), "lowrank")
    assert all(w <= 1.02 * c for w, c in zip(warm, cold, strict=True))


def test_lists_whose_shapes_change():
    a, b = drifting(1, (96, 160))[0], drifting(1, (160, 96))[0]
    lists = [[a], [b], [], [a, b], [b, a], [b], [b.double()], [a, torch.arange(1000)], [a]]
    for method in ("lowrank", "auto"):
        assert sizes_of(lists, WarmStart(), method) == sizes_of(lists, None, method)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_sequence_comes_back(data: st.DataObject):
    warm = WarmStart()
    dtype = data.draw(st.sampled_from(FLOATS))
    shape = data.draw(st.sampled_from([(40,), (33, 65), (65, 33), (8, 6, 5, 5), (40, 40)]))
    for _ in range(data.draw(st.integers(2, 6))):
        seed = data.draw(st.integers(0, 2**16))
        generator = torch.Generator().manual_seed(seed)
        tensor = torch.randn(shape, generator=generator)
        if data.draw(st.booleans()) and len(shape) > 1:
            tensor = drifting(1, shape, rank=data.draw(st.integers(1, 8)), seed=seed)[0]
        if data.draw(st.booleans()):
            tensor[data.draw(st.integers(0, shape[0] - 1))] = data.draw(
                st.sampled_from([0.0, -0.0, float("nan"), float("inf"), 1e-40, 1e30])
            )
        method = data.draw(st.sampled_from(["lowrank", "auto"]))
        sizes_of([[tensor.to(dtype)]], warm, method)


def test_it_changes_of_method():
    warm = WarmStart()
    tensors = drifting(6)
    for tensor, method in zip(tensors, ["auto", "lowrank"] * 3, strict=True):
        assert identical(tensor, decompress(compress(tensor, method=method, warm_start=warm)))


@pytest.mark.parametrize("method", ["raw", "planes", "scale", "lm"])
def test_other_methods_ignore_it(method: str):
    tensor, warm = drifting(1)[0], WarmStart()
    frame = compress(tensor, method=method, warm_start=warm)
    assert torch.equal(frame, compress(tensor, method=method))


def test_clear_begins_anew():
    first, second = drifting(2)
    warm = WarmStart()
    compress(first, method="lowrank", warm_start=warm)
    warm.clear()
    frame = compress(second, method="lowrank", warm_start=warm)
    assert torch.equal(frame, compress(second, method="lowrank"))


def test_copies_and_pickles_are_empty():
    first, second = drifting(2)
    warm = WarmStart()
    compress(first, method="lowrank", warm_start=warm)
    cold = compress(second, method="lowrank")
    for other in (pickle.loads(pickle.dumps(warm)), copy.copy(warm), copy.deepcopy(warm)):
        assert isinstance(other, WarmStart)
        assert torch.equal(compress(second, method="lowrank", warm_start=other), cold)


def test_threads_take_turns():
    warm = WarmStart()
    lists = [drifting(4, shape) for shape in ((96, 160), (64, 64))]
    wrong: list[BaseException] = []

    def work(tensors: list[torch.Tensor]) -> None:
        try:
            sizes_of([[tensor] for tensor in tensors * 3], warm, "lowrank")
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(lists[k % 2],)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_full_searches_come_again():
    # In the first call there is nothing to predict; that is not for ever.
    generator = torch.Generator().manual_seed(1)
    warm = WarmStart()
    noise = [torch.randn(96, 160, generator=generator)]
    lists = [noise] + [[tensor] for tensor in drifting(10)]
    for tensors in lists:
        frame = compress(tensors, method="lowrank", warm_start=warm)
    assert info(frame).tensors[0].method == "lowrank"


def test_wrong_arguments():
    with pytest.raises(TypeError, match="warm_start is of type dict"):
        compress(torch.zeros(4), warm_start={})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="warm starts and past frames are for"):
        lmgc_torch._library.ops().compress.warm([], WarmStart().handle, method="planes")
