"""Priors in `lmgc_torch.reference`: docs/format.md, sections 7.5 and 8."""

import contextlib
import functools
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lmgc_torch.errors import PriorMismatchError
from lmgc_torch.reference_common import (
    Matrix,
    checksum,
    finish,
    mix,
)
from lmgc_torch.reference_frame import PriorBlock

__all__: list[str] = []  # for the reference only


def neighbours(matrix: Matrix) -> dict[str, int]:
    """Returns how many elements back each neighbour lies."""
    c, p = matrix.columns, matrix.taps
    places = {"left1": 1, "left2": 2, "left3": 3, "left4": 4}
    if p > 1:
        places |= {"tap_before": p - 1, "tap": p, "tap_after": p + 1}
        places |= {"tap2": 2 * p, "tap3": 3 * p, "above2_tap": 2 * c + p}
        places |= {"above_tap_after": c + p, "above_tap_before": c - p}
    else:
        places |= {"tap_before": 5, "tap": 6, "tap_after": 7}
        places |= {"tap2": 8, "tap3": 9, "above2_tap": 2 * c + 1}
        places |= {"above_tap_after": c + 2, "above_tap_before": c - 2}
    return places | {"above_before": c - 1, "above": c, "above_after": c + 1, "above2": 2 * c}


class LanguageModel:
    """The prior over one lane at a time: predicts the next symbol, and is told what it was."""

    def __init__(self, prior: Any, bits: int, separator: str) -> None:
        self.prior, self.separator = prior, separator
        self.vocab, self.names = list(prior.vocab), list(prior.context_features)
        self.ids = [self.token(f"{v:x}" if bits == 4 else chr(v)) for v in range(2**bits)]

    def token(self, text: str) -> int:
        if text not in self.vocab:
            raise PriorMismatchError(f"the prior's vocab has no token {text!r}")
        return self.vocab.index(text)

    def start_window(self) -> None:
        with plainly():
            self.state = self.prior.init_state(1)
        self.last = self.token("<bos>")

    def predict(self, features: dict[str, int]) -> None:
        """Asks for the next token's logits."""
        token = torch.tensor([self.last])
        row = torch.tensor([[float(features[name]) for name in self.names]])
        with plainly():
            self.logits, self.state = self.prior.step(token, row, self.state)

    def frequencies(self) -> list[int]:
        """Returns those of the next symbol's values."""
        logits = self.logits[0].float().numpy()[self.ids]
        return frequencies_of(logits, self.prior.units_per_octave)

    def see(self, value: int) -> None:
        self.last = self.ids[value]

    def see_separator(self) -> None:
        self.last = self.token(self.separator)


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Runs TorchScript modules as they are written."""
    with torch.no_grad(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        yield


EXP2_FACTORS = (66927405, 66746437, 66385968, 65670859, 64263668, 61539100, 56431603, 47453133)


def frequencies_of(logits: npt.NDArray[np.float32], units_per_octave: float) -> list[int]:
    """docs/format.md, section 7.5."""
    steps_per_unit = np.float32(256 / units_per_octave)
    most = np.float32(1e30)
    logits = np.where(np.isnan(logits), -most, np.clip(logits, -most, most))
    with np.errstate(over="ignore"):
        below = (logits.max() - logits) * steps_per_unit
    steps = [int(s) for s in np.minimum(below, np.float32(6656)) + np.float32(0.5)]
    weights = [exp2(s % 256) >> (s // 256) if s < 6656 else 0 for s in steps]
    scale = ((65536 - len(weights)) << 28) // sum(weights)
    frequencies = [1 + (weight * scale >> 28) for weight in weights]
    frequencies[weights.index(max(weights))] += 65536 - sum(frequencies)
    return frequencies


@functools.cache
def exp2(k: int) -> int:
    value = 2**26
    for bit, factor in enumerate(EXP2_FACTORS):
        if k >> bit & 1:
            value = (value * factor + 2**25) >> 26
    return value


def check_prior(block: PriorBlock, prior: Any) -> None:
    """docs/format.md, section 8."""
    if prior is None:
        raise PriorMismatchError("the frame was made with a prior; pass the same one")
    if not block.portable:
        raise PriorMismatchError("the reference decodes only what portable priors have encoded")
    same = (fingerprint_of(prior), prior.max_context, prior.portable, probe_of(prior))
    if same != (block.fingerprint, block.window_tokens, block.portable, block.probe):
        raise PriorMismatchError("the frame was made with another prior")


def fingerprint_of(prior: Any) -> tuple[int, int]:
    names = {torch.float32: "Float", torch.float16: "Half", torch.bfloat16: "BFloat16"}
    names |= {torch.float64: "Double", torch.uint8: "Byte", torch.int8: "Char"}
    names |= {torch.int16: "Short", torch.int32: "Int", torch.int64: "Long", torch.bool: "Bool"}
    items: list[bytes] = []
    for name, tensor in sorted([*prior.named_parameters(), *prior.named_buffers()]):
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        items += [name.encode(), names[tensor.dtype].encode()]
        items += [struct.pack(f"<{tensor.dim()}q", *tensor.shape), data]
    for texts in (prior.vocab, prior.context_features):
        items += [struct.pack("<q", len(texts)), *(text.encode() for text in texts)]
    items += [struct.pack("<q", prior.max_context), struct.pack("<?", prior.portable)]
    items += [struct.pack("<d", prior.units_per_octave)]
    state, counter = [1, 2], 0
    for item in items:
        for i in range(2):
            counter += 1
            state[i] = mix(state[i] ^ checksum(item), counter + 65537 * i)
    return state[0], state[1]


LMGC_FEATURES = {"digit", "exponent_bits", "mantissa_bits", "reference", "taps", "flat"}
LMGC_FEATURES |= {
    f"{name}.{kind}" for name in neighbours(Matrix([])) for kind in ("level", "value")
}


def probe_of(prior: Any) -> int:
    calls = 0

    def random(below: int) -> int:
        nonlocal calls
        calls += 1
        return finish(calls, 7) % below

    context, names = prior.max_context, prior.context_features
    fixed = {"exponent_bits": 8, "mantissa_bits": 23, "taps": 9, "flat": 0}
    overruled = {"reference": lambda: 800 + random(200)}
    per_element = 3
    if not set(names) <= LMGC_FEATURES:  # a prior of method lm
        fixed, overruled = {}, {"context": lambda: random(148)}
        per_element = 2
    positions = context
    if context >= per_element:
        positions = per_element * min(context // per_element, 5)
    digits = [prior.vocab.index(digit) for digit in "0123456789abcdef"]
    tokens, features = [], []
    for _ in range(4):
        row: list[int] = [0] * len(names)
        for t in range(positions):
            tokens.append(digits[random(16)] if t > 0 else prior.vocab.index("<bos>"))
            for i, name in enumerate(names):
                if t % per_element == 0:
                    row[i] = random(96) - 64
                    if name in overruled:
                        row[i] = overruled[name]()
                row[i] = t % per_element if name == "digit" else fixed.get(name, row[i])
            features.append(list(row))
    with plainly():
        logits = prior.forward(
            torch.tensor(tokens).reshape(4, positions),
            torch.tensor(features).reshape(4, positions, len(names)).float(),
        )
    result = 0
    for i, row_logits in enumerate(logits.float().reshape(4 * positions, -1).numpy()):
        frequencies = frequencies_of(row_logits[digits], prior.units_per_octave)
        result = mix(result ^ checksum(struct.pack("<16I", *frequencies)), i)
    return result
