"""Decodes with little memory left: run by test_memory.py, in a process of its own.

    python little_memory.py CASES OUTCOMES

Blocks of memory go back to the system when they are freed (the caller sets glibc so), so that the
limit on the address space counts what is held at a time.
"""

import pickle
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import lmgc_torch


@dataclass(frozen=True)
class Case:
    """What to do within so many bytes beside what the process has.

    Attributes:
        frame: What to read.
        allowance: Bytes of memory.
        only_info: Whether it is to be looked into alone, not decompressed.
        warm: A frame like it that is decoded first, with all the memory there is, so that libraries
            and models are loaded.
        reference: Of the frame and of the warm one.
    """

    frame: bytes
    allowance: int
    only_info: bool = False
    warm: bytes | None = None
    reference: tuple[Any, Any] = (None, None)


def address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def outcome(work: Callable[[], Any]) -> str:
    """The name and the text of the error, or else the bytes of what came back."""
    try:
        back = work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if isinstance(back, lmgc_torch.FrameInfo):
        return f"{back.raw_bytes} bytes"
    return f"{sum(tensor.nbytes for tensor in back)} bytes"


def run(case: Case) -> str:
    if case.warm is not None:
        lmgc_torch.decompress(case.warm, reference=case.reference[1])
    data = torch.frombuffer(bytearray(case.frame), dtype=torch.uint8)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + case.allowance, hard))
    try:
        if case.only_info:
            return outcome(lambda: lmgc_torch.info(data))
        return outcome(lambda: lmgc_torch.decompress(data, reference=case.reference[0]))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def main(cases: str, outcomes: str) -> None:
    torch.set_num_threads(1)
    told: dict[str, Case] = pickle.loads(Path(cases).read_bytes())
    results = {name: run(case) for name, case in told.items()}
    Path(outcomes).write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    sys.modules["little_memory"] = sys.modules["__main__"]  # as the cases call it
    main(*sys.argv[1:])
