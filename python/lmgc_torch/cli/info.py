"""``lmgc info``: what archives are.

Examples:
  lmgc info model.safetensors.lmgc
  lmgc info -r --json checkpoints | jq .ratio
"""

import argparse

from lmgc_torch.archive import ArchiveReader
from lmgc_torch.checkpoints import SUFFIX
from lmgc_torch.cli import arguments, paths, tables
from lmgc_torch.cli.paths import Job
from lmgc_torch.cli.work import for_each, named_errors, print_json

HELP = "show what compressed files are: sizes, methods, priors, metadata"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_files(parser)
    parser.add_argument("--json", action="store_true", help="print an object in JSON for each file")


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    jobs = paths.find(options, (SUFFIX,))
    return for_each(options, jobs, lambda job: _info(options, job, len(jobs) > 1))


def _info(options: argparse.Namespace, job: Job, several: bool) -> None:
    with paths.readable(job.source) as path, named_errors(job.name):
        info = ArchiveReader.open(path).info()
    if options.json:
        print_json({"file": job.path, **tables.archive_keys(info)})
        return
    print(f"{job.name}:\n{info}\n" if several else info)
