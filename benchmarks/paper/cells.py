"""The cells of the report: what is measured, one job for each, and how.

A job runs in a process of its own with one thread and returns cells, plain records that go to
`results.json`. Every size in a cell was decoded and compared bit for bit, but for `released`.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
from paper import codecs, draws, lossy, released
from paper.hex_text import Text, Vocabulary, windows
from torch import Tensor

import lmgc_torch

LANES, LANE_BYTES = 16, 2048  # at least so many of a payload, at most so long, if windows allow it
FORWARD_TOKENS = 1 << 14  # at a time
STATE_BYTES = 1 << 14  # of a bound prior and token, as `memory_limit` counts them
NOISE = "random bytes"


@dataclass(frozen=True)
class Job:
    """One thing to measure, for all draws."""

    kind: str  # "lm", "codecs" or "whole"
    data: str  # a key of draws.SOURCES
    payload: str = "fp32"  # see `payload_of`
    raw_bytes: int = 0  # of the payload, about; unused for "whole"
    text: Text | None = None
    window: int = 0


@dataclass(frozen=True)
class Cell:
    """One method on one payload of one draw. Sizes are in bytes."""

    data: str
    payload: str
    method: str  # "LM", a codec, or one of ours
    draw: int
    raw_bytes: int  # of the payload
    bytes: int  # compressed, decoded and compared
    side_bytes: int = 0  # what a lossy payload needs beside it
    floats: int = 0  # that the payload stands for
    error: float | None = None  # of a lossy payload, relative to the gradient's norm
    zeros: float = 0.0  # share of the elements of the gradient
    chunk: int | None = None  # bytes that a codec saw at a time; None: all
    whole: bool = False  # all tensors of all steps, not a slice
    text: dict[str, Any] | None = None
    window: int | None = None
    tokens: int | None = None  # separators included
    code_length: float | None = None  # bytes, of the model's probabilities, without any container
    released: float | None = None  # bytes, by the released code's formula: undecodable
    stored_raw: bool = False  # the coder found that the model would not pay
    seconds: float = 0.0  # both ways and the comparison, all draws together


@dataclass(frozen=True)
class Inputs:
    """Where a job finds what it needs."""

    captures: tuple[tuple[str, tuple[str, ...]], ...]  # data: one file a draw
    priors: tuple[tuple[int, str], ...]  # window: file

    def capture(self, data: str, draw: int) -> dict[int, dict[str, Tensor]]:
        return draws.load(Path(dict(self.captures)[data][draw]))

    @property
    def draw_count(self) -> int:
        return len(self.captures[0][1])

    def prior(self, window: int) -> str:
        return dict(self.priors)[window]


def run_job(job: Job, inputs: Inputs) -> list[dict[str, Any]]:
    """Measures a job; cells as dictionaries, so that they cross processes and go to JSON."""
    found = {"lm": lm_cells, "codecs": codec_cells, "whole": whole_cells}[job.kind](job, inputs)
    return [asdict(cell) for cell in found]


@functools.lru_cache(maxsize=8)
def _vector(inputs: Inputs, data: str, draw: int) -> Tensor:
    return draws.flat(inputs.capture(data, draw))


def payload_of(job: Job, inputs: Inputs, draw: int) -> tuple[lossy.Lossy, float, float | None]:
    """Returns a draw's payload, the share of zeros in its floats, and its relative error.

    Payloads are "fp32", a key of ``lossy.TRANSFORMS``, "runs of" one of them (run-length coded
    bytes), or "random bytes".
    """
    if job.payload == NOISE:
        generator = torch.Generator().manual_seed(draw)
        noise = torch.randint(256, (job.raw_bytes,), dtype=torch.uint8, generator=generator)
        return lossy.Lossy(noise, 0, 0, noise), 0.0, None
    name = job.payload.removeprefix("runs of ")
    floats = round(job.raw_bytes / lossy.bytes_per_float(name))
    vector = draws.slices(_vector(inputs, job.data, draw), floats, seed=draw)
    zeros = float((vector == 0).double().mean())
    if name == "fp32":
        made = lossy.Lossy(vector, 0, vector.numel(), vector)
    else:
        made = lossy.TRANSFORMS[name](vector, draw)
    error = float((made.restored - vector).norm() / vector.norm().clamp(min=1e-38))
    if job.payload != name:
        data = made.payload if made.payload.dtype == torch.uint8 else lossy.big_endian(made.payload)
        packed = lossy.run_length(data)
        if not torch.equal(lossy.expand_runs(packed), data):
            raise RuntimeError("run-length coding does not give back its bytes")
        made = made._replace(payload=packed)
    return made, zeros, error if name != "fp32" else None


def _cell(job: Job, draw: int, made: lossy.Lossy, zeros: float, error: float | None) -> Cell:
    """A cell without a size."""
    return Cell(
        job.data,
        job.payload,
        "",
        draw,
        made.payload.nbytes,
        0,
        made.side_bytes,
        made.floats,
        error,
        zeros,
    )


def lm_cells(job: Job, inputs: Inputs) -> list[Cell]:
    """Codes a payload with the language model as prior."""
    if job.text is None:
        raise ValueError("a language model needs to know how numbers are written")
    made = [payload_of(job, inputs, draw) for draw in range(inputs.draw_count)]
    payloads = [one.payload for one, _, _ in made]
    start = time.perf_counter()
    sizes, raw = lm_sizes(payloads, job.text, inputs.prior(job.window), job.window)
    seconds = time.perf_counter() - start
    found = []
    for draw, (one, zeros, error) in enumerate(made):
        tokens, lengths = teacher_forced(
            one.payload, job.text, inputs.prior(job.window), job.window
        )
        cell = asdict(_cell(job, draw, one, zeros, error)) | {
            "method": "LM",
            "bytes": sizes[draw],
            "text": job.text.options,
            "window": job.window,
            "tokens": tokens,
            "code_length": lengths.code / 8,
            "released": lengths.released / 8,
            "stored_raw": raw[draw],
            "seconds": seconds,
        }
        found.append(Cell(**cell))
    return found


def lane_elements(payload: Tensor, text: Text, window: int) -> int:
    """The length of a lane: whole windows. Shorter lanes cost bytes, longer ones time."""
    elements = text.window_elements(payload.element_size(), window)
    wanted = min(LANE_BYTES, payload.nbytes // LANES) / payload.element_size()
    return min(elements * max(1, round(wanted / elements)), 1 << 16)


def lm_sizes(
    payloads: list[Tensor], text: Text, prior_file: str, window: int
) -> tuple[list[int], list[bool]]:
    """Compresses all draws in one frame, so that more lanes go side by side, and checks it.

    Returns:
        For each payload: the bytes of its section and of the frame's whole header; and whether the
        library stored it raw because the model would have made it larger.
    """
    prior = lmgc_torch.Prior.load(prior_file)
    lane = lane_elements(payloads[0], text, window)
    lanes = sum(-(-payload.numel() // lane) for payload in payloads)
    frame = lmgc_torch.compress(
        payloads,
        method="lmgc",
        prior=prior,
        lane_elements=lane,
        bypass=False,  # the paper's model codes every digit
        memory_limit=lanes * window * STATE_BYTES,  # all lanes in one batch
        **text.options,
    )
    back = lmgc_torch.decompress(frame, prior=prior)
    if not isinstance(back, list) or not measure.identical(payloads, back):
        raise RuntimeError("the frame does not give back its tensors")
    info = lmgc_torch.info(frame)
    sizes = [tensor.section_bytes + info.header_bytes for tensor in info.tensors]
    return sizes, [tensor.method != "lmgc" for tensor in info.tensors]


def teacher_forced(
    payload: Tensor, text: Text, prior_file: str, window: int
) -> tuple[int, released.Lengths]:
    """Returns the tokens of a payload, and both code lengths of its digits in bits."""
    module, vocabulary = _module(prior_file)
    symbols = vocabulary.symbols(text)
    count, code, by_formula = 0, 0.0, 0.0
    lane = lane_elements(payload, text, window)
    nats = math.log(2) / module.units_per_octave  # of a unit of a logit
    with torch.inference_mode():
        for length, rows in windows(payload, text, window, lane).items():
            for part in _groups(rows, max(1, FORWARD_TOKENS // length)):
                tokens = torch.stack(part).long()
                ids = vocabulary.ids(text, tokens)
                ids = torch.cat([torch.full([len(part), 1], vocabulary.bos), ids[:, :-1]], 1)
                logits = module(ids, torch.zeros([*ids.shape, 0]))[:, :, symbols]
                coded = (tokens < len(symbols)).numpy()
                shares = released.probabilities(nats * logits.double().numpy()[coded])
                lengths = released.lengths(shares, tokens.numpy()[coded].astype(np.int64))
                code, by_formula = code + lengths.code, by_formula + lengths.released
                count += tokens.numel()
    return count, released.Lengths(code, by_formula)


def _groups(rows: list[Tensor], size: int) -> list[list[Tensor]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@functools.lru_cache(maxsize=8)
def _module(prior_file: str) -> tuple[torch.jit.ScriptModule, Vocabulary]:
    module = torch.jit.load(prior_file)
    return module, Vocabulary(list(module.vocab))


def codec_cells(job: Job, inputs: Inputs) -> list[Cell]:
    """Codes a payload with the general codecs, whole and in chunks, and with our own methods."""
    found = []
    for draw in range(inputs.draw_count):
        made, zeros, error = payload_of(job, inputs, draw)
        base = asdict(_cell(job, draw, made, zeros, error))
        data, dtype = made.payload.numpy().tobytes(), made.payload.dtype
        for name, peer in codecs.codecs().items():
            if not peer.takes([dtype]):
                continue
            for chunk in (codecs.CHUNK_BYTES, None):
                size = codecs.coded_size(peer, data, dtype, chunk)
                found.append(Cell(**base | {"method": name, "bytes": size, "chunk": chunk}))
        for method in ("planes", "scale", "lmgc"):
            size = measure.measure_ours(job.data, [made.payload], method).compressed_bytes
            found.append(Cell(**base | {"method": method, "bytes": size}))
    return found


def whole_cells(job: Job, inputs: Inputs) -> list[Cell]:
    """Codes all tensors of all steps of a draw, as files would be."""
    found = []
    for draw in range(inputs.draw_count):
        steps = inputs.capture(job.data, draw).values()
        tensors = [tensor for step in steps for tensor in step.values()]
        vector = torch.cat([tensor.flatten() for tensor in tensors])
        base = {
            "data": job.data,
            "payload": job.payload,
            "draw": draw,
            "raw_bytes": vector.nbytes,
            "floats": vector.numel(),
            "zeros": float((vector == 0).double().mean()),
            "whole": True,
        }
        for name, peer in codecs.codecs().items():
            size = codecs.coded_size(peer, vector.numpy().tobytes(), vector.dtype)
            found.append(Cell(**base | {"method": name, "bytes": size}))
        for method in ("planes", "scale", "lowrank", "lmgc"):
            size = measure.measure_ours(job.data, tensors, method).compressed_bytes
            found.append(Cell(**base | {"method": method, "bytes": size}))
    return found
