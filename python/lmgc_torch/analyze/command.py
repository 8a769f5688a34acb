"""``lmgc analyze``: what compresses in a file of tensors, and why."""

import argparse
import json
from pathlib import Path
from typing import Any, BinaryIO

from lmgc_torch import api, files
from lmgc_torch.analyze import METHODS, SAMPLE, Report, analyze
from lmgc_torch.analyze.table import as_text
from lmgc_torch.errors import LmgcError
from lmgc_torch.files import DataError, Tensors, UsageError

__all__ = ["add_command", "run"]


def add_command(commands: "argparse._SubParsersAction[Any]", epilog: str = "") -> None:
    """Adds the command to those of ``lmgc``."""
    parser = commands.add_parser(
        "analyze",
        help="tell what compresses in a file, and why",
        description="Tell what compresses in a .pt, .safetensors or .lmgc file, and why.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--html", metavar="OUT", help="write a page with plots, too")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite an existing page")
    parser.add_argument(
        "--downloads", metavar="N", type=int, help="downloads a month, to tell what they would save"
    )
    parser.add_argument(
        "-m",
        "--method",
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
    parser.set_defaults(run=run)


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
