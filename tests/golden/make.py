"""Writes the golden files: frames of one format version that decode for ever.

    python tests/golden/make.py 2            once, when version 2 of the format is released
    python tests/golden/make.py 2 --force    again, while the version is not released

`v1.json` lists the frames of version 1: for each name the options it was compressed with, and
type, shape and method of its tensors. The frame is `v1_NAME.lmgc`, the tensors' bytes, one after
the other, are `v1_NAME.raw`. Those of version 2 have what version 1 does not know, and so on.
Frames of method "lmgc", whatever their version, need `prior_v1.pt`, those of method "lm" the prior
that `prior_files` tells: `prior_v2_lm.pt`, or one of the bundled architecture, which is built from
numbers. Where there is a `NAME.before`, it is the frame that this one refers to, where there is a
`NAME.reference`, it has the bytes of the tensors that it was compressed relative to.
tests/test_golden.py reads all of it.
"""

import argparse
import itertools
import json
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]

from golden_tensors import (  # noqa: E402
    exactly_low_rank,
    few_values,
    gradient,
    low_rank,
    low_rank_convolution,
    mixed_low_rank,
    numbers,
    on_grid,
    segments,
    special,
    values,
    with_dead_lines,
    with_zero_bits,
)
from helpers import DTYPES, FLOATS, bits, ops, to_bytes  # noqa: E402
from priors_of_lm import GoldenDigits, residual_prior  # noqa: E402

from lmgc_torch import PastFrame, Prior, compress, info  # noqa: E402

PRIOR = FOLDER / "prior_v1.pt"
LM_PRIOR = FOLDER / "prior_v2_lm.pt"
NEIGHBOURS = (
    *("left1", "left2", "left3", "left4", "tap_before", "tap", "tap_after", "tap2", "tap3"),
    *("above_before", "above", "above_after", "above_tap_after", "above2", "above_tap_before"),
    "above2_tap",
)
FEATURES = (
    *("digit", "exponent_bits", "mantissa_bits", "reference", "taps", "flat"),
    *(f"{neighbour}.{kind}" for neighbour in NEIGHBOURS for kind in ("level", "value")),
)


# ---- the prior -----------------------------------------------------------------------------------


class GoldenPrior(nn.Module):
    """Counts of what follows two tokens, shifted by all features: each of them matters.

    Its vocabulary has every character, so that it speaks hexadecimal and "iso-8859-1".
    """

    vocab: list[str]
    context_features: list[str]
    max_context: int
    portable: bool
    units_per_octave: float
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.vocab = [*map(chr, range(256)), "<bos>", ", ", "0x"]
        self.context_features = list(FEATURES)
        self.max_context = 40
        self.portable = True
        self.units_per_octave = 64.0
        self.rows = 61
        samples = [few_values(torch.uint8, 400, 10, seed=0).tolist()]
        for dtype in FLOATS:
            elements = bits(gradient(50, 40, dtype=dtype, seed=0)).view(2000, -1)
            samples.append(elements.flip(1)[:, :2].tolist())  # the bytes with sign and exponent
        counts = torch.ones(self.rows, len(self.vocab))
        for sample in itertools.chain(*samples):
            for text in (bytes(sample).decode("latin-1"), bytes(sample).hex()):
                tokens = [0, self.vocab.index("<bos>"), *map(self.vocab.index, text)]
                for i, token in enumerate(tokens[2:]):
                    counts[(19 * tokens[i + 1] + 7 * tokens[i]) % self.rows, token] += 1
        self.register_buffer("table", (torch.log2(counts) * 64).round().to(torch.int16))

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        before_that = torch.zeros_like(tokens)
        before_that[:, 1:] = tokens[:, :-1]
        return self.look_up(tokens, before_that, features)

    @torch.jit.export
    def init_state(self, lanes: int) -> list[Tensor]:
        return [torch.zeros([lanes], dtype=torch.int64, device=self.table.device)]

    @torch.jit.export
    def step(
        self, tokens: Tensor, features: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        return self.look_up(tokens, state[0], features), [tokens.clone()]

    def look_up(self, before: Tensor, before_that: Tensor, features: Tensor) -> Tensor:
        weights = torch.arange(features.size(-1), device=features.device) % 3 + 1
        shift = (features * weights).sum(-1, keepdim=True) % 8
        place = torch.arange(len(self.vocab), device=features.device) % 3
        return self.table[(19 * before + 7 * before_that) % self.rows].float() + place * shift


def write_prior(path: Path, module: nn.Module | None = None) -> None:
    """Writes a module as TorchScript, the one of method "lmgc" if none is given."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script((module or GoldenPrior()).eval()).save(str(path))
    # Where the source lay when it was compiled is nobody's business.
    with zipfile.ZipFile(path) as archive:
        kept = [name for name in archive.namelist() if not name.endswith(".debug_pkl")]
        content = {name: archive.read(name) for name in kept}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def digits_prior() -> GoldenDigits:
    """The prior of frames "lm_...": it has counted digits of tensors like theirs."""
    counted = []
    for _, tensors, _ in frames_of_lm("lm"):
        for tensor in tensors:
            for method in ("scale", "lowrank"):
                symbols, contexts = ops().residual_features(tensor, ["context"], method)
                counted += [
                    (s.long(), c[:, 0].long()) for s, c in zip(symbols, contexts, strict=True)
                ]
    return GoldenDigits(counted)


def prior_files(folder: Path) -> dict[str, Path]:
    """Returns the priors' files by how the names of their frames begin; the first that fits.

    Args:
        folder: Where the prior of the bundled architecture is written to.
    """
    native = folder / "native.pt"
    write_prior(native, residual_prior(numbers(4000, 23)))
    return {"lm_native_": native, "lm_": LM_PRIOR, "": PRIOR}


# ---- the frames ----------------------------------------------------------------------------------


Frames: TypeAlias = Iterator[tuple[str, list[Tensor], dict[str, Any]]]


def frames_v1() -> Frames:
    """Yields the name, the tensors and the options of each frame."""
    empty = [torch.empty(0), torch.empty(3, 0, 2, dtype=torch.int8)]
    every = [few_values(dtype, 2, 3, seed=2) for dtype in DTYPES]
    yield "nothing", [], {"method": "raw"}
    yield "raw", [torch.tensor(1.5), *empty, *every], {"method": "raw"}
    yield "planes_types", [few_values(d, 300, seed=3) for d in DTYPES], {"method": "planes"}
    yield "planes_segments", [segments(4)], {"method": "planes"}
    zeros = [torch.zeros(500), torch.zeros(0), gradient(80, 40, dtype=torch.float32, seed=5)]
    yield "planes_zeros", zeros, {"method": "planes"}
    for dtype in FLOATS:
        name = str(dtype).removeprefix("torch.")
        tensors = [gradient(40, 50, dtype=dtype, seed=6), special(dtype)]
        yield f"planes_{name}", tensors, {"method": "planes"}
        convolution = gradient(6, 5, 3, 3, dtype=dtype, seed=7)
        tensors = [gradient(20, 24, dtype=dtype, seed=8), convolution, special(dtype)]
        yield f"lmgc_{name}", tensors, {"method": "lmgc", "lane_elements": 200}
        positive = values(400, dtype, seed=13).abs()
        tensors = [
            tensors[0],
            convolution,
            special(dtype, 300),
            positive,
            torch.zeros(15, 20).to(dtype),
        ]
        yield f"scale_{name}", tensors, {"method": "scale"}
        tensors = [
            with_dead_lines(low_rank(40, 36, 2, dtype=dtype, seed=14)),
            low_rank_convolution(10, 14, 2, dtype=dtype, seed=17),
        ]
        if dtype == torch.float32:
            tensors.append(exactly_low_rank(36, 30, 3, seed=20))
        yield f"lowrank_{name}", tensors, {"method": "lowrank"}
    mixed = mixed_types()
    for name, options in {
        "text": {"separator": "comma_space", "bytes_per_group": 3, "byte_order": "big"},
        "prefix": {"separator": "0x", "bytes_per_group": 8, "byte_order": "little"},
        "bytes": {"separator": "iso-8859-1", "bytes_per_group": 4, "byte_order": "big"},
        "modelled": {"bypass": False},
    }.items():
        yield f"lmgc_{name}", mixed, {"method": "lmgc", "lane_elements": 100, **options}


def frames_v2() -> Frames:
    """Windows that slide: of 13 elements, of few with separators, of 40 bytes."""
    for name, options in {
        "plain": {},
        "text": {"separator": "comma_space", "bytes_per_group": 3, "byte_order": "little"},
        "bytes": {"separator": "iso-8859-1", "byte_order": "big"},
        "modelled": {"bypass": False},
    }.items():
        sliding = {"method": "lmgc", "window": "sliding", "lane_elements": 150, **options}
        yield f"lmgc_sliding_{name}", mixed_types(), sliding
    yield from frames_of_lm("lm")
    yield from frames_of_lm("lm_native")


def frames_of_lm(begin: str) -> Frames:
    """Small tensors: what saves is that no tables stand in the frame."""
    for dtype in FLOATS if begin == "lm" else FLOATS[1:3]:
        name = str(dtype).removeprefix("torch.")
        shapes = [(12, 24), (12, 24), (300,), (8, 4, 3, 3), (15, 20), (6, 2, 5, 5), (14, 30)]
        tensors = [
            values(int(torch.Size(shape).numel()), dtype, 30 + i).view(shape)
            for i, shape in enumerate(shapes)
        ]
        if begin == "lm":  # the native prior expects few zeros
            tensors = [tensor.relu() for tensor in tensors]
        tensors[-1][5] = special(dtype, 120)[:30]
        yield f"{begin}_scale_{name}", tensors, {"method": "lm", "lane_elements": 150}
        tensors = [
            with_dead_lines(low_rank(40, 36, 2, dtype=dtype, seed=14)),
            low_rank_convolution(10, 14, 2, dtype=dtype, seed=17),
            torch.zeros(15, 20).to(dtype),
        ]
        yield f"{begin}_lowrank_{name}", tensors, {"method": "lm", "lane_elements": 150}


def frames_v3() -> Frames:
    """Factors that are told relative to those of the frame before.

    And short floats: mantissas that end in zeros, multiples of a power of two.
    """
    for dtype in FLOATS:
        name = str(dtype).removeprefix("torch.")
        yield f"past_{name}", sequence_of(dtype, 1), {"method": "lowrank"}
        yield f"reference_{name}", moved(dtype), {"method": "lowrank"}
    for dtype in FLOATS:
        name = str(dtype).removeprefix("torch.")
        bits_kept = 7 if dtype.itemsize > 2 else 4
        tensors = [
            with_zero_bits(gradient(40, 50, dtype=dtype, seed=6), bits_kept),
            with_zero_bits(special(dtype, 300), bits_kept),
            on_grid(values(400, torch.float64, seed=13), dtype),
        ]
        yield f"short_scale_{name}", tensors, {"method": "scale"}
        matrix = low_rank(40, 36, 2, dtype=torch.float64, seed=14)
        tensors = [
            with_zero_bits(with_dead_lines(matrix.to(dtype)), bits_kept),
            on_grid(low_rank_convolution(10, 14, 2, dtype=torch.float64, seed=17), dtype),
        ]
        yield f"short_lowrank_{name}", tensors, {"method": "lowrank"}
    for name, tensors, options in frames_of_lm("lm"):
        short = [
            with_zero_bits(tensor, 7 if tensor.element_size() > 2 else 4) for tensor in tensors
        ]
        yield name.replace("lm_", "lm_short_"), short, options


def frames_v4() -> Frames:
    """Small tensors that are coded as one, among others."""
    every = [few_values(d, 30 * i, seed=80 + i) for i in range(1, 4) for d in DTYPES]
    yield "joined_types", every, {"method": "planes"}
    for dtype in FLOATS:
        name = str(dtype).removeprefix("torch.")
        tensors = [
            values(50, dtype, 81),
            gradient(20, 24, dtype=dtype, seed=82),
            torch.tensor(7),
            special(dtype, 300),
            torch.tensor(1.5, dtype=dtype),
            torch.empty(0, 4, dtype=dtype),
            torch.tensor(8),
            gradient(1, 250, dtype=dtype, seed=83),
        ]
        yield f"joined_planes_{name}", tensors, {"method": "planes"}
        yield f"joined_scale_{name}", tensors, {"method": "scale"}
        short = [
            tensor.half().to(dtype) if tensor.is_floating_point() else tensor for tensor in tensors
        ]
        if dtype.itemsize > 2:
            yield f"joined_short_{name}", short, {"method": "scale"}
        tensors = [values(count, dtype, 90 + i).relu() for i, count in enumerate((300, 90, 250))]
        tensors.insert(1, values(12 * 24, dtype, 95).view(12, 24).relu())
        yield f"lm_joined_{name}", tensors, {"method": "lm", "lane_elements": 150}


def sequence_of(dtype: torch.dtype, step: int) -> list[Tensor]:
    matrix = mixed_low_rank(80, 70, 6, dtype=dtype, seed=50, step=step)
    matrix[5 + step : 8] = 0
    turned = mixed_low_rank(20, 9 * 10, 4, dtype=dtype, seed=60, step=step)
    convolution = turned.view(20, 10, 3, 3).transpose(0, 1).contiguous()
    return [matrix, values(50, dtype), convolution]


def checkpoint(dtype: torch.dtype) -> list[Tensor]:
    """A matrix, one whose elements all shrink, short floats, and numbers of all kinds."""
    matrix = values(40 * 36, dtype, 70).view(40, 36)
    return [
        matrix,
        values(1000, dtype, 71).abs(),
        with_zero_bits(values(400, dtype, 72), 4),
        special(dtype, 300),
    ]


def moved(dtype: torch.dtype) -> list[Tensor]:
    """The same some steps later."""
    matrix, shrunk, short, kinds = (tensor.double() for tensor in checkpoint(dtype))
    matrix += low_rank(40, 36, 2, dtype=torch.float64, seed=73) / 256
    matrix[4:7] = 0
    shrunk *= 1 - 2.0**-9
    short += values(400, torch.float64, 74) / 64
    kinds = torch.where(kinds.isfinite(), kinds * 1.01, kinds).flip(0)
    result = [matrix, shrunk, with_zero_bits(short.to(dtype), 4), kinds]
    return [tensor.to(dtype) for tensor in result]


def reference(name: str) -> list[Tensor] | None:
    """The tensors that a frame was compressed relative to."""
    begin, _, dtype = name.partition("_")
    return checkpoint(getattr(torch, dtype)) if begin == "reference" else None


def before(name: str) -> list[Tensor] | None:
    """The tensors of the frame that a frame refers to."""
    begin, _, dtype = name.partition("_")
    return sequence_of(getattr(torch, dtype), 0) if begin == "past" else None


FRAMES = {1: frames_v1, 2: frames_v2, 3: frames_v3, 4: frames_v4}


def mixed_types() -> list[Tensor]:
    return [
        gradient(20, 24, dtype=torch.float32, seed=10),
        gradient(10, 20, dtype=torch.float16, seed=12).float(),  # digits that are constant
        few_values(torch.int16, 8, 25, seed=11),
        torch.tensor(2.0),
        torch.full((15, 15), 1.0, dtype=torch.bfloat16),
    ]


# ---- the files -----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version", type=int, choices=FRAMES)
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    options = parser.parse_args(arguments)
    version, index = options.version, index_of(options.version)
    if index.exists() and not options.force:
        print(f"{index.name} is there already: golden files are written once (see --force)")
        return 1
    with tempfile.TemporaryDirectory() as folder:  # the old files stay until all new ones are made
        make(version, Path(folder))
        for old in FOLDER.glob(f"*v{version}[_.]*"):
            old.unlink(missing_ok=True)
        for new in Path(folder).iterdir():
            shutil.copyfile(new, FOLDER / new.name)
    return 0


def index_of(version: int) -> Path:
    return FOLDER / f"v{version}.json"


def make(version: int, folder: Path) -> None:
    if version == 1:
        write_prior(folder / PRIOR.name)
    elif version == 2:
        write_prior(folder / LM_PRIOR.name, digits_prior())
    index = {}
    with tempfile.TemporaryDirectory() as elsewhere:
        files = prior_files(Path(elsewhere)).items()
        priors = {
            begin: Prior.load(folder / file.name if (folder / file.name).exists() else file)
            for begin, file in files
        }
    for name, tensors, options in FRAMES[version]():
        prior = next(prior for begin, prior in priors.items() if name.startswith(begin))
        past = None
        if (first := before(name)) is not None:
            past = PastFrame()
            data = compress(first, past=past, **options)
            (folder / f"v{version}_{name}.before").write_bytes(to_bytes(data))
        known = reference(name)
        if known is not None:
            data = b"".join(to_bytes(bits(tensor)) for tensor in known)
            (folder / f"v{version}_{name}.reference").write_bytes(data)
        frame = compress(tensors, prior=prior, past=past, reference=known, **options)
        assert info(frame).version == version
        (folder / f"v{version}_{name}.lmgc").write_bytes(to_bytes(frame))
        raw = b"".join(to_bytes(bits(tensor)) for tensor in tensors)
        (folder / f"v{version}_{name}.raw").write_bytes(raw)
        about = [
            [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), coded.method]
            for tensor, coded in zip(tensors, info(frame).tensors, strict=True)
        ]
        index[name] = {"options": options, "tensors": about}
        print(f"{name}: {frame.numel():,} bytes for {len(raw):,}")
    entries = (f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in index.items())
    (folder / index_of(version).name).write_text("{\n" + ",\n".join(entries) + "\n}\n")


if __name__ == "__main__":
    sys.exit(main())
