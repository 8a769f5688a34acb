"""The DDP hook with a tunable loss: each rank rounds its gradients, all else is exact."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from lmgc_torch import api
from lmgc_torch.distributed.hook import CompressedAllReduceState
from lmgc_torch.distributed.partition import memory_shape
from lmgc_torch.near_lossless import ErrorFeedback, Loss


class NearLosslessAllReduceState(CompressedAllReduceState):
    """A state of `compressed_allreduce_hook` that rounds gradients before they are sent.

    Each rank changes its own share of the average (its gradients divided by the number of ranks) as
    `loss` does, parameter by parameter, and keeps what was lost for its next step. The average of
    what remains is exact, and so all ranks end with the same bits. With "auto", buckets that go
    uncompressed are changed all the same: how gradients are sent does not change them.

    Args:
        loss: What is done to gradients: `lmgc_torch.near_lossless` has a choice.
        process_group: As of `CompressedAllReduceState`; and so are `method`, `match_backend`,
            `min_bytes`, `timeout` and `log_every`.
        error_feedback: Whether what a step loses is added to the next one. It takes as much memory
            as the gradients (twice as much if they are of 16 bits); without it, small elements may
            be lost in every step.

    Raises:
        ValueError: An option is not legal.
        TypeError: `loss` is no `Loss`.

    Examples:
        >>> state = NearLosslessAllReduceState(KeepBits(7))  # doctest: +SKIP
        >>> ddp_model.register_comm_hook(state, compressed_allreduce_hook)  # doctest: +SKIP
    """

    def __init__(
        self,
        loss: Loss,
        process_group: dist.ProcessGroup | None = None,
        method: api.Method = "auto",
        *,
        error_feedback: bool = True,
        match_backend: bool = False,
        min_bytes: int = 1 << 18,
        timeout: timedelta | None = None,
        log_every: int = 0,
    ) -> None:
        super().__init__(
            process_group,
            method,
            match_backend=match_backend,
            min_bytes=min_bytes,
            timeout=timeout,
            log_every=log_every,
        )
        self.loss = loss
        self.error_feedback = error_feedback
        self._feedback = ErrorFeedback(loss)
        self._places: dict[int, int] = {}  # of parameters by id, in the order of their appearance

    def __getstate__(self) -> dict[str, Any]:
        return {
            "loss": self.loss,
            "error_feedback": self.error_feedback,
            "lost": self._feedback.state_dict(),
            **super().__getstate__(),
        }

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Restores all but the process group; what was lost is of the rank that pickled it."""
        lost = kept.pop("lost")
        super().__setstate__(kept)
        self._feedback.load_state_dict(lost)

    def prepare(self, index: int, buffer: torch.Tensor, parameters: Sequence[torch.Tensor]) -> None:
        """Rounds a bucket in place. Its parameters lie in it one after the other."""
        if buffer.layout != torch.strided:
            return
        first = 0
        for parameter in parameters:
            part = buffer.narrow(0, first, parameter.numel()).view(memory_shape(parameter))
            first += parameter.numel()
            if self.error_feedback:
                # DDP builds its buckets anew after the first step: places in them tell nothing.
                key = self._places.setdefault(id(parameter), len(self._places))
                part.copy_(self._feedback.step(key, part))
            else:
                part.copy_(self.loss(part))
