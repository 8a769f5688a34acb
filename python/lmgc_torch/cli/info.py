"""``lmgc info``: what archives are.

Examples:
  lmgc info model.safetensors.lmgc
  lmgc info step-110.pt.lmgc --reference step-100.pt    is that what it needs?
  lmgc info -r --json checkpoints | jq .ratio
"""

import argparse

from lmgc_torch.cli import show, tables

HELP = "show what compressed files are: sizes, methods, priors, metadata, references"

add_arguments = show.add_arguments


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    return show.run(options, tables.archive_keys, str)
