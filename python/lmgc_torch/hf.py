"""Compressed checkpoints for what has ``save_pretrained`` and ``from_pretrained``: transformers.

    lmgc_torch.hf.save_pretrained(model, "llama-lmgc")
    model = lmgc_torch.hf.from_pretrained(AutoModelForCausalLM, "llama-lmgc")

    lmgc_torch.hf.save_pretrained(tuned, "tuned-lmgc", reference="llama")
    tuned = lmgc_torch.hf.from_pretrained(AutoModelForCausalLM, "tuned-lmgc", reference="llama")

The folder is the one that ``model.save_pretrained`` writes, with archives in place of the files of
tensors; ``lmgc compress -r`` makes one of a checkpoint that is there already. Nothing here depends
on the version of transformers, and diffusers' pipelines and peft's adapters go the same way.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmgc_torch.api import Method, PriorLike
from lmgc_torch.archive.reference import ReferenceLike
from lmgc_torch.checkpoints import SUFFIX
from lmgc_torch.checkpoints.folder import compress_folder, decompress_folder

__all__ = ["save_pretrained", "from_pretrained", "decompressed"]

_INDEX = ".index.json"
_SHARD = re.compile(r"(.*)-\d{5}-of-\d{5}(\.[^.]+)")


def save_pretrained(
    model: Any,
    save_directory: str | os.PathLike[str],
    *,
    method: Method = "auto",
    prior: PriorLike | None = None,
    reference: ReferenceLike | None = None,
    **kwargs: Any,
) -> None:
    """Saves a model, and compresses its files of tensors.

    Args:
        model: What has ``save_pretrained``: a model, a pipeline, an adapter, a tokenizer. Its own
            files are written to a temporary folder beside `save_directory` first.
        save_directory: The folder, made if need be. Files of the same names are replaced, and
            shards that an earlier save with another number of them has left are removed.
        method: As for `lmgc_torch.compress`.
        prior: As for `lmgc_torch.compress`.
        reference: The folder of the model that this one was made of, plain or compressed, whatever
            its shards; or what else `lmgc_torch.save_file` takes. Folders within, as those of a
            pipeline, are relative to those of the same names. Loading needs it again.
        **kwargs: Go to ``model.save_pretrained``, ``max_shard_size`` for instance.

    Raises:
        ValueError: The reference does not do, or would be overwritten.
        OSError: The folder cannot be written.
    """
    target = Path(save_directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".lmgc-") as folder:
        model.save_pretrained(folder, **kwargs)
        compress_folder(Path(folder), target, method=method, prior=prior, reference=reference)
        _remove_old_shards(target, {path.name for path in Path(folder).iterdir()})


def _remove_old_shards(target: Path, written: set[str]) -> None:
    """Removes the archives and the index of a file that was written in another number of shards."""
    stems = {_stem(name) for name in written}
    for path in target.iterdir():
        name = path.name.removesuffix(SUFFIX)
        ours = path.name.endswith((SUFFIX, _INDEX))
        if ours and name not in written and _stem(name) in stems:
            path.unlink()


def _stem(name: str) -> str:
    """Returns the name of a file that was not cut into shards, for a shard or the index of them."""
    return _SHARD.sub(r"\1\2", name).removesuffix(_INDEX)


def from_pretrained(
    cls: Any,
    pretrained_model_path: str | os.PathLike[str],
    *args: Any,
    prior: PriorLike | None = None,
    reference: ReferenceLike | None = None,
    **kwargs: Any,
) -> Any:
    """Loads what `save_pretrained` or ``lmgc compress -r`` has compressed.

    The checkpoint is decompressed into a temporary folder (``TMPDIR`` says where), which is removed
    when the model is there.

    Args:
        cls: What has ``from_pretrained``: ``AutoModelForCausalLM``, a model's or a tokenizer's
            class.
        pretrained_model_path: The folder.
        *args: Go to ``cls.from_pretrained``.
        prior: As for `lmgc_torch.decompress`.
        reference: What it was saved with, see `save_pretrained`; ignored if it needs none.
        **kwargs: Go to ``cls.from_pretrained``, ``dtype`` or ``device_map`` for instance.

    Returns:
        What ``cls.from_pretrained`` returns.

    Raises:
        CorruptFrameError: An archive is damaged.
        PriorMismatchError: It was made with another prior.
        ReferenceMismatchError: It was made with another reference, or with one that is not given.
        NotADirectoryError: There is no such folder.
    """
    with decompressed(pretrained_model_path, prior=prior, reference=reference) as folder:
        return cls.from_pretrained(folder, *args, **kwargs)


@contextlib.contextmanager
def decompressed(
    path: str | os.PathLike[str],
    *,
    prior: PriorLike | None = None,
    reference: ReferenceLike | None = None,
) -> Iterator[str]:
    """Decompresses a folder as long as the context lasts, for loaders that take a folder.

    Args:
        path: The folder of a compressed checkpoint.
        prior: As for `lmgc_torch.decompress`.
        reference: As for `from_pretrained`.

    Yields:
        A temporary folder with the checkpoint as it was.

    Raises:
        CorruptFrameError: An archive is damaged.
        PriorMismatchError: It was made with another prior.
        ReferenceMismatchError: It was made with another reference, or with one that is not given.
        NotADirectoryError: There is no such folder.
    """
    if not Path(path).is_dir():
        raise NotADirectoryError(f"there is no folder {os.fspath(path)!r}")
    with tempfile.TemporaryDirectory(prefix="lmgc-") as folder:
        decompress_folder(Path(path), Path(folder), prior=prior, reference=reference)
        yield folder
