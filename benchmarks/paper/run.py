"""Regenerates the tables and figures of the LM-GC paper on gradients that are collected here.

    python benchmarks/paper/run.py --out benchmarks/out/paper
    python benchmarks/paper/run.py --quick                  # tiny sizes, to see that all works
    python benchmarks/paper/run.py --prior exported.pt      # another language model

Captures gradients, trains a small language model on others, measures every cell, and writes
`results.json`, `report.md` and PNG figures. What is in the folder already (captures, the trained
model) is used again. docs/paper.md is the report of a run with the default sizes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

# The benchmarks are scripts, not a package: their helpers are found by folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from paper import draws, hex_train, report
from paper.cells import Inputs, Job, run_job
from paper.hex_text import needed
from paper.settings import DEFAULT, QUICK, Settings, codec_jobs, lm_jobs

import lmgc_torch

TRAINING_SEED = 200  # of the first training run; draws have seeds 0, 1, 2
Tasks = list[tuple[Callable[..., Any], tuple[Any, ...]]]


class Stages:
    """Runs tasks stage by stage, with a progress bar each, and keeps the stages' times."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.seconds: dict[str, float] = {}

    def run(self, title: str, tasks: Tasks) -> list[Any]:
        """Calls every task, in processes of their own if there are workers; results in order."""
        results: list[Any] = [None] * len(tasks)
        start = time.perf_counter()
        columns = [*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn()]
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=len(tasks))
            for index, result in self._results(tasks):
                results[index] = result
                bar.advance(task)
        self.seconds[title] = round(time.perf_counter() - start, 1)
        return results

    def _results(self, tasks: Tasks) -> Iterable[tuple[int, Any]]:
        if self.workers == 0:
            with threads(1):
                for index, (function, arguments) in enumerate(tasks):
                    yield index, function(*arguments)
            return
        # Threads of torch do not survive a fork.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.workers, mp_context=context) as pool:
            futures = {
                pool.submit(_alone, function, arguments): index
                for index, (function, arguments) in enumerate(tasks)
            }
            for future in as_completed(futures):
                yield futures[future], future.result()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Limits torch's threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _alone(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Runs a task in a worker: processes run side by side, with one thread each."""
    torch.set_num_threads(1)
    return function(*arguments)


def capture_all(
    settings: Settings, folder: Path, stages: Stages
) -> tuple[dict[str, list[str]], list[Path]]:
    """Captures the draws ({data: a file each}) and what the model is trained on."""
    tasks: Tasks = []
    files: dict[str, list[str]] = {data: [] for data in draws.SOURCES}
    for data, draw in [(data, draw) for data in files for draw in range(settings.draws)]:
        path = folder / f"{data}-{draw}.pt"
        run = draws.Run(settings.source(data), draw, settings.steps)
        tasks.append((draws.capture, (run, path)))
        files[data].append(str(path))
    training = []
    for index, source in enumerate(settings.training_sources()):
        training.append(folder / f"training-{index}.pt")
        run = draws.Run(source, TRAINING_SEED + index, settings.training_steps)
        tasks.append((draws.capture, (run, training[-1])))
    stages.run("gradients", tasks)
    return files, training


def trained_prior(settings: Settings, files: list[Path], out: Path) -> tuple[Path, dict[str, Any]]:
    """Trains the small transformer, unless the folder has it with the same settings and data."""
    notes = [path.with_suffix(".json").read_text() for path in files]
    recipe = [settings.train_batches, settings.width, settings.depth, *notes]
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
    path, note = out / f"prior-{key}.pt", out / f"prior-{key}.json"
    if path.is_file() and note.is_file():
        return path, json.loads(note.read_text())
    vectors = [draws.flat(draws.load(file)) for file in files]
    facts: dict[str, Any] = hex_train.train(
        vectors, path, steps=settings.train_batches, width=settings.width, depth=settings.depth
    )
    facts["floats"] = sum(vector.numel() for vector in vectors)
    note.write_text(json.dumps(facts))
    return path, facts


def priors_by_window(prior: Path, windows: Iterable[int], out: Path, limit: int) -> dict[int, str]:
    """Writes the prior once for each window, which is what `max_context` says; too long ones are
    left out."""
    files = {}
    for window in sorted({window for window in windows if window <= limit}):
        module = torch.jit.load(prior)
        module.max_context = window
        files[window] = str(out / f"{prior.stem}-window{window}.pt")
        module.save(files[window])
    return files


def possible(jobs: list[Job], priors: dict[int, str]) -> list[Job]:
    """Leaves out what the prior has no tokens or no positions for."""
    vocab = set(torch.jit.load(next(iter(priors.values()))).vocab)
    return [job for job in jobs if job.window in priors and job.text and needed(job.text) <= vocab]


def environment(workers: int) -> dict[str, Any]:
    """What the sizes and times depend on."""
    lines = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names = [line.split(":")[1].strip() for line in lines.splitlines() if "model name" in line]
    return {
        "lmgc_torch": lmgc_torch.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": names[0] if names else platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "workers": workers,
    }


def processor_seconds() -> float:
    """Processor time of this process and of all workers that have ended."""
    return sum(os.times()[:4])


def run(settings: Settings, out: Path, workers: int, prior: Path | None = None) -> Path:
    """Measures everything and writes results.json, report.md and figures; returns the results."""
    start, busy, stages = time.perf_counter(), processor_seconds(), Stages(workers)
    out.mkdir(parents=True, exist_ok=True)
    files, training = capture_all(settings, out / "gradients", stages)
    sources = tuple((data, tuple(paths)) for data, paths in files.items())
    tasks: Tasks = [(run_job, (job, Inputs(sources, ()))) for job in codec_jobs(settings)]
    # With one thread the weights do not depend on the number of cores; the other cores meanwhile
    # measure what needs no model.
    if prior is None:
        (prior, facts), *found = stages.run(
            "model, codecs", [(trained_prior, (settings, training, out)), *tasks]
        )
        limit = max(settings.windows)
    else:
        found = stages.run("codecs", tasks)
        facts = {"prior": prior.name}
        limit = int(torch.jit.load(prior).max_context)
    wanted = lm_jobs(settings)
    priors = priors_by_window(prior, {job.window for job in wanted}, out, limit)
    if settings.window not in priors:
        raise SystemExit(f"the prior takes {limit} tokens; the report needs {settings.window}")
    jobs = possible(wanted, priors)
    # The longest windows take longest: they go first, so that no core waits at the end.
    jobs.sort(key=lambda job: -job.window * job.raw_bytes)
    inputs = Inputs(sources, tuple(priors.items()))
    found += stages.run("language model", [(run_job, (job, inputs)) for job in jobs])
    results = {
        "settings": asdict(settings),
        "environment": environment(workers),
        "model": facts,
        "samples": {data: settings.source(data).origin for data in files},
        "seconds": stages.seconds,
        "wall_seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(processor_seconds() - busy, 1),
        "left_out": len(wanted) - len(jobs),
        "cells": [cell for cells in found for cell in cells],
    }
    path = out / "results.json"
    path.write_text(json.dumps(results, indent=1))
    report.write(path, out)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    here = Path(__file__).resolve().parents[1] / "out"
    parser.add_argument("--out", type=Path, help=f"folder to write to ({here.name}/paper)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one draw, seconds")
    parser.add_argument("--prior", type=Path, help="a TorchScript prior in place of our own")
    parser.add_argument("--workers", type=int, help="processes (the cores; 0: none, for --quick)")
    parsed = parser.parse_args(arguments)
    settings = QUICK if parsed.quick else DEFAULT
    workers = parsed.workers
    if workers is None:
        workers = 0 if parsed.quick else (os.cpu_count() or 1)
    out = parsed.out or here / ("paper-quick" if parsed.quick else "paper")
    results = run(settings, out, workers, parsed.prior)
    print(f"{results.parent / 'report.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
