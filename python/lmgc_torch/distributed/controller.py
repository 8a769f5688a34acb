"""Which method, or none, makes a step shortest: tried, modelled, and tried again.

Each choice for all buckets is an *arm*: plain all-reduce, a method for every bucket, or a mix. The
first steps of a layout of buckets try the arms; what they cost (codec seconds and bytes for each
bucket and method, the link's rate) gives the mix that should be fastest, which is tried like the
others. The arm whose steps were shortest, whole steps from gradient to gradient, is taken. Every
`CHECK_EVERY` steps it has to prove itself against plain all-reduce, or plain against the model.

All ranks take the same decisions: they decide at the same steps, by the same numbers, each the
largest of all ranks'.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lmgc_torch.distributed.pipeline import Measured

PLAIN = "plain"
MIXED = "mixed"
CANDIDATES = ("lowrank", "scale", "planes")
TRIALS = 3  # steps of an arm; the first one's time is not counted
CHECK_EVERY = 200  # steps
LEAST_GAIN = 0.02  # of a step's time, below which plain all-reduce stays
CHANGED_LINK = 1.3  # factor of the link's rate after which plain is no longer settled


@dataclass
class _Costs:
    """What was measured of a layout of buckets, on this rank."""

    buckets: set[int] = field(default_factory=set)  # that are large enough to be compressed
    codec: dict[tuple[int, str], float] = field(default_factory=dict)  # seconds
    sent: dict[tuple[int, str], float] = field(default_factory=dict)  # bytes
    seconds_per_byte: float = 0.0  # of plain all-reduces


class Controller:
    """Chooses a method for each bucket of each step.

    Args:
        method: A method for all buckets, or "auto".
        least_bytes: Smaller buckets are never compressed.
        agree: Returns for every number the largest that a rank has; all ranks call it together.
    """

    def __init__(
        self, method: str, least_bytes: int, agree: Callable[[list[float]], list[float]]
    ) -> None:
        self._method = method
        self._least_bytes = least_bytes
        self._agree = agree
        self._lock = threading.Lock()
        self.restart()

    def restart(self) -> None:
        """Forgets everything: the buckets are others now."""
        with self._lock:
            self._costs = _Costs()
        self._times: dict[str, list[float]] = {}
        self._mix: dict[int, str] = {}
        self._schedule = self._arms()
        self._arm = PLAIN if self._method == "auto" else self._method
        self._begin: float | None = None

    def begin_step(self) -> None:
        """Is called when the first bucket of a step is ready, before its `method_of`."""
        if self._method != "auto":
            return
        now = time.perf_counter()
        if self._begin is not None:
            self._times.setdefault(self._arm, []).append(now - self._begin)
        self._arm = next(self._schedule)
        self._begin = time.perf_counter()

    def method_of(self, bucket: int, size: int) -> str:
        """Returns `PLAIN` or a method, for a bucket of so many bytes."""
        if size < self._least_bytes:
            return PLAIN
        self._costs.buckets.add(bucket)
        return self._mix.get(bucket, PLAIN) if self._arm == MIXED else self._arm

    def record(self, bucket: int, method: str, measured: Measured) -> None:
        """Takes note of what a bucket cost; from any thread."""
        with self._lock:
            costs = self._costs
            if method == PLAIN:
                rate = measured.wire_seconds / max(1, measured.sent_bytes)
                best = costs.seconds_per_byte
                costs.seconds_per_byte = min(best, rate) if best else rate
            costs.codec[bucket, method] = measured.codec_seconds
            costs.sent[bucket, method] = measured.sent_bytes

    # ---- what is tried, step by step ------------------------------------------------------------

    def _arms(self) -> Iterator[str]:
        while True:
            for arm in (PLAIN, *CANDIDATES):
                yield from self._trial(arm)
            self._mix, rate = self._fastest_mix()
            arms = [PLAIN, *CANDIDATES]
            if self._mix and len(set(self._mix.values())) > 1:
                yield from self._trial(MIXED)
                arms.append(MIXED)
            best = self._shortest(arms)
            while True:
                self._times.clear()
                with self._lock:
                    self._costs.seconds_per_byte = 0.0
                for _ in range(CHECK_EVERY):
                    yield best
                if best != PLAIN:
                    yield from self._trial(PLAIN)
                    best = self._shortest([PLAIN, best])
                    continue
                _, now = self._fastest_mix()
                if not rate / CHANGED_LINK < now < rate * CHANGED_LINK:
                    break

    def _trial(self, arm: str) -> Iterator[str]:
        self._times.pop(arm, None)
        for _ in range(TRIALS):
            yield arm

    def _shortest(self, arms: list[str]) -> str:
        """Returns the arm whose steps took least, plain if the others gain next to nothing."""
        own = []
        for arm in arms:
            times = self._times[arm][1:]
            own.append(min(times) if len(times) < TRIALS else statistics.median(times))
        seconds = dict(zip(arms, self._agree(own), strict=True))
        best = min(arms, key=lambda arm: seconds[arm])
        return best if seconds[best] < (1 - LEAST_GAIN) * seconds[PLAIN] else PLAIN

    def _fastest_mix(self) -> tuple[dict[int, str], float]:
        """Returns the method by bucket that the model finds fastest, and the link's s / byte."""
        with self._lock:
            costs = self._costs
            keys = [(b, method) for b in sorted(costs.buckets) for method in (PLAIN, *CANDIDATES)]
            own = [costs.codec.get(key, 0.0) for key in keys]
            own += [costs.sent.get(key, 0.0) for key in keys] + [costs.seconds_per_byte]
        agreed = self._agree(own)
        rate = agreed[-1]
        codec = dict(zip(keys, agreed, strict=False))
        wire = {key: rate * sent for key, sent in zip(keys, agreed[len(keys) :], strict=False)}
        return fastest_mix(codec, wire), rate


def fastest_mix(
    codec: dict[tuple[int, str], float], wire: dict[tuple[int, str], float]
) -> dict[int, str]:
    """Returns a method for each bucket so that codec and link together take least.

    They work side by side: a step takes what the slower of the two needs. From each method for all
    buckets, single buckets are changed as long as that makes the step shorter.

    Args:
        codec: Seconds of the codec by bucket and method.
        wire: Seconds of the link, likewise.
    """
    buckets = sorted({bucket for bucket, _ in codec})
    methods = sorted({method for _, method in codec})

    def cost(coding: float, sending: float) -> tuple[float, float]:
        return max(coding, sending), coding + sending

    found = []
    for start in methods:
        mix = dict.fromkeys(buckets, start)
        coding = sum(codec[item] for item in mix.items())
        sending = sum(wire[item] for item in mix.items())
        while buckets:
            changes = []
            for bucket, method in codec:
                now = bucket, mix[bucket]
                after = (
                    coding - codec[now] + codec[bucket, method],
                    sending - wire[now] + wire[bucket, method],
                )
                changes.append((cost(*after), after, bucket, method))
            least, after, bucket, method = min(changes)
            if least >= cost(coding, sending) or mix[bucket] == method:
                break
            mix[bucket] = method
            coding, sending = after
        found.append((cost(coding, sending), mix))
    return min(found, key=lambda entry: entry[0])[1] if found else {}
