"""A checkpoint's settings and tensors, so taken that nothing of them is overlooked."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CheckpointError", "Weights", "linear", "require"]


class CheckpointError(ValueError):
    """The checkpoint cannot become a prior; the message says why and what would do."""


def require(config: Any, name: str, *legal: object) -> None:
    """Refuses a checkpoint with a setting that the export would have to ignore.

    Args:
        config: The checkpoint's configuration; a setting that it lacks has the first legal value.
        name: The setting.
        *legal: The values that are supported.

    Raises:
        CheckpointError: The setting has another value.
    """
    value = getattr(config, name, legal[0])
    if value not in legal:
        raise CheckpointError(
            f"the checkpoint's {name} is {value!r}; supported is {' or '.join(map(repr, legal))}"
        )


class Weights:
    """The tensors of a model by name, each for one taker.

    Args:
        model: A transformers model.
        dtype: What the tensors are converted to.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self._left: dict[str, Tensor] = dict(model.state_dict())
        self._dtype = dtype

    def take(self, name: str) -> Tensor:
        """Returns a tensor, on the CPU.

        Raises:
            CheckpointError: There is none of that name, or its data were not loaded.
        """
        tensor = self._left.pop(name, None)
        if tensor is None:
            raise CheckpointError(
                f"the checkpoint has no tensor {name!r}; adapters have to be merged into their "
                "model first"
            )
        if tensor.is_meta or not tensor.is_floating_point():
            raise CheckpointError(
                f"the tensor {name!r} holds no floating-point data here; quantized and offloaded "
                "models have to be loaded as float32, float16 or bfloat16"
            )
        return tensor.detach().to("cpu", self._dtype)

    def find(self, name: str) -> Tensor | None:
        """Returns a tensor that not every checkpoint has, or None."""
        return self.take(name) if name in self._left else None

    def check_all_taken(self) -> None:
        """Refuses a model with tensors that the export knows nothing of."""
        if self._left:
            names = ", ".join(map(repr, sorted(self._left)[:4]))
            raise CheckpointError(
                f"the checkpoint has {len(self._left)} tensors that its architecture does not "
                f"know: {names}{', ...' if len(self._left) > 4 else ''}"
            )


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """Makes a layer of a weight [out, in] and a bias [out], without initialising it."""
    layer = nn.Linear(weight.size(1), weight.size(0), bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer
