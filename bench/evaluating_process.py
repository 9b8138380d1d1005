"""What the comparisons of evaluators share: two sides as processes of their own, timed."""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

Seconds = tuple[float, float]  # wall and CPU, of whole processes


def timed(command: Sequence[object], *, cwd: Path, environment: Mapping[str, str]) -> Seconds:
    """Wall and CPU seconds of a process that must succeed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(  # noqa: S603
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def pipeline(options: argparse.Namespace, module: str, arguments: Sequence[object], **more: str) -> Seconds:
    """A script of the official pipeline, `more` in its environment."""
    environment = {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", **more}
    command = [options.pipeline_python, "-m", f"evaluation_pipeline.{module}", *arguments]
    return timed(command, cwd=options.pipeline.resolve(), environment=environment)


def fabula(
    options: argparse.Namespace, suite: str, data: Path, model: Path, backend: str, output: Path, **more: str
) -> Seconds:
    """`fabula evaluate`, `more` in its environment."""
    environment = {
        "FABULA_EVALUATOR_TORCH_THREADS": str(options.threads),
        "FABULA_EVALUATOR_BACKEND": backend,
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        **more,
    }
    command = [sys.executable, "-m", "services.cli", "evaluate", model, "--suites", suite, "--data", data]
    return timed([*command, "--output", output, "--again"], cwd=Path.cwd(), environment=environment)


def print_times(rounds: Sequence[tuple[Seconds, Seconds]]) -> None:
    """A line a round: what there took, what here took, and how many times as long."""
    for (wall, cpu), (our_wall, our_cpu) in rounds:
        print(f"  wall {wall:.1f} s there, {our_wall:.1f} s here: {wall / our_wall:.1f}x", end="")
        print(f"; CPU {cpu:.1f} s there, {our_cpu:.1f} s here: {cpu / our_cpu:.1f}x", flush=True)
