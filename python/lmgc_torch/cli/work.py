"""What commands do around their work: threads, progress, errors, messages."""

import argparse
import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

from lmgc_torch import export
from lmgc_torch.archive.reference import Reference, is_part
from lmgc_torch.checkpoints import DataError, UsageError
from lmgc_torch.checkpoints.folder import FolderReferences
from lmgc_torch.cli.paths import Job
from lmgc_torch.errors import LmgcError

EXIT_OK = 0
EXIT_DATA = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

Result = TypeVar("Result")


def complain(options: argparse.Namespace, message: str) -> None:
    """Prints an error."""
    print(f"lmgc {options.command}: {message}", file=sys.stderr)


def say(options: argparse.Namespace, message: str) -> None:
    """Prints a message for people: on standard error, for standard output may be data."""
    if not options.quiet:
        print(message, file=sys.stderr)


def print_json(content: dict[str, Any]) -> None:
    """Prints a line of JSON."""
    print(json.dumps(content), flush=True)


def interruptible(work: Callable[[], Result]) -> Result:
    """Runs `work` in a thread of its own, so that Ctrl-C need not wait for an operator's end."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
    if errors:
        raise errors[0]
    return results[0]


def set_up(options: argparse.Namespace) -> None:
    """Chooses threads, and looks whether the device is there."""
    if options.threads is not None:
        if options.threads < 0:
            raise UsageError("the number of threads is at least 1, or 0 for all processors")
        torch.set_num_threads(options.threads or len(os.sched_getaffinity(0)))
    try:
        torch.empty(1, device=options.device).cpu()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        raise UsageError(f"device {options.device}: {str(error).splitlines()[0]}") from error


def open_references(
    options: argparse.Namespace, planned: Iterable[tuple[Job, Path | None]] = ()
) -> FolderReferences:
    """Looks at what --reference names.

    Args:
        options: Those of the command.
        planned: The inputs with their outputs, of commands that have some.

    Returns:
        The references of the inputs, by `Job.folder`.

    Raises:
        UsageError: It does not exist, would be overwritten, or removed as an input.
        DataError: It is none.
    """
    names: list[str] = options.reference or []
    for name in names:
        if not Path(name).exists():
            raise UsageError(f"there is no file or folder {name}, which --reference names")
    for job, output in planned:
        for name in names:
            if options.rm and job.source is not None and is_part(job.source, name):
                raise UsageError(f"{name} is the reference, which is still needed: leave out --rm")
            if output is not None and is_part(output, name):
                raise UsageError(f"{output} would change the reference {name}: choose another")
    with _bases():
        references = FolderReferences(names or None, prior=options.prior)
    if not any(map(os.path.isdir, names)):  # folders are opened when their turn comes
        reference_of(references, None)
    return references


def reference_of(references: FolderReferences, job: Job | None) -> Reference | None:
    """Opens the reference of an input, or of any that is a file of its own.

    Raises:
        DataError: It is none.
    """
    with _bases():
        return references.of(None if job is None else job.folder)


@contextlib.contextmanager
def _bases() -> Iterator[None]:
    """Turns errors of what is in a reference into those of data."""
    try:
        with named_errors("--reference"):
            yield
    except UsageError as error:
        raise DataError(str(error)) from error


def for_each(
    options: argparse.Namespace, items: list[Result], work: Callable[[Result], None]
) -> int:
    """Does the work for every item, also after one that failed; returns the exit code."""
    code = EXIT_OK
    for item in items:
        try:
            work(item)
        except UsageError as error:
            complain(options, str(error))
            code = max(code, EXIT_USAGE)
        except BrokenPipeError:
            raise
        except (DataError, OSError) as error:
            complain(options, str(error))
            code = max(code, EXIT_DATA)
    return code


@contextlib.contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Turns the library's errors into the command line's, with the name of the file."""
    try:
        yield
    except FileNotFoundError as error:  # a prior's: inputs were looked for before
        raise UsageError(str(error)) from error
    except (LmgcError, export.CheckpointError) as error:
        raise DataError(f"{name}: {error}") from error
    except MemoryError as error:
        raise DataError(f"{name}: not enough memory") from error
    except RuntimeError as error:  # no memory for a tensor, or a prior's own
        raise DataError(f"{name}: {str(error).splitlines()[0]}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name}: {error}") from error


@contextlib.contextmanager
def progress(
    options: argparse.Namespace, text: str, total: int | None = None
) -> Iterator[Callable[[int], None]]:
    """Shows a bar on a terminal; yields what shall be called with the bytes that were treated."""
    if options.quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich import progress as rich
    from rich.console import Console

    columns: list[rich.ProgressColumn] = [rich.TextColumn("{task.description}"), rich.BarColumn()]
    if total is not None:
        columns += [
            *(rich.TaskProgressColumn(), rich.DownloadColumn(), rich.TransferSpeedColumn()),
            rich.TimeRemainingColumn(),
        ]
    columns.append(rich.TimeElapsedColumn())
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda count: bar.update(task, advance=count)
