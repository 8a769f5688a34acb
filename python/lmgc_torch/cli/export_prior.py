"""``lmgc export-prior``: a checkpoint of a language model becomes a prior.

Examples:
  lmgc export-prior TinyLlama_v1.1 -o tinyllama.pt --dtype bfloat16
  lmgc compress -m lmgc --prior tinyllama.pt gradients.pt
"""

import argparse
from pathlib import Path

import torch

from lmgc_torch import export
from lmgc_torch.checkpoints import UsageError
from lmgc_torch.cli import arguments, paths
from lmgc_torch.cli.tables import dtype_name
from lmgc_torch.cli.work import EXIT_OK, named_errors, progress, say

HELP = "turn a checkpoint of a language model into a prior"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a folder, or the name of a model on the Hugging Face hub: GPT-2, Llama, Mistral",
    )
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="output file")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite existing files")
    parser.add_argument(
        "--max-context",
        metavar="N",
        type=int,
        help=f"tokens of a window; default: {export.DEFAULT_CONTEXT}, or the model's most",
    )
    dtypes = [dtype_name(dtype) for dtype in export.DTYPES]
    parser.add_argument(
        "--dtype", choices=dtypes, default=dtypes[0], help=f"to compute in; default: {dtypes[0]}"
    )
    arguments.add_talk(parser, json=False)


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    if options.output == paths.STANDARD:
        raise UsageError("a prior is written to a file: name it with -o")
    output = Path(options.output)
    paths.check_output(output, None, overwrite=options.force)
    export.quiet_transformers()
    with progress(options, f"exporting {options.checkpoint}"), named_errors(options.checkpoint):
        done = export.export_prior(
            options.checkpoint,
            output,
            max_context=options.max_context,
            dtype=getattr(torch, options.dtype),
        )
    size = f"{done.bytes:,} bytes, " if done.bytes else ""
    say(
        options,
        f"{output.name}: {done.architecture}, {done.parameters:,} parameters in "
        f"{dtype_name(done.dtype)}, {size}windows of {done.max_context} tokens; separators: "
        f"{', '.join(done.separators)}",
    )
    return EXIT_OK
