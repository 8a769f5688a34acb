"""``lmgc``: the command line.

A command is a module of this package with three names: ``HELP`` (what it does, in a line),
``add_arguments(parser)`` and ``run(options)``, which returns the exit code. `COMMANDS` lists them.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from lmgc_torch import files
from lmgc_torch.checkpoints import DataError, UsageError
from lmgc_torch.cli import (
    analyze,
    bench,
    completion,
    compress,
    decompress,
    export_prior,
    info,
    list_,
    test,
)
from lmgc_torch.cli.arguments import make_parser
from lmgc_torch.cli.work import (
    EXIT_DATA,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    complain,
    interruptible,
)

__all__ = ["main", "COMMANDS", "EXIT_OK", "EXIT_DATA", "EXIT_USAGE", "EXIT_INTERRUPTED"]

COMMANDS = {
    "compress": compress,
    "decompress": decompress,
    "test": test,
    "list": list_,
    "info": info,
    "analyze": analyze,
    "bench": bench,
    "export-prior": export_prior,
    "completion": completion,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: What stands behind ``lmgc``; None takes ``sys.argv``.

    Returns:
        The exit code.
    """
    options = make_parser(COMMANDS).parse_args(arguments)
    with contextlib.suppress(ValueError):  # signals belong to the main thread
        signal.signal(signal.SIGTERM, _terminated)
    try:
        # In a thread of its own: an operator knows no interruption, and nobody need wait for it.
        return interruptible(lambda: _run(options))
    except KeyboardInterrupt:
        files.abandon_writes()
        complain(options, "interrupted")
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)


def _run(options: argparse.Namespace) -> int:
    try:
        return int(COMMANDS[options.command].run(options))
    except (UsageError, ImportError) as error:
        complain(options, str(error))
        return EXIT_USAGE
    except BrokenPipeError:  # the reader of standard output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_DATA
    except (DataError, OSError) as error:
        complain(options, str(error))
        return EXIT_DATA


def _terminated(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
