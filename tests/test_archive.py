"""Archives of named tensors: `save_file`, `load_file`, `safe_open`, and what they refuse."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers import DTYPES, all_identical, bits, from_bytes, gradient, identical, python, to_bytes
from hypothesis import given
from hypothesis import strategies as st

import lmgc_torch
from lmgc_torch import (
    CorruptArchiveError,
    Prior,
    PriorMismatchError,
    files,
    load_file,
    reference,
    safe_open,
    save_file,
)
from lmgc_torch.archive import ArchiveReader, ArchiveWriter
from lmgc_torch.archive.container import HEAD

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {
        "weight": gradient(40, 30),
        "large": gradient(300, 300),
        "half": gradient(100, dtype=torch.bfloat16),
        "empty": torch.empty(0, 3),
        "step": torch.tensor(7),
        "other": gradient(1 << 16, seed=1),
    }


@pytest.fixture
def path(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, tmp_path / "model.lmgc", {"step": "7", "mood": "bright ☀"})
    return tmp_path / "model.lmgc"


def same(back: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor]) -> bool:
    return list(back) == list(tensors) and all_identical(back.values(), tensors.values())


def reader_of(data: bytes) -> ArchiveReader:
    return ArchiveReader(torch.frombuffer(bytearray(data), dtype=torch.uint8))


# ---- there and back ------------------------------------------------------------------------------


def test_there_and_back(path: Path, tensors: dict[str, torch.Tensor]):
    assert same(load_file(path), tensors)
    raw = sum(tensor.nbytes for tensor in tensors.values())
    assert path.stat().st_size < 0.95 * raw


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type(tmp_path: Path, dtype: torch.dtype):
    content = {"t": from_bytes(bytes(range(64)) * 3, dtype, [-1])}
    save_file(content, tmp_path / "a.lmgc")
    assert same(load_file(tmp_path / "a.lmgc"), content)
    with safe_open(tmp_path / "a.lmgc") as f:
        assert f.get_slice("t").get_shape() == list(content["t"].shape)


def test_types_are_called_as_by_safetensors(tmp_path: Path):
    safetensors = pytest.importorskip("safetensors.torch")
    content = {
        str(dtype): torch.zeros(4, dtype=dtype)
        for dtype in DTYPES
        if dtype not in (torch.complex32, torch.complex128)
    }
    save_file(content, tmp_path / "ours.lmgc")
    safetensors.save_file(content, tmp_path / "theirs.safetensors")
    with (
        safe_open(tmp_path / "ours.lmgc", framework="pt") as ours,
        safetensors.safe_open(tmp_path / "theirs.safetensors", framework="pt") as theirs,
    ):
        assert list(ours.keys()) == list(theirs.keys())
        for name in content:
            assert ours.get_slice(name).get_dtype() == theirs.get_slice(name).get_dtype()
            assert ours.get_slice(name).get_shape() == list(theirs.get_slice(name).get_shape())


def test_safe_open(path: Path, tensors: dict[str, torch.Tensor]):
    with safe_open(path, framework="pt", device="cpu") as f:
        assert f.keys() == sorted(tensors)
        assert f.offset_keys() == list(tensors)
        assert f.metadata() == {"step": "7", "mood": "bright ☀"}
        for name in reversed(tensors):
            assert identical(f.get_tensor(name), tensors[name])
        weight = f.get_slice("weight")
        assert (weight.get_shape(), weight.get_dtype()) == ([40, 30], "F32")
        assert identical(weight[:, ::8], tensors["weight"][:, ::8].clone())
        assert identical(weight[3], tensors["weight"][3])
        assert identical(weight[...], tensors["weight"])
        assert f.get_slice("half").get_dtype() == "BF16"
        assert f.get_slice("step")[()].item() == 7
        with pytest.raises(KeyError, match="no tensor 'bias'"):
            f.get_tensor("bias")
        with pytest.raises(KeyError, match="no tensor 'bias'"):
            f.get_slice("bias")
        with pytest.raises(IndexError):
            weight[:, 40]
    with pytest.raises(ValueError, match="closed"):
        f.keys()
    with pytest.raises(ValueError, match="framework is 'tf'"):
        safe_open(path, framework="tf")


def test_tensors_that_are_returned_belong_to_the_caller(path: Path):
    with safe_open(path) as f:
        f.get_tensor("half").zero_()
        f.get_slice("half")[:].zero_()
        assert f.get_tensor("half").any()


def test_an_empty_archive(tmp_path: Path):
    save_file({}, tmp_path / "a.lmgc")
    assert load_file(tmp_path / "a.lmgc") == {}
    with safe_open(tmp_path / "a.lmgc") as f:
        assert f.keys() == []
        assert f.metadata() is None
    assert (tmp_path / "a.lmgc").stat().st_size < 120


@given(
    st.dictionaries(
        st.text(max_size=8), st.tuples(st.sampled_from(DTYPES), st.binary(max_size=64)), max_size=6
    ),
    st.none() | st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
)
def test_any_names_and_bits(tmp_path_factory, content, metadata):
    path = tmp_path_factory.mktemp("any") / "a.lmgc"
    tensors = {
        name: from_bytes(data[: len(data) // 16 * 16], dtype, [-1 if len(data) >= 16 else 0])
        for name, (dtype, data) in content.items()
    }
    save_file(tensors, path, metadata, method="planes")
    assert same(load_file(path), tensors)
    with safe_open(path) as f:
        assert f.metadata() == metadata


def test_small_tensors_share_frames(tmp_path: Path):
    tensors = {f"layer.{i}.bias": gradient(500, seed=i) for i in range(2000)}
    tensors |= {f"layer.{i}.scale": torch.empty(0) for i in range(5000)}
    save_file(tensors, tmp_path / "a.lmgc", method="planes")
    reader = ArchiveReader.open(tmp_path / "a.lmgc")
    infos = [reader.frame_info(i) for i in range(len(reader.index.frames))]
    assert 5 <= len(infos) <= 8
    assert max(info.raw_bytes for info in infos) <= 1 << 20
    assert max(len(info.tensors) for info in infos) <= 1 << 12
    assert same(load_file(tmp_path / "a.lmgc"), tensors)


def test_a_frame_is_what_the_operator_writes(path: Path, tensors: dict[str, torch.Tensor]):
    data = path.read_bytes()
    (frame,) = (torch.ops.lmgc.compress([tensors["large"]]),)
    assert data[len(HEAD) :].startswith(to_bytes(frame))
    assert data.startswith(b"LMGA\x01\0\0\0")


def test_a_reader_written_from_the_description(path: Path, tensors: dict[str, torch.Tensor]):
    """docs/archive.md once more, and the decoder in plain Python for the frames."""
    data = path.read_bytes()
    offset, size, plain_size, digest, end = struct.unpack("<QQQ32s8s", data[-64:])
    assert (data[:8], end) == (b"LMGA\x01\0\0\0", b"LMGA\0END")
    assert offset + size == len(data) - 64
    assert hashlib.sha256(data[offset:-64]).digest() == digest
    plain = zlib.decompress(data[offset:-64])
    assert len(plain) == plain_size
    index = json.loads(plain)
    at = 8
    decoded = []
    for length, checksum in index["frames"]:
        frame = data[at : at + length]
        header = int.from_bytes(frame[6:10], "little")
        assert int(checksum, 16) == int.from_bytes(frame[header - 8 : header], "little")
        decoded.append(reference.decode(frame))
        at += length
    assert at == offset
    for entry in index["tensors"]:
        expected = tensors[entry["name"]]
        tensor = decoded[entry["frame"]].pop(0)
        assert tensor.dtype == str(expected.dtype).removeprefix("torch.")
        assert tensor.shape == tuple(expected.shape)
        assert tensor.data == bytes(bits(expected).tolist())
    assert not any(decoded)
    assert index["metadata"] == {"step": "7", "mood": "bright ☀"}
    with safe_open(path) as f:
        assert f._open().index.identity == digest.hex()


def test_threads_share_an_open_archive(tmp_path: Path):
    tensors = {str(i): torch.full((9000,), i) for i in range(300)}  # three shared frames
    save_file(tensors, tmp_path / "a.lmgc", method="planes")
    with safe_open(tmp_path / "a.lmgc") as f, ThreadPoolExecutor(4) as pool:
        names = [str(73 * i % 300) for i in range(60)]
        for name, tensor in zip(names, pool.map(f.get_tensor, names), strict=True):
            assert torch.equal(tensor, tensors[name])


def test_equal_tensors_give_equal_bytes(tmp_path: Path, tensors: dict[str, torch.Tensor]):
    for name in ("a.lmgc", "b.lmgc"):
        save_file(tensors, tmp_path / name, {"a": "b"}, method="planes")
    assert (tmp_path / "a.lmgc").read_bytes() == (tmp_path / "b.lmgc").read_bytes()


def test_a_stream_that_cannot_seek(tensors: dict[str, torch.Tensor]):
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    writer = ArchiveWriter(pipe, method="planes")  # type: ignore[arg-type]
    for name, tensor in tensors.items():
        writer.add(name, tensor)
    assert writer.finish().bytes == len(pipe.data)
    assert all_identical(reader_of(pipe.data).tensors(), tensors.values())


def test_a_single_frame_is_read_too(tmp_path: Path, tensors: dict[str, torch.Tensor]):
    for content in (tensors, list(tensors.values()), tensors["weight"]):
        frame = lmgc_torch.compress(content)
        (tmp_path / "frame.lmgc").write_bytes(to_bytes(frame))
        back = load_file(tmp_path / "frame.lmgc")
        values = [content] if isinstance(content, torch.Tensor) else list(tensors.values())
        assert all_identical(back.values(), values)
        assert list(back) == list(content if content is tensors else map(str, range(len(values))))


# ---- tied tensors --------------------------------------------------------------------------------


def test_tied_tensors_are_stored_once(tmp_path: Path):
    weight = gradient(300, 200)
    alone, tied = tmp_path / "alone.lmgc", tmp_path / "tied.lmgc"
    save_file({"a": weight}, alone)
    content = {
        "first": weight[:10],
        "a": weight,
        "b": weight.detach(),
        "t": weight.t(),
        "flat": weight.view(-1)[7:1000:3],
        "none": weight[:0],
    }
    save_file(content, tied)
    assert tied.stat().st_size < alone.stat().st_size + 400
    back = load_file(tied)
    assert list(back) == list(content)
    assert all(torch.equal(back[name], content[name]) for name in content)
    back["a"].add_(1)
    assert torch.equal(back["b"], back["a"])
    assert torch.equal(back["t"], back["a"].t())
    assert torch.equal(back["first"], back["a"][:10])
    with safe_open(tied) as f:
        assert torch.equal(f.get_tensor("t"), weight.t())
        assert f.get_slice("t").get_shape() == [200, 300]
        assert f.get_slice("b").get_shape() == [300, 200]


def test_views_that_do_not_cover_one_another(tmp_path: Path):
    base = gradient(1000)
    content = {
        "a": base[:600],
        "b": base[400:],
        "c": base[::2],
        "d": base[::2],
        "bits": base.view(torch.int32),
        "e": base[100:200],
    }
    save_file(content, tmp_path / "a.lmgc")
    back = load_file(tmp_path / "a.lmgc")
    assert all(torch.equal(back[name], content[name]) for name in content)
    entries = ArchiveReader.open(tmp_path / "a.lmgc").index.tensors
    assert [entry.view_of for entry in entries] == [None, None, None, 2, None, 0]


def test_many_views_of_one_storage(tmp_path: Path):
    flat = torch.arange(20_000.0)
    content = {str(i): flat[4 * i : 4 * i + 4] for i in range(5000)}
    save_file(content, tmp_path / "a.lmgc", method="planes")
    assert same(load_file(tmp_path / "a.lmgc"), content)


def test_conjugates(tmp_path: Path):
    z = torch.randn(50, dtype=torch.complex64)
    content = {"z": z, "conj": z.conj(), "imag": z.conj().imag}
    save_file(content, tmp_path / "a.lmgc")
    back = load_file(tmp_path / "a.lmgc")
    assert all(torch.equal(back[name], content[name].resolve_neg()) for name in content)


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensors", "metadata", "error", "says"),
    [
        ([torch.ones(1)], None, TypeError, "is of type list"),
        ({"a": 1}, None, TypeError, "tensor 'a' is of type int"),
        ({1: torch.ones(1)}, None, TypeError, "1 is not"),
        ({"\ud800": torch.ones(1)}, None, ValueError, "no Unicode text"),
        ({"a": torch.eye(2).to_sparse()}, None, ValueError, "tensor 'a' is sparse"),
        ({"a": torch.empty(1, device="meta")}, None, ValueError, "tensor 'a' is a meta tensor"),
        ({"a": torch.zeros([1] * 65)}, None, ValueError, "tensor 'a' has 65 dimensions"),
        ({"a": torch.ones(1)}, {"a": 1}, TypeError, "metadata must be str by str; 1 is not"),
        ({"a": torch.ones(1)}, [("a", "b")], TypeError, "metadata is of type list"),
        ({"a": torch.ones(1)}, {"a": "\udc00"}, ValueError, "no Unicode text"),
    ],
)
def test_what_is_no_dict_of_tensors(tmp_path: Path, tensors, metadata, error, says: str):
    with pytest.raises(error, match=says):
        save_file(tensors, tmp_path / "a.lmgc", metadata)
    assert list(tmp_path.iterdir()) == []


def test_wrong_options(tmp_path: Path):
    with pytest.raises(ValueError, match="method is 'zip'"):
        save_file({"a": torch.ones(1)}, tmp_path / "a.lmgc", method="zip")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        save_file({"a": torch.ones(1)}, tmp_path / "a.lmgc", method="lm", prior="no/such.pt")
    with pytest.raises(FileNotFoundError):
        load_file(tmp_path / "a.lmgc")
    assert list(tmp_path.iterdir()) == []


def test_priors(tmp_path: Path, prior_file: Path, prior: Prior):
    content = {"w": gradient(300, 300), "bias": gradient(50)}
    save_file(content, tmp_path / "a.lmgc", method="lmgc", prior=prior_file)
    for given_prior in (prior_file, prior):
        assert same(load_file(tmp_path / "a.lmgc", prior=given_prior), content)
        with safe_open(tmp_path / "a.lmgc", prior=given_prior) as f:
            assert identical(f.get_tensor("bias"), content["bias"])
    with pytest.raises(PriorMismatchError):
        load_file(tmp_path / "a.lmgc")


# ---- files ---------------------------------------------------------------------------------------


def test_an_interrupted_write_leaves_the_old_file(
    path: Path, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
):
    before = path.read_bytes()
    finish = ArchiveWriter.finish

    def fail(self, **keys):
        finish(self, **keys)
        raise OSError("No space left on device")

    monkeypatch.setattr(ArchiveWriter, "finish", fail)
    with pytest.raises(OSError, match="No space left"):
        save_file(tensors, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["model.lmgc"]


def test_a_killed_write_leaves_no_archive(tmp_path: Path):
    program = (
        "import os, sys, torch\n"
        "from lmgc_torch import archive, save_file\n"
        "archive.ArchiveWriter.finish = lambda *a, **k: os.kill(os.getpid(), 9)\n"
        "save_file({'a': torch.randn(100000)}, sys.argv[1])\n"
    )
    python(program.replace("sys.argv[1]", repr(str(tmp_path / "a.lmgc"))))
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".partial")
    with pytest.raises(CorruptArchiveError):
        load_file(left)


def test_links_and_permissions(tmp_path: Path, tensors: dict[str, torch.Tensor]):
    (tmp_path / "link").symlink_to("target.lmgc")
    save_file(tensors, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "usual").touch()
    usual = stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "target.lmgc").stat().st_mode) == usual
    save_file(tensors, os.devnull)
    with pytest.raises(OSError, match="No such file"):
        save_file(tensors, tmp_path / "none" / "a.lmgc")


def test_maps_of_files(tmp_path: Path):
    (tmp_path / "empty").touch()
    assert files.map_file(tmp_path / "empty").numel() == 0
    with pytest.raises(CorruptArchiveError, match="no archive"):
        load_file(tmp_path / "empty")
    with pytest.raises(IsADirectoryError):
        load_file(tmp_path)


@pytest.mark.cuda
def test_devices(path: Path, tensors: dict[str, torch.Tensor], tmp_path: Path):
    back = load_file(path, device="cuda")
    assert all(tensor.is_cuda for tensor in back.values())
    mixed = {name: t.cuda() if i % 2 else t for i, (name, t) in enumerate(tensors.items())}
    save_file(mixed, tmp_path / "mixed.lmgc")
    assert same(load_file(tmp_path / "mixed.lmgc"), tensors)
