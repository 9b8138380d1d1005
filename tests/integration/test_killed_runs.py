"""A run that is killed twenty times, anywhere, ends with the bytes of one that never was."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.student_trainer import config
from services.student_trainer.run_folder import RunFolder
from tests.trainer_helpers import teacher_thread

TIMES = {"seconds", "tokens_per_s", "write_s", "wait_for_teacher_s", "wait_for_student_s", "learn_s"}


def smoke(**interact: object) -> dict[str, Any]:
    """The smoke preset, smaller, with a resume point after every step or two."""
    return {
        "preset": "smoke",
        "threads": 1,
        "corpus": {"source": "grammar", "grammar_words": 6000},
        "tokenizer": {"vocab_size": 400, "min_frequency": 2},
        "student": {"layers": 2, "heads": 2, "width": 32, "context": 96, "dropout": 0.1},
        "pretrain": {
            "word_budget": 8000,
            "block_tokens": 32,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "log_every": 8,
            "save_every_s": 0.05,
            "milestones": [2000],
        },
        "interact": {
            "word_budget": 16 + 24 * 18,
            "batch_size": 6,
            "chunk_size": 2,
            "max_new_tokens": 24,
            "checkpoint_every_words": 100,
            "save_every_s": 0.1,
            "verdict_timeout_s": 30.0,
            "ppo": {"learning_rate": 1e-3},
            **interact,
        },
    }


def trained(folder: RunFolder, settings: dict[str, Any], redis_url: str, kills: int, lines: int = 0) -> dict[str, int]:
    """Run the trainer in `folder`, killed so many times."""
    folder.path.mkdir(parents=True)
    log = folder.path.with_suffix(".log")
    folder.config.write_text(config.dump(config.parse(settings), folder.run), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tests.killed_runs", str(folder.path), redis_url, str(kills), "11", str(lines)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, int] = json.loads(done.stdout)
    assert result["status"] == 0, log.read_text()[-3000:]
    return result


def files(folder: RunFolder, pattern: str) -> dict[str, bytes]:
    """Contents by place in the run folder."""
    return {str(path.relative_to(folder.path)): path.read_bytes() for path in sorted(folder.path.glob(pattern))}


def lines(folder: RunFolder) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock says."""
    read = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in read]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kills", "interact"), [(20, {}), (8, {"lag": 2, "algorithm": "grpo"})], ids=["ppo", "grpo with lag"]
)
def test_kills_cost_nothing(redis_url: str, tmp_path: Path, kills: int, interact: dict[str, object]) -> None:
    settings = smoke(**interact)
    whole, killed = RunFolder(tmp_path / "whole" / "run"), RunFolder(tmp_path / "killed" / "run")
    with teacher_thread(redis_url) as judged:
        trained(whole, settings, redis_url, kills=0)
        paid = len(judged)
        found = trained(killed, settings, redis_url, kills, lines=len(lines(whole)))
    assert found["hits"] == kills
    assert len(judged) > paid  # the same run's name: its verdicts were not taken from the first
    weights = files(whole, "checkpoints/*/model.safetensors")
    assert len(weights) >= 6
    assert files(killed, "checkpoints/*/model.safetensors") == weights
    stories = files(whole, "stories/*")
    assert len(stories) == 24
    assert files(killed, "stories/*") == stories
    assert killed.ledger.read_bytes() == whole.ledger.read_bytes()
    assert lines(killed) == lines(whole)
    assert files(killed, "checkpoints/*/tokenizer.json") == files(whole, "checkpoints/*/tokenizer.json")
