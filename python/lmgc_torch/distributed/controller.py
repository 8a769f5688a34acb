"""Which method, or none, makes a step shortest: tried, modelled, and tried again.

Each choice for all buckets is an *arm*: plain all-reduce, a method for every bucket, or a mix. The
first steps of a layout of buckets try the arms; what they cost (codec seconds and bytes for each
bucket and method, the link's rate) gives the mixes that should be fastest, which are tried like the
others. The arm whose steps were shortest, whole steps from gradient to gradient, is taken. Every
`CHECK_EVERY` steps it has to prove itself against plain all-reduce, and at once when its steps have
become longer than plain's were; plain has to prove itself against the model.

All ranks take the same decisions: they decide at the same steps, by the same numbers, each the
largest of all ranks'.
"""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from lmgc_torch.distributed.codec import PAST
from lmgc_torch.distributed.pipeline import Measured

PLAIN = "plain"
# Arms that mix methods, and how much a second of the codec weighs beside one of the link: it has a
# core of its own, or shares one with the backward pass.
MIXES = {"mixed": 1.0, "mixed, light": 2.0}
CANDIDATES = (PAST, "lowrank", "scale", "planes")
TRIALS = 3  # steps of an arm; the first one's time is not counted
FINALISTS = 3  # arms that are tried a second time
MANY = (
    2 * TRIALS
)  # steps whose median is looked at; of fewer it is the shortest, the least disturbed
CHECK_EVERY = 200  # steps
SPELL = 10  # steps, after which ranks compare what these took with what plain took
MOST_LOSS = 0.03  # of a step's time
LEAST_GAIN = 0.02  # of a step's time, below which plain all-reduce stays
CHANGED_LINK = 1.3  # factor of the link's rate after which plain is no longer settled

_Key: TypeAlias = tuple[int, str]  # a bucket and a method
_log = logging.getLogger("lmgc_torch.distributed")


@dataclass
class _Costs:
    """What was measured of a layout of buckets, on this rank."""

    buckets: set[int] = field(default_factory=set)  # that are large enough to be compressed
    codec: dict[_Key, float] = field(default_factory=dict)  # seconds
    sent: dict[_Key, float] = field(default_factory=dict)  # bytes
    seconds_per_byte: float = 0.0  # of plain all-reduces, in the fastest step
    plain: Measured = field(default_factory=Measured)  # those of this step, without small buckets

    def end_step(self) -> None:
        """Takes the link's rate from the plain all-reduces of a step."""
        if self.plain.sent_bytes:
            rate = self.plain.wire_seconds / self.plain.sent_bytes
            self.seconds_per_byte = min(rate, self.seconds_per_byte or math.inf)
            self.plain = Measured()


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
        self._mixes: dict[str, dict[int, str]] = {}
        self._plain_seconds = math.inf  # of a step, when it was last tried
        self._schedule = self._arms()
        self._arm = PLAIN if self._method == "auto" else self._method
        self._begin: float | None = None

    def begin_step(self) -> None:
        """Is called when the first bucket of a step is ready, before its `method_of`."""
        if self._method != "auto":
            return
        now = time.perf_counter()
        with self._lock:
            self._costs.end_step()
        if self._begin is not None:
            self._times.setdefault(self._arm, []).append(now - self._begin)
        self._arm = next(self._schedule)
        self._begin = time.perf_counter()

    def method_of(self, bucket: int, size: int) -> str:
        """Returns `PLAIN` or a method, for a bucket of so many bytes."""
        if size < self._least_bytes:
            return PLAIN
        self._costs.buckets.add(bucket)
        if self._arm in self._mixes:
            return self._mixes[self._arm].get(bucket, PLAIN)
        return self._arm

    def record(self, bucket: int, method: str, measured: Measured) -> None:
        """Takes note of what a bucket cost; from any thread."""
        with self._lock:
            costs = self._costs
            if bucket not in costs.buckets:
                return  # small ones travel faster than the link's rate: they tell nothing of it
            if method == PLAIN:
                costs.plain.wire_seconds += measured.wire_seconds
                costs.plain.sent_bytes += measured.sent_bytes
            key = bucket, method
            costs.codec[key] = min(measured.codec_seconds, costs.codec.get(key, math.inf))
            costs.sent[key] = measured.sent_bytes

    # ---- what is tried, step by step ------------------------------------------------------------

    def _arms(self) -> Iterator[str]:
        while True:
            for arm in (PLAIN, *CANDIDATES):
                yield from self._trial(arm)
            codec, wire, rate = self._model()
            arms, tried = [PLAIN, *CANDIDATES], []
            for name, weight in MIXES.items():
                mix = fastest_mix({key: weight * codec[key] for key in codec}, wire)
                if len(set(mix.values())) > 1 and mix not in tried:
                    tried.append(mix)
                    self._mixes[name] = mix
                    yield from self._trial(name)
                    arms.append(name)
            # A step or two may have been disturbed: the shortest try once more.
            finalists = self._shortest(arms)[:FINALISTS]
            for arm in finalists:
                yield from self._trial(arm)
            best = self._choose(finalists)
            while True:
                self._times.clear()
                with self._lock:
                    self._costs.seconds_per_byte = 0.0
                yield from self._spells(best)
                if best != PLAIN:
                    yield from self._trial(PLAIN)
                    best = self._choose([PLAIN, best])
                    continue
                now = self._model()[2]
                if not rate / CHANGED_LINK <= now <= rate * CHANGED_LINK:
                    break

    def _trial(self, arm: str) -> Iterator[str]:
        kept = self._times.pop(arm, [])
        for _ in range(TRIALS):
            yield arm
        self._times[arm] = kept + self._times[arm][1:]

    def _spells(self, arm: str) -> Iterator[str]:
        """Keeps to an arm until it must be checked: sooner if it takes longer than plain did."""
        for _ in range(CHECK_EVERY // SPELL):
            self._times.pop(arm, None)
            for _ in range(SPELL):
                yield arm
            if arm != PLAIN and self._seconds([arm])[arm] > (1 + MOST_LOSS) * self._plain_seconds:
                return

    def _seconds(self, arms: list[str]) -> dict[str, float]:
        """Returns how long a step of each arm takes, on the rank where it takes longest."""
        own = []
        for arm in arms:
            times = self._times[arm]
            own.append(statistics.median(times) if len(times) > MANY else min(times))
        seconds = dict(zip(arms, self._agree(own), strict=True))
        self._plain_seconds = seconds.get(PLAIN, self._plain_seconds)
        return seconds

    def _shortest(self, arms: list[str]) -> list[str]:
        """Returns the arms by what their steps take, the shortest first."""
        seconds = self._seconds(arms)
        _log.info("seconds a step: %s", {arm: round(taken, 4) for arm, taken in seconds.items()})
        return sorted(arms, key=lambda arm: seconds[arm])

    def _choose(self, arms: list[str]) -> str:
        """Returns the shortest arm, but plain if that is hardly longer."""
        seconds = self._seconds(arms)
        best = min(arms, key=lambda arm: seconds[arm])
        if seconds[best] >= (1 - LEAST_GAIN) * seconds.get(PLAIN, math.inf):
            best = PLAIN
        _log.info("from now on: %s", best)
        return best

    def _model(self) -> tuple[dict[_Key, float], dict[_Key, float], float]:
        """Returns seconds of codec and link by bucket and method, and the link's for a byte."""
        with self._lock:
            costs = self._costs
            keys = [(b, method) for b in sorted(costs.buckets) for method in (PLAIN, *CANDIDATES)]
            own = [costs.codec.get(key, 0.0) for key in keys]
            own += [costs.sent.get(key, 0.0) for key in keys] + [costs.seconds_per_byte]
        agreed = self._agree(own)
        rate = agreed[-1]
        codec = dict(zip(keys, agreed, strict=False))
        wire = {key: rate * sent for key, sent in zip(keys, agreed[len(keys) :], strict=False)}
        return codec, wire, rate


def fastest_mix(codec: dict[_Key, float], wire: dict[_Key, float]) -> dict[int, str]:
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
