"""``lmgc completion``: a script with which a shell completes commands, options and files.

Examples:
  lmgc completion bash > ~/.local/share/bash-completion/completions/lmgc
  lmgc completion zsh > "${fpath[1]}/_lmgc"

It needs shtab: pip install "lmgc_torch[completion]".
"""

import argparse

from lmgc_torch.cli import arguments
from lmgc_torch.cli.work import EXIT_OK

HELP = "print a completion script for a shell"
_FILES = ("FILE", "FILE.lmgc", "OUT", "P", "CHECKPOINT")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("shell", choices=("bash", "zsh"))


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    from lmgc_torch.cli import COMMANDS

    try:
        import shtab
    except ImportError as error:
        raise ImportError('completion needs shtab: pip install "lmgc_torch[completion]"') from error
    parser = arguments.make_parser(COMMANDS)
    for action in parser._actions:
        for sub in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            for argument in sub._actions:
                if argument.metavar in _FILES:
                    argument.complete = shtab.FILE
    print(shtab.complete(parser, options.shell))
    return EXIT_OK
