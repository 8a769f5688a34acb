"""Which files a command reads and writes."""

import argparse
import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lmgc_torch.checkpoints import UsageError
from lmgc_torch.checkpoints.folder import walk

STANDARD = "-"


@dataclasses.dataclass(frozen=True)
class Job:
    """A file to treat.

    Attributes:
        source: The input; None is standard input.
        root: The folder in which it was found, if it was not named itself.
    """

    source: Path | None
    root: Path | None = None

    @property
    def path(self) -> str:
        """The input's path, or "-"."""
        return STANDARD if self.source is None else str(self.source)

    @property
    def name(self) -> str:
        """What messages call it."""
        if self.source is None:
            return STANDARD
        return str(self.source) if self.root is not None else self.source.name

    @property
    def folder(self) -> Path | None:
        """Where it lies in the folder in which it was found; None if it was named itself."""
        if self.source is None or self.root is None:
            return None
        return self.source.parent.relative_to(self.root)


def find(options: argparse.Namespace, suffixes: tuple[str, ...]) -> list[Job]:
    """Returns the inputs: the files that are named, and those of a suffix in the folders.

    Raises:
        UsageError: One is there twice.
    """
    jobs: list[Job] = []
    for name in options.files:
        path = Path(name)
        if name != STANDARD and options.recursive and path.is_dir():
            found = (file for file in walk(path) if file.name.endswith(suffixes))
            jobs += [Job(file, path) for file in found if _is_input(options, file)]
        else:
            jobs.append(Job(None if name == STANDARD else path))
    if len(jobs) > len({job.source for job in jobs}):
        raise UsageError("an input is named twice")
    return jobs


def _is_input(options: argparse.Namespace, file: Path) -> bool:
    # In place, an archive beside a link would double what the link leads to.
    in_place = getattr(options, "output", STANDARD) is None
    return file.is_file() and not (in_place and file.is_symlink())


def plan(
    options: argparse.Namespace, jobs: list[Job], rename: Callable[[Job], str]
) -> list[tuple[Job, Path | None]]:
    """Returns each input with its output, None for standard output.

    Args:
        options: Those of the command.
        jobs: The inputs.
        rename: Makes the output's name of an input.

    Raises:
        UsageError: The outputs do not do.
    """
    if options.rm and any(job.source is None for job in jobs):
        raise UsageError("standard input cannot be removed: leave out --rm")
    out = options.output
    result: list[tuple[Job, Path | None]] = []
    for job in jobs:
        if out is None:
            if job.source is None:
                result.append((job, None))
            else:
                result.append((job, job.source.with_name(rename(job))))
        elif job.root is not None and job.source is not None:
            relative = job.source.relative_to(job.root)
            result.append((job, Path(out) / relative.with_name(rename(job))))
        elif out == STANDARD:
            result.append((job, None))
        elif os.path.isdir(out):
            result.append((job, Path(out) / rename(job)))
        elif out.endswith(os.sep):
            raise UsageError(f"there is no folder {out}")
        else:
            result.append((job, Path(out)))
    if out == STANDARD and len(jobs) != 1:
        raise UsageError("standard output takes one file")
    if any(output is None for _, output in result):
        if options.rm:
            raise UsageError("standard output may go anywhere: leave out --rm")
        if options.json:
            raise UsageError("standard output is the data: leave out --json")
        if sys.stdout.isatty() and not options.force:
            raise UsageError(
                "bytes do not belong on a terminal: name the output with -o, or use -f"
            )
    outputs = [output for _, output in result if output is not None]
    if len(set(outputs)) < len(outputs):
        raise UsageError("several inputs have one output: -o names a folder for several files")
    return result


def check_output(
    output: Path | None, source: Path | None, *, overwrite: bool, remove: bool = False
) -> None:
    """Raises an error if an output must not be written.

    Args:
        output: The output.
        source: The input, if any.
        overwrite: Whether an output that exists may be overwritten.
        remove: Whether the input shall be removed in the end.

    Raises:
        UsageError: It exists and is not to be overwritten, is a folder or the input, lies in no
            folder, or keeps nothing of an input that shall be removed.
    """
    if output is None:
        return
    if output.is_dir():
        raise UsageError(f"{output} is a folder")
    if not output.parent.is_dir():
        raise UsageError(f"there is no folder {output.parent}")
    if source is not None and output.exists() and output.samefile(source):
        raise UsageError(f"{output} is the input itself")
    if remove and output.exists() and not output.is_file():
        raise UsageError(f"{output} is no file that keeps what is written to it: leave out --rm")
    if output.is_file() and not overwrite:
        raise UsageError(f"{output} exists already: choose another name, or overwrite it with -f")


def mirrored(options: argparse.Namespace) -> Path | None:
    """Returns the folder that becomes another one as a whole, if one does.

    Raises:
        UsageError: The other one is part of it, is a file, or --rm is given.
    """
    folders = [Path(name) for name in options.files if options.recursive and Path(name).is_dir()]
    if options.output is None or not folders:
        return None
    if len(options.files) > 1:
        raise UsageError("-o takes the output of one folder, or of files")
    root, out = folders[0], Path(options.output)
    if options.output == STANDARD or (out.exists() and not out.is_dir()):
        raise UsageError(f"{options.output} is no folder")
    if options.rm:
        raise UsageError("--rm is for files, and for folders that are treated in place, without -o")
    if out.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{out} lies within {root}")
    return root


@contextlib.contextmanager
def readable(source: Path | None) -> Iterator[Path]:
    """Yields a file that can be mapped: standard input and pipes are written to one first.

    Raises:
        UsageError: The input does not exist, or is a folder.
    """
    if source is not None and source.is_file():
        yield source
        return
    if source is not None and source.is_dir():
        raise UsageError(f"{source} is a folder: -r takes folders, too")
    if source is not None and not source.exists():
        raise UsageError(f"there is no file {source}")
    with tempfile.TemporaryFile() as spool:  # it has no name, so that nothing can be left of it
        if source is None:
            shutil.copyfileobj(sys.stdin.buffer, spool, 1 << 20)
        else:
            with source.open("rb") as pipe:
                shutil.copyfileobj(pipe, spool, 1 << 20)
        spool.flush()
        yield Path(f"/proc/self/fd/{spool.fileno()}")


def stat_of(source: Path | None) -> os.stat_result | None:
    """Returns what an output gets its permissions and time from."""
    return source.stat() if source is not None and source.is_file() else None
