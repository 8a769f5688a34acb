"""Fuzzing of archives: whatever their bytes are, all ways to read them agree, or refuse by name.

    python tests/fuzz/archives.py --seconds 60 [--seed 1] [--found build/fuzz]

Small archives are changed: numbers, texts and keys of the index, bytes of the index before and
after deflate, the trailer, bytes of frames; every checksum around the change is made right. Such a
file is opened by `load_file`, `safe_open`, `load`, `decompress` and `info`. Each may raise errors
of this library alone. Where `load_file` gives tensors, `safe_open` and `info` must tell the same
names, types, shapes and bytes. A file for which that does not hold is written to `--found`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import io
import json
import random
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from frames import golden, helpers
from mutators import changed

import lmgc_torch
from lmgc_torch.archive import ArchiveReader, ArchiveWriter
from lmgc_torch.archive.container import END, HEAD, TRAILER
from lmgc_torch.errors import LmgcError

MOST_ELEMENTS = 1 << 16  # of a tensor that is compared: views may show as many as they like
NUMBERS = (-1, 0, 1, 2, 3, 7, 26, 27, 100, 2**31, 2**62, 2**63 - 1, 2**63, 2**64)
OTHERS = (0.5, True, None, "", "a", "0" * 16, "\ud800", [], [1], [[1, 2]], {}, {"a": 1})
ENTRIES: tuple[object, ...] = (*NUMBERS, *OTHERS)

WAYS = ("decompress", "info", "load", "ArchiveReader.info")
WAYS += ("load_file", "safe_open", "get_tensor", "get_slice")


# ---- archives, taken apart -----------------------------------------------------------------------


def small_archives(folder: Path) -> Iterator[bytes]:
    """Archives of tensors, of an object, with views, relative to others."""
    tensors = {
        "w": golden.gradient(5, 8, dtype=torch.float32, seed=1),
        "half": golden.gradient(30, dtype=torch.bfloat16, seed=2),
        "count": torch.tensor([3, 4]),
        "nothing": torch.empty(0, 3),
    }
    tensors["tied"] = tensors["w"]
    tensors["row"] = tensors["w"][1]
    path = folder / "one.lmgc"
    for method in ("raw", "planes", "scale"):
        lmgc_torch.save_file(tensors, path, {"a": "b"}, method=method)
        yield path.read_bytes()
    file = io.BytesIO()
    writer = ArchiveWriter(file, method="planes")
    for name in ("w", "half"):  # a frame each
        writer.add(name, tensors[name])
        writer._end_group(torch.device("cpu"))
    writer.finish()
    yield file.getvalue()
    lmgc_torch.save({"model": [tensors["w"], {"x": tensors["half"]}], "step": 7, "lr": 0.1}, path)
    yield path.read_bytes()
    moved = {name: tensor * 1.01 for name, tensor in tensors.items() if name in ("w", "half")}
    lmgc_torch.save_file(moved, path, reference=tensors, method="scale")
    yield path.read_bytes()


def index_of(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """What stands before the index, and the index."""
    offset, size, *_ = TRAILER.unpack(data[-TRAILER.size :])
    return data[:offset], json.loads(zlib.decompress(data[offset : offset + size]))


def archive_of(frames: bytes, plain: bytes, stored: bytes | None = None, **changes: int) -> bytes:
    stored = zlib.compress(plain, 1) if stored is None else stored
    told = {"offset": len(frames), "size": len(stored), "plain_size": len(plain), **changes}
    digest = hashlib.sha256(stored).digest()
    return frames + stored + TRAILER.pack(*told.values(), digest, END)


# ---- changes -------------------------------------------------------------------------------------


def change_entry(value: Any, generator: random.Random) -> Any:
    """Returns a JSON value with something in it replaced, left out, doubled or made other."""
    if isinstance(value, dict) and value and generator.random() < 0.9:
        key = generator.choice(list(value))
        kind = generator.random()
        if kind < 0.1:
            del value[key]
        elif kind < 0.15:
            value[generator.choice(["frame", "view_of", "offset", "more"])] = value.pop(key)
        else:
            value[key] = change_entry(value[key], generator)
        return value
    if isinstance(value, list) and value and generator.random() < 0.9:
        place = generator.randrange(len(value))
        kind = generator.random()
        if kind < 0.08:
            del value[place]
        elif kind < 0.16:
            value.insert(place, copy.deepcopy(generator.choice(value)))
        elif kind < 0.24:
            generator.shuffle(value)
        else:
            value[place] = change_entry(value[place], generator)
        return value
    if type(value) is int and generator.random() < 0.6:
        return value + generator.choice([-1, 1, 2, -7, 40])
    if isinstance(value, str) and generator.random() < 0.5:
        return changed(value.encode("utf-8", "surrogatepass"), [b"a"], generator).decode("latin-1")
    return copy.deepcopy(generator.choice(ENTRIES))


def change_frames(frames: bytes, index: dict[str, Any], generator: random.Random) -> bytes:
    """Changes a frame's bytes, and seals it, and tells its checksum in the index."""
    place = generator.randrange(len(index["frames"]))
    offset = len(HEAD) + sum(size for size, _ in index["frames"][:place])
    size = index["frames"][place][0]
    frame = changed(frames[offset : offset + size], [b""], generator)
    if len(frame) >= 26:
        frame = helpers.resealed(frame)
        (header_size,) = struct.unpack_from("<I", frame, 6)
        sealed = frame[header_size - 8 : header_size] if 8 <= header_size <= len(frame) else b""
        index["frames"][place] = [len(frame), f"{int.from_bytes(sealed, 'little'):016x}"]
    return frames[:offset] + frame + frames[offset + size :]


def changed_archive(data: bytes, generator: random.Random) -> bytes:
    frames, index = index_of(data)
    kind = generator.random()
    if kind < 0.05:
        return changed(data, [data], generator)
    if kind < 0.25:
        frames = change_frames(frames, index, generator)
    elif kind < 0.8:
        for _ in range(generator.choice([1, 1, 2, 3])):
            index = change_entry(index, generator)
    plain = json.dumps(index).encode()
    if kind < 0.8:
        return archive_of(frames, plain)
    if kind < 0.88:
        return archive_of(frames, changed(plain, [plain], generator))
    if kind < 0.94:
        return archive_of(frames, plain, changed(zlib.compress(plain), [plain], generator))
    number = generator.choice([n for n in (*NUMBERS, 8, 2000) if 0 <= n < 2**64])
    return archive_of(frames, plain, **{generator.choice(["offset", "size", "plain_size"]): number})


# ---- what must hold ------------------------------------------------------------------------------


def outcome(read: Callable[[], Any], kinds: Counter[str]) -> Any:
    """Returns what is read, None where that is refused."""
    try:
        content = read()
    except LmgcError as error:
        kinds[f"refused: {type(error).__name__}"] += 1
        return None
    kinds["read"] += 1
    return content


def require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.numel() > MOST_ELEMENTS:
        return one.shape == other.shape and one.dtype == other.dtype
    return helpers.identical(one, other)


def check(path: Path, reference: Any, kinds: dict[str, Counter[str]]) -> None:
    """Reads a file in all ways, and compares."""
    data = path.read_bytes()
    outcome(lambda: lmgc_torch.decompress(data), kinds["decompress"])
    outcome(lambda: lmgc_torch.info(data), kinds["info"])
    outcome(lambda: lmgc_torch.load(path, reference=reference), kinds["load"])
    about = outcome(lambda: ArchiveReader.open(path).info(), kinds["ArchiveReader.info"])
    if about is not None:
        require(bool(str(about)) and bool(about.table()), "what is in it can be shown")
    tensors = outcome(lambda: lmgc_torch.load_file(path, reference=reference), kinds["load_file"])
    opened = outcome(lambda: lmgc_torch.safe_open(path, reference=reference), kinds["safe_open"])
    if opened is None:
        require(tensors is None, "what cannot be opened cannot be loaded")
        return
    with opened as file:
        names = file.offset_keys()
        require(tensors is None or list(tensors) == names, "the names are the same")
        for name in names:
            one = outcome(lambda name=name: file.get_tensor(name), kinds["get_tensor"])
            if tensors is None:
                continue
            require(one is not None and same(one, tensors[name]), "tensors are the same")
            told = outcome(lambda name=name: file.get_slice(name).get_shape(), kinds["get_slice"])
            require(told == list(tensors[name].shape), "shapes are the same")


# ---- the run -------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="default: another one every time")
    parser.add_argument("--found", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args(arguments)
    seed = time.time_ns() % 2**32 if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    torch.set_num_threads(1)
    generator, files = random.Random(seed), 0
    kinds: dict[str, Counter[str]] = {name: Counter() for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "changed.lmgc"
        archives = list(small_archives(Path(folder)))
        reference = {
            "w": golden.gradient(5, 8, dtype=torch.float32, seed=1),
            "half": golden.gradient(30, dtype=torch.bfloat16, seed=2),
        }
        for data in archives:
            path.write_bytes(data)
            check(path, reference, kinds)
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            data = changed_archive(generator.choice(archives), generator)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()  # what is mapped stays what it was
            path.write_bytes(data)
            files += 1
            try:
                check(path, reference, kinds)
            except Exception as error:
                options.found.mkdir(parents=True, exist_ok=True)
                found = options.found / f"archive-{helpers.checksum(data):016x}.lmgc"
                found.write_bytes(data)
                print(f"{error!r}\n{found}")
                return 1
    print(f"{files:,} archives")
    for name, own in kinds.items():
        print(f"{name}: " + ", ".join(f"{what} {count:,}" for what, count in own.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
