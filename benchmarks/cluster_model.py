"""Computes how long an all-reduce of a gradient takes on larger clusters: a model, no measurement.

    python benchmarks/cluster_model.py

What is measured, on this machine and one thread, are the codec's rates and ratios, on gradients of
the networks of ``ddp.py``: those of one rank's batch, and means over ``AVERAGED`` batches, which is
what owners send back; steps follow each other and lend each other warm starts, as in our hook. The
figures are kept as JSON and read from there the next time. All else is arithmetic: plain is a ring,
ours sends compressed shards straight to their owners, who add them up and send the sums to
everyone, with links and codec fully overlapped. Latency, what switches do to many flows, and the
time of the sums are left out. More threads are ASSUMED to be so many times faster.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from ddp_rank import WORKLOADS
from measure import identical, markdown, raw_bytes
from torch import Tensor

HERE = Path(__file__).parent
RATES = HERE / "out" / "codec_rates.json"
IMAGE = HERE.parent / "docs" / "images" / "ddp_model.png"
METHODS = ("planes", "scale", "lowrank")
AVERAGED = 64  # ranks whose gradients are averaged for what owners send back
TRAINED = 20  # steps before gradients are taken
STEPS = 5  # whose gradients are taken
PARAMETERS = 1e9  # of the network whose gradient is reduced
BYTES = {"fp32": 4, "bf16": 2}  # of a parameter
LINKS = (0.1, 1, 10, 25, 100)  # Gbit/s
RANKS = (8, 32, 128, 1024)
USUAL_RANKS = 64  # where only one number can be shown
THREADS = (1, 8, 32)
GBIT = 1e9 / 8  # bytes a second


@dataclass(frozen=True)
class Codec:
    """A method's rates in bytes of gradient a second, and its ratios in parts of raw.

    The gradients of one rank and the sums that owners send back are told apart.
    """

    encode: float
    decode: float
    ratio: float
    encode_sum: float
    decode_sum: float
    ratio_sum: float

    def faster(self, factor: float) -> Codec:
        """Returns the same codec, so many times as fast."""
        return Codec(
            factor * self.encode,
            factor * self.decode,
            self.ratio,
            factor * self.encode_sum,
            factor * self.decode_sum,
            self.ratio_sum,
        )


# ---- the model -----------------------------------------------------------------------------------


def plain_seconds(size: float, ranks: int, link: float) -> float:
    """Returns the time of a ring all-reduce.

    Args:
        size: bytes of the gradient.
        ranks: how many take part.
        link: bytes a second that a rank sends, and receives at the same time.
    """
    return 2 * (ranks - 1) / ranks * size / link


def wire_seconds(size: float, ranks: int, link: float, codec: Codec) -> float:
    """Returns the time on the link of ours: each rank's shards to owners, and sums to everyone."""
    return (ranks - 1) / ranks * size * (codec.ratio + codec.ratio_sum) / link


def codec_seconds(size: float, ranks: int, codec: Codec) -> float:
    """Returns the time of the codec of one rank.

    It encodes the shards of the others and decodes theirs of its own, encodes the sum of its own
    and decodes the sums of the others.
    """
    others, own = (ranks - 1) / ranks * size, size / ranks
    return (
        others / codec.encode
        + others / codec.decode
        + own / codec.encode_sum
        + others / codec.decode_sum
    )


def our_seconds(size: float, ranks: int, link: float, codec: Codec) -> float:
    """Returns the time of ours, link and codec side by side."""
    return max(wire_seconds(size, ranks, link, codec), codec_seconds(size, ranks, codec))


def break_even_link(ranks: int, codec: Codec) -> float:
    """Returns the link in bytes a second below which ours is faster than plain; 0 if none is."""
    if codec.ratio + codec.ratio_sum >= 2:
        return 0
    return plain_seconds(1, ranks, 1) / codec_seconds(1, ranks, codec)


def best(
    size: float, ranks: int, link: float, codecs: dict[str, Codec]
) -> tuple[tuple[str, ...], float]:
    """Finds the fastest choice: a method, "plain", or one of two for each part of the gradient.

    Returns:
        The names, and how many times as fast as plain that is.
    """
    plain = plain_seconds(size, ranks, link)
    loads = {"plain": (plain, 0.0)}  # of the link, of the codec
    for method, codec in codecs.items():
        wire = wire_seconds(size, ranks, link, codec)
        loads[method] = wire, codec_seconds(size, ranks, codec)
    choices = {(name,): max(load) for name, load in loads.items()}
    for pair in itertools.combinations(loads, 2):
        (wire, work), (other_wire, other_work) = (loads[name] for name in pair)
        # The part of the other with which link and codec are busy for the same time.
        if (wire - work) * (other_wire - other_work) < 0:
            part = (wire - work) / (wire - work - other_wire + other_work)
            choices[pair] = wire + part * (other_wire - wire)
    names = min(choices, key=lambda choice: choices[choice])
    return names, plain / choices[names]


# ---- what is measured ----------------------------------------------------------------------------


def gradients_of(workload: str) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Returns gradients of ``STEPS`` steps in a row: one rank's, and means over several batches."""
    kind = WORKLOADS[workload]
    model = kind.model()
    optimizer, losses = kind.optimizer(model), kind.losses(model, 0)

    def backward() -> list[Tensor]:
        optimizer.zero_grad()
        next(losses).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    own, means = [], []
    for step in range(TRAINED + STEPS):
        one = backward()
        if step >= TRAINED:
            totals = [gradient.float() for gradient in one]
            for _ in range(AVERAGED - 1):
                for total, gradient in zip(totals, backward(), strict=True):
                    total += gradient
            own.append(one)
            means.append([(total / AVERAGED).to(one[0].dtype) for total in totals])
            for parameter, gradient in zip(model.parameters(), one, strict=True):
                parameter.grad = gradient
        optimizer.step()
    return own, means


def measure(steps: Sequence[list[Tensor]], method: str) -> tuple[float, float, float]:
    """Measures a method on the gradients of steps in a row, as our hook codes them.

    Returns:
        Bytes a second of processor time that are encoded and decoded, and the size in parts of raw:
        medians of all steps but the first, which has no warm start yet.

    Raises:
        RuntimeError: if a tensor does not come back bit for bit.
    """
    import lmgc_torch

    warm_start = lmgc_torch.WarmStart()
    encoding, decoding, ratios = [], [], []
    for gradients in steps:
        begin = time.process_time()
        frame = lmgc_torch.compress(gradients, method=method, warm_start=warm_start)
        middle = time.process_time()
        back = lmgc_torch.decompress(frame)
        end = time.process_time()
        if not identical(gradients, back):
            raise RuntimeError(f"{method} does not give back the gradients")
        size = raw_bytes(gradients)
        encoding.append(size / (middle - begin))
        decoding.append(size / (end - middle))
        ratios.append(frame.numel() / size)
    rates = statistics.median(encoding[1:]), statistics.median(decoding[1:])
    return *rates, statistics.median(ratios[1:])


def measure_codecs(workload: str) -> dict[str, Codec]:
    """Measures every method on a workload's gradients, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        own, means = gradients_of(workload)
        return {name: Codec(*measure(own, name), *measure(means, name)) for name in METHODS}
    finally:
        torch.set_num_threads(threads)


def load_codecs(path: Path, workloads: Sequence[str]) -> dict[str, dict[str, Codec]]:
    """Reads the codecs of workloads; those that the file lacks are measured and added to it."""
    known = json.loads(path.read_text()) if path.is_file() else {}
    for workload in workloads:
        if workload not in known:
            print(f"measuring the codec on gradients of {workload}", file=sys.stderr)
            measured = measure_codecs(workload)
            known[workload] = {method: asdict(codec) for method, codec in measured.items()}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(known, indent=1))
    return {
        workload: {method: Codec(**one) for method, one in known[workload].items()}
        for workload in workloads
    }


# ---- what is shown -------------------------------------------------------------------------------


def size_of(workload: str) -> float:
    """Returns the bytes of the gradient of ``PARAMETERS`` in the workload's dtype."""
    return PARAMETERS * BYTES[WORKLOADS[workload].dtype]


def rate_lines(workload: str, codecs: dict[str, Codec]) -> list[list[str]]:
    """Returns a table of what was measured, and of the links at which ours and plain are equal."""
    heads = [workload, "one rank's gradient, %", "MB/s in / out"]
    heads += [f"mean of {AVERAGED}, %", "MB/s in / out"]
    lines = [heads + [f"equal at Gbit/s, {count} threads" for count in THREADS]]
    for method, codec in codecs.items():
        line = [f"`{method}`", f"{100 * codec.ratio:.1f}"]
        line.append(f"{codec.encode / 1e6:.0f} / {codec.decode / 1e6:.0f}")
        line.append(f"{100 * codec.ratio_sum:.1f}")
        line.append(f"{codec.encode_sum / 1e6:.0f} / {codec.decode_sum / 1e6:.0f}")
        for count in THREADS:
            line.append(f"{break_even_link(USUAL_RANKS, codec.faster(count)) / GBIT:.2f}")
        lines.append(line)
    return lines


def gain_lines(workload: str, codecs: dict[str, Codec]) -> list[list[str]]:
    """Returns a table of plain's time, and of how many times as fast the best method is.

    A gain is a range where it differs between the numbers of ranks.
    """
    size = size_of(workload)
    plains = f"plain, s, at {' / '.join(map(str, RANKS))} ranks"
    lines = [[workload, plains, *(f"{count} threads" for count in THREADS)]]
    for link in LINKS:
        seconds = [plain_seconds(size, ranks, link * GBIT) for ranks in RANKS]
        line = [f"{link:g} Gbit/s", " / ".join(f"{one:.3g}" for one in seconds)]
        for count in THREADS:
            faster = {method: codec.faster(count) for method, codec in codecs.items()}
            found = [best(size, ranks, link * GBIT, faster) for ranks in RANKS]
            gains = sorted(f"{gain:.2f}" for _, gain in found)
            span = gains[0] if gains[0] == gains[-1] else f"{gains[0]}-{gains[-1]}"
            names = dict.fromkeys(name for names, _ in found for name in names)
            line.append(f"{span} {' + '.join(names)}")
        lines.append(line)
    return lines


def plot(all_codecs: dict[str, dict[str, Codec]], path: Path, ranks: int = USUAL_RANKS) -> None:
    """Draws how many times as fast as plain each method is, over the link's rate."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    links = [10 ** (-1.5 + 0.02 * step) for step in range(176)]  # 0.03 to 100 Gbit/s
    figure, axes = plt.subplots(
        len(all_codecs),
        len(THREADS),
        figsize=(11, 3.1 * len(all_codecs)),
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    for row, (workload, codecs) in zip(axes, all_codecs.items(), strict=True):
        for axis, count in zip(row, THREADS, strict=True):
            for method, codec in codecs.items():
                gains = [
                    plain_seconds(1, ranks, link * GBIT)
                    / our_seconds(1, ranks, link * GBIT, codec.faster(count))
                    for link in links
                ]
                axis.plot(links, gains, label=method)
            faster = {method: codec.faster(count) for method, codec in codecs.items()}
            gains = [best(1, ranks, link * GBIT, faster)[1] for link in links]
            axis.plot(links, gains, label="the best mix", color="#222222", linestyle=":")
            axis.axhline(1, color="#222222", linewidth=0.8)
            axis.set_xscale("log")
            axis.set_ylim(bottom=0)
            assumed = "measured rates" if count == 1 else f"ASSUMED {count} times the rates"
            axis.set_title(f"{workload}, {count} threads\n({assumed})", fontsize=9)
            axis.grid(alpha=0.3)
        row[0].set_ylabel("time of plain / ours")
        row[0].legend(fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("link, Gbit/s")
    figure.suptitle(f"All-reduce among {ranks} ranks: COMPUTED from codec rates, not measured")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--workloads", nargs="+", choices=WORKLOADS, default=["gpt_fp32", "gpt_bf16"]
    )
    parser.add_argument("--rates", type=Path, default=RATES, help="of the codec (%(default)s)")
    parser.add_argument("--image", type=Path, default=IMAGE, help="the plot (%(default)s)")
    parsed = parser.parse_args(arguments)
    codecs = load_codecs(parsed.rates, parsed.workloads)
    print(f"Measured on one thread; the last columns are computed, for {USUAL_RANKS} ranks:\n")
    for workload, own in codecs.items():
        print(markdown(rate_lines(workload, own)), end="\n\n")
    print(f"COMPUTED, not measured, for {PARAMETERS:g} parameters: plain's time over ours.")
    print("More threads than one are ASSUMED to scale linearly.\n")
    for workload, own in codecs.items():
        print(markdown(gain_lines(workload, own)), end="\n\n")
    plot(codecs, parsed.image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
