"""Priors: language models that tell the codec how likely each digit is."""

import functools
import os
from pathlib import Path
from typing import Any

import torch

from lmgc_torch import _library

__all__ = ["Prior"]

DEFAULTS = {"lm": "residual", "lmgc": "default"}
"""By method, the name of the bundled prior that is used where none is given."""


class Prior:
    """A causal language model in TorchScript, checked against the contract of docs/prior.md.

    A TorchScript file is a program: load only files that you trust. Frames hold no code, but a
    frame decodes only with the prior that made it.

    `Prior.load` makes one. Priors can be pickled and copied; they take their model with them.
    """

    __slots__ = ("_handle",)

    def __init__(self, handle: Any) -> None:
        """Wraps a ``torch.classes.lmgc.Prior``."""
        self._handle = handle

    @classmethod
    def load(
        cls, path_or_name: str | os.PathLike[str], device: torch.device | str | None = None
    ) -> "Prior":
        """Loads a prior from a file or from this package.

        Args:
            path_or_name: A file written by ``torch.jit.save``, or the name of a bundled prior, such
                as "default". A bundled name comes before a file of that name in the working folder
                (write "./default" for the file).
            device: Where the model shall lie; None is the CPU.

        Returns:
            The prior.

        Raises:
            FileNotFoundError: There is no such file; the message lists the bundled names.
            ValueError: The text is neither a file nor a bundled name, or the file is not a prior
                (the message says what it lacks).
        """
        path = _find(path_or_name)
        prior = cls(_prior_class()(str(path)))
        return prior if device is None else prior.to(device)

    def to(self, device: torch.device | str) -> "Prior":
        """Moves the model to a device, in place.

        Args:
            device: A CPU or CUDA device.

        Returns:
            This prior.

        Raises:
            ValueError: The device is of another kind.
            RuntimeError: The device does not exist here.
        """
        self._handle.to(str(torch.device(device)))
        return self

    @property
    def handle(self) -> Any:
        """The ``torch.classes.lmgc.Prior``, as the operators take it."""
        return self._handle

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return torch.device(self._handle.device())

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that name the model's numbers; frames remember them."""
        return str(self._handle.fingerprint())

    @property
    def vocab(self) -> list[str]:
        """The tokens' texts, in the order of their ids."""
        return list(self._handle.vocab())

    @property
    def context_features(self) -> list[str]:
        """What the model is told of each element beside its digits; may be empty."""
        return list(self._handle.context_features())

    @property
    def max_context(self) -> int:
        """The most tokens that the model looks back at."""
        return int(self._handle.max_context())

    @property
    def portable(self) -> bool:
        """Whether frames decode on every machine, not only where they were made."""
        return bool(self._handle.portable())

    @property
    def native(self) -> bool:
        """Whether method "lm" computes the model in C++ instead of running its TorchScript.

        It does so for priors that declare an architecture which the library knows, such as the
        bundled "residual", unless `use_native` switched it off.
        """
        return bool(self._handle.native())

    def use_native(self, use: bool = True) -> "Prior":
        """Switches the computation in C++ on, where there is one, or off.

        Both give the same bytes, and read each other's; TorchScript is far slower. Copies and
        pickled priors begin with it switched on.

        Args:
            use: Whether to compute in C++.

        Returns:
            This prior.
        """
        self._handle.use_native(use)
        return self

    def __repr__(self) -> str:
        kind = "portable" if self.portable else "bound to its environment"
        return (
            f"<lmgc_torch.Prior {self.fingerprint}: {len(self.vocab)} tokens, context of "
            f"{self.max_context} tokens and {len(self.context_features)} features, {kind}, on "
            f"{self.device}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Prior, (self._handle,)


def _prior_class() -> Any:
    _library.ops()
    return torch.classes.lmgc.Prior


def bundled() -> dict[str, Path]:
    """Returns the bundled priors' files by name."""
    from lmgc_torch import priors

    return priors.bundled()


def _find(path_or_name: str | os.PathLike[str]) -> Path:
    if not isinstance(path_or_name, str | os.PathLike):
        raise TypeError(
            f"a prior is named by a str or a path, not by a {type(path_or_name).__name__}"
        )
    names = bundled()
    if isinstance(path_or_name, str) and path_or_name in names:
        return names[path_or_name]
    path = Path(path_or_name)
    if path.is_file():
        return path
    known = f"the bundled priors are: {', '.join(map(repr, names)) or 'none'}"
    if not isinstance(path_or_name, str) or path.name != path_or_name or path.suffix:
        raise FileNotFoundError(f"there is no prior file {str(path)!r}; {known}")
    raise ValueError(f"there is neither a bundled prior nor a file called {str(path)!r}; {known}")


@functools.lru_cache(maxsize=16)
def cached(name: str, device: torch.device) -> Prior:
    """Returns a bundled prior on `device`, loaded once; nobody may move it."""
    return Prior.load(name, device)
