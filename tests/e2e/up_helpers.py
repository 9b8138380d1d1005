"""Runs the real `fabula up` as a user does, small enough for a test."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
# Minimal pairs take longest; one test measures everything.
QUICK_SUITES = {"FABULA_EVALUATOR_SUITES": '["entity_tracking", "story_quality"]'}


def tiny(runs_dir: Path, *more: str) -> list[str]:
    """The command of a tiny run."""
    overrides = [part for setting in TINY for part in ("--set", setting)]
    return [*FABULA, "up", "--preset", "smoke", "--runs-dir", str(runs_dir), *overrides, *more]


@dataclass
class Running:
    """A `fabula up` in the background, its output in a file."""

    process: subprocess.Popen[bytes]
    out: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.out.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, *texts: str, seconds: float = 240.0) -> None:
        """Wait until one of `texts` was printed."""
        wait_until(lambda: any(text in self.text for text in texts) or self.process.poll() is not None, seconds)
        assert any(text in self.text for text in texts), f"{texts} not in\n{self.text}"

    def end(self, number: signal.Signals | None = None, seconds: float = 240.0) -> int:
        """Send a signal, if any, and wait for the end; the exit status."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


def start(command: Sequence[str], out: Path, env: dict[str, str] | None = None) -> Running:
    """Start a command with its output in `out`, with no colours and no teacher of the caller's."""
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith("FABULA_")}
    with out.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**surroundings, "COLUMNS": "100", **(env or {})},
        )
    return Running(process, out)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def processes_of(runs_dir: Path) -> list[str]:
    """Command lines of living processes that work in `runs_dir`: by argument, or by working folder (Redis)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            folder = os.readlink(entry / "cwd")
        except OSError:
            continue  # ended meanwhile, or not ours to look at
        if command and (str(runs_dir) in command or folder.startswith(str(runs_dir))):
            found.append(command)
    return found


def only_run(runs_dir: Path) -> Path:
    """The one run in the folder."""
    [run] = [path for path in runs_dir.iterdir() if (path / "run.yaml").exists()]
    return run
