"""``lmgc test``: archives are decoded and verified; nothing is written.

Examples:
  lmgc test *.lmgc
  lmgc test step-110.pt.lmgc --reference step-100.pt.lmgc
  lmgc test -r checkpoints && rm -r originals
"""

import argparse

from lmgc_torch.archive import ArchiveReader
from lmgc_torch.archive.nested import check
from lmgc_torch.archive.reference import Reference
from lmgc_torch.checkpoints import SUFFIX, DataError
from lmgc_torch.cli import arguments, paths, tables
from lmgc_torch.cli.paths import Job
from lmgc_torch.cli.work import (
    for_each,
    named_errors,
    open_references,
    print_json,
    progress,
    reference_of,
    set_up,
)

HELP = "decode files and verify their checksums; write nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_files(parser)
    arguments.add_reference(parser, "what files were told relative to")
    arguments.add_work(parser)
    arguments.add_max_bytes(parser)
    arguments.add_talk(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    set_up(options)
    jobs = paths.find(options, (SUFFIX,))
    references = open_references(options)
    return for_each(options, jobs, lambda job: _test(options, job, reference_of(references, job)))


def _test(options: argparse.Namespace, job: Job, reference: Reference | None) -> None:
    name = job.name
    with paths.readable(job.source) as path:
        try:
            with named_errors(name):
                info = ArchiveReader.open(path).info()
            with (
                progress(options, f"testing {name}", info.raw_bytes) as advance,
                named_errors(name),
            ):
                check(
                    ArchiveReader.open(
                        path,
                        device=options.device,
                        prior=options.prior,
                        reference=reference,
                        max_bytes=options.max_bytes,
                        progress=advance,
                    )
                )
        except DataError as error:
            if options.json:
                print_json({"file": job.path, "ok": False, "error": str(error)})
            raise
    if options.json:
        print_json({"file": job.path, "ok": True, **tables.size_keys(info)})
    elif not options.quiet:
        print(f"{name}: ok, {tables.count_of(info)}, {tables.size_line(info)}")
        if options.verbose:
            print(info.table())
