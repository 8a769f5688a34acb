"""``lmgc decompress``: archives become the files that they were made of.

Examples:
  lmgc decompress model.safetensors.lmgc                 write model.safetensors, byte for byte
  lmgc decompress model.pt.lmgc -o model.safetensors     the suffix of OUT chooses the format
  lmgc decompress --rm *.lmgc                            remove the archives
  lmgc decompress -r llama-lmgc -o llama                 a folder; what is no archive is copied
  lmgc decompress step-110.pt.lmgc --reference step-100.pt    what was told relative to that
  lmgc decompress step-120.pt.lmgc --reference step-110.pt.lmgc --reference step-100.pt
  lmgc decompress --max-bytes 2GB stranger.lmgc          refuse what announces more
  lmgc decompress - < model.lmgc > model.pt

A file that is a single frame, as torch.ops.lmgc.compress returns it, becomes a .pt file.
"""

import argparse
from pathlib import Path

from lmgc_torch import files
from lmgc_torch.archive import ArchiveReader
from lmgc_torch.archive.reference import Reference
from lmgc_torch.checkpoints import (
    PT_SUFFIXES,
    SAFETENSORS_SUFFIX,
    SUFFIX,
    SUFFIXES,
    UsageError,
    decompress_file,
    default_format,
)
from lmgc_torch.checkpoints.folder import copy_rest
from lmgc_torch.cli import arguments, paths, tables
from lmgc_torch.cli.paths import Job
from lmgc_torch.cli.work import (
    for_each,
    named_errors,
    open_references,
    print_json,
    progress,
    reference_of,
    say,
    set_up,
)
from lmgc_torch.errors import LmgcError

HELP = "restore the files that were compressed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_files(parser)
    arguments.add_output(parser, "FILE; its suffix chooses .safetensors or .pt")
    arguments.add_reference(parser, "what files were told relative to")
    arguments.add_work(parser)
    arguments.add_max_bytes(parser)
    arguments.add_talk(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    set_up(options)
    root = paths.mirrored(options)
    jobs = paths.find(options, (SUFFIX,))
    planned = paths.plan(options, jobs, lambda job: _rename(options, job))
    references = open_references(options, planned)
    if root is not None:
        taken = {job.source for job in jobs if job.source is not None}
        for copied in copy_rest(root, Path(options.output), taken, overwrite=options.force):
            if options.verbose:
                say(options, f"{copied}: copied")

    def work(item: tuple[Job, Path | None]) -> None:
        _decompress(options, *item, reference_of(references, item[0]))

    return for_each(options, planned, work)


def _rename(options: argparse.Namespace, job: Job) -> str:
    if job.source is None:
        raise UsageError("-o must name the file for what comes from standard input")
    name = job.source.name
    if not name.endswith(SUFFIX):
        if options.output is None:
            raise UsageError(f"{name} does not end with {SUFFIX}: name the output with -o")
        return name
    name = name.removesuffix(SUFFIX)
    if name.endswith(SUFFIXES) or not job.source.is_file():
        return name
    try:
        return f"{name}.{default_format(ArchiveReader.open(job.source))}"
    except LmgcError:  # told when its turn comes
        return name


def _decompress(
    options: argparse.Namespace, job: Job, output: Path | None, reference: Reference | None
) -> None:
    paths.check_output(output, job.source, overwrite=options.force, remove=options.rm)
    name = job.name
    with paths.readable(job.source) as path:
        with named_errors(name):
            info = ArchiveReader.open(path).info()
        with (
            progress(options, f"decompressing {name}", info.raw_bytes) as advance,
            named_errors(name),
        ):
            reader = ArchiveReader.open(
                path,
                device=options.device,
                prior=options.prior,
                reference=reference,
                max_bytes=options.max_bytes,
                progress=advance,
            )
            format_ = default_format(reader)
            # A name that was not chosen is that of the original, whatever format that had.
            chosen = job.root is None and options.output is not None
            if chosen and options.output.endswith(SAFETENSORS_SUFFIX):
                format_ = "safetensors"
            elif chosen and options.output.endswith(PT_SUFFIXES):
                format_ = "pt"
            files.write_whole(
                output,
                lambda file: decompress_file(reader, file, format_, name),
                like=paths.stat_of(job.source),
            )
    if options.rm and job.source is not None:
        job.source.unlink()
    if options.json:
        print_json({"file": job.path, "output": str(output), **tables.size_keys(info)})
    else:
        shown = paths.STANDARD if output is None else output.name if job.root is None else output
        say(options, f"{shown}: {info.raw_bytes:,} bytes of tensors")
        if options.verbose:
            say(options, info.table())
