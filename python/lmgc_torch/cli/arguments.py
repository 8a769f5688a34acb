"""The parser, and the arguments that several commands have."""

import argparse
import inspect
import re
from collections.abc import Mapping
from types import ModuleType

from lmgc_torch import __version__, api
from lmgc_torch.checkpoints import SUFFIX

_DESCRIPTION = """\
Lossless compression of files of tensors: .safetensors files come back byte for byte, .pt files as
equal objects. The compressed form is an archive; lmgc_torch.load_file and safe_open read it, too.
"""

_EPILOG = """\
Examples:
  lmgc compress model.safetensors            write model.safetensors.lmgc
  lmgc decompress model.safetensors.lmgc     write model.safetensors
  lmgc compress -m lowrank --rm *.pt         compress checkpoints, verify, remove them
  lmgc compress -r llama/ -o llama-lmgc/     a folder: shards compressed, the rest copied
  lmgc decompress -r llama-lmgc/ -o llama/   and back
  lmgc compress - < model.pt | ssh host 'lmgc decompress - -o model.pt'
  lmgc list model.safetensors.lmgc           the tensors: types, shapes, methods, sizes

`lmgc COMMAND --help` describes a command."""

_FILES = """\
Files:
  - is standard input; as OUT standard output. Existing files are kept unless -f is given, and an
  output appears only when it is complete. It gets its input's permissions and time.

Exit codes:
  0 all went well; 1 the data: a damaged file, one that holds no tensors, another prior or
  reference; 2 the command: wrong options, a missing input, an output that exists; 130 interrupted.
  Of several files one that fails does not keep the others from being treated."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)


def make_parser(commands: Mapping[str, ModuleType]) -> argparse.ArgumentParser:
    """Makes the parser of ``lmgc``.

    Args:
        commands: The commands' modules by name. The text behind the first line of a module's
            docstring, its examples for instance, stands at the end of the command's help.
    """
    parser = argparse.ArgumentParser(
        prog="lmgc", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=_Formatter
    )
    parser.add_argument("--version", action="version", version=f"lmgc_torch {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in commands.items():
        text = inspect.getdoc(module) or ""
        sub = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog=text.partition("\n")[2].strip() + "\n\n" + _FILES,
            formatter_class=_Formatter,
        )
        module.add_arguments(sub)
    return parser


def add_files(parser: argparse.ArgumentParser, metavar: str = "FILE" + SUFFIX) -> None:
    """Adds the inputs."""
    parser.add_argument("files", metavar=metavar, nargs="+", help="files, or - for standard input")
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="take folders, too, with all that is in them"
    )


def add_output(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds the arguments of commands that make a file of each file."""
    parser.add_argument(
        *("-o", "--output"),
        metavar="OUT",
        help=f"output file, or the folder for several; default: {default}",
    )
    parser.add_argument("-f", "--force", action="store_true", help="overwrite existing files")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-k", "--keep", action="store_true", help="keep the inputs (the default)")
    group.add_argument(
        "--rm",
        action="store_true",
        help="remove each input at the end, once its output is verified",
    )


def add_work(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of commands that encode or decode."""
    add_prior(parser)
    parser.add_argument("--device", default="cpu", help="where to work: cpu (default), cuda, ...")
    parser.add_argument(
        *("-T", "--threads"),
        metavar="N",
        type=int,
        help="threads to work with; 0: one for each processor; default: what torch chooses",
    )


def add_prior(parser: argparse.ArgumentParser) -> None:
    """Adds the prior."""
    parser.add_argument(
        "--prior",
        metavar="P",
        help="the language model: a TorchScript file that you trust, or a bundled one's name",
    )


def add_reference(parser: argparse.ArgumentParser, use: str) -> None:
    """Adds the reference, and what it is for."""
    parser.add_argument(
        "--reference",
        metavar="BASE",
        action="append",
        help=f"{use}: an archive, a .safetensors or .pt file, or a folder of them, with tensors of "
        "the same names; for one that is relative itself, give --reference again, with its own",
    )


def add_max_bytes(parser: argparse.ArgumentParser) -> None:
    """Adds the limit on what is decoded."""
    parser.add_argument(
        "--max-bytes",
        metavar="N",
        type=_size,
        help="refuse a file that announces more bytes of tensors: 2000000000, 2GB or 2GiB for "
        "example; default: no limit",
    )


def _size(text: str) -> int:
    found = re.fullmatch("([0-9]+)(?:([KMGT])(i?)B)?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: say 2000000000, 2GB or 2GiB")
    number, unit, binary = found.groups()
    power: int = (1024 if binary else 1000) ** (" KMGT".index(unit) if unit else 0)
    return int(number) * power


def add_talk(parser: argparse.ArgumentParser, *, json: bool = True) -> None:
    """Adds the arguments that choose what is printed."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    if json:
        group.add_argument("-v", "--verbose", action="store_true", help="tell of each tensor")
        parser.add_argument(
            "--json", action="store_true", help="print an object in JSON for each file, a line each"
        )


def add_method(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that choose how to code."""
    parser.add_argument(
        *("-m", "--method"), choices=api.METHODS, default="auto", help="how to code; default: auto"
    )
    effort = parser.add_argument(
        "--effort",
        metavar="N",
        type=int,
        choices=range(1, 10),
        default=5,
        help="for auto, lowrank and lm: how long to look for predictions, 1 (quick) to 9 (small), "
        "also written -1 to -9; default: 5",
    )
    for n in effort.choices or ():
        parser.add_argument(
            f"-{n}", dest="effort", action="store_const", const=n, help=argparse.SUPPRESS
        )
    parser.add_argument(
        "--window",
        choices=api.WINDOWS,
        default="disjoint",
        help="for lmgc: whether the model's context starts anew or slides; default: disjoint",
    )
