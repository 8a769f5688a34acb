"""What ``lmgc info`` and ``lmgc list`` share: they print what an archive's index tells."""

import argparse
from collections.abc import Callable
from typing import Any

from lmgc_torch.archive import ArchiveReader
from lmgc_torch.archive.info import ArchiveInfo
from lmgc_torch.checkpoints import SUFFIX
from lmgc_torch.cli import arguments, paths
from lmgc_torch.cli.paths import Job
from lmgc_torch.cli.work import (
    for_each,
    named_errors,
    open_references,
    print_json,
    reference_of,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of both commands."""
    arguments.add_files(parser)
    arguments.add_reference(parser, "make sure that this is what files were told relative to")
    arguments.add_prior(parser)
    parser.add_argument("--json", action="store_true", help="print an object in JSON for each file")


def run(
    options: argparse.Namespace,
    keys: Callable[[ArchiveInfo], dict[str, Any]],
    text: Callable[[ArchiveInfo], str],
) -> int:
    """Prints each archive: `text` of it, or its file and `keys` with ``--json``."""
    jobs = paths.find(options, (SUFFIX,))
    references = open_references(options)

    def work(job: Job) -> None:
        reference = reference_of(references, job)
        with paths.readable(job.source) as path, named_errors(job.name):
            info = ArchiveReader.open(path, prior=options.prior, reference=reference).info()
        if options.json:
            print_json({"file": job.path, **keys(info)})
        else:
            print(f"{job.name}:\n{text(info)}\n" if len(jobs) > 1 else text(info))

    return for_each(options, jobs, work)
