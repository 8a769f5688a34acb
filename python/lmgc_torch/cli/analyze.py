"""``lmgc analyze``: what compresses in a file of tensors, and why.

Examples:
  lmgc analyze model.safetensors --html model.html
  lmgc analyze gradients.pt -m lowrank -m lm
"""

import argparse
from pathlib import Path

from lmgc_torch import api, files
from lmgc_torch.analyze import METHODS, SAMPLE, analyze
from lmgc_torch.analyze.table import as_text
from lmgc_torch.checkpoints import UsageError, read_tensors
from lmgc_torch.cli import arguments, paths
from lmgc_torch.cli.paths import STANDARD
from lmgc_torch.cli.work import (
    EXIT_OK,
    named_errors,
    open_references,
    print_json,
    progress,
    reference_of,
)

HELP = "tell what compresses in a .pt, .safetensors or .lmgc file, and why"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("file", metavar="FILE", help="a file, or - for standard input")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
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
    arguments.add_reference(parser, "what an archive was told relative to, to decode it")
    arguments.add_prior(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    if options.downloads is not None and options.downloads < 0:
        raise UsageError(f"--downloads is {options.downloads}: it should be 0 or more")
    if options.sample < 0:
        raise UsageError(f"--sample is {options.sample}: it should be 0, for all, or more")
    options.files, options.recursive = [options.file], False
    (job,) = paths.find(options, ())
    reference = reference_of(open_references(options), job)
    page = None
    if options.html is not None:
        if options.html == STANDARD:
            raise UsageError("the page needs a file: the table goes to standard output")
        page = Path(options.html)
        paths.check_output(page, job.source, overwrite=options.force)
    with (
        paths.readable(job.source) as path,
        progress(options, f"analyzing {job.name}"),
        named_errors(job.name),
    ):
        report = analyze(
            read_tensors(path, job.name, prior=options.prior, reference=reference),
            methods=tuple(options.method or METHODS),
            prior=options.prior,
            sample=options.sample or None,
        )
    if page is not None:
        text = report.to_html(job.name, options.downloads).encode()
        files.write_whole(page, lambda file: file.write(text))
    if options.json:
        told = (
            {}
            if options.downloads is None
            else {
                "downloads": options.downloads,
                "saved_bytes": report.saved_bytes(options.downloads),
            }
        )
        print_json({"file": job.path, **told, **report.to_json()})
    else:
        print(as_text(report, options.downloads))
    return EXIT_OK
