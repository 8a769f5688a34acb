"""Distributed checkpoints: compressed streams give back every byte, and damage has a name."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from helpers import DTYPES, bits, from_bytes, gradient, identical
from ranks import run_ranks
from torch import Tensor, nn
from torch.distributed.checkpoint import CheckpointException, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.filesystem import SerializationFormat
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import lmgc_torch
from lmgc_torch.distributed import checkpoint
from lmgc_torch.distributed.checkpoint import CheckpointCompression, checkpoint_registry
from lmgc_torch.errors import CorruptFrameError

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = ["raw", "planes", "lowrank", "auto"]


class Sink(io.BytesIO):
    """Keeps what was written when it is closed; `closed_by_us` tells that it was."""

    closed_by_us = False

    def close(self) -> None:
        self.closed_by_us = True


class Source(io.RawIOBase):
    """Cannot seek, and gives a few bytes at a time."""

    def __init__(self, data: bytes, most: int = 1000) -> None:
        self.data, self.place, self.most = data, 0, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self.data[self.place :][: min(len(buffer), self.most)]
        buffer[: len(piece)] = piece
        self.place += len(piece)
        return len(piece)


def compressed(write: Callable[[Any], object], method: Any = "planes") -> bytes:
    sink = Sink()
    stream = CheckpointCompression(method).transform_to(sink)
    write(stream)
    stream.close()
    stream.close()  # twice is as good
    assert sink.closed_by_us
    return sink.getvalue()


def restored(data: bytes) -> bytes:
    return CheckpointCompression().transform_from(io.BytesIO(data)).read()


# ---- streams -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_comes_back(dtype: torch.dtype, method: str) -> None:
    size = 30_000
    tensor = from_bytes(torch.arange(size * 16).byte().numpy().tobytes(), dtype, [-1])[:size]
    tensor = tensor.reshape(100, 300)
    data = compressed(lambda stream: torch.save(tensor, stream), method)
    stream = CheckpointCompression().transform_from(io.BytesIO(data))
    assert stream.seekable()
    assert identical(torch.load(stream, weights_only=True), tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.5),
        torch.empty(0, 3),
        torch.randn(5),
        gradient(1000, 700),
        gradient(1000, 700)[:, ::2],
        gradient(1000, 700).t(),
        gradient(40, 30, 3, 3).to(memory_format=torch.channels_last),
        gradient(700_000, 5).bfloat16(),
        torch.randn(1, 3 << 20),  # one row of more than a block
    ],
    ids=lambda tensor: str(list(tensor.shape)),
)
def test_any_shape_comes_back(tensor: Tensor) -> None:
    data = compressed(lambda stream: torch.save(tensor, stream))
    back = torch.load(CheckpointCompression().transform_from(io.BytesIO(data)))
    assert identical(back, tensor)
    assert back.stride() == tensor.stride()


def test_size_is_that_of_the_tensor_by_itself() -> None:
    """Type and shape are found: an archive is as small as its tensor, and its text."""
    left, right = torch.randn(512, 4), torch.randn(4, 512)
    matrix = 1e-3 * (left @ right)
    for method in ("planes", "lowrank"):
        alone = lmgc_torch.compress(matrix, method=method).nbytes  # type: ignore[arg-type]
        assert len(compressed(lambda stream: torch.save(matrix, stream), method)) < alone + 1500
    # In the order of memory, and of more blocks than one.
    turned = len(compressed(lambda stream: torch.save(matrix.t(), stream), "lowrank"))
    assert turned < alone + 1500
    large = torch.cat([matrix] * 12)
    assert len(compressed(lambda stream: torch.save(large, stream), "lowrank")) < 12 * alone + 1500


def test_archives_of_several_tensors_and_other_objects() -> None:
    tensors = {"a": gradient(300, 50), "b": gradient(70, 80).double(), "c": torch.zeros(3)}
    things = {"tensors": tensors, "more": [1, "two", {3.0}], "parameter": nn.Parameter(gradient(9))}
    for thing in (tensors, things):
        data = compressed(lambda stream, thing=thing: torch.save(thing, stream))
        archive = io.BytesIO()
        torch.save(thing, archive)
        assert len(data) < 0.95 * len(archive.getvalue())
        back = torch.load(io.BytesIO(restored(data)), weights_only=False)
        back = back.get("tensors", back)
        assert all(identical(back[name], tensors[name]) for name in tensors)


def test_any_bytes_in_any_pieces() -> None:
    floats = bits(gradient(1_000_003)).numpy().tobytes()[:-1]
    noise = torch.randint(256, (70_001,), dtype=torch.uint8).numpy().tobytes()
    for content in (
        b"x",
        floats,
        noise,
        b"PK\x03\x04" + noise,
        b"PK\x03\x04" + b"\0" * 40 + floats,
    ):
        for piece in (1000, 4096, 50_001, 1 << 30):

            def write(stream: Any, content: bytes = content, piece: int = piece) -> None:
                for start in range(0, len(content), piece):
                    part = content[start : start + piece]
                    assert stream.write(part) == len(part)
                    stream.write(b"")
                    stream.flush()

            data = compressed(write)
            assert restored(data) == content
            assert len(data) < 1.002 * len(content) + 300
            if content is floats:
                assert len(data) < 0.9 * len(content)


def test_arrays_and_buffers_that_change_afterwards() -> None:
    def write(stream: Any) -> None:
        buffer = bytearray(b"a" * 5000)
        stream.write(buffer)
        buffer[:] = b"b" * 5000
        stream.write(memoryview(buffer)[:10])
        buffer[:] = b"c" * 5000
        stream.write(torch.tensor([1, 2], dtype=torch.int32).numpy())

    assert restored(compressed(write)) == b"a" * 5000 + b"b" * 10 + struct.pack("<ii", 1, 2)


def test_a_source_that_cannot_seek() -> None:
    data = compressed(lambda stream: torch.save(gradient(500, 100), stream))
    stream = CheckpointCompression().transform_from(Source(data))  # type: ignore[arg-type]
    assert identical(torch.load(stream), gradient(500, 100))


def test_a_stream_without_an_end() -> None:
    """Whoever fails while writing leaves no stream behind that looks complete."""
    sink = Sink()
    stream = CheckpointCompression().transform_to(sink)
    stream.write(b"a" * 20_000_000)
    del stream
    assert not sink.closed_by_us
    with pytest.raises(CorruptFrameError, match="ends within a block"):
        restored(sink.getvalue())


# ---- damage --------------------------------------------------------------------------------------


def test_damage_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "BLOCK_BYTES", 3000)
    data = compressed(lambda stream: stream.write(bits(gradient(1500)).numpy().tobytes()))
    assert restored(data) == bits(gradient(1500)).numpy().tobytes()
    for place in [*range(150), *range(150, len(data), 5), *range(len(data) - 20, len(data))]:
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with pytest.raises(CorruptFrameError):
            restored(bytes(changed))
    for size in range(0, len(data), 13):
        with pytest.raises(CorruptFrameError):
            restored(data[:size])
    with pytest.raises(CorruptFrameError, match="do not add up"):
        restored(data + b"\0")


def test_frames_that_are_not_ours() -> None:
    def stream(tensors: Any, raw: int) -> bytes:
        frame = lmgc_torch.compress(tensors).numpy().tobytes()
        head = struct.pack("<QQ", len(frame), raw)
        return checkpoint.MAGIC + head + frame + struct.pack("<QQ", 0, raw)

    zeros = torch.zeros(1000, dtype=torch.uint8)
    assert restored(stream([zeros], 1000)) == bytes(1000)
    with pytest.raises(CorruptFrameError, match="holds no list"):
        restored(stream(zeros, 1000))
    with pytest.raises(CorruptFrameError, match="999 bytes of tensors were expected"):
        restored(stream([zeros], 999))
    with pytest.raises(CorruptFrameError, match="does not hold 1001 bytes"):
        restored(stream([zeros], 1001))
    with pytest.raises(CorruptFrameError, match="cannot be"):
        restored(stream([torch.zeros(1 << 25)], 1 << 27))
    with pytest.raises(CorruptFrameError, match="is of version 9; this lmgc_torch reads version 1"):
        restored(b"LMGCDCP\x09" + stream([zeros], 1000)[8:])
    with pytest.raises(CorruptFrameError, match="is no stream of"):
        restored(b"LMGCDCQ\x01" + stream([zeros], 1000)[8:])


def test_names_and_versions() -> None:
    descriptor = CheckpointCompression("lowrank").get_descriptor()
    assert descriptor == "stream.lmgc/1"
    (extension,) = checkpoint_registry().from_descriptor_list([descriptor])
    assert isinstance(extension, CheckpointCompression)
    assert checkpoint_registry().from_descriptor_list(["stream.lmgc/1"])
    with pytest.raises(ValueError, match=r"version '2' of stream.lmgc; this lmgc_torch reads"):
        checkpoint_registry().from_descriptor_list(["stream.lmgc/2"])
    with pytest.raises(ValueError, match="method is 'zip'; it must be one of 'auto'"):
        CheckpointCompression("zip")  # type: ignore[arg-type]


# ---- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_safetensors_pass_by(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    writer = FileSystemWriter(
        tmp_path,
        serialization_format=SerializationFormat.SAFETENSORS,
        _extensions=[CheckpointCompression()],
    )
    dcp.save({"weight": gradient(100, 70)}, storage_writer=writer)
    (file,) = tmp_path.glob("*.distcp")
    assert identical(load_file(file)["weight"], gradient(100, 70))


def training(seed: int, shard: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(90, 251), nn.Tanh(), nn.Linear(251, 90))
    if shard:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        fully_shard(model[0], mesh=mesh)
        fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(3):
        model(torch.randn(4, 90)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments, "step": 3, "notes": "any object"}


def tensors_in(state: Any) -> list[Tensor]:
    if isinstance(state, DTensor):
        return [state.to_local()]
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state
    return (
        []
        if isinstance(state, str | int | float | bool | None)
        else [tensor for value in values for tensor in tensors_in(value)]
    )


def _checkpoints(rank: int, folder: Path) -> dict[str, int]:
    sizes = {}
    for shard in (True, False):
        saved = state_of(*training(1, shard))
        for method in (None, "planes", "lowrank"):
            path = folder / f"{method} {shard}"
            extensions = [CheckpointCompression(method)] if method else None
            writer = FileSystemWriter(
                path, _extensions=extensions, thread_count=2, sync_files=False
            )
            dcp.save(saved, storage_writer=writer)
            sizes[path.name] = sum(file.stat().st_size for file in path.glob("*.distcp"))

            model, optimizer = training(2, shard)
            loaded = state_of(model, optimizer)
            loaded["step"], loaded["notes"] = 0, ""
            reader = FileSystemReader(path, _extension_registry=checkpoint_registry())
            dcp.load(loaded, storage_reader=reader)
            assert (loaded["step"], loaded["notes"]) == (3, "any object")
            set_state_dict(
                model,
                optimizer,
                model_state_dict=loaded["model"],
                optim_state_dict=loaded["optimizer"],
            )
            pairs = list(
                zip(tensors_in(saved), tensors_in(state_of(model, optimizer)), strict=True)
            )
            assert len(pairs) == 4 + 4 * 3  # weights; two moments and a step each
            assert all(identical(one, two) for one, two in pairs)

    # What was saved in shards is read as a whole.
    whole = training(2, False)[0].state_dict()
    reader = FileSystemReader(folder / "lowrank True", _extension_registry=checkpoint_registry())
    dcp.load({"model": whole}, storage_reader=reader)
    expected = training(1, True)[0].state_dict()
    assert all(identical(whole[name], expected[name].full_tensor()) for name in expected)

    dist.barrier()
    path = folder / "planes True"
    if rank == 0:
        for file in path.glob("*.distcp"):
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 0x10
            file.write_bytes(data)
    dist.barrier()
    reader = FileSystemReader(path, _extension_registry=checkpoint_registry())
    with pytest.raises(CheckpointException, match="CorruptFrameError") as caught:
        dcp.load(state_of(*training(2, True)), storage_reader=reader)
    assert all(isinstance(e, CorruptFrameError) for e, _ in caught.value.failures.values())
    return sizes


def test_checkpoints_of_two_ranks(tmp_path: Path) -> None:
    sizes, _ = run_ranks(_checkpoints, 2, tmp_path)
    for shard in (True, False):
        plain, planes, lowrank = (sizes[f"{m} {shard}"] for m in (None, "planes", "lowrank"))
        assert planes < 0.87 * plain
        assert lowrank < 0.85 * planes
