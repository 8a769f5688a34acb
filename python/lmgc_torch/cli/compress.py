"""``lmgc compress``: files of tensors become archives.

Examples:
  lmgc compress model.safetensors         write model.safetensors.lmgc
  lmgc compress -m lm --rm model.pt       the smallest; verify it, then remove model.pt
  lmgc compress -m planes *.safetensors   the fastest
  lmgc compress -r llama -o llama-lmgc    a folder becomes one of archives; the rest is copied
  lmgc compress -r runs                   in place: archives appear beside what they are made of
  lmgc compress step-110.pt --reference step-100.pt    what changed since then
  lmgc compress -r tuned -o tuned-lmgc --reference llama    what tuning changed in all shards
  lmgc compress - < model.pt > model.lmgc

A .pt file is read with weights_only=True; it may hold whatever that allows, nested checkpoints of
models and optimizers for example.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import BinaryIO

from lmgc_torch import files
from lmgc_torch.archive import ArchiveReader
from lmgc_torch.archive.info import ArchiveInfo
from lmgc_torch.checkpoints import (
    SUFFIX,
    SUFFIXES,
    NoTensorsError,
    UsageError,
    compress_file,
    raw_bytes,
    read,
    verify_file,
)
from lmgc_torch.checkpoints.folder import FolderReferences, copy, copy_rest
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

HELP = "compress .safetensors and .pt files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_files(parser, "FILE")
    arguments.add_output(parser, "FILE" + SUFFIX)
    arguments.add_method(parser)
    arguments.add_reference(parser, "what files are told relative to")
    arguments.add_work(parser)
    arguments.add_talk(parser)


@dataclasses.dataclass
class _Total:
    files: int = 0
    raw_bytes: int = 0
    bytes: int = 0


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    set_up(options)
    root = paths.mirrored(options)
    jobs = paths.find(options, SUFFIXES)
    planned = paths.plan(options, jobs, _rename)
    references = open_references(options, planned)
    if root is not None:
        taken = {job.source for job in jobs if job.source is not None}
        for copied in copy_rest(root, Path(options.output), taken, overwrite=options.force):
            if options.verbose:
                say(options, f"{copied}: copied")
    total = _Total()

    def work(item: tuple[Job, Path | None]) -> None:
        job, output = item
        try:
            info = _compress(options, job, output, references)
        except NoTensorsError as error:
            if job.root is None or job.source is None:
                raise
            if options.output is None:
                say(options, f"left as it is: {error}")
                return
            target = Path(options.output) / job.source.relative_to(job.root)
            paths.check_output(target, None, overwrite=options.force)
            copy(job.source, target)
            say(options, f"copied as it is: {error}")
            return
        total.files += 1
        total.raw_bytes += info.raw_bytes
        total.bytes += info.bytes

    code = for_each(options, planned, work)
    if total.files > 1 and not options.json:
        ratio = 100 * total.bytes / total.raw_bytes if total.raw_bytes else 100
        size = f"{total.raw_bytes:,} -> {total.bytes:,} bytes"
        say(options, f"{total.files} files: {ratio:.2f} % ({size})")
    return code


def _rename(job: Job) -> str:
    if job.source is None:
        raise UsageError("-o must name the file for what comes from standard input")
    return job.source.name + SUFFIX


def _compress(
    options: argparse.Namespace, job: Job, output: Path | None, references: FolderReferences
) -> ArchiveInfo:
    paths.check_output(output, job.source, overwrite=options.force, remove=options.rm)
    name = job.name
    infos: list[ArchiveInfo] = []
    with paths.readable(job.source) as path:
        with progress(options, f"reading {name}"):
            content = read(path, name)
        reference = reference_of(references, job)

        def write(file: BinaryIO) -> None:
            total = raw_bytes(content)
            with progress(options, f"compressing {name}", total) as advance, named_errors(name):
                infos.append(
                    compress_file(
                        content,
                        file,
                        method=options.method,
                        prior=options.prior,
                        reference=reference,
                        device=options.device,
                        effort=options.effort,
                        window=options.window,
                        progress=advance,
                    )
                )
            if options.rm:
                file.flush()
                with progress(options, f"verifying {name}", total) as advance, named_errors(name):
                    reader = ArchiveReader.open(
                        file.name,
                        device=options.device,
                        prior=options.prior,
                        reference=reference,
                        progress=advance,
                    )
                    verify_file(path, content, reader, name)

        files.write_whole(output, write, like=paths.stat_of(job.source))
    if options.rm and job.source is not None:
        job.source.unlink()
    (info,) = infos
    if options.json:
        print_json({"file": job.path, "output": str(output), **tables.size_keys(info)})
    else:
        shown = paths.STANDARD if output is None else output.name if job.root is None else output
        say(options, f"{shown}: {tables.size_line(info)}")
        if options.verbose:
            say(options, info.table())
    return info
