"""``lmgc list``: the tensors of archives.

Examples:
  lmgc list model.safetensors.lmgc
  lmgc list --json model.pt.lmgc | jq -r '.tensors[] | select(.method == "raw") | .name'
"""

import argparse

from lmgc_torch.archive import ArchiveReader
from lmgc_torch.archive.reference import Reference
from lmgc_torch.checkpoints import SUFFIX
from lmgc_torch.cli import arguments, paths, tables
from lmgc_torch.cli.paths import Job
from lmgc_torch.cli.work import (
    for_each,
    named_errors,
    open_references,
    print_json,
    reference_of,
)

HELP = "list the tensors of compressed files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_files(parser)
    arguments.add_reference(parser, "make sure that this is what files were told relative to")
    arguments.add_prior(parser)
    parser.add_argument("--json", action="store_true", help="print an object in JSON for each file")


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    jobs = paths.find(options, (SUFFIX,))
    references = open_references(options)

    def work(job: Job) -> None:
        _list(options, job, reference_of(references, job), several=len(jobs) > 1)

    return for_each(options, jobs, work)


def _list(
    options: argparse.Namespace, job: Job, reference: Reference | None, *, several: bool
) -> None:
    with paths.readable(job.source) as path, named_errors(job.name):
        info = ArchiveReader.open(path, prior=options.prior, reference=reference).info()
    if options.json:
        print_json({"file": job.path, **tables.tensor_keys(info)})
        return
    print(f"{job.name}:\n{info.table()}\n" if several else info.table())
