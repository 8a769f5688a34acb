"""Shows where the bits of methods `scale` and `lowrank` go, and what ranks and digits are worth.

    python benchmarks/low_rank.py benchmarks/data/report/*.pt --batches 1 4 16 64

writes plots into docs/images and prints tables in Markdown: where the bits go, whether a second
hexadecimal digit of each residual needs to be modelled, and how batches change the sizes. Sizes of
frames are real; those of ranks and digits that the encoder did not choose are from the model in
`fixed_model.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import fixed_model as model
import matplotlib as mpl
import numpy as np
import torch
from fixed_model import Floats, Format
from gradients import CONTEXT, MODELS, capture
from measure import load
from torch import Tensor

mpl.use("Agg")
from matplotlib import pyplot as plt

IMAGES = Path(__file__).parents[1] / "docs" / "images"
PARTS = ("side", "digits", "escapes", "tails")
COLOURS = ("#7a5195", "#ef8f35", "#222222", "#9fb8d0")
MOST_CURVE_ELEMENTS = 1 << 20
LEAST_NOISE = 0.03


# ---- the low-rank prediction ---------------------------------------------------------------------


class Weighted(NamedTuple):
    """A matrix with power-of-two weights taken out, and its singular values."""

    values: Floats
    weights: Floats  # values * weights is the matrix
    left: Floats  # singular vectors
    squares: Floats  # of the singular values


def weighted(matrix: Floats) -> Weighted:
    """Returns a matrix under the weights of its residual, which a first fit tells."""
    rows, columns = model.levels(matrix**2)
    rows, columns = np.rint(rows), np.rint(columns)
    values = matrix * np.exp2(-rows - columns)
    left, _ = decompose(values)
    first = left[:, : min(values.shape) // 4 + 8]
    more_rows, more_columns = model.levels((values - first @ (first.T @ values)) ** 2)
    weights = np.exp2(rows + np.rint(more_rows) + columns + np.rint(more_columns))
    values = matrix / weights
    return Weighted(values, weights, *decompose(values))


def decompose(values: Floats) -> tuple[Floats, Floats]:
    """Returns the left singular vectors and squared singular values, the largest first."""
    squares, left = np.linalg.eigh(values @ values.T)
    return left[:, ::-1], np.maximum(squares[::-1], 0)


def wide(matrix: Floats) -> Floats:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def steps_of(found: Weighted, rank: int, fmt: Format) -> tuple[Floats, float]:
    """Returns the steps of the components' factors, and the variance that is left over."""
    elements = found.values.size
    rho = rank * sum(found.values.shape) / elements
    noise = max(LEAST_NOISE, 0.5 * rho / max(1 - rho, 0.1))
    total = found.squares.sum()
    finest = total * 2.0 ** (-2 * fmt.mantissa - 2)
    residual = max(found.squares[rank:].sum(), finest) / elements
    share = rank * np.maximum(found.squares[:rank] / elements, 1e-300)
    return np.sqrt(12 * noise * residual / share), residual


def gaussian_bits(log_deviation: Floats) -> Floats:
    """Returns the bits of Gaussians of standard deviation 2^t rounded to integers, closely."""
    return np.asarray(0.5 * np.log2(1 + 2 * np.pi * np.e * np.exp2(2 * log_deviation)))


def estimated_bits(found: Weighted, rank: int, fmt: Format, matrix: Floats | None = None) -> float:
    """Returns the encoder's estimate of a section's size at a rank.

    Args:
        found: what is predicted.
        rank: the rank.
        fmt: the format of the elements.
        matrix: the elements, where those of ``found`` are what something else leaves of them.
    """
    lines, elements = sum(found.values.shape), found.values.size
    variance, bits = found.squares.sum() / elements, 0.0
    if rank > 0:
        steps, variance = steps_of(found, rank, fmt)
        kept = 1 - np.minimum(steps**2 / 12, 1)
        variance += float((found.squares[:rank] / elements * (1 - kept**2)).sum())
        bits = 4 * lines + 10 * rank + lines * float(gaussian_bits(-np.log2(steps)).sum())
    return bits + estimated_elements_bits(found, variance, fmt, matrix)


def estimated_elements_bits(
    found: Weighted, variance: float, fmt: Format, matrix: Floats | None = None
) -> float:
    """Returns the estimate of what elements take whose weighted residuals have a variance."""
    matrix = found.values * found.weights if matrix is None else matrix
    above = np.log2(found.weights) - np.maximum(model.floor_log2(matrix), fmt.least)
    deviation = 0.5 * np.log2(max(variance, 1e-300)) + fmt.mantissa
    return float(gaussian_bits(above + deviation)[matrix != 0].sum())


class Rounded(NamedTuple):
    """The integer factors of a prediction: values are near (left * powers) @ right."""

    left: Floats  # (rows, components)
    right: Floats  # (components, columns)
    powers: Floats  # of two


def rounded_factors(found: Weighted, rank: int, fmt: Format) -> Rounded:
    """Returns the factors of a rank, rounded as by the encoder."""
    steps, _ = steps_of(found, rank, fmt)
    gain = steps**2 * np.sqrt(found.squares[:rank] / found.values.size)
    powers = np.exp2(np.rint(np.log2(gain)))
    units = np.sqrt(len(found.values)) / (steps * np.sqrt(powers / gain))
    left = np.rint(found.left[:, :rank] * units)
    useful = left.any(0)
    left, powers = left[:, useful], powers[useful]
    right, *_ = np.linalg.lstsq(left * powers, found.values, rcond=None)
    return Rounded(left, np.rint(right), powers)


def modelled_bits(found: Weighted, rank: int, fmt: Format) -> float:
    """Returns the ideal length of a section at a rank, its factors rounded as by the encoder."""
    matrix = found.values * found.weights
    prediction, side = np.zeros_like(matrix), 0.0
    if rank > 0:
        left, right, powers = rounded_factors(found, rank, fmt)
        prediction = (left * powers) @ right * found.weights
        side = _factor_bits(left) + _factor_bits(right.T)
        side += 10 * rank + model.BITS_OF_A_LINE * sum(matrix.shape)
    return side + elements_bits(matrix, prediction, fmt)


def elements_bits(matrix: Floats, prediction: Floats, fmt: Format) -> float:
    """Returns the ideal length of a matrix's elements and scales under a prediction."""
    elements = model.split(matrix, prediction, fmt)
    digits = model.two_digits_bits(model.fit_contexts(elements, bool(prediction.any())))
    rest = model.kinds_bits(elements) + model.tail_bits(elements) + elements.scale_bits
    return digits + rest


def _factor_bits(factor: Floats) -> float:
    deviation = np.sqrt((factor**2).mean(0) + 1 / 16)
    edges = [torch.from_numpy((factor + half) / deviation) for half in (-0.5, 0.5)]
    p = (torch.special.ndtr(edges[1]) - torch.special.ndtr(edges[0])).clamp_min(1e-12)
    return float(-p.log2().sum())


# ---- tensors and frames --------------------------------------------------------------------------


def is_matrix(tensor: Tensor) -> bool:
    """Tells whether a tensor is one that a prediction is looked for."""
    return (
        tensor.dtype in model.FORMATS
        and tensor.dim() > 1
        and tensor.numel() >= 1024
        and min(tensor.shape[0], tensor.numel() // tensor.shape[0]) >= 4
    )


def coded(tensor: Tensor, method: str) -> tuple[int, dict[str, int], int]:
    """Returns the rank that the encoder takes, the parts of the section, and its size, in bytes."""
    import lmgc_torch

    (about,) = lmgc_torch.info(lmgc_torch.compress(tensor, method=method)).tensors
    return about.rank, about.sections, about.section_bytes


def curve_tensor(path: Path) -> tuple[str, Tensor]:
    """Returns the largest matrix of a file that is not too large for the model."""
    fits = {
        name: tensor
        for name, tensor in load(path).items()
        if is_matrix(tensor) and tensor.numel() <= MOST_CURVE_ELEMENTS
    }
    return max(fits.items(), key=lambda item: item[1].numel())


def best_view(tensor: Tensor, fmt: Format, rank: int) -> Weighted:
    """Returns the tensor by dimension 0 or, where that is estimated smaller at a rank, by 1."""
    views = [tensor, tensor.transpose(0, 1)] if tensor.dim() > 2 else [tensor]
    found = [weighted(wide(model.live_matrix(view))) for view in views]
    return min(found, key=lambda f: estimated_bits(f, min(rank, len(f.values) - 1), fmt))


# ---- plots ---------------------------------------------------------------------------------------


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
    print(f"{path}: {path.stat().st_size:,} bytes", file=sys.stderr)


def plot_curves(files: Iterable[Path], images: Path) -> None:
    """Plots singular values, and sizes against ranks, of one matrix of each file."""
    spectra, spectra_axes = plt.subplots(figsize=(7, 4))
    ranks, ranks_axes = plt.subplots(figsize=(7, 4.5))
    for index, path in enumerate(files):
        name, tensor = curve_tensor(path)
        fmt = Format.of(tensor)
        taken, _, size = coded(tensor, "lowrank")
        found = best_view(tensor, fmt, taken)
        label, colour = f"{path.stem}, {name}", f"C{index}"
        values = np.sqrt(found.squares / found.squares[0])
        share = np.arange(1, len(values) + 1) / len(values)
        spectra_axes.semilogy(share, values, color=colour, label=label)
        chosen = sorted({round(x) for x in np.linspace(0, 0.9 * len(values), 25)} | {taken})
        raw = 8 * tensor.nbytes
        modelled = [100 * modelled_bits(found, rank, fmt) / raw for rank in chosen]
        estimated = [100 * estimated_bits(found, rank, fmt) / raw for rank in chosen]
        ranks_axes.plot(chosen, modelled, color=colour, label=label)
        ranks_axes.plot(chosen, estimated, "--", color=colour, linewidth=1)
        ranks_axes.plot([taken], [100 * size / tensor.nbytes], "o", color=colour)
        low = int(np.argmin(modelled))
        left = found.squares[taken:].sum() / found.squares.sum()
        print(
            f"{label}: rank {taken} of {len(values)}, {100 * size / tensor.nbytes:.2f} %; model "
            f"{modelled[chosen.index(taken)]:.2f} %, least {modelled[low]:.2f} % at {chosen[low]}; "
            f"left of the norm {100 * left**0.5:.2f} %",
            flush=True,
        )
    spectra_axes.set(xlabel="index / count", ylabel="singular value / largest", ylim=(1e-5, 1.2))
    ranks_axes.set(xlabel="rank", ylabel="% of raw")
    ranks_axes.set_title(
        "solid: model; dashed: the encoder's estimate; dot: the frame it wrote", fontsize=9
    )
    for axes in (spectra_axes, ranks_axes):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    _save(spectra, images / "spectra.png")
    _save(ranks, images / "size_by_rank.png")


def plot_parts(files: list[Path], images: Path) -> None:
    """Plots and prints where the bits of each file go, with both methods."""
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(files) + 1.2))
    heads = " | ".join(PARTS)
    print(f"| tensors | exponents alone | method | {heads} | in all |", "|---" * 8 + "|", sep="\n")
    for row, path in enumerate(files):
        tensors = [tensor for tensor in load(path).values() if is_matrix(tensor)]
        elements = sum(tensor.numel() for tensor in tensors)
        width = tensors[0].element_size()
        for offset, method in enumerate(("scale", "lowrank")):
            bits = dict.fromkeys(PARTS, 0.0)
            for tensor in tensors:
                for part, size in coded(tensor, method)[1].items():
                    bits[part] = bits.get(part, 0) + 8 * size / elements
            left = 0.0
            for part, colour in zip(PARTS, COLOURS, strict=True):
                share = 100 * bits[part] / (8 * width)
                at = -row - 0.38 * offset
                axes.barh(
                    at, share, 0.34, left, color=colour, label=part if row + left == 0 else ""
                )
                left += share
            cells = " | ".join(f"{bits[part]:.2f}" for part in PARTS)
            whole = f"`{method}` | {cells} | {sum(bits.values()):.2f}"
            print(f"| {path.stem} | {exponent_floor(tensors):.2f} | {whole} |", flush=True)
    axes.set_yticks([-row - 0.19 for row in range(len(files))], [path.stem for path in files])
    axes.tick_params(axis="y", labelsize=7)
    axes.set(xlabel="% of raw; above `scale`, below `lowrank`")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS]
    axes.legend(handles, PARTS, fontsize=7, ncols=4, loc="lower right")
    _save(figure, images / "parts.png")


def exponent_floor(tensors: list[Tensor]) -> float:
    """Returns the bits an element of codes that see nothing but the distribution of exponents.

    Signs and mantissas count as random; zeros are told by their exponent alone.
    """
    fmt = Format.of(tensors[0])
    values = np.concatenate([tensor.double().flatten().numpy() for tensor in tensors])
    exponents = np.where(values == 0, fmt.least - 1, model.floor_log2(values))
    share = np.unique(exponents, return_counts=True)[1] / values.size
    return float(-(share * np.log2(share)).sum() + (1 + fmt.mantissa) * (values != 0).mean())


# ---- one digit or two ----------------------------------------------------------------------------


def digits_of(path: Path) -> tuple[Floats, Floats]:
    """Returns the ideal sizes of a file's matrices with two modelled digits and with one.

    Each is an array of two: residuals of row and column scales alone, and of a truncated singular
    value decomposition in floating point of the encoder's rank. In % of raw.
    """
    two, one, raw = np.zeros(2), np.zeros(2), 0
    for tensor in load(path).values():
        if not is_matrix(tensor):
            continue
        fmt = Format.of(tensor)
        rank, _, _ = coded(tensor, "lowrank")
        found = best_view(tensor, fmt, rank)
        matrix = found.values * found.weights
        left = found.left[:, :rank]
        prediction = left @ (left.T @ found.values) * found.weights
        for index, predicted in enumerate((np.zeros_like(matrix), prediction)):
            elements = model.split(matrix, predicted, fmt)
            contexts = model.fit_contexts(elements, bool(predicted.any()))
            rest = model.kinds_bits(elements) + model.tail_bits(elements) + elements.scale_bits
            cells = 16 - int(elements.zero.any())
            two[index] += rest + model.two_digits_bits(contexts)
            one[index] += rest + model.one_digit_bits(contexts, cells)
        raw += 8 * tensor.nbytes
    return 100 * two / raw, 100 * one / raw


def print_digits(files: Iterable[Path]) -> None:
    """Prints the table of one digit against two."""
    print("| tensors | `scale`: two | one | difference | SVD residual: two | one | difference |")
    print("|---" * 7 + "|")
    for path in files:
        two, one = digits_of(path)
        cells = [f"{a:.2f} | {b:.2f} | {b - a:+.3f}" for a, b in zip(two, one, strict=True)]
        print(f"| {path.stem} | {' | '.join(cells)} |", flush=True)


# ---- the batch -----------------------------------------------------------------------------------


def print_batches(batches: Iterable[int], step: int = 20) -> None:
    """Prints the sizes of a character model's gradients by the pieces of text in a batch."""
    network, options = MODELS["gpt192x2"]
    print("| batch | positions | `scale` | `lowrank` | mean rank |", "|---" * 5 + "|", sep="\n")
    for batch in batches:
        kept = capture(network, "text", steps=(step,), seed=113, batch=batch, options=options)
        tensors = [tensor for tensor in kept[step].values() if is_matrix(tensor)]
        raw = sum(tensor.nbytes for tensor in tensors)
        sizes = [sum(coded(t, method)[2] for t in tensors) for method in ("scale", "lowrank")]
        ranks = [coded(tensor, "lowrank")[0] for tensor in tensors]
        cells = " | ".join(f"{100 * size / raw:.2f}" for size in sizes)
        print(f"| {batch} | {batch * CONTEXT} | {cells} | {np.mean(ranks):.0f} |", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".pt or .safetensors")
    parser.add_argument("--images", type=Path, default=IMAGES, help="where the plots go")
    parser.add_argument(
        "--batches", nargs="*", type=int, default=[], help="train with these, too, and compare"
    )
    parsed = parser.parse_args(arguments)
    parsed.images.mkdir(parents=True, exist_ok=True)
    networks: dict[str, Path] = {}
    for path in parsed.files:
        if "fp32" in path.stem:
            networks.setdefault(path.stem.split("_", 1)[0], path)
    plot_curves(networks.values(), parsed.images)
    plot_parts(parsed.files, parsed.images)
    print_digits(parsed.files)
    if parsed.batches:
        print_batches(parsed.batches)
    return 0


if __name__ == "__main__":
    sys.exit(main())
