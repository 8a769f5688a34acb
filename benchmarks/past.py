"""Finds out what the gradient of the step before could save method `lowrank`.

    python benchmarks/past.py --models gpt192x2 --dtypes fp32 bf16

trains on two simulated ranks and prints tables in Markdown: what the codec's factors and scales
would save, in points of raw, if both sides knew a gradient of the step before. Factors are those of
real frames; their code lengths are ideal ones under the codec's own kind of tables, and checked
against the frames. docs/past.md has the schemes and the finding.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator

import fixed_model as model
import low_rank
import numpy as np
import torch
from factor_model import (
    Frame,
    Sent,
    conditional_saving,
    entry_bits,
    factor_bits,
    frame_of,
    line_bits,
    plain,
    quarters,
    side_bits,
    widths_of,
)
from fixed_model import Floats, Format
from gradients import DTYPES, Gradients, capture_ranks
from low_rank import Weighted
from measure import identical
from torch import Tensor

from lmgc_torch import PastFrame, compress, decompress, info

RANKS = 2
SEEDS = {"gpt192x2": 103, "gpt256x1": 113, "vit192x2": 105, "convnet96x3": 118}
MOST_ELEMENTS = 1 << 18  # of a matrix that is looked at
FRACTION = 2.0**-16  # of past vectors in fixed point
SCHEMES = ("a", "b", "conditional", "earlier", "c", "d", "frames")
CASES = {  # what is coded, and what of the step before is known: ranks' own or their average
    "own from own": (0, 0),
    "own from average": (0, RANKS),
    "average from average": (RANKS, RANKS),
}


# ---- (b) factors next to the past ----------------------------------------------------------------


def projected_bits(sent: Sent, basis: Floats) -> float:
    """Returns the length of a factor whose projection on past vectors is sent apart.

    Per component either the entries, or the rounded coefficients of the first past vectors and what
    the integer prediction from them leaves. The number of vectors is the best of some. Coefficients
    are more lines of the factor's stream: they share its mixture.

    Args:
        sent: the factor.
        basis: past vectors, (lines, count), of unit length or nearly so, the first one first.
    """
    lines = len(sent.entries)
    spread = np.exp2(sent.line_widths / 2)[:, None]
    x, best = sent.entries / spread, factor_bits(sent)
    basis = np.rint(basis / FRACTION) * FRACTION
    for count in sorted({8, 16, 32, 64, basis.shape[1]}):
        if not 0 < count <= min(basis.shape[1], lines // 2):
            continue
        own = basis[:, :count]
        coefficients = np.linalg.lstsq(own, x, rcond=None)[0]
        left = np.maximum(((x - own @ coefficients) ** 2).mean(0), 1 / 12)
        # The noise of rounded coefficients that costs least, as docs/lowrank.md has it of factors.
        steps = np.exp2(np.maximum(np.rint(0.5 * np.log2(12 * left / (1 - count / lines))), 0))
        rounded = np.rint(coefficients / steps)
        means = (own @ (rounded * steps)) * spread
        squares = ((sent.entries - means) / spread) ** 2
        widths = quarters(np.sqrt(squares.mean(0) + 1 / 16))
        cost = low_rank.gaussian_bits(0.5 * np.log2((rounded**2).mean(0) + 1 / 16)) * count
        chosen = lines * (sent.component_widths - widths) / 4 > cost
        if not chosen.any():
            continue
        rest = Sent(sent.entries, np.where(chosen, widths, sent.component_widths), sent.line_widths)
        more = plain(rounded[:, chosen])
        stream = [
            np.concatenate([a.ravel(), b.ravel()])
            for a, b in (
                (sent.entries, more.entries),
                (np.where(chosen, means, 0), np.zeros(more.entries.shape)),
                (widths_of(rest), widths_of(more)),
            )
        ]
        told = line_bits(chosen) + line_bits(np.log2(steps[chosen])) + 8
        best = min(best, told + side_bits(rest) + side_bits(more) + entry_bits(*stream))
    return best


def mean_prediction(frame: Frame, past: Floats) -> Floats:
    """Returns what the right factor would be if the past matrix were to be predicted."""
    left = frame.factors[0].entries * frame.powers
    solution: Floats = np.linalg.lstsq(left, past, rcond=None)[0].T
    return solution


def shrunk_bits(sent: Sent, guess: Floats) -> float:
    """Returns the length of a factor predicted by a multiple of a guess of it, one a component."""
    x = sent.entries.astype(float)
    factor = (x * guess).sum(0) / np.maximum((guess**2).sum(0), 1e-30)
    sixteenths = np.clip(np.rint(16 * factor), -32, 32)
    means = guess * sixteenths / 16
    spread = np.exp2(sent.line_widths / 2)[:, None]
    widths = quarters(np.sqrt((((x - means) / spread) ** 2).mean(0) + 1 / 16))
    rest = Sent(sent.entries, widths, sent.line_widths)
    side = line_bits(sixteenths) + side_bits(rest)
    return side + entry_bits(sent.entries, means, widths_of(rest))


# ---- (a) past vectors instead of sent ones -------------------------------------------------------


def replaced_bits(found: Weighted, past: Floats, fmt: Format) -> dict[str, float]:
    """Returns the least lengths of a section that sends coefficients of past vectors alone.

    Args:
        found: the matrix.
        past: the past one, in the same weights.
        fmt: the format of the elements.

    Returns:
        By the past vectors that are used: "right", "left", or "both".
    """
    values, elements = found.values, found.values.size
    u, _, vt = np.linalg.svd(past, full_matrices=False)
    lengths = {}
    for name, left, right in (
        ("right", None, vt.T),
        ("left", u, None),
        ("both", u, vt.T),
    ):
        all_ = values if left is None else left.T @ values
        all_ = all_ if right is None else all_ @ right
        best, choice = np.inf, None
        for count in np.unique(
            np.linspace(max(1, len(values) / 12), 0.92 * len(values), 12).astype(int)
        ):
            at = slice(None if left is None else count), slice(None if right is None else count)
            share = all_[at].size / elements
            captured = (all_[at] ** 2).sum()
            finest = found.squares.sum() * 2.0 ** (-2 * fmt.mantissa - 2)
            variance = max(found.squares.sum() - captured, finest) / elements
            noise = max(low_rank.LEAST_NOISE, 0.5 * share / max(1 - share, 0.1))
            step = np.sqrt(12 * noise * variance / share)
            rounded = np.rint(all_[at] / step)
            bits = factor_bits(plain(rounded if left is None else rounded.T))
            after = variance + ((all_[at] - step * rounded) ** 2).sum() / elements
            estimate = bits + low_rank.estimated_elements_bits(found, after, fmt)
            if estimate < best:
                best, choice = estimate, (count, step * rounded, bits)
        assert choice is not None
        count, kept, bits = choice
        kept = kept if left is None else left[:, :count] @ kept
        kept = kept if right is None else kept @ right[:, :count].T
        bits += model.BITS_OF_A_LINE * sum(values.shape)
        prediction = kept * found.weights
        lengths[name] = bits + low_rank.elements_bits(values * found.weights, prediction, fmt)
    return lengths


# ---- (c) scales ----------------------------------------------------------------------------------


def scale_bits(frame: Frame, past: Frame | None) -> tuple[float, float]:
    """Returns the bits of a frame's weights and scales, and those that the past's would save."""
    own, saved = 0, 0
    for index, line in enumerate((*frame.weights, *frame.scales)):
        bits = line_bits(line)
        own += bits
        if past is None:
            continue
        before = (*past.weights, *past.scales)[index]
        if len(before) == len(line):
            saved += max(0, bits - line_bits(line - before))
    return own, saved


# ---- (d) elements --------------------------------------------------------------------------------


def correlation(a: Floats, b: Floats) -> float:
    size = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / size) if size > 0 else 0.0


def correlated_bits(r: float, elements: int) -> float:
    """Returns what Gaussians save that are predicted from others with a correlation."""
    return -0.5 * elements * float(np.log2(max(1 - r * r, 1e-12)))


def residual_correlation(frame: Frame, now: Floats, past: Floats) -> float:
    """Returns that of what the prediction leaves and what is in neither of its past spaces."""
    u, v = (factor.entries for factor in frame.factors)
    left = now - (u * frame.powers) @ v.T
    for vectors in (u, v):
        q, _ = np.linalg.qr(vectors.astype(float))
        past = (past - q @ (q.T @ past)).T
    return correlation(left, past)


# ---- what was built ------------------------------------------------------------------------------


def saved_by_frames(now: Tensor, before: Tensor) -> int:
    """Returns the bits that a frame saves after that of the tensor before; both are decoded."""
    sender, receiver = PastFrame(), PastFrame()
    for tensor in (before, now):
        frame = compress(tensor, method="lowrank", past=sender)
        back = decompress(frame, past=receiver)
        if not isinstance(back, Tensor) or not identical([tensor], [back]):
            raise RuntimeError("a tensor did not come back")
    return 8 * (compress(now, method="lowrank").numel() - frame.numel())


# ---- what is measured ----------------------------------------------------------------------------


def past_vectors(frame: Frame, past: Floats) -> tuple[Floats, Floats]:
    """Returns the singular vectors of a past matrix that suit u and v, in their lines' widths."""
    spreads = [np.exp2(factor.line_widths / 2) for factor in frame.factors]
    left, _, _ = np.linalg.svd(past / spreads[0][:, None], full_matrices=False)
    _, _, right = np.linalg.svd(past / spreads[1], full_matrices=False)
    return left, right.T


def sent_vectors(frame: Frame, past: Frame | None) -> list[Floats]:
    """Returns the same as integers that both sides have: a past frame's factors, shifted."""
    vectors = []
    for index, factor in enumerate(frame.factors):
        if past is None or len(past.weights[index]) != len(frame.weights[index]):
            return [np.zeros((len(f.entries), 0)) for f in frame.factors]
        shift = past.weights[index] - frame.weights[index] - factor.line_widths / 2
        own = past.factors[index].entries * np.exp2(shift)[:, None]
        vectors.append(own / np.exp2(np.rint(np.log2(np.linalg.norm(own, axis=0) + 1e-30))))
    return vectors


def matrices(gradients: Gradients) -> Iterator[str]:
    """Yields the name of the first matrix of each shape that is not too large."""
    seen = set()
    for name, tensor in gradients.items():
        if low_rank.is_matrix(tensor) and tensor.numel() <= MOST_ELEMENTS:
            if tensor.shape not in seen:
                yield name
            seen.add(tensor.shape)


def study(now: Tensor, before: Tensor, schemes: set[str]) -> Counter[str]:
    """Returns what each scheme would save of one tensor, in bits, and what it takes as it is."""
    counts: Counter[str] = Counter()

    def add(name: str, bits: float) -> None:
        counts[name] += bits  # type: ignore[assignment]

    add("raw", 8 * now.nbytes)
    frame = frame_of(now)
    if frame is None:
        add("section", 8 * info(compress(now, method="scale")).tensors[0].section_bytes)
        return counts
    fmt = Format.of(now)
    past, sent_before = frame.weighted(before), frame_of(before)
    own = [factor_bits(sent) for sent in frame.factors]
    add("section", frame.bits)
    add("factors", sum(own))
    add("entries counted", sum(entry_bits(s.entries, None, widths_of(s)) for s in frame.factors))
    add("entries in frames", frame.factor_bits)
    bases = past_vectors(frame, past)
    both = list(zip(frame.factors, bases, strict=True))
    if "b" in schemes:
        for bits, (sent, basis) in zip(own, both, strict=True):
            add("b projected", bits - projected_bits(sent, basis))
        vectors = sent_vectors(frame, sent_before)
        for name, bits, sent, basis in zip("uv", own, frame.factors, vectors, strict=True):
            add(f"b past factors, {name}", bits - projected_bits(sent, basis))
        add("b shrunk", own[1] - shrunk_bits(frame.factors[1], mean_prediction(frame, past)))
    if "conditional" in schemes:
        for name, (sent, basis) in zip("uv", both, strict=True):
            add(f"b conditional {name}", conditional_saving(sent, basis))
    if "earlier" in schemes:
        for sent in frame.factors:
            add("d orthogonal", conditional_saving(sent, None, earlier=True))
    if "c" in schemes:
        lines, saved = scale_bits(frame, sent_before)
        add("scales", lines)
        add("c scales", saved)
    values = frame.weighted(now)
    if "frames" in schemes:
        add("frames", saved_by_frames(now, before))
    if "d" in schemes:
        r = correlation(values, past), residual_correlation(frame, values, past)
        add("d element, scale", correlated_bits(r[0], values.size))
        add("d element, residual", correlated_bits(r[1], values.size))
    if "a" in schemes:
        found = low_rank.weighted(low_rank.wide(frame.matrix))
        weights = found.weights
        turned = frame.matrix.shape[0] > frame.matrix.shape[1]
        past = (frame.view(before).T if turned else frame.view(before)) / weights
        rank = min(len(frame.powers), len(weights) - 1)
        modelled = low_rank.modelled_bits(found, rank, fmt)
        for name, bits in replaced_bits(found, past, fmt).items():
            add(f"a {name}", modelled - bits)
    return counts


def table(rows: dict[str, Counter[str]]) -> str:
    """Returns what was counted of each row in % of raw, as a table in Markdown."""
    names = list(dict.fromkeys(name for counts in rows.values() for name in counts))
    names.remove("raw")
    lines = ["| gradients | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for label, counts in rows.items():
        cells = [f"{100 * counts[name] / counts['raw']:.2f}" for name in names]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--models", nargs="+", choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--steps", nargs="+", type=int, default=[21, 101], help="what is coded")
    parser.add_argument("--gap", type=int, default=1, help="how many steps before is the past")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=list(SCHEMES))
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(parsed.threads)
    rows: dict[str, Counter[str]] = {}
    for name in parsed.models:
        for dtype in parsed.dtypes:
            steps = sorted({s for step in parsed.steps for s in (step - parsed.gap, step)})
            kept = capture_ranks(name, dtype, tuple(steps), SEEDS[name], RANKS)
            for step in parsed.steps:
                for case in parsed.cases:
                    now, before = (
                        kept[s][i]
                        for s, i in zip((step, step - parsed.gap), CASES[case], strict=True)
                    )
                    label = f"{name} {dtype} {step}, {case}"
                    rows[label] = Counter()
                    for n in matrices(now):
                        rows[label].update(study(now[n], before[n], set(parsed.schemes)))
                    print(label, dict(rows[label]), file=sys.stderr, flush=True)
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
