"""A DDP communication hook that averages gradients without loss and sends fewer bytes.

DDP asks hooks for annotations that are real objects, so this module does not postpone their
evaluation.
"""

import logging
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, cast, get_args

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import GradBucket
from torch.futures import Future

from lmgc_torch import api
from lmgc_torch.distributed.codec import PAST, UNCOMPRESSED
from lmgc_torch.distributed.controller import PLAIN, Controller
from lmgc_torch.distributed.exchange import transport_device
from lmgc_torch.distributed.partition import memory_shape, partition
from lmgc_torch.distributed.pipeline import Job, Layout, Measured, Pipeline
from lmgc_torch.distributed.stats import CompressionStats
from lmgc_torch.distributed.summation import GlooOrder, Order, RankOrder
from lmgc_torch.errors import CommunicationError

METHODS = (*(method for method in get_args(api.Method) if method != "lmgc"), PAST)

_log = logging.getLogger("lmgc_torch.distributed")


class CompressedAllReduceState:
    """What `compressed_allreduce_hook` knows and remembers; one for each DDP module.

    Gradients are divided by the number of ranks, exchanged and summed as an all-reduce does it, and
    every rank ends with the same bits. What travels are frames of this library, where that is
    faster than sending the gradients as they are.

    Args:
        process_group: The group to average over, as given to DDP; None is the default group. The
            state makes three groups of the same ranks for its threads, at the first step.
        method: "auto" measures the link, the codec and the gradients in the first steps and takes
            for each bucket what makes the step shortest, plain all-reduce included; later it checks
            that this still holds. Any other method of `lmgc_torch.compress` except "lmgc" is used
            for all buckets; "raw" sends elements as they are, and "past" is "lowrank" relative to
            the frames of the step before (`lmgc_torch.PastFrame`): smaller, and slower.
        match_backend: The order in which ranks are summed, which floating-point sums depend on.
            False: rank 0 first, then 1, 2, ... for every element, on any backend. True: the order
            of gloo's all-reduce, so that training is bit for bit the same as without the hook;
            only for gloo. With two ranks both are the same, and the same as the backend's.
        min_bytes: Buckets of fewer bytes are not compressed.
        timeout: How long to wait for another rank; None is the backend's default.
        log_every: Log `compression_stats` at level INFO every so many steps; 0 never does.

    Raises:
        ValueError: An option is not legal.

    Examples:
        >>> state = CompressedAllReduceState()
        >>> ddp_model.register_comm_hook(state, compressed_allreduce_hook)  # doctest: +SKIP
    """

    def __init__(
        self,
        process_group: dist.ProcessGroup | None = None,
        method: api.Method | Literal["past"] = "auto",
        *,
        match_backend: bool = False,
        min_bytes: int = 1 << 18,
        timeout: timedelta | None = None,
        log_every: int = 0,
    ) -> None:
        if method not in METHODS:
            legal = ", ".join(map(repr, METHODS))
            raise ValueError(f"method is {method!r}; it must be one of {legal}")
        if min_bytes < 0 or log_every < 0:
            raise ValueError("min_bytes and log_every must not be negative")
        self.process_group = process_group
        self.method = method
        self.match_backend = match_backend
        self.min_bytes = min_bytes
        self.timeout = timeout
        self.log_every = log_every
        self._stats = CompressionStats()
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._pipeline: Pipeline | None = None
        self._controller: Controller | None = None
        self._ranks = 0
        self._layouts: dict[int, tuple[Any, Layout]] = {}
        self._layout_changed = False
        self._step_compressed = False
        self._wire_free = 0.0

    def __getstate__(self) -> dict[str, Any]:
        options = ("method", "match_backend", "min_bytes", "timeout", "log_every")
        return {
            "stats": self.compression_stats(),
            **{name: getattr(self, name) for name in options},
        }

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Restores all but the process group, which is the default one until it is set."""
        stats = kept.pop("stats")
        self.__init__(**kept)  # type: ignore[misc]
        self._stats = stats

    def compression_stats(self) -> CompressionStats:
        """Returns a copy of what was measured so far."""
        with self._lock:
            return CompressionStats(**{**vars(self._stats), "methods": dict(self._stats.methods)})

    def close(self) -> None:
        """Ends the state's threads. They end with the process as well; a later step starts anew."""
        if self._pipeline is not None:
            self._pipeline.close()
        self._reset()

    # ---- one bucket -----------------------------------------------------------------------------

    def reduce(
        self, index: int, buffer: torch.Tensor, parameters: Sequence[torch.Tensor], is_last: bool
    ) -> Future:
        """Starts to average a bucket; the arguments are what `dist.GradBucket` says of it."""
        if self._controller is None:
            self._start(buffer.device)
        assert self._controller is not None
        if self._pipeline is not None and self._pipeline.error is not None:
            raise CommunicationError(f"an earlier step has failed: {self._pipeline.error}")
        if index == 0:
            self._begin_step()
        buffer.mul_(1 / self._ranks)
        self.prepare(index, buffer, parameters)
        if self._ranks == 1 or buffer.layout != torch.strided:
            return self._plain(index, buffer, count=self._ranks > 1)
        layout = self._layout(index, buffer, parameters)
        method = self._controller.method_of(index, buffer.nbytes)
        confirm = is_last and (self._step_compressed or method != PLAIN)
        if method == PLAIN and self._any_order():
            future = self._plain(index, buffer, count=True)
            if confirm:
                confirmed = self._submit(Job(buffer, None, method, True, lambda _: None))
                both = torch.futures.collect_all([future, confirmed])
                future = both.then(lambda done: _values(done.value())[0])
            return future
        self._step_compressed = True
        how = UNCOMPRESSED if method == PLAIN else method
        done = self._recorder(index, method, buffer.nbytes)
        return self._submit(Job(buffer, layout, how, is_last, done))

    def prepare(self, index: int, buffer: torch.Tensor, parameters: Sequence[torch.Tensor]) -> None:
        """Changes in place what this rank adds to the average of a bucket. Here: not at all."""

    def _any_order(self) -> bool:
        """Whether the backend's own sum has the bits that were asked for."""
        return self.match_backend or self._ranks == 2

    def _plain(self, index: int, buffer: torch.Tensor, *, count: bool) -> Future:
        begin = time.perf_counter()
        sent = int(2 * (self._ranks - 1) / self._ranks * buffer.nbytes) if count else 0
        record = self._recorder(index, PLAIN, buffer.nbytes)

        def finish(done: Future) -> torch.Tensor:
            now = time.perf_counter()
            # All-reduces of one step go one after the other.
            record(Measured(0.0, now - max(begin, self._wire_free), sent))
            self._wire_free = now
            result: torch.Tensor = done.value()[0]
            return result

        work = dist.all_reduce(buffer, group=self.process_group, async_op=True)
        return cast(Future, work.get_future().then(finish))

    def _submit(self, job: Job) -> Future:
        assert self._pipeline is not None

        def result(done: Future) -> torch.Tensor:
            value = done.value()
            if isinstance(value, Exception):  # Future.set_exception would lose its message
                raise value
            return cast(torch.Tensor, value)

        return self._pipeline.submit(job).then(result)

    def _recorder(self, index: int, method: str, nbytes: int) -> Any:
        controller = self._controller
        assert controller is not None

        def record(measured: Measured) -> None:
            controller.record(index, method, measured)
            with self._lock:
                stats = self._stats
                stats.raw_bytes += int(2 * (self._ranks - 1) / max(1, self._ranks) * nbytes)
                stats.sent_bytes += measured.sent_bytes
                stats.codec_seconds += measured.codec_seconds
                stats.wire_seconds += measured.wire_seconds
                stats.methods[index] = method

        return record

    # ---- steps and layouts ----------------------------------------------------------------------

    def _begin_step(self) -> None:
        assert self._controller is not None
        if self._layout_changed:
            self._controller.restart()
            self._layout_changed = False
            with self._lock:
                self._stats.methods.clear()
        self._step_compressed = False
        self._wire_free = 0.0
        self._controller.begin_step()
        with self._lock:
            self._stats.steps += 1
        if self.log_every and self._stats.steps % self.log_every == 0:
            _log.info("%s", self.compression_stats())

    def _layout(
        self, index: int, buffer: torch.Tensor, parameters: Sequence[torch.Tensor]
    ) -> Layout:
        shapes = tuple(memory_shape(parameter) for parameter in parameters)
        known = self._layouts.get(index)
        if known is not None and known[0] == (shapes, buffer.dtype):
            return known[1]
        if known is not None:
            self._layout_changed = True  # DDP has built its buckets anew
        order: Order = RankOrder(self._ranks)
        if self.match_backend:
            order = GlooOrder(self._ranks, buffer.numel(), buffer.itemsize)
        layout = Layout(partition(shapes, buffer.itemsize, self._ranks), order)
        self._layouts[index] = ((shapes, buffer.dtype), layout)
        return layout

    def _start(self, device: torch.device) -> None:
        """Makes the groups and threads; every rank comes here with its first bucket."""
        group = self.process_group
        self._ranks = dist.get_world_size(group)
        if self.match_backend and transport_device(group, device).type != "cpu":
            raise ValueError("match_backend=True is for gloo; the orders of others are not known")

        def new_group() -> dist.ProcessGroup:
            # Torch before 2.7 does not take None for the whole world here.
            ranks = dist.get_process_group_ranks(dist.group.WORLD if group is None else group)
            whole = len(ranks) == dist.get_world_size()
            made: dist.ProcessGroup = dist.new_group(
                ranks,
                timeout=self.timeout,
                backend=dist.get_backend_config(group),
                use_local_synchronization=not whole,
            )
            return made

        control_device = device
        if self._ranks > 1:
            control = new_group()
            control_device = transport_device(control, device)
            self._pipeline = Pipeline(new_group(), new_group(), device)

        def agree(values: list[float]) -> list[float]:
            if self._ranks == 1:
                return values
            numbers = torch.tensor(values, dtype=torch.float64, device=control_device)
            dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=control)
            return list(numbers.tolist())

        self._controller = Controller(self.method, self.min_bytes, agree)


def compressed_allreduce_hook(
    state: CompressedAllReduceState, bucket: GradBucket
) -> torch.futures.Future[torch.Tensor]:
    """Averages a bucket of gradients over the ranks, compressed where that is faster.

    For ``DistributedDataParallel.register_comm_hook``, alone or within ``bf16_compress_wrapper`` or
    ``fp16_compress_wrapper`` of ``torch.distributed.algorithms.ddp_comm_hooks.default_hooks``.

    Args:
        state: The options, and what is known of the module's buckets.
        bucket: The gradients of some parameters.

    Returns:
        A future of the bucket's averaged buffer.

    Raises:
        CommunicationError: Something has failed on a rank, in this bucket (raised by the future,
            and so by ``backward()``) or before; the message tells which and why. The state is of no
            more use.
    """
    return state.reduce(bucket.index(), bucket.buffer(), bucket.parameters(), bucket.is_last())


def _values(futures: Sequence[Future]) -> list[torch.Tensor]:
    """Returns the values of completed futures, or raises the first one's exception."""
    return [future.value() for future in futures]
