"""``lmgc analyze``: what compresses in a file of tensors, and why.

Examples:
  lmgc analyze model.safetensors --html model.html
  lmgc analyze gradients.pt -m lowrank -m lm
"""

import argparse
import json
from pathlib import Path
from typing import BinaryIO

from lmgc_torch import api, files
from lmgc_torch.analyze import METHODS, SAMPLE, Report, analyze
from lmgc_torch.analyze.table import as_text
from lmgc_torch.errors import LmgcError
from lmgc_torch.files import DataError, Tensors, UsageError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "tell what compresses in a .pt, .safetensors or .lmgc file, and why"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--html", metavar="OUT", help="write a page with plots, too")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite an existing page")
    parser.add_argument(
        "--downloads", metavar="N", type=int, help="downloads a month, to tell what they would save"
    )
    parser.add_argument(
        *("-m", "--method"),
        action="append",
        choices=api.METHODS,
        help=f"a method to try; may be given again; default: {', '.join(METHODS)}",
    )
    parser.add_argument(
        "--sample",
        metavar="N",
        type=int,
        default=SAMPLE,
        help=f"elements of a tensor that are looked at, 0 for all; default: {SAMPLE}",
    )
    parser.add_argument(
        "--prior",
        metavar="P",
        help="the language model: a TorchScript file that you trust, or a bundled one's name",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        The exit code.
    """
    if options.downloads is not None and options.downloads < 0:
        raise UsageError(f"--downloads is {options.downloads}: it should be 0 or more")
    if options.sample < 0:
        raise UsageError(f"--sample is {options.sample}: it should be 0, for all, or more")
    source = files.input_path(options.file)
    page = None
    if options.html is not None:
        if options.html == files.STANDARD:
            raise UsageError("the page needs a file: the table goes to standard output")
        page = files.output_path(options.html, source, overwrite=options.force)
    name = files.name_of(source)
    try:
        report = analyze(
            _load(source, options.prior),
            methods=tuple(options.method or METHODS),
            prior=options.prior,
            sample=options.sample or None,
        )
    except FileNotFoundError as error:  # the prior's: the input was looked for before
        raise UsageError(str(error)) from error
    except LmgcError as error:
        raise DataError(f"{name}: {error}") from error
    except RuntimeError as error:  # no memory, or a prior's own
        raise DataError(f"{name}: {str(error).splitlines()[0]}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name}: {error}") from error
    if page is not None:
        _write(page, report.to_html(name, options.downloads))
    show = _as_json if options.json else as_text
    print(show(report, options.downloads))
    return 0


def _load(source: Path | None, prior: str | None) -> Tensors:
    """Reads tensors from a file of tensors, or from a frame."""
    if source is None:
        return files.load(source)[0]
    with source.open("rb") as file:
        is_frame = file.read(4) == b"LMGC"
    if not is_frame:
        return files.load(source)[0]
    return api.decompress(files.read_frame(source), prior=prior)


def _write(path: Path, text: str) -> None:
    def write(file: BinaryIO) -> None:
        file.write(text.encode())

    files.write_whole(path, write)


def _as_json(report: Report, downloads: int | None) -> str:
    keys = report.to_json()
    if downloads is not None:
        keys = {"downloads": downloads, "saved_bytes": report.saved_bytes(downloads), **keys}
    return json.dumps(keys, indent=2)
