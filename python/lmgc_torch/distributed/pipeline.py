"""Buckets under way: encoded, exchanged, summed, exchanged again and decoded, all at once.

Every round of a bucket goes through five stages:

    encode   this rank's gradients, one frame for each other owner     codec thread
    scatter  frames go to the owners                                   scatter thread, own group
    reduce   decode the others' gradients, sum, encode the sum         codec thread
    gather   the sum's frame goes to all                               gather thread, own group
    decode   the others' sums                                          codec thread

With two ranks both own every piece, and the second stage's frames are all that is needed: each
rank sums for itself. That is one exchange instead of two, of as many bytes.

Rounds enter in the order of the hook's calls, which is the same on every rank, and each stage keeps
that order: this is what makes every rank's exchanges meet. Between stages the codec thread is free
to choose, and it chooses what keeps the link busy.

When something fails on a rank, it answers the next exchange of either group with the error's text
and takes part in no other; its peers raise the error and do the same. So no rank waits for one that
has failed, wherever each of them is in its work.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch.futures import Future

from lmgc_torch.distributed import codec
from lmgc_torch.distributed.exchange import exchange, transport_device
from lmgc_torch.distributed.partition import Piece, Round
from lmgc_torch.distributed.summation import Order, add_up
from lmgc_torch.errors import CommunicationError
from lmgc_torch.past_frame import PastFrame
from lmgc_torch.warm_start import WarmStart

GOODBYE = 5.0  # seconds for threads to end, and to tell the peers of an error
BUSY = 2  # rounds that wait for the link; with fewer, work that feeds it comes first


class Memory:
    """What is remembered of a round from one bucket to the next.

    Attributes:
        starts: The searches of the encoder, by owner; an owner's own are those of its sums.
        sent: The last frames of method "past", by owner; an owner's own are those of its sums.
        gradients: Those that came from each rank.
        sums: Those that came from each owner.
    """

    def __init__(self, ranks: int) -> None:
        self.starts = tuple(WarmStart() for _ in range(ranks))
        self.sent, self.gradients, self.sums = (
            tuple(PastFrame() for _ in range(ranks)) for _ in range(3)
        )


@dataclass
class Layout:
    """How buckets of one kind are reduced, and what is remembered from one to the next."""

    rounds: list[Round]
    order: Order
    memories: list[Memory] = field(init=False)  # one a round

    def __post_init__(self) -> None:
        self.memories = [Memory(len(pieces)) for pieces in self.rounds]


@dataclass
class Measured:
    """What became of a bucket on this rank."""

    codec_seconds: float = 0.0
    wire_seconds: float = 0.0
    sent_bytes: int = 0


@dataclass
class Job:
    """A bucket on its way; without a layout, only the confirmation that a step has succeeded."""

    buffer: torch.Tensor
    layout: Layout | None
    method: str
    confirm: bool  # when all jobs up to this one are done here: ask whether they are everywhere
    done: Callable[[Measured], None]
    measured: Measured = field(default_factory=Measured)
    future: Future = field(default_factory=Future)
    ready: Any = None  # on CUDA: the event after which the buffer holds the gradients
    rounds_left: int = 0
    confirming: bool = False


@dataclass
class Step:
    """A round of a job between two stages; without pieces, a job's confirmation."""

    job: Job
    pieces: Round
    memory: Memory | None = None
    frames: dict[int, torch.Tensor | None] = field(default_factory=dict)

    @property
    def is_shared(self) -> bool:
        """Whether every rank sums all of it."""
        return len(self.pieces) == 2


class Pipeline:
    """The threads and queues of a rank.

    Args:
        scatter: A process group that nobody else uses.
        gather: Another one, of the same ranks.
        device: Where the buckets are.
    """

    def __init__(
        self, scatter: dist.ProcessGroup, gather: dist.ProcessGroup, device: torch.device
    ) -> None:
        self.error: str | None = None  # what has failed, for good
        self._told = ""  # the same as the peers are told
        self._rank = dist.get_rank(scatter)
        self._others = [r for r in range(dist.get_world_size(scatter)) if r != self._rank]
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._changed = threading.Condition()
        self._closed = False
        stages = ("encode", "scatter", "reduce", "gather", "decode")
        self._queues: dict[str, deque[Step]] = {stage: deque() for stage in stages}
        self._pending: deque[Job] = deque()  # not completed, in order
        threads = {
            "codec": self._code,
            "scatter": lambda: self._exchange("scatter", scatter, "reduce"),
            "gather": lambda: self._exchange("gather", gather, "decode"),
        }
        self._threads = {
            name: threading.Thread(target=run, name=f"lmgc-{name}", daemon=True)
            for name, run in threads.items()
        }
        for thread in self._threads.values():
            thread.start()
        atexit.register(self.close)

    def submit(self, job: Job) -> Future:
        """Starts on a bucket.

        Returns:
            A future of its buffer, once that holds the sum; or of the CommunicationError.
        """
        if self._stream is not None:
            job.future = Future(devices=[self._device])
            job.ready = torch.cuda.current_stream(self._device).record_event()
            job.buffer.record_stream(self._stream)
        with self._changed:
            if self.error is not None:
                job.future.set_result(CommunicationError(self.error))
                return job.future
            self._pending.append(job)
            if job.layout is not None:
                rounds = zip(job.layout.rounds, job.layout.memories, strict=True)
                steps = [Step(job, pieces, memory) for pieces, memory in rounds]
                self._queues["encode"].extend(steps)
                job.rounds_left = len(steps)
            self._changed.notify_all()
        if not job.rounds_left:
            self._advance()
        return job.future

    def close(self) -> None:
        """Ends the threads, when they have done what they are at.

        A thread that is left running may meet the end of the interpreter within C++ code, which
        ends the process badly: this is called then if it was not before.
        """
        atexit.unregister(self.close)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._join()

    # ---- the codec thread -----------------------------------------------------------------------

    def _code(self) -> None:
        work = {"encode": self._encode, "reduce": self._reduce, "decode": self._decode}
        while (chosen := self._next_work()) is not None:
            stage, step = chosen
            begin = time.perf_counter()
            try:
                with self._on_stream(step.job):
                    work[stage](step)
            except Exception as problem:
                self._fail(f"{type(problem).__name__}: {problem}", here=True)
                continue
            step.job.measured.codec_seconds += time.perf_counter() - begin
            if stage == "decode" or (stage == "reduce" and step.is_shared):
                step.job.rounds_left -= 1
                self._advance()
            else:
                self._put({"encode": "scatter", "reduce": "gather"}[stage], step)

    def _next_work(self) -> tuple[str, Step] | None:
        with self._changed:
            while True:
                waiting = len(self._queues["scatter"]) + len(self._queues["gather"])
                feeding = ("reduce", "encode")
                order = (*feeding, "decode") if waiting < BUSY else ("decode", *feeding)
                for stage in order:
                    if self._queues[stage]:
                        return stage, self._queues[stage].popleft()
                if self._closed:
                    return None
                self._changed.wait()

    def _encode(self, step: Step) -> None:
        for owner in self._others:
            step.frames[owner] = self._frame(step, owner)

    def _reduce(self, step: Step) -> None:
        sums: torch.Tensor | None = None
        piece = step.pieces[self._rank]
        if piece.blocks:
            job = step.job
            assert job.layout is not None
            order = job.layout.order
            gradients = {self._rank: piece.split(piece.gather(job.buffer))}
            for rank in self._others:
                gradients[rank] = piece.split(self._received(step, rank, piece, summed=False))
            ranks = range(len(gradients))
            add_up(piece, [gradients[rank] for rank in ranks], order, job.buffer)
            if not step.is_shared:
                sums = self._frame(step, self._rank)
        step.frames = dict.fromkeys(self._others, sums)

    def _decode(self, step: Step) -> None:
        for owner in self._others:
            piece = step.pieces[owner]
            if piece.blocks:
                piece.scatter(self._received(step, owner, piece, summed=True), step.job.buffer)
        step.frames = {}

    def _frame(self, step: Step, owner: int) -> torch.Tensor | None:
        piece = step.pieces[owner]
        if not piece.blocks:
            return None
        memory, job = step.memory, step.job
        assert memory is not None
        tensors = piece.gather(job.buffer)
        return codec.encode(tensors, job.method, memory.starts[owner], memory.sent[owner])

    def _received(self, step: Step, rank: int, piece: Piece, *, summed: bool) -> list[torch.Tensor]:
        data, memory, job = step.frames[rank], step.memory, step.job
        assert data is not None
        assert memory is not None
        data = data.to(job.buffer.device)
        past = (memory.sums if summed else memory.gradients)[rank]
        return codec.decode(data, job.method, piece.shapes, job.buffer.dtype, past)

    # ---- the exchange threads -------------------------------------------------------------------

    def _exchange(self, stage: str, group: dist.ProcessGroup, following: str) -> None:
        device = transport_device(group, self._device)
        while (step := self._next_exchange(stage)) is not None:
            begin = time.perf_counter()
            sent = dict(step.frames)
            most = 2 * step.job.buffer.nbytes + (1 << 20)  # frames are no larger than a bucket
            try:
                with self._on_stream(step.job):
                    step.frames = dict(
                        exchange(sent, self._others, group, device=device, most_bytes=most)
                    )
            except Exception as problem:
                if isinstance(problem, CommunicationError):
                    self._fail(str(problem), here=False)
                else:
                    self._fail(f"{type(problem).__name__}: {problem}", here=True)
                return  # this exchange has told the peers, or they cannot be told
            if not step.pieces:  # all ranks have come here: all have succeeded
                step.job.confirm = False
                self._advance()
                continue
            measured = step.job.measured
            measured.wire_seconds += time.perf_counter() - begin
            measured.sent_bytes += sum(data.numel() for data in sent.values() if data is not None)
            self._put(following, step)
        if self.error is not None:
            with contextlib.suppress(Exception):
                nothing = dict.fromkeys(self._others)
                exchange(nothing, self._others, group, device=device, error=self._told)

    def _next_exchange(self, stage: str) -> Step | None:
        """Returns what to exchange next; None once there is an error to tell, or no more work."""
        with self._changed:
            while not self._queues[stage]:
                if self.error is not None or self._closed:
                    return None
                self._changed.wait()
            return None if self.error is not None else self._queues[stage].popleft()

    # ---- together -------------------------------------------------------------------------------

    def _put(self, stage: str, step: Step) -> None:
        with self._changed:
            if self.error is None:
                self._queues[stage].append(step)
            self._changed.notify_all()

    def _advance(self) -> None:
        """Completes the jobs that are done, in order, and has confirmed what must be."""
        done = []
        with self._changed:
            while self._pending and self._pending[0].rounds_left == 0:
                job = self._pending[0]
                if job.confirm:
                    if not job.confirming:
                        job.confirming = True
                        self._queues["gather"].append(
                            Step(job, (), None, dict.fromkeys(self._others))
                        )
                        self._changed.notify_all()
                    break
                done.append(self._pending.popleft())
        for job in done:
            with self._on_stream(job):
                job.done(job.measured)
                job.future.set_result(job.buffer)

    def _fail(self, error: str, *, here: bool) -> None:
        """Ends all work; `here`: it is this rank's own error, not one that it was told."""
        with self._changed:
            if self.error is not None:
                return
            self._told = error
            self.error = f"rank {dist.get_rank()}: {error}" if here else error
            pending, self._pending = list(self._pending), deque()
            for queue in self._queues.values():
                queue.clear()
            self._changed.notify_all()
        end = threading.Thread(target=self._end, args=(pending,), name="lmgc-end", daemon=True)
        end.start()

    def _end(self, pending: list[Job]) -> None:
        """Tells the error to those who wait for it, once the peers know it."""
        self._join("scatter", "gather")
        for job in pending:
            job.future.set_result(CommunicationError(self.error))

    def _join(self, *names: str) -> None:
        """Waits for the named threads to end, or all, but not for ever."""
        deadline = time.monotonic() + GOODBYE
        for name in names or tuple(self._threads):
            self._threads[name].join(max(0.0, deadline - time.monotonic()))

    @contextlib.contextmanager
    def _on_stream(self, job: Job) -> Any:
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            job.ready.wait(self._stream)
            yield
