"""What several test files use: bits, small priors, and frames written by hand."""

import json
import struct
import subprocess
import sys
import types
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmgc_torch import _library, form
from lmgc_torch.priors.model import IntegerLinear
from lmgc_torch.priors.residual import ResidualPrior

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
DTYPES = [
    *FLOATS,
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
    *(torch.uint16, torch.uint32, torch.uint64),
    *(torch.complex32, torch.complex64, torch.complex128),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    *([torch.float8_e8m0fnu] if hasattr(torch, "float8_e8m0fnu") else []),
]
WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # of floats, by their bytes
METHODS = ["raw", "planes", "scale", "lowrank", "auto", "lmgc"]


# ---- bits ----------------------------------------------------------------------------------------


def bits(tensor: Tensor) -> Tensor:
    """The bytes of a tensor as it reads, uint8 of shape [bytes]."""
    plain = form.flat(tensor.detach().resolve_conj().resolve_neg())
    if plain.numel() == 0:
        return torch.empty(0, dtype=torch.uint8, device=plain.device)
    return plain.view(torch.uint8)


def identical(one: Tensor, two: Tensor) -> bool:
    """Whether shape, type, device and every bit are the same."""
    return (
        one.shape == two.shape
        and one.dtype == two.dtype
        and one.device == two.device
        and torch.equal(bits(one), bits(two))
    )


def all_identical(one: Iterable[Tensor], two: Iterable[Tensor]) -> bool:
    one, two = list(one), list(two)
    return len(one) == len(two) and all(map(identical, one, two))


def equal(one: Any, two: Any) -> bool:
    """Whether two objects have the same types, the same bits, and the same order."""
    if type(one) is not type(two):
        return False
    if isinstance(one, Tensor):
        return identical(one, two) and one.requires_grad == two.requires_grad
    if isinstance(one, float):
        return struct.pack(">d", one) == struct.pack(">d", two)
    if isinstance(one, complex):
        return equal([one.real, one.imag], [two.real, two.imag])
    if isinstance(one, dict):
        same = equal(list(one), list(two)) and equal(list(one.values()), list(two.values()))
        return same and equal(getattr(one, "__dict__", None), getattr(two, "__dict__", None))
    if isinstance(one, list | tuple) and type(one) is not torch.Size:
        return len(one) == len(two) and all(map(equal, one, two))
    return bool(one == two)


def from_bytes(data: bytes, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """A tensor of any bits, except that a bool is 0 or 1."""
    if not data:
        return torch.empty(shape, dtype=dtype)
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    if dtype == torch.bool:
        raw = raw & 1
    return raw.view(dtype).reshape(shape)


def gradient(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """What gradients look like: rows of different scale, some of them zero."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator) * 1e-3
    if values.dim() > 1:
        values *= torch.exp(torch.randn(shape[0], *[1] * (len(shape) - 1), generator=generator))
        values[::7] = 0
    return values.to(dtype)


# ---- priors --------------------------------------------------------------------------------------

SEPARATOR_TEXTS = [" ", ",", ", ", ";", "0x"]
HEX_VOCAB = [*"0123456789abcdef", "<bos>", *SEPARATOR_TEXTS]
BYTE_VOCAB = [*map(chr, range(256)), "<bos>", ", ", "0x"]


class TablePrior(nn.Module):
    """Predicts a token from the two before it, by counts.

    With context features it also adds a term of the digit's place, so that features matter.
    """

    vocab: list[str]
    context_features: list[str]
    max_context: int
    portable: bool
    units_per_octave: float
    table: Tensor

    def __init__(self, vocab: list[str], features: list[str], context: int, portable: bool) -> None:
        super().__init__()
        self.vocab = list(vocab)
        self.context_features = list(features)
        self.max_context = context
        self.portable = portable
        self.units_per_octave = 256.0
        self.rows = 509
        table = torch.log2(_counts(vocab, self.rows)) * 256
        self.register_buffer("table", table.round() if portable else table)

    def look_up(self, before: Tensor, before_that: Tensor, features: Tensor) -> Tensor:
        logits = self.table[(31 * before + 17 * before_that) % self.rows]
        if features.size(-1) > 0:
            place = torch.arange(logits.size(-1), device=logits.device) % 4
            logits = logits + place * (features.sum(-1, keepdim=True) % 64).floor()
        return logits

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        before_that = torch.zeros_like(tokens)
        before_that[:, 1:] = tokens[:, :-1]
        return self.look_up(tokens, before_that, features)

    @torch.jit.export
    def init_state(self, lanes: int) -> Tensor:
        return torch.zeros([lanes], dtype=torch.int64, device=self.table.device)

    @torch.jit.export
    def step(self, tokens: Tensor, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.look_up(tokens, state, features), tokens.clone()


def _counts(vocab: list[str], rows: int) -> Tensor:
    """Counts [rows, vocab] of the digits of normal numbers: signs and exponents."""
    counts = torch.full([rows, len(vocab)], 0.5, dtype=torch.float64)
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(7)) * 1e-3
    wide = len(vocab) > 256
    bos = vocab.index("<bos>") if "<bos>" in vocab else 0
    for dtype in (torch.float32, torch.bfloat16):
        words = bits(values.to(dtype)).view(len(values), -1).long().flip(1)[:, :2]
        head = (
            words
            if wide
            else torch.stack([words[:, 0] >> 4, words[:, 0] & 15, words[:, 1] >> 4], 1)
        )
        window = head.reshape(-1, 10 * head.size(1))
        start = torch.full([len(window), 1], bos)
        before = torch.cat([start, window[:, :-1]], 1)
        before_that = torch.cat([torch.zeros_like(start), before[:, :-1]], 1)
        row = (31 * before + 17 * before_that) % rows
        index = (row * len(vocab) + window).flatten()
        counts += torch.bincount(index, minlength=counts.numel()).view_as(counts)
    return counts.float()


def random_residual_prior(hidden: tuple[int, int] = (64, 32), seed: int = 0) -> ResidualPrior:
    """The bundled prior of method lm with any numbers in place of those that were learned."""
    generator = torch.Generator().manual_seed(seed)

    def layer(outputs: int, inputs: int, shift: int) -> IntegerLinear:
        return IntegerLinear(
            torch.randint(-127, 128, (outputs, inputs), generator=generator),
            torch.randint(-5000, 5001, (outputs,), generator=generator),
            torch.randint(shift, shift + 3, (outputs,), generator=generator),
        )

    table = torch.rand((148, 16, 10, 16), generator=generator, dtype=torch.float64) ** 8
    table[:, 0, :, 1:3] = 0
    table = (table / table.sum((1, 3), keepdim=True) * 32768).floor().int()
    table[:, 8, :, 1] += 32768 - table.sum((1, 3))
    layers = layer(hidden[0], 49, 7), layer(hidden[1], hidden[0], 6), layer(12, hidden[1], 5)
    return ResidualPrior(*layers, table)


def write_prior(
    path: Path,
    *,
    vocab: list[str] | None = None,
    features: Sequence[str] = (),
    context: int = 32,
    portable: bool = True,
) -> Path:
    prior = TablePrior(vocab or HEX_VOCAB, list(features), context, portable)
    save_scripted(prior, path)
    return path


def save_scripted(module: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))


class _NoStep(nn.Module):
    context_features: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.vocab = list(HEX_VOCAB)
        self.context_features = []
        self.max_context = 32
        self.portable = True
        self.units_per_octave = 256.0

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        return torch.zeros(tokens.size(0), tokens.size(1), 22)

    @torch.jit.export
    def init_state(self, lanes: int) -> Tensor:
        return torch.zeros([lanes], dtype=torch.int64)


class _NoAttributes(nn.Module):
    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        return torch.zeros(tokens.size(0), tokens.size(1), 22)


class _WrongLogits(TablePrior):
    """Loads, but what it returns has one token too few."""

    def look_up(self, before: Tensor, before_that: Tensor, features: Tensor) -> Tensor:
        return self.table[before % 2][..., 1:]


class _KeepsItsInputs(TablePrior):
    """Its state is the very tensor that step() was given."""

    @torch.jit.export
    def step(self, tokens: Tensor, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.look_up(tokens, state, features), tokens


def write_broken_priors(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no priors: name to path and a word of the message that tells why."""
    broken: dict[str, tuple[Path, str]] = {}

    def add(name: str, says: str, module: nn.Module | None = None) -> Path:
        broken[name] = (folder / f"{name}.pt", says)
        if module is not None:
            save_scripted(module, broken[name][0])
        return broken[name][0]

    add("no-attributes", "vocab", _NoAttributes())
    add("no-step", "step", _NoStep())
    add("no-bos", "<bos>", TablePrior(_without_bos(), [], 32, True))
    add("no-digit", "'7'", TablePrior([t for t in HEX_VOCAB if t != "7"], [], 32, True))
    add("unknown-feature", "no.such", TablePrior(HEX_VOCAB, ["no.such"], 32, True))
    add("no-context", "max_context", TablePrior(HEX_VOCAB, [], 0, True))
    add("text", "TorchScript").write_text("this is no TorchScript file")
    add("empty", "TorchScript").write_bytes(b"")
    torch.save({"weight": torch.zeros(3)}, add("state-dict", "TorchScript"))
    whole = write_prior(folder / "whole.pt").read_bytes()
    add("cut", "TorchScript").write_bytes(whole[: len(whole) // 2])
    return broken


def _without_bos() -> list[str]:
    return [text if text != "<bos>" else "<start>" for text in HEX_VOCAB]


def write_wrong_logits(path: Path) -> Path:
    save_scripted(_WrongLogits(HEX_VOCAB, [], 32, True), path)
    return path


def write_prior_that_keeps_its_inputs(path: Path) -> Path:
    save_scripted(_KeepsItsInputs(HEX_VOCAB, [], 32, True), path)
    return path


# ---- frames by hand ------------------------------------------------------------------------------

_MASK = 2**64 - 1


def checksum(data: bytes) -> int:
    """core/checksum.h, once more."""
    total = 0
    padded = data + bytes(-len(data) % 8)
    for index, (word,) in enumerate(struct.iter_unpack("<Q", padded)):
        x = (word + (index + 1) * 0x9E3779B97F4A7C15) & _MASK
        x ^= x >> 32
        x = x * 0xD6E8FEB86659FD93 & _MASK
        x ^= x >> 29
        total += x
    x = (total ^ (len(data) * 0xC2B2AE3D27D4EB4F)) & _MASK
    x ^= x >> 32
    x = x * 0xD6E8FEB86659FD93 & _MASK
    return x ^ (x >> 32)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@dataclass
class JoinedTensor:
    """One of the tensors of a record, as a header tells it."""

    skipped: int  # places between it and the one before
    sizes: Sequence[int]
    data_checksum: int = 0

    def header(self) -> bytes:
        return varint(self.skipped) + _tensor_header(self.sizes, self.data_checksum)


def _tensor_header(sizes: Sequence[int], data_checksum: int) -> bytes:
    listed = b"".join(map(varint, sizes))
    return varint(len(sizes)) + listed + struct.pack("<I", data_checksum & 0xFFFFFFFF)


@dataclass
class Record:
    """What a section of a frame is of, as its header tells it; nothing is checked."""

    sizes: Sequence[int]
    section: bytes = b""
    dtype: int = 2  # float32 in a frame
    method: int = 0  # raw
    data_checksum: int | None = None  # None: of the section
    section_size: int | None = None  # None: of the section
    spare: tuple[int, int] | None = None  # bits and exponents: short floats
    joined: Sequence[JoinedTensor] = ()  # instead of sizes and data_checksum

    def header(self) -> bytes:
        data = checksum(self.section) if self.data_checksum is None else self.data_checksum
        size = len(self.section) if self.section_size is None else self.section_size
        spare = b"" if self.spare is None else bytes([self.spare[0]]) + varint(self.spare[1])
        method = self.method + (128 if self.spare else 0) + (64 if self.joined else 0)
        told = _tensor_header(self.sizes, data)
        if self.joined:
            told = varint(len(self.joined)) + b"".join(one.header() for one in self.joined)
        return bytes([self.dtype, method]) + spare + told + varint(size)


def frame_by_hand(
    records: Sequence[Record],
    *,
    metadata: bytes = b"",
    count: int | None = None,
    prior: bytes | None = None,
    flags: int | None = None,
    version: int = 1,
    trailing: bytes = b"",
) -> bytes:
    """A frame with right checksums, whatever its header says."""
    body = varint(len(metadata)) + metadata + (prior or b"")
    body += varint(len(records) if count is None else count)
    body += b"".join(record.header() for record in records) + trailing
    payload = b"".join(record.section for record in records)
    flags = int(prior is not None) if flags is None else flags
    head = b"LMGC" + bytes([version, flags]) + struct.pack("<I", 10 + len(body) + 16)
    head += body + struct.pack("<Q", checksum(payload))
    return head + struct.pack("<Q", checksum(head)) + payload


def resealed(frame: bytes) -> bytes:
    """The frame with its header's and payload's checksums made right again."""
    (size,) = struct.unpack_from("<I", frame, 6)
    if not 26 <= size <= len(frame):
        return frame
    head = frame[: size - 16] + struct.pack("<Q", checksum(frame[size:]))
    return head + struct.pack("<Q", checksum(head)) + frame[size:]


def to_bytes(frame: Tensor) -> bytes:
    return bytes(frame.cpu().tolist())


def to_tensor(data: bytes) -> Tensor:
    if not data:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


# ---- other ---------------------------------------------------------------------------------------


def ops():
    return _library.ops()


def op_info(frame: Tensor) -> dict:
    return json.loads(ops().info(frame))


def has_cuda() -> bool:
    try:
        return torch.cuda.is_available() and bool(_library.native().build_info()["cuda"])
    except ImportError:
        return False


def python(program: str, **options) -> subprocess.CompletedProcess[str]:
    """Runs a program in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, **options
    )


def run_notebook(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Runs the cells of a notebook that shows things with IPython, and returns what they showed."""
    assert path.stat().st_size < 500_000
    shown: list[object] = []
    module = types.ModuleType("IPython.display")
    module.Image = module.Markdown = lambda content: content  # type: ignore[attr-defined]
    module.display = shown.append  # type: ignore[attr-defined]
    package = types.ModuleType("IPython")
    package.get_ipython, package.version_info = lambda: None, (9, 0)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names: dict[str, object] = {}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    return shown
