""".safetensors files on the command line: they come back byte for byte."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from command_line import files
from helpers import identical

import lmgc_torch

safetensors_torch = pytest.importorskip("safetensors.torch")


def test_safetensors(run, tmp_path: Path, tensors: dict[str, torch.Tensor]):
    path = tmp_path / "model.safetensors"
    safetensors_torch.save_file(tensors, path, metadata={"format": "pt", "mood": "bright ☀"})
    original = path.read_bytes()
    run("compress", "--rm", path)
    assert files(tmp_path) == {"model.safetensors.lmgc"}
    with lmgc_torch.safe_open(f"{path}.lmgc") as file:
        assert file.metadata() == {"format": "pt", "mood": "bright ☀"}
        assert identical(file.get_tensor("half"), tensors["half"])
    run("decompress", f"{path}.lmgc")
    back = safetensors_torch.load_file(path)
    assert back.keys() == tensors.keys()
    assert all(identical(back[name], tensors[name]) for name in tensors)
    with safetensors_torch.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "mood": "bright ☀"}
    assert path.read_bytes() == original


def test_damaged_safetensors(run, tmp_path: Path, tensors: dict[str, torch.Tensor]):
    data = safetensors_torch.save(tensors)
    path = tmp_path / "model.safetensors"
    for damaged in (data[:-1], data[:20], b"\xff" * 8 + data[8:], data[:8] + b"{]" + data[10:]):
        path.write_bytes(damaged)
        run("compress", path, code=1)
    assert files(tmp_path) == {"model.safetensors"}


def safetensors_by_hand(header: str, data: bytes) -> bytes:
    return struct.pack("<Q", len(header.encode())) + header.encode() + data


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ("{}", b""),
        ('{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', b"abcd"),
        # Spaces, another order, an odd place, types that torch has not, keys of others.
        (
            '{ "b":{"dtype":"F32","shape":[1, 1],"data_offsets":[3,7],"mood":"bright"},\n'
            '"n":{"data_offsets":[7,7],"dtype":"F64","shape":[0,3]},'
            '"f":{"dtype":"F4","shape":[4],"data_offsets":[1,3]},'
            '"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}, "__metadata__":{"☀":"\\u00e9"}}'
            "     ",
            b"\x01abcdef",
        ),
    ],
)
def test_safetensors_come_back_byte_for_byte(run, tmp_path: Path, header: str, data: bytes):
    path = tmp_path / "model.safetensors"
    original = safetensors_by_hand(header, data)
    path.write_bytes(original)
    run("compress", "--rm", path)
    run("test", f"{path}.lmgc")
    run("decompress", f"{path}.lmgc")
    assert path.read_bytes() == original


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        ('{"a":1}', b"", "tensor 'a' is not described"),
        ('{"a":{"dtype":"F32","shape":[1]}}', b"abcd", "tensor 'a' is not described"),
        ('{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', b"abcd", "is not described"),
        ('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', b"abcd", "is not described"),
        ('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', b"abcd", "not those of its"),
        ('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"abcde", "4 bytes of tensors"),
        ('{"a":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}', b"abcde", "do not follow"),
        ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":2}', b"a", "there twice"),
        ('{"__metadata__":{"a":1}}', b"", "no texts"),
        ("{]", b"", "no JSON"),
    ],
)
def test_safetensors_that_are_not_sound(run, tmp_path, header: str, data: bytes, says: str):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_by_hand(header, data))
    _, messages = run("compress", path, code=1)
    assert says in messages
    assert files(tmp_path) == {"model.safetensors"}
