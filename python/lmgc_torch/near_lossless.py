"""Tunable loss: tensors to tensors of the same type that the lossless methods code in fewer bytes.

Each of these is called with what `lmgc_torch.compress` takes, before it is compressed:

    rounded = KeepBits(7)(gradients)
    frame = lmgc_torch.compress(rounded, method="lowrank")

What comes out of the frame is `rounded`, bit for bit: sender and receiver hold the same. The frame
finds by itself which bits are spare. The idea of a tunable loss before lossless codecs is that of
"Lossless and Near-Lossless Compression for Foundation Models" (arXiv 2404.15198).

Each class says what it promises of every element. All of them keep infinities and NaNs with their
payloads; what was finite stays finite; doing it again changes nothing; and the bits are the same on
the CPU and on CUDA. Elements that become zero become +0. Tensors that are no floats of 16 to 64
bits (counters, masks) are returned as they are. Results have no autograd history.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch

from lmgc_torch import _library
from lmgc_torch.errors import translated

__all__ = ["AbsoluteBound", "BlockBits", "ErrorFeedback", "KeepBits", "Loss", "RelativeBound"]
__all__ += ["Threshold", "TopK"]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
Tensors = TypeVar("Tensors", bound="torch.Tensor | Sequence[torch.Tensor] | Mapping[str, Any]")


class Loss:
    """A change of tensors that makes them smaller once they are compressed."""

    def __call__(self, tensors: Tensors) -> Tensors:
        """Changes tensors.

        Args:
            tensors: A tensor, a sequence or a mapping of tensors, of any shapes; only read.

        Returns:
            The same structure (a list for a sequence, a dict for a mapping) of new tensors.

        Raises:
            TypeError: There is something else in `tensors`.
        """
        if isinstance(tensors, torch.Tensor):
            return cast(Tensors, self._apply(tensors))
        if isinstance(tensors, Mapping):
            return cast(Tensors, {name: self(tensor) for name, tensor in tensors.items()})
        if isinstance(tensors, Sequence) and not isinstance(tensors, str | bytes):
            return cast(Tensors, [self(tensor) for tensor in tensors])
        raise TypeError(f"expected tensors, got {type(tensors).__name__}")

    def _apply(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype not in FLOATS:
            return tensor
        with translated():
            return self._change(tensor.detach())

    def _change(self, tensor: torch.Tensor) -> torch.Tensor:
        """Changes a tensor of one of the four floats, of any shape."""
        raise NotImplementedError


# ---- rounding ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeepBits(Loss):
    """Rounds to the nearest number of so many explicit mantissa bits, ties to even.

    The error of a normal number is at most 2^-(bits + 1) of it, of a subnormal number at most
    2^-(bits + 1) of the smallest normal one. Numbers above the largest that has so many bits become
    that one. 7 gives float32 the precision of bfloat16, 10 that of float16.

    Attributes:
        bits: From 0 on; what has no more bits stays as it is.
    """

    bits: int

    def __post_init__(self) -> None:
        if self.bits < 0:
            raise ValueError(f"bits is {self.bits}; it must not be negative")

    def _change(self, tensor: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, _library.ops().round_mantissas(tensor, self.bits, False))


@dataclass(frozen=True)
class RelativeBound(Loss):
    """Rounds such that no element is off by more than `bound` of its own magnitude.

    As many mantissa bits are kept as that takes: powers of two are the bounds that are used up.
    Subnormal numbers keep as many significant bits, and numbers that would be rounded to infinity
    stay; both cost bits, but are rare.

    Attributes:
        bound: Above 0 and below 1.
    """

    bound: float

    def __post_init__(self) -> None:
        if not 0 < self.bound < 1:
            raise ValueError(f"bound is {self.bound}; it must be above 0 and below 1")

    @property
    def bits(self) -> int:
        """The mantissa bits that are kept: 2^-(bits + 1) is at most `bound`."""
        return -math.frexp(self.bound)[1]

    def _change(self, tensor: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, _library.ops().round_mantissas(tensor, self.bits, True))


@dataclass(frozen=True)
class AbsoluteBound(Loss):
    """Rounds such that no element is off by more than `bound`.

    Elements become multiples of the largest power of two that is at most twice the bound: powers of
    two are the bounds that are used up.

    Attributes:
        bound: Above 0, finite.
    """

    bound: float

    def __post_init__(self) -> None:
        if not 0 < self.bound < math.inf:
            raise ValueError(f"bound is {self.bound}; it must be above 0 and finite")

    @property
    def step(self) -> int:
        """The exponent of the power of two."""
        return math.frexp(self.bound)[1]

    def _change(self, tensor: torch.Tensor) -> torch.Tensor:
        powers = torch.tensor([self.step], dtype=torch.int32, device=tensor.device)
        return cast(torch.Tensor, _library.ops().round_to_powers(tensor, powers, 1))


@dataclass(frozen=True)
class BlockBits(Loss):
    """Rounds to so many bits, sign included, in the scale of the largest element of each block.

    Elements become multiples of a *step*, a power of two: the least for which all finite elements
    of the block are fewer than 2^(bits - 1) steps away from zero. The error is at most half a step,
    and so at most 2^(1 - bits) of the largest element of the rounded block. Steps are powers of two
    so that rounding is exact in any type, and doing it again changes nothing; the best steps would
    be up to half as long.

    Attributes:
        bits: From 2 to 24.
        block: Elements of a row (along the last dimension) that have a step of their own; the last
            block of a row may be shorter. None: the whole tensor is a block.
    """

    bits: int
    block: int | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 24:
            raise ValueError(f"bits is {self.bits}; it must be from 2 to 24")
        if self.block is not None and self.block < 1:
            raise ValueError(f"block is {self.block}; it must be positive, or None")

    def _change(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() == 0:
            return tensor.clone()
        mantissa, exponent_bits = _layout(tensor.dtype)
        magnitudes = torch.where(tensor.isfinite(), _magnitudes(tensor), 0)
        if self.block is None:
            largest = magnitudes.max().reshape(1)
        else:
            columns = tensor.shape[-1] if tensor.dim() else 1
            rows = magnitudes.reshape(-1, columns)
            blocks = -(-columns // self.block)
            rows = torch.nn.functional.pad(rows, (0, blocks * self.block - columns))
            largest = rows.view(-1, self.block).amax(1)
        largest = largest.long()
        # The largest element is below 2^top; what would be rounded up to that has the next step.
        field = (largest >> mantissa).clamp_min(1)
        significand = largest - ((field - 1) << mantissa)
        least = (
            2 - (1 << (exponent_bits - 1)) - mantissa
        )  # exponent of a subnormal number's last bit
        width = torch.frexp(significand.double()).exponent.long()  # of fewer than 53 bits: exact
        top = width + field - 1 + least
        step = top + 1 - self.bits
        drop = (step - (field - 1 + least)).clamp(0, mantissa + 1)
        kept = (significand + ((1 << drop) >> 1) - 1 + (significand >> drop & 1)) >> drop
        rises = (drop > 0) & (kept >> (self.bits - 1) != 0)
        powers = (step + rises).to(torch.int32)
        block = self.block or 1
        return cast(torch.Tensor, _library.ops().round_to_powers(tensor, powers, block))


# ---- sparsification ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Threshold(Loss):
    """Sets elements of a magnitude below `least` to zero; others stay as they are.

    Attributes:
        least: Not negative, finite.
    """

    least: float

    def __post_init__(self) -> None:
        if not 0 <= self.least < math.inf:
            raise ValueError(f"least is {self.least}; it must be finite and not negative")

    def _change(self, tensor: torch.Tensor) -> torch.Tensor:
        limit = torch.tensor(self.least, dtype=torch.float64).to(tensor.dtype)
        word = int(limit.view(_WORDS[tensor.dtype.itemsize]))
        if limit.double() < self.least:  # the next number is the first that is not below
            word += 1
        return _kept(tensor, _magnitudes(tensor) >= word)


@dataclass(frozen=True)
class TopK(Loss):
    """Keeps the elements of largest magnitude, and sets the others to zero.

    Of equal magnitudes those that come first are kept. Infinities and NaNs are not counted.

    Attributes:
        fraction: Of the elements of each tensor, above 0 and at most 1; one element is kept at
            least.
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction is {self.fraction}; it must be above 0 and at most 1")

    def _change(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() == 0:
            return tensor.clone()
        count = max(1, round(self.fraction * tensor.numel()))
        magnitudes = _magnitudes(tensor)
        magnitudes = torch.where(tensor.isfinite(), magnitudes, 0).reshape(-1)
        last = torch.topk(magnitudes, count, sorted=False).values.min()
        above = magnitudes > last
        level = magnitudes == last
        keep = above | (level & (level.cumsum(0) <= count - above.sum()))
        return _kept(tensor, keep.view(tensor.shape) | ~tensor.isfinite())


def _magnitudes(tensor: torch.Tensor) -> torch.Tensor:
    """Returns the words of floats without their signs, as integers: they order as magnitudes do."""
    words = tensor.contiguous().view(_WORDS[tensor.dtype.itemsize])
    return words & torch.iinfo(words.dtype).max


def _kept(tensor: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return torch.where(keep, tensor, torch.zeros((), dtype=tensor.dtype, device=tensor.device))


def _layout(dtype: torch.dtype) -> tuple[int, int]:
    """Returns the numbers of mantissa and exponent bits."""
    mantissa = -math.frexp(torch.finfo(dtype).eps)[1] + 1
    return mantissa, 8 * dtype.itemsize - 1 - mantissa


# ---- error feedback ------------------------------------------------------------------------------


class ErrorFeedback:
    """Adds what a loss took away in one step to what comes in the next one.

    For sequences, such as gradients from step to step: all that was ever put in comes out in the
    end, but for what is kept here (Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019).
    What is kept is in float32, in float64 for that.

    Args:
        loss: What is done in each step.

    Examples:
        >>> feedback = ErrorFeedback(TopK(0.01))
        >>> sent = feedback({"weight": torch.randn(50, 20)})
    """

    def __init__(self, loss: Loss) -> None:
        if not isinstance(loss, Loss):
            raise TypeError(f"loss is of type {type(loss).__name__}; it must be a Loss")
        self.loss = loss
        self._errors: dict[Hashable, torch.Tensor] = {}

    def __call__(self, tensors: Tensors) -> Tensors:
        """Changes tensors as the loss does, with what is left of earlier calls.

        Args:
            tensors: As for the loss. Those of a mapping are known by their names, of a sequence by
                their places.

        Returns:
            As of the loss.

        Raises:
            ValueError: A tensor has another shape, type or device than in the call before; `reset`
                it if that is meant.
        """
        if isinstance(tensors, Mapping):
            return cast(Tensors, {name: self.step(name, one) for name, one in tensors.items()})
        if isinstance(tensors, torch.Tensor):
            return cast(Tensors, self.step(0, tensors))
        return cast(Tensors, [self.step(place, tensor) for place, tensor in enumerate(tensors)])

    def step(self, key: Hashable, tensor: torch.Tensor) -> torch.Tensor:
        """Does the same to one tensor, which is known as `key`."""
        if tensor.dtype not in FLOATS:
            return tensor
        work = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        wanted = tensor.detach().to(work)
        error = self._errors.get(key)
        if error is not None:
            if (error.shape, error.dtype, error.device) != (tensor.shape, work, tensor.device):
                raise ValueError(
                    f"{key!r} is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}; what is "
                    f"left of it is {error.dtype} {tuple(error.shape)} on {error.device}"
                )
            wanted = wanted + error
        sent = self.loss(wanted.to(tensor.dtype))
        left = wanted - sent.to(work)
        # Infinities and NaNs are sent as they are: nothing is left of them.
        self._errors[key] = torch.where(left.isfinite(), left, 0)
        return sent

    def reset(self, key: Hashable | None = None) -> None:
        """Forgets what is left of one tensor, or of all."""
        if key is None:
            self._errors.clear()
        else:
            self._errors.pop(key, None)

    def state_dict(self) -> dict[Hashable, torch.Tensor]:
        """Returns what is kept, by the tensors' keys; not a copy."""
        return dict(self._errors)

    def load_state_dict(self, state: Mapping[Hashable, torch.Tensor]) -> None:
        """Takes what `state_dict` returned."""
        self._errors = {key: error.detach().clone() for key, error in state.items()}
