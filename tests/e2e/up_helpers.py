"""Runs the real `fabula up` as a user does, small enough for a test."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

FABULA = [sys.executable, "-m", "services.cli"]
# The smoke preset, smaller still. Seven updates of eight stories.
TINY = (
    "threads=1",
    "corpus.grammar_words=20000",
    "tokenizer.vocab_size=600",
    "student.layers=1",
    "student.width=32",
    "pretrain.word_budget=12000",
    "pretrain.log_every=5",
    "interact.word_budget=200",
    "interact.batch_size=8",
    "interact.chunk_size=4",
    "interact.max_new_tokens=24",
    "interact.checkpoint_every_words=100",
    "evaluation.stories=8",
)
MARK = "UP_TEST_MARK"
ONE_THREAD = {"FABULA_EVALUATOR_TORCH_THREADS": "1"}
# Minimal pairs take longest; one test measures everything.
QUICK_SUITES = {"FABULA_EVALUATOR_SUITES": '["entity_tracking", "storytelling"]'}


def tiny(runs_dir: Path, *more: str) -> list[str]:
    """The command of a tiny run."""
    overrides = [part for setting in TINY for part in ("--set", setting)]
    return [*FABULA, "up", "--preset", "smoke", "--runs-dir", str(runs_dir), *overrides, *more]


@dataclass
class Running:
    """A command in the background, its output in a file. Leaving the context stops it where a test failed."""

    process: subprocess.Popen[bytes]
    out: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(120.0)

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.out.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str, seconds: float = 240.0) -> None:
        """Wait until `text` was printed."""
        wait_until(lambda: text in self.text or self.process.poll() is not None, seconds)
        assert text in self.text, f"{text!r} not in\n{self.text}"

    def end(self, number: signal.Signals | None = None, seconds: float = 240.0) -> int:
        """Send a signal, if any, and wait for the end; the exit status."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


def start(command: Sequence[str], out: Path, mark: Path, env: Mapping[str, str] | None = None) -> Running:
    """Start a command with its output in `out`; it and all that it starts carry `mark` in their environment.

    None of it may ask the Hugging Face Hub.
    """
    surroundings = {key: value for key, value in os.environ.items() if not key.startswith("FABULA_")}
    with out.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**surroundings, "COLUMNS": "100", "HF_HUB_OFFLINE": "1", MARK: str(mark), **(env or {})},
        )
    return Running(process, out)


@dataclass(frozen=True)
class Finished:
    """A finished tiny run, and the port that was taken when it wanted one for its teacher."""

    runs_dir: Path
    folder: Path
    status: int
    text: str
    taken_port: int


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def processes_of(mark: Path) -> list[str]:
    """Command lines of the living processes that carry `mark`, or work in that folder.

    Redis writes its title over its environment and is known by its folder.
    """
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            carried = wanted in (entry / "environ").read_bytes().split(b"\0")
            if carried or Path(os.readlink(entry / "cwd")).is_relative_to(mark):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # ended meanwhile, or not ours to look at
    return found


def only_run(runs_dir: Path) -> Path:
    """The one run in the folder."""
    [run] = [path for path in runs_dir.iterdir() if (path / "run.yaml").exists()]
    return run
