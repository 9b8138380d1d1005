"""Processes that share a run's work, started as a launcher starts them; none outlives its test."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def processes(world: int, *arguments: str) -> Iterator[list[subprocess.Popen[str]]]:
    """`python -m ARGUMENTS`, `world` times, by the environment variables that torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def outputs(started: list[subprocess.Popen[str]], timeout_s: float = 120.0) -> list[tuple[int, str, str]]:
    """Exit status, standard output and standard error of each, when all have ended."""
    results = []
    for process in started:
        out, err = process.communicate(timeout=timeout_s)
        results.append((process.returncode, out, err))
    return results


def launched(command: list[str], environment: dict[str, str], timeout_s: float = 200.0) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a launcher; its processes end with it."""
    process = subprocess.Popen(
        command,
        env=os.environ | environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
        return process.returncode, out, err
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
