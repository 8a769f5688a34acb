"""``lmgc list``: the tensors of archives.

Examples:
  lmgc list model.safetensors.lmgc
  lmgc list --json model.pt.lmgc | jq -r '.tensors[] | select(.method == "raw") | .name'
"""

import argparse

from lmgc_torch.cli import show, tables

HELP = "list the tensors of compressed files"

add_arguments = show.add_arguments


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    return show.run(options, tables.tensor_keys, lambda info: info.table())
