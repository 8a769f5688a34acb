"""Turns checkpoints of causal language models into priors.

    lmgc_torch.export.export_prior("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "tinyllama.pt")
    frame = lmgc_torch.compress(gradients, method="lmgc", prior="tinyllama.pt")

transformers reads the checkpoint; the prior is made of modules of this package, in TorchScript,
and needs neither transformers nor Python to run. docs/prior.md says what is kept of a checkpoint.
"""

import contextlib
import dataclasses
import os
import re
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lmgc_torch import files
from lmgc_torch.export import gpt2, llama
from lmgc_torch.export.checkpoint import CheckpointError, Weights
from lmgc_torch.export.vocabulary import find_vocabulary

__all__ = ["CheckpointError", "ExportedPrior", "export_prior"]

ARCHITECTURES = {"gpt2": gpt2.build, "llama": llama.build, "mistral": llama.build}
"""What makes a prior of a checkpoint, by its `model_type`."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
DEFAULT_CONTEXT = 1024
# A window holds whole elements, and whole periods of their separators: at most 8 float64 in groups
# of 3 bytes, 48 digits and 8 separators.
LEAST_CONTEXT = 64


@dataclasses.dataclass(frozen=True)
class ExportedPrior:
    """What was written.

    Attributes:
        architecture: The checkpoint's `model_type`.
        parameters: Numbers in the prior, without the rows of tokens that it does not have.
        bytes: Size of the file; 0 if it is no regular file.
        dtype: What it computes in.
        max_context: Tokens of a window.
        vocab: Its tokens.
        separators: The values of the option `separator` that it can be used with.
    """

    architecture: str
    parameters: int
    bytes: int
    dtype: torch.dtype
    max_context: int
    vocab: list[str]
    separators: list[str]


def export_prior(
    checkpoint: Any,
    out: str | os.PathLike[str] | None,
    *,
    tokenizer: Any = None,
    max_context: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> ExportedPrior:
    """Writes a checkpoint as a prior, a TorchScript file for `Prior.load`.

    Args:
        checkpoint: A folder that transformers' save_pretrained wrote, the name of a model on the
            Hugging Face hub, or a model of transformers.
        out: The file, replaced as a whole; None is standard output.
        tokenizer: A tokenizer of transformers, or a mapping of texts to the checkpoint's ids: the
            sixteen digits, "<bos>", and separators (" ", ",", ", ", ";", "0x"). None reads the
            checkpoint's own, which a model does not have.
        max_context: Tokens of a window, 64 to the checkpoint's positions; None is 1024 or the
            checkpoint's positions, if those are fewer.
        dtype: What the prior computes in: float32, bfloat16 or float16.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: There is no such checkpoint, or no folder to write to.
        CheckpointError: The architecture (the message lists those that are supported), a setting
            or the tokenizer does not do.
        ValueError: `max_context` or `dtype` is out of range.
        TypeError: `checkpoint` or `tokenizer` is of another type, or a model has no tokenizer.
        ImportError: transformers is needed and not installed.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype}; it must be one of {', '.join(map(str, DTYPES))}")
    is_named = isinstance(checkpoint, str | os.PathLike)
    name = os.fspath(checkpoint) if is_named else type(checkpoint).__name__
    config = _load_config(name) if is_named else getattr(checkpoint, "config", None)
    if config is None:
        raise TypeError(f"a checkpoint is a name, a path or a model of transformers, not a {name}")
    _check_architecture(config)
    context = _checked_context(max_context, config)
    if tokenizer is None and not is_named:
        raise TypeError("a model needs its tokenizer, or a mapping of texts to ids, beside it")
    tokenizer = _load_tokenizer(name) if tokenizer is None else tokenizer
    vocabulary = find_vocabulary(tokenizer, config)
    model = _load_model(name, dtype) if is_named else checkpoint
    if not hasattr(model, "lm_head"):
        raise CheckpointError(f"a {name} does not predict tokens: it has no head for them")

    weights = Weights(model, dtype)
    del model  # if nobody else holds it, each of its tensors goes once it was taken
    ids = torch.tensor(vocabulary.ids)
    prior = ARCHITECTURES[config.model_type](config, weights, vocabulary.tokens, ids, context)
    weights.check_all_taken()
    path = None if out is None else Path(out)
    _write(prior.eval(), path)
    return ExportedPrior(
        config.model_type,
        sum(parameter.numel() for parameter in prior.parameters()),
        path.stat().st_size if path is not None and path.is_file() else 0,
        dtype,
        context,
        vocabulary.tokens,
        vocabulary.separators,
    )


def _check_architecture(config: Any) -> None:
    kind = getattr(config, "model_type", None)
    if kind not in ARCHITECTURES:
        raise _unsupported(f"the checkpoint's architecture is {kind!r}")
    if getattr(config, "quantization_config", None) is not None:
        raise CheckpointError(
            "the checkpoint is quantized; export the one that it was made from, in float32, "
            "float16 or bfloat16"
        )


def _unsupported(what: str) -> CheckpointError:
    return CheckpointError(
        f"{what}; supported are {', '.join(map(repr, ARCHITECTURES))} (GPT-2; Llama and others of "
        "its architecture, such as TinyLlama and OpenLLaMA; Mistral)"
    )


def _checked_context(max_context: int | None, config: Any) -> int:
    most = int(config.max_position_embeddings)
    if most < LEAST_CONTEXT:
        raise CheckpointError(
            f"the checkpoint has {most} positions; a prior needs {LEAST_CONTEXT} to see an element "
            "of every type"
        )
    if max_context is None:
        return min(most, DEFAULT_CONTEXT)
    if not LEAST_CONTEXT <= max_context <= most:
        raise ValueError(
            f"max_context is {max_context}; it must be {LEAST_CONTEXT} to {most}, the checkpoint's "
            "positions"
        )
    return max_context


def _write(prior: torch.nn.Module, path: Path | None) -> None:
    with warnings.catch_warnings():
        # torch recommends torch.export, which C++ cannot load without compiling.
        warnings.filterwarnings("ignore", r".*torch\.jit", DeprecationWarning)
        script = torch.jit.script(prior)

        def save(file: BinaryIO) -> None:
            if path is None:
                torch.jit.save(script, file)
            else:  # by name, so that a large model is not held a second time
                torch.jit.save(script, str(file.name))

        files.write_whole(path, save)


# ---- what transformers reads -------------------------------------------------------------------


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "reading checkpoints needs transformers: pip install lmgc_torch[export]"
        ) from error
    return transformers


def quiet_transformers() -> None:
    """Keeps transformers from writing to the terminal, if it is there; for the command line."""
    with contextlib.suppress(ImportError):
        logging = _transformers().utils.logging
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def _load_config(name: str) -> Any:
    path = Path(name)
    if path.exists() and not (path / "config.json").is_file():
        raise CheckpointError(f"{name} is no checkpoint: that is a folder with a config.json")
    is_hub_name = re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name) is not None
    if not path.exists() and not is_hub_name:
        raise FileNotFoundError(f"there is no checkpoint folder {name}")
    auto = _transformers().AutoConfig
    try:
        return auto.from_pretrained(name)
    except OSError as error:
        if path.exists():
            raise CheckpointError(f"{name} has a damaged config.json: {_first_line(error)}") from (
                error
            )
        raise FileNotFoundError(
            f"there is no checkpoint folder {name}, and the hub gives none: {_first_line(error)}"
        ) from error
    except Exception as error:  # a type that transformers does not know, or settings out of range
        raise _unsupported(f"transformers cannot read {name} ({_first_line(error)})") from error


def _load_tokenizer(name: str) -> Any:
    try:
        return _transformers().AutoTokenizer.from_pretrained(name)
    except Exception as error:  # each kind of tokenizer has its own ways to fail
        raise CheckpointError(
            f"{name} has no tokenizer that transformers can read: {_first_line(error)}"
        ) from error


def _load_model(name: str, dtype: torch.dtype) -> Any:
    try:
        model, report = _transformers().AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, output_loading_info=True
        )
    except OSError as error:
        raise FileNotFoundError(
            f"the checkpoint {name} has no weights that transformers can read: {_first_line(error)}"
        ) from error
    # transformers would fill in random numbers.
    missing = sorted(map(str, report["missing_keys"]))
    if missing:
        raise CheckpointError(
            f"the checkpoint lacks {len(missing)} tensors of a causal language model, such as "
            f"{missing[0]!r}"
        )
    return model


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
