"""Memory, disks and processes that fail: an error with a name, nothing half-written, no hang."""

from __future__ import annotations

import contextlib
import ctypes
import io
import itertools
import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import LMGC, files
from helpers import METHODS, gradient, identical
from lm_priors import low_rank
from processes import Child, in_child

from lmgc_torch import Prior, api, cli, compress, decompress, load, load_file, save, save_file
from lmgc_torch.errors import CorruptArchiveError, LmgcError

ALL_METHODS = [*METHODS, "lm"]


@contextmanager
def limited(what: int, to: int) -> Iterator[None]:
    """Limits a resource of this process."""
    before = resource.getrlimit(what)
    resource.setrlimit(what, (to, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


# ---- no memory -----------------------------------------------------------------------------------


def memory_for(spare: int) -> Any:
    """Leaves `spare` bytes of addresses to what is in the context."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return limited(resource.RLIMIT_AS, pages * resource.getpagesize() + spare)


def is_about_memory(error: BaseException) -> bool:
    named = isinstance(error, LmgcError | RuntimeError) and re.search("alloc|memory", str(error))
    return isinstance(error, MemoryError) or bool(named)


def try_with_less(work: Callable[[], Any], right: Callable[[Any], bool]) -> tuple[bool, int]:
    """Works with more and more memory.

    Returns:
        Whether it was right at last, and how often there was too little.
    """
    spare = failed = 0
    while spare < 1 << 30:
        try:
            with memory_for(spare):
                result = work()
        except (MemoryError, RuntimeError) as error:
            if not is_about_memory(error):
                raise
            failed += 1
            spare = spare * 5 // 4 + (1 << 17)
        else:
            return right(result), failed
    return False, failed


def large_tensors(method: str) -> dict[str, torch.Tensor]:
    rows = {"lmgc": 400, "lm": 300, "lowrank": 600, "auto": 600}.get(method, 2000)
    return {"matrix": low_rank(rows, 400), "vector": gradient(rows * 200)}


def with_less(method: str, prior_file: Path | None, frame: bytes | None) -> tuple[bool, int]:
    """Compresses or, if there is a frame, decompresses it, with more and more memory."""
    ctypes.CDLL(None).mallopt(-3, 1 << 14)  # M_MMAP_THRESHOLD: what is freed is given back
    torch.set_num_threads(2)
    prior = None if prior_file is None else Prior.load(prior_file)
    tensors = large_tensors(method)
    # Threads are started, and what is made once is made.
    warm = {name: tensor[:2000].clone() for name, tensor in tensors.items()}
    decompress(compress(warm, method=method, prior=prior), prior=prior)

    def right(back: dict[str, torch.Tensor]) -> bool:
        return all(identical(back[name], tensors[name]) for name in tensors)

    if frame is not None:
        return try_with_less(lambda: decompress(frame, prior=prior), right)
    # BLAS computes otherwise where it has no memory for buffers, and finds another prediction.
    return try_with_less(
        lambda: compress(tensors, method=method, prior=prior),
        lambda other: right(decompress(other, prior=prior)),
    )


@pytest.mark.parametrize("method", ALL_METHODS)
def test_no_memory(method: str, prior_file: Path):
    """Wherever memory ends, an error says so, and the same call works once there is enough."""
    file = prior_file if method == "lmgc" else None
    prior = None if file is None else Prior.load(file)
    frame = bytes(compress(large_tensors(method), method=method, prior=prior).numpy())
    # In processes of their own: what the first left free, the second would have.
    for given in (None, frame):
        worked, failed = in_child(with_less, method, file, given)
        assert worked
        assert failed > 0


def test_no_memory_on_the_command_line(run: Any, pt: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(api, "compress", fail)
    _, messages = run("compress", pt, code=1)
    assert messages == f"lmgc compress: {pt.name}: not enough memory\n"
    assert files(pt.parent) == {pt.name}


# ---- no room on the disk -------------------------------------------------------------------------

BEFORE = b"what was there before"


def content() -> dict[str, torch.Tensor]:
    """More than fits, in several frames."""
    return {name: torch.randn(50_000) for name in ("one", "two", "three")}


def writers(folder: Path) -> dict[Path, Callable[[Path], object]]:
    """Everything that writes files, by the file that is written."""
    tensors = content()
    torch.save(tensors, folder / "input.pt")
    save(tensors, folder / "input.lmgc")

    def command(*arguments: object) -> None:
        messages = io.StringIO()
        with contextlib.redirect_stderr(messages):
            code = cli.main([str(argument) for argument in arguments])
        assert code in (0, 1)
        if code == 1:
            raise OSError(messages.getvalue())

    return {
        folder / "save_file.lmgc": lambda to: save_file(tensors, to),
        folder / "save.lmgc": lambda to: save(tensors, to, method="planes"),
        folder / "compress.lmgc": lambda to: command("compress", folder / "input.pt", "-fo", to),
        folder / "back.pt": lambda to: command("decompress", folder / "input.lmgc", "-fo", to),
    }


def check_writers(folder: Path, room: Callable[[], Any], says: str) -> None:
    """Each fails as `says` where there is no `room`; then there is what was there before."""
    for path, write in writers(folder).items():
        for before in (False, True):
            if before:
                path.write_bytes(BEFORE)
            there = files(folder)
            with room(), pytest.raises(OSError, match=f"{says}.*{re.escape(str(path))}"):
                write(path)
            assert files(folder) == there
            assert not before or path.read_bytes() == BEFORE
        write(path)
        assert files(folder) == there
        assert path.read_bytes() != BEFORE


def test_files_that_may_not_grow(tmp_path: Path):
    check_writers(tmp_path, lambda: limited(resource.RLIMIT_FSIZE, 100_000), "File too large")


def mount(source: str, target: Path | str, kind: str | None, flags: int, data: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [None if w is None else str(w).encode() for w in (source, target, kind)]
    if libc.mount(*words, ctypes.c_ulong(flags), data.encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


MS_RDONLY, MS_REMOUNT, MS_BIND, MS_PRIVATE = 1, 32, 4096, 1 << 18 | 16384


def with_own_mounts(function: Callable[..., Any], *args: Any) -> Any:
    """Calls it in a process whose file systems are its own; skips where that is not allowed."""
    result = in_child(_with_own_mounts, function, *args)
    if isinstance(result, str):
        pytest.skip(result)
    return result


def _with_own_mounts(function: Callable[..., Any], *args: Any) -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000) != 0:  # CLONE_NEWNS
        return f"no mounts of its own: {os.strerror(ctypes.get_errno())}"
    try:
        mount("none", "/", None, MS_PRIVATE)
    except OSError as error:
        return f"no mounts of its own: {error}"
    return function(*args)


def fill_the_disk(folder: Path) -> None:
    mount("none", folder, "tmpfs", 0, "size=8m")

    @contextmanager
    def no_room() -> Iterator[None]:
        filler = folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb", 0) as file:
            while True:
                file.write(bytes(4096))
        os.truncate(filler, filler.stat().st_size - 100_000)
        try:
            yield
        finally:
            filler.unlink()

    check_writers(folder, no_room, "No space left")


def test_a_full_disk(tmp_path: Path):
    with_own_mounts(fill_the_disk, tmp_path)


def test_a_device_that_is_full(pt: Path):
    with pytest.raises(OSError, match="No space left"):
        save(content(), "/dev/full")
    with open("/dev/full", "wb") as full:
        command = [*LMGC, "compress", "-m", "raw", "-o", "-", pt]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=300)
    assert result.returncode == 1
    assert b"No space left" in result.stderr
    assert b"Traceback" not in result.stderr


# ---- folders that may not be written to, and a machine without shared memory ---------------------


def write_to_a_read_only_folder(folder: Path) -> None:
    tensors = content()
    save(tensors, folder / "a.lmgc")
    before = (folder / "a.lmgc").read_bytes()
    mount(str(folder), folder, None, MS_BIND)
    mount("none", folder, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    for path in (folder / "a.lmgc", folder / "b.lmgc"):
        for write in (save, save_file):
            with pytest.raises(OSError, match="Read-only file system"):
                write(tensors, path)
    assert files(folder) == {"a.lmgc"}
    assert (folder / "a.lmgc").read_bytes() == before
    assert all(identical(load(folder / "a.lmgc")[name], tensors[name]) for name in tensors)


def test_a_read_only_folder(tmp_path: Path):
    with_own_mounts(write_to_a_read_only_folder, tmp_path)


def work_without_shared_memory(folder: Path) -> None:
    mount("none", "/dev/shm", "tmpfs", MS_RDONLY)
    with pytest.raises(OSError, match="Read-only file system"):
        Path("/dev/shm/a").touch()
    tensors = content()
    for method in ("auto", "planes", "lm"):
        back = decompress(compress(tensors, method=method))
        assert all(identical(back[name], tensors[name]) for name in tensors)
    save_file(tensors, folder / "a.lmgc")
    assert all(identical(load_file(folder / "a.lmgc")[name], tensors[name]) for name in tensors)


def test_no_shared_memory(tmp_path: Path):
    with_own_mounts(work_without_shared_memory, tmp_path)


# ---- signals while files are written -------------------------------------------------------------


def write_for_ever(path: Path, contents: list[torch.Tensor]) -> None:
    for tensor in itertools.cycle(contents):
        save({"a": tensor[:1000].clone(), "b": tensor}, path, method="planes")


def test_kills_while_a_file_is_written(tmp_path: Path):
    """The file is an old one or a new one; what is left beside it is known by its name."""
    path = tmp_path / "a.lmgc"
    contents = [torch.randn(200_000) for _ in range(2)]
    for after in (0.01, 0.02, 0.03, 0.05, 0.08):
        path.unlink(missing_ok=True)
        child = Child(write_for_ever, path, contents)
        while not path.exists():
            time.sleep(0.001)
        time.sleep(after)
        child.kill()
        assert any(torch.equal(load(path)["b"], tensor) for tensor in contents)
    left = files(tmp_path) - {"a.lmgc"}
    assert left
    assert all(re.fullmatch(r"\.[0-9a-f]{16}\.partial", name) for name in left)
    for name in left:  # cut short, or complete and not yet renamed
        with contextlib.suppress(CorruptArchiveError):
            assert load(tmp_path / name).keys() == {"a", "b"}
    save({"c": contents[0]}, path)
    assert load(path).keys() == {"c"}
    assert files(tmp_path) == left | {"a.lmgc"}


def interrupt_a_write(path: Path, prior_file: Path) -> None:
    prior = Prior.load(prior_file)
    tensors = [gradient(300, 100) for _ in range(100)]
    save({"old": torch.ones(3)}, path)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        save(tensors, path, method="lmgc", prior=prior)
    assert files(path.parent) == {path.name}
    assert load(path).keys() == {"old"}
    save({"new": torch.ones(3)}, path)  # goes on as if nothing had been
    assert load(path).keys() == {"new"}


def test_ctrl_c_while_a_file_is_written(tmp_path: Path, prior_file: Path):
    in_child(interrupt_a_write, tmp_path / "a.lmgc", prior_file)


# ---- processes that are forked -------------------------------------------------------------------


def fork_after_use(method: str, prior_file: Path | None) -> int:
    """Forks when OpenMP has threads, and compresses in the forked process; its exit code."""
    torch.set_num_threads(2)
    prior = None if prior_file is None else Prior.load(prior_file)
    tensors = [gradient(300, 100), gradient(1200, 1000)]
    frame = compress(tensors[:1], method=method, prior=prior)
    compress(tensors[1], method="planes")
    torch.sin(tensors[1])  # torch's own use of the same threads
    process = os.fork()
    if process == 0:
        signal.alarm(60)
        right = torch.equal(compress(tensors[:1], method=method, prior=prior), frame)
        right = right and identical(decompress(frame, prior=prior)[0], tensors[0])
        right = right and identical(decompress(compress(tensors[1], effort=1)), tensors[1])
        torch.sin(tensors[1])
        os._exit(0 if right else 1)
    assert torch.equal(compress(tensors[:1], method=method, prior=prior), frame)
    return os.waitpid(process, 0)[1]


@pytest.mark.parametrize("method", ALL_METHODS)
def test_a_process_that_is_forked_after_use(method: str, prior_file: Path):
    assert in_child(fork_after_use, method, prior_file if method == "lmgc" else None) == 0
