"""Sequences of frames: each tells its factors relative to those of the frame before."""

import copy
import pickle
import threading

import pytest
import torch
from helpers import FLOATS, all_identical, identical, resealed
from hypothesis import given, settings
from hypothesis import strategies as st

import lmgc_torch
from lmgc_torch import (
    CorruptFrameError,
    PastFrame,
    PastMismatchError,
    WarmStart,
    compress,
    decompress,
    info,
    reference,
)

OPS = torch.ops.lmgc
PAST_FLAG = 2  # in byte 5 of a frame


def turning(
    steps: int,
    shape: tuple[int, ...] = (128, 96),
    rank: int = 12,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> list[torch.Tensor]:
    """Returns tensors whose singular vectors change within spaces that hardly do."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = shape[0], torch.Size(shape[1:]).numel()

    def normal(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator, dtype=torch.float64)

    left, right = normal(rows, rank), normal(rank, columns)
    result = []
    for _ in range(steps):
        left, right = left + 0.01 * normal(rows, rank), right + 0.01 * normal(rank, columns)
        matrix = left @ normal(rank, rank) @ right + 0.02 * normal(rows, columns)
        result.append((matrix * 1e-3).reshape(shape).to(dtype))
    return result


def sent(
    lists: list[list[torch.Tensor]], method: str = "lowrank", warm: WarmStart | None = None
) -> list[torch.Tensor]:
    """Sends lists one after the other, checks what arrives, and returns the frames."""
    sender, receiver, plain = PastFrame(), PastFrame(), reference.Past()
    frames = []
    for tensors in lists:
        frame = compress(tensors, method=method, past=sender, warm_start=warm)
        back = decompress(frame, past=receiver)
        assert all_identical(tensors, back)
        if sum(tensor.numel() for tensor in tensors) < 5000:
            told = reference.decode(bytes(frame.numpy()), past=plain)
            for one, tensor in zip(told, tensors, strict=True):
                flat = tensor.contiguous().view(-1)
                assert one.data == flat.view(torch.uint8).numpy().tobytes()
        frames.append(frame)
    return frames


@pytest.mark.parametrize("method", ["lowrank", "auto"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(128, 96), (96, 128), (24, 16, 5, 5)])
def test_frames_are_smaller_after_the_first(
    shape: tuple[int, ...], dtype: torch.dtype, method: str
):
    lists = [[tensor] for tensor in turning(4, shape, dtype=dtype)]
    frames = sent(lists, method)
    alone = [compress(tensors, method=method) for tensors in lists]
    assert torch.equal(frames[0], alone[0])
    assert not info(frames[0]).needs_past
    for frame, other in zip(frames[1:], alone[1:], strict=True):
        assert info(frame).needs_past
        assert info(frame).version == 3
        assert "needs the frame before it" in str(info(frame))
        assert frame.numel() < other.numel() - 0.003 * lists[0][0].nbytes


def test_the_plain_decoder_agrees():
    for dtype in FLOATS:
        for shape in ((48, 60), (8, 10, 6, 6)):
            lists = [[tensor] for tensor in turning(3, shape, rank=5, dtype=dtype)]
            lists[1][0][3:4] = 0  # lines that are dead now, others later
            lists[2][0][:, 2:4] = 0
            frames = sent(lists)
            assert info(frames[1]).needs_past
            assert info(frames[2]).needs_past


def test_with_a_warm_start():
    lists = [[tensor] for tensor in turning(6)]
    frames = sent(lists, warm=WarmStart())
    alone = [compress(tensors, method="lowrank") for tensors in lists]
    assert sum(f.numel() for f in frames) < 0.97 * sum(f.numel() for f in alone)


def test_what_gains_nothing_needs_no_past():
    generator = torch.Generator().manual_seed(3)
    lists = [[torch.randn(64, 64, generator=generator)] for _ in range(3)]
    lists += [[torch.zeros(64, 64)], [torch.arange(50)], []]
    for frame, tensors in zip(sent(lists), lists, strict=True):
        assert torch.equal(frame, compress(tensors, method="lowrank"))


def test_lists_whose_shapes_change():
    a, b, c = turning(3, (96, 160))
    d, e = turning(2, (160, 96))
    sent([[a], [b], [d], [c, e], [e, c], [d], [], [a, torch.arange(9)], [torch.arange(9), b], [c]])


def test_special_numbers_and_changes_of_size():
    lists = [[tensor * 2.0**k] for tensor, k in zip(turning(5), (0, 60, -60, 100, 0), strict=True)]
    for value in (float("nan"), float("inf"), -0.0, 1e-45):
        tensor = turning(1)[0]
        tensor[5, ::7] = value
        lists.append([tensor])
    lists += [[torch.full((128, 96), 3.4e38)], [torch.full((128, 96), float("nan"))], lists[0]]
    sent(lists)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_sequence_comes_back(data: st.DataObject):
    dtype = data.draw(st.sampled_from(FLOATS))
    shape = data.draw(st.sampled_from([(40,), (33, 65), (65, 33), (8, 6, 5, 5), (40, 40)]))
    rank, seed = data.draw(st.integers(1, 8)), data.draw(st.integers(0, 2**16))
    lists = []
    for tensor in turning(data.draw(st.integers(2, 5)), shape, rank, dtype, seed):
        if data.draw(st.booleans()):
            value = data.draw(st.sampled_from([0.0, -0.0, float("nan"), float("inf"), 1e-40, 1e30]))
            tensor[data.draw(st.integers(0, shape[0] - 1))] = torch.tensor(value).to(dtype)
        lists.append([tensor])
    sent(lists, data.draw(st.sampled_from(["lowrank", "auto"])))


# ---- what does not fit ---------------------------------------------------------------------------


def test_frames_that_are_lost_or_out_of_order():
    tensors = turning(4)
    sender, receiver = PastFrame(), PastFrame()
    frames = [compress(tensor, method="lowrank", past=sender) for tensor in tensors]
    with pytest.raises(PastMismatchError, match="decompress the whole sequence"):
        decompress(frames[1])
    with pytest.raises(PastMismatchError, match="another one"):
        decompress(frames[1], past=receiver)
    decompress(frames[0], past=receiver)
    with pytest.raises(PastMismatchError, match="frames were lost"):
        decompress(frames[2], past=receiver)
    # The receiver is as it was.
    for frame, tensor in zip(frames[1:], tensors[1:], strict=True):
        assert identical(decompress(frame, past=receiver), tensor)
    with pytest.raises(PastMismatchError):
        decompress(frames[3], past=receiver)
    with pytest.raises(PastMismatchError):
        reference.decode(bytes(frames[2].numpy()), past=reference.Past())


def test_a_sender_that_is_cleared_begins_anew():
    first, second, third = turning(3)
    sender, receiver = PastFrame(), PastFrame()
    decompress(compress(first, method="lowrank", past=sender), past=receiver)
    sender.clear()
    frame = compress(second, method="lowrank", past=sender)
    assert torch.equal(frame, compress(second, method="lowrank"))
    decompress(frame, past=receiver)
    frame = compress(third, method="lowrank", past=sender)
    assert info(frame).needs_past
    assert identical(decompress(frame, past=receiver), third)
    receiver.clear()
    with pytest.raises(PastMismatchError):
        decompress(frame, past=receiver)


def test_other_methods_leave_it_as_it_is():
    first, second = turning(2)
    sender, receiver = PastFrame(), PastFrame()
    decompress(compress(first, method="lowrank", past=sender), past=receiver)
    for method in ("raw", "planes", "scale", "lm"):
        frame = compress(second, method=method, past=sender)
        assert torch.equal(frame, compress(second, method=method))
        assert identical(decompress(frame), second)
    frame = compress(second, method="lowrank", past=sender)
    assert info(frame).needs_past
    assert identical(decompress(frame, past=receiver), second)


def test_copies_and_pickles_are_empty():
    first, second = turning(2)
    past = PastFrame()
    compress(first, method="lowrank", past=past)
    alone = compress(second, method="lowrank")
    for other in (pickle.loads(pickle.dumps(past)), copy.copy(past), copy.deepcopy(past)):
        assert isinstance(other, PastFrame)
        assert torch.equal(compress(second, method="lowrank", past=other), alone)


def test_threads_take_turns():
    past, tensors = PastFrame(), turning(3, (64, 64))
    frames: list[torch.Tensor] = []

    def work() -> None:
        frames.extend(compress(tensor, method="lowrank", past=past) for tensor in tensors)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(frames) == 9


def test_wrong_arguments():
    with pytest.raises(TypeError, match="past is of type dict"):
        compress(torch.zeros(4), past={})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="past is of type WarmStart"):
        decompress(compress(torch.zeros(4)), past=WarmStart())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="past frames are for"):
        lmgc_torch._library.ops().compress.past([], PastFrame().handle, method="planes")
    with pytest.raises(lmgc_torch.PriorMismatchError):
        decompress(compress(turning(1)[0], method="lm"), past=PastFrame())


# ---- hostile bytes -------------------------------------------------------------------------------


def test_damage_is_an_error_on_both_sides():
    first, second = turning(2, (40, 36), rank=4)
    sender = PastFrame()
    frames = [compress(t, method="lowrank", past=sender) for t in (first, second)]
    assert info(frames[1]).needs_past
    good = bytes(frames[1].numpy())
    header = info(frames[1]).header_bytes
    generator = torch.Generator().manual_seed(0)
    places = [*range(header, header + 150)]
    places += torch.randint(header, len(good), (150,), generator=generator).tolist()
    told = 0
    before = reference.Past()
    reference.decode(bytes(frames[0].numpy()), past=before)
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << int(torch.randint(8, (), generator=generator))
        receiver, plain = PastFrame(), copy.deepcopy(before)
        decompress(frames[0], past=receiver)
        outcomes = []
        for decode in (
            lambda data, past=receiver: decompress(data, past=past),
            lambda data, past=plain: reference.decode(data, past=past)[0].data,
        ):
            try:
                decoded = decode(resealed(bytes(bad)))
            except CorruptFrameError:
                outcomes.append("refused")
                continue
            outcomes.append("decoded")
            if isinstance(decoded, torch.Tensor):
                assert identical(decoded, second)  # the data's checksum has seen to it
        assert outcomes[0] == outcomes[1], place
        told += outcomes[0] == "refused"
    assert told > 200


def test_a_section_with_projections_in_a_frame_that_names_no_past():
    first, second = turning(2, (40, 36), rank=4)
    sender, receiver = PastFrame(), PastFrame()
    decompress(compress(first, method="lowrank", past=sender), past=receiver)
    frame = bytearray(compress(second, method="lowrank", past=sender).numpy())
    begin = 10 + 1 + len(info(bytes(frame)).metadata)  # behind the metadata
    frame[5] &= ~PAST_FLAG
    del frame[begin : begin + 8]
    size = int.from_bytes(frame[6:10], "little") - 8
    frame[6:10] = size.to_bytes(4, "little")
    alone = resealed(bytes(frame))
    for past in (None, receiver):
        with pytest.raises(CorruptFrameError, match="contradicts"):
            decompress(alone, past=past)
    with pytest.raises(CorruptFrameError):
        reference.decode(alone)
    frame[4] = 2  # a version that has no such flag
    frame[5] |= PAST_FLAG
    with pytest.raises(CorruptFrameError):
        decompress(resealed(bytes(frame)), past=receiver)
