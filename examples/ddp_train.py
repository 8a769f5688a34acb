"""Trains a character GPT on several processes whose gradients travel compressed, without loss.

    torchrun --nproc-per-node 2 examples/ddp_train.py
    torchrun --nproc-per-node 2 examples/ddp_train.py --method plain

Both commands end with the same weights, bit for bit: their checksums are printed. With "auto", the
default, the hook measures whether compression makes steps shorter. Processes on one machine have a
link faster than any codec, so there it soon settles on plain all-reduce; "lowrank" compresses
always, and shows how much less would travel. `benchmarks/ddp.py` measures what that saves on slow
links.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
import zlib
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import lmgc_torch.distributed as lmgc_dist

# The benchmarks are scripts, not a package: their helpers are found by folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import datasets
from gradients import CONTEXT, text_losses
from networks import NETWORKS

METHODS = ("plain", "auto", "planes", "scale", "lowrank")
BATCH = 8
REPORT_EVERY = 10


def main() -> int:
    """Trains as one of the processes that torchrun started."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--method", choices=METHODS, default="auto")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--width", type=int, default=192, help="of the GPT (%(default)s)")
    arguments = parser.parse_args()
    if "RANK" not in os.environ:
        parser.error("start it with torchrun --nproc-per-node 2")

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"])))
    dist.init_process_group("gloo")
    rank = dist.get_rank()

    torch.manual_seed(0)
    alphabet, characters = torch.unique(datasets.text(), return_inverse=True)
    network = NETWORKS["gpt"](len(alphabet), CONTEXT, width=arguments.width, depth=2)
    model = DistributedDataParallel(network, bucket_cap_mb=4)
    state = None
    if arguments.method != "plain":
        state = lmgc_dist.CompressedAllReduceState(method=arguments.method)
        model.register_comm_hook(state, lmgc_dist.compressed_allreduce_hook)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batches = torch.Generator().manual_seed(1 + rank)  # other text on each rank
    losses = text_losses(model, characters, BATCH, batches)
    begin = time.perf_counter()
    for step, loss in enumerate(itertools.islice(losses, arguments.steps), 1):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if rank == 0 and step % REPORT_EVERY == 0:
            seconds = (time.perf_counter() - begin) / step
            print(f"step {step}: loss {loss.item():.3f}, {seconds:.3f} s a step", flush=True)

    if rank == 0:
        if state is not None:
            print(state.compression_stats())
        weights = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
        print(f"checksum of the weights: {zlib.crc32(weights.numpy().tobytes()):08x}")
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
