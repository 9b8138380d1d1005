"""`python -m services.student_trainer start`: the run that settings name, found or begun; and what it came to."""

import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fabula_proto import EvaluationReport, Measure, SuiteResult
from services.student_trainer import checkpoints, config
from services.student_trainer.__main__ import app
from services.student_trainer.config import ConfigError
from services.student_trainer.folder_lock import TRAINER_LOCK, is_locked
from services.student_trainer.interaction import StopRequestedError
from services.student_trainer.outcome import tell_outcome
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.settings import RunSettings
from services.student_trainer.starting import open_run, settings_for

SMOKE = settings_for("smoke", (), None)


def test_the_same_settings_find_their_run_and_others_begin_one(tmp_path: Path) -> None:
    first = open_run(tmp_path, None, SMOKE, "rules:")
    assert config.load(first.config) == SMOKE
    assert open_run(tmp_path, None, SMOKE, "rules:") == first
    others = [
        open_run(tmp_path, None, settings_for("smoke", ["seed=7"], None), "rules:"),
        open_run(tmp_path, None, SMOKE, "vllm:http://vllm:8000"),
        open_run(tmp_path, "named", SMOKE, "rules:"),
    ]
    assert len({folder.path for folder in (first, *others)}) == 4
    assert others[-1].run == "named"


def test_a_named_run_keeps_the_settings_that_decide_its_result(tmp_path: Path) -> None:
    folder = open_run(tmp_path, "mine", SMOKE, "rules:")
    with pytest.raises(ConfigError, match="run mine exists with other settings than these"):
        open_run(tmp_path, "mine", settings_for("smoke", ["seed=7"], None), "rules:")
    assert config.load(folder.config) == SMOKE


def test_what_decides_no_result_may_change(tmp_path: Path) -> None:
    folder = open_run(tmp_path, "mine", SMOKE, "rules:")
    tracked = settings_for("smoke", ["tracking.project=other"], None)
    assert open_run(tmp_path, "mine", tracked, "rules:") == folder
    assert config.load(folder.config).tracking.project == "other"


def test_a_corpus_stands_over_the_presets() -> None:
    assert settings_for("smoke", ["corpus.source=a"], "/data/b.txt").corpus.source == "/data/b.txt"


def test_settings_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "FABULA_RUNS_DIR": str(tmp_path),
        "FABULA_PRESET": "smoke",
        "FABULA_SET": "seed=7 interact.word_budget=90",
        "FABULA_RUN": "",  # as in a compose file: not set
        "FABULA_CORPUS": "",
        "FABULA_REDIS_URL": "redis://127.0.0.1:1/0",
    }.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["start"])
    assert result.exit_code == 3, result.output  # there is no queue
    [folder] = tmp_path.iterdir()
    settings = config.load(folder / "run.yaml")
    assert (settings.preset, settings.seed, settings.interact.word_budget) == ("smoke", 7, 90)
    assert folder.name.startswith("smoke-")


def test_a_wrong_setting_ends_it_before_anything_is_made(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["start", "--runs-dir", str(tmp_path), "--set", "sead=7", "--redis-url", "redis://x"]
    )
    assert result.exit_code == 2
    assert "sead is no setting; did you mean seed?" in result.output
    assert not list(tmp_path.iterdir())


def report(folder: RunFolder, checkpoint: str, suites: tuple[SuiteResult, ...]) -> None:
    path = folder.report(checkpoint)
    path.parent.mkdir(parents=True)
    whole = EvaluationReport(
        run=folder.run,
        checkpoint=checkpoint,
        path="/",
        stage="pretrain",
        pretraining_words=1,
        interaction_words=0,
        suites=suites,
        seconds=1.0,
        worker="w",
    )
    path.write_text(whole.to_json(), encoding="utf-8")


def measured(suite: str, value: float) -> SuiteResult:
    measure = Measure(value=value, low=value - 0.125, high=value + 0.125, n=10)
    return SuiteResult(
        suite=suite, status="ok", source="generated", headline="mean", unit="points", measures={"mean": measure}
    )


def ends(settings: RunSettings) -> tuple[str, str]:
    before = checkpoints.pretrain_name(settings.pretrain.word_budget)
    return before, checkpoints.interact_name(before, settings.interact.word_budget)


def test_the_outcome_is_told_a_line_a_suite(tmp_path: Path) -> None:
    folder = open_run(tmp_path, "mine", SMOKE, "rules:")
    before, after = ends(SMOKE)
    skipped = SuiteResult(suite="blimp", status="skipped", source="none", reason="no data")
    report(folder, before, (measured("storytelling", 1.0), skipped))
    report(folder, after, (measured("storytelling", 2.5), measured("blimp", 0.5)))
    said: list[str] = []
    tell_outcome(folder, threading.Event(), said.append)
    assert said[0] == f"Measured before interaction ({before}) and after it ({after}), with 95 % intervals:"
    assert " ".join(said[1].split()) == "storytelling 1.000 [0.875, 1.125] -> 2.500 [2.375, 2.625] points"
    assert " ".join(said[2].split()) == "blimp skipped -> 0.500 [0.375, 0.625] points"


def test_a_wait_for_reports_can_be_stopped_and_names_what_is_missing(tmp_path: Path) -> None:
    folder = open_run(tmp_path, "mine", SMOKE, "rules:")
    before, after = ends(SMOKE)
    report(folder, before, (measured("storytelling", 1.0),))
    stop = threading.Event()
    stop.set()
    said: list[tuple[str, bool]] = []
    with pytest.raises(StopRequestedError):
        tell_outcome(folder, stop, lambda line: said.append((line, is_locked(folder.path / TRAINER_LOCK))))
    assert said == [(f"Waiting for the evaluator's report on {after}", True)]  # a container that waits is well
    assert not is_locked(folder.path / TRAINER_LOCK)
