"""`fabula runs`: what becomes of a run is read from its folder, and no folder breaks the list."""

import fcntl
import io
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from rich.console import Console

from services.cli import main
from services.local import run_list
from services.local.errors import CommandError
from services.local.run_list import RunLine, label_words, list_runs
from services.student_trainer.checkpoints import interact_name
from services.student_trainer.folder_lock import FolderLock


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def manifest(run: Path, name: str, **facts: object) -> None:
    base = {"stage": "pretrain", "step": 10, "pretraining_words": 1010, "interaction_words": 0}
    put(run / "checkpoints" / name / "manifest.json", json.dumps(base | facts))


def updates(count: int) -> str:
    """Update i scores i points and pays 30 words; the first one the prompt of 16, too."""
    lines = [
        {"step": i, "score_mean": i, "words_prompt": 16, "words_teacher": 30 * (i + 1), "words_student": 99}
        for i in range(count)
    ]
    return "".join(json.dumps({"phase": "interact", **line}) + "\n" for line in lines)


def new_run(runs: Path, name: str, records: str = "", outcome: str | None = None) -> Path:
    run = runs / name
    put(run / "run.yaml", "preset: smoke\npretrain: {word_budget: 1000}\ninteract: {word_budget: 400}\n")
    put(run / "up.json", '{"teacher": "rules:", "eval_data": null}')
    if records:
        put(run / "metrics.jsonl", records)
    if outcome is not None:
        put(run / "sessions.jsonl", json.dumps({"started": "2026-11-22T00:00:00+00:00", "outcome": outcome}) + "\n")
    return run


READ = json.dumps({"phase": "pretrain", "words_seen": 500}) + "\n"


def states(runs: Path) -> dict[str, str]:
    return {line.run: line.state for line in list_runs(runs)}


def test_states(tmp_path: Path) -> None:
    finished = new_run(tmp_path, "finished", READ + updates(12), "finished")
    manifest(finished, "chck_1k_rl_400", stage="interact", interaction_words=376)
    halfway = new_run(tmp_path, "halfway", READ + updates(3), "interrupted")
    manifest(halfway, "chck_1k_rl_200", stage="interact", interaction_words=230)
    new_run(tmp_path, "killed-while-reading", READ)
    new_run(tmp_path, "stopped-at-once", outcome="interrupted")
    new_run(tmp_path, "no-teacher", outcome="failed")
    put(tmp_path / "empty" / "up.lock", "123")
    (tmp_path / "bare").mkdir()
    put(tmp_path / "notes" / "about.txt", "no run of ours")
    put(tmp_path / ".hidden" / "run.yaml", "preset: smoke")
    put(tmp_path / "a-file", "")
    assert states(tmp_path) == {
        "finished": "finished",
        "halfway": "stopped",
        "killed-while-reading": "stopped",
        "stopped-at-once": "stopped",
        "no-teacher": "starting or failed",
        "empty": "starting or failed",
        "bare": "starting or failed",
    }


def test_a_run_that_is_held_is_at_work(tmp_path: Path) -> None:
    reading, learning = new_run(tmp_path, "reading"), new_run(tmp_path, "learning", READ + updates(1))
    with put(reading / "up.lock", "1").open() as one, put(learning / "up.lock", "1").open() as two:
        for lock in (one, two):
            fcntl.flock(lock, fcntl.LOCK_EX)
        assert states(tmp_path) == {"reading": "pretraining", "learning": "interacting"}
        with (reading / "up.lock").open() as third, pytest.raises(BlockingIOError):  # looking did not let it go
            fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert states(tmp_path) == {"reading": "starting or failed", "learning": "stopped"}


def test_a_run_that_waits_is_paused(tmp_path: Path) -> None:
    run = new_run(tmp_path, "a", READ + updates(1))
    put(run / "PAUSED", "")
    with FolderLock(run):
        assert states(tmp_path) == {"a": "paused"}
    assert states(tmp_path) == {"a": "stopped"}


def test_a_trainer_that_was_started_by_hand_is_at_work(tmp_path: Path) -> None:
    run = new_run(tmp_path, "a", READ + updates(1))
    with FolderLock(run):
        assert states(tmp_path) == {"a": "interacting"}
    assert states(tmp_path) == {"a": "stopped"}


def test_numbers_of_a_run(tmp_path: Path) -> None:
    run = new_run(tmp_path, "a", READ + updates(12))
    manifest(run, "chck_1k")
    for name in run_list.RECORDS:
        if (run / name).exists():
            os.utime(run / name, (1.6e9, 1.6e9))
    [line] = list_runs(tmp_path)
    assert line == RunLine(
        run="a",
        preset="smoke",
        state="stopped",
        pretraining_words=1010,
        pretraining_budget=1000,
        words_spent=16 + 12 * 30,
        word_budget=400,
        updates=12,
        score=(2 + 11) / 2,  # of the last ten
        teacher="rules:",
        changed=datetime.fromtimestamp(1.6e9, UTC),
        problems=(),
    )


def test_a_run_that_fabula_did_not_start_is_asked_who_judged(tmp_path: Path) -> None:
    run = new_run(tmp_path, "a", updates(2))
    (run / "up.json").unlink()
    assert list_runs(tmp_path)[0].teacher is None
    (run / "stories").mkdir()
    for number, model in enumerate(("first", "second")):
        table = pa.table({"teacher_backend": ["vllm"], "teacher_model": [model]})
        parquet.write_table(table, run / "stories" / f"part-{number:05d}.parquet")
    assert list_runs(tmp_path)[0].teacher == "vllm:second"


def test_broken_files_are_named_and_the_list_goes_on(tmp_path: Path) -> None:
    run = new_run(tmp_path, "broken", "not json\n" + updates(2))
    for name in ("run.yaml", "up.json"):
        (run / name).write_text("{")
    put(run / "checkpoints" / "chck_1k" / "manifest.json", "[]")
    new_run(tmp_path, "whole", updates(2))
    lines = {line.run: line for line in list_runs(tmp_path)}
    assert (lines["broken"].state, lines["broken"].updates, lines["whole"].problems) == ("unreadable", 2, ())
    named = [problem.partition(" cannot be read")[0] for problem in lines["broken"].problems]
    assert named == ["run.yaml", "checkpoints/chck_1k/manifest.json", "metrics.jsonl, line 1", "up.json"]
    out = io.StringIO()
    run_list.show([*lines.values()], tmp_path, Console(file=out, width=80))
    assert "! broken: run.yaml cannot be read" in out.getvalue()


def test_a_narrow_terminal_does_not_cut_names(tmp_path: Path) -> None:
    new_run(tmp_path, "laptop-1a2b3c", READ + updates(12))
    (tmp_path / "bare").mkdir()
    out = io.StringIO()
    run_list.show(list_runs(tmp_path), tmp_path, Console(file=out, width=60))
    rows = {line.split()[0]: line.split() for line in out.getvalue().splitlines() if line.strip()}
    assert rows["laptop-1a2b3c"][1:8] == ["smoke", "stopped", "500/1k", "376/400", "12", "6.50", "rules:"]
    assert rows["bare"][1:5] == ["-", "starting", "or", "failed"]


def test_the_command_prints_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new_run(tmp_path, "a", updates(1))
    monkeypatch.setattr(sys, "argv", ["fabula", "runs", "--json", "--runs-dir", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert [RunLine.model_validate(row) for row in json.loads(capsys.readouterr().out)] == list_runs(tmp_path)
    with pytest.raises(CommandError, match=r"cannot be listed.*--runs-dir"):
        list_runs(tmp_path / "none")


@pytest.mark.parametrize("words", [400, 1000, 1500, 100_000, 1_000_000, 1_500_000])
def test_words_of_a_checkpoints_name(words: int) -> None:
    assert label_words(interact_name("chck_90M", words)) == words
    assert label_words("chck_90M") is None
