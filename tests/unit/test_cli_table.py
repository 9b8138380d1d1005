"""The closing table: what it says of a run folder, and that it does not call chance a gain."""

import io
import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from rich.console import Console

from fabula_proto import Alarm, EvaluationReport, Measure, PretrainMetrics, StepMetrics, SuiteResult, TeacherIdentity
from services.local import summary, table
from services.local.errors import CommandError
from services.local.run_files import RunFiles
from services.local.sessions import Sessions, Stopwatch
from services.local.summary import Difference, summarise
from services.student_trainer import config

TEACHER = TeacherIdentity(
    backend="rules", model="paper", revision="1", rubric="paper", rubric_version="1", rubric_hash="0" * 12, mode="rules"
)


def measure(value: float, half: float, n: int = 100) -> Measure:
    return Measure(value=value, low=value - half, high=value + half, n=n)


def report(checkpoint: str, total: float, half: float = 0.2) -> EvaluationReport:
    interact = "_rl_" in checkpoint
    quality = SuiteResult(
        suite="storytelling",
        status="ok",
        source="stories written from the prompt, seed 42",
        headline="total",
        unit="points",
        measures={
            "total": measure(total, half),
            "criterion/readability": measure(total / 3, half / 3),
            "criterion/creativity": measure(2 * total / 3, half / 3),
            "words": measure(40, 2),
        },
        teacher=TEACHER,
    )
    pairs = SuiteResult(
        suite="blimp",
        status="ok",
        source="generated",
        headline="accuracy",
        unit="accuracy",
        measures={"accuracy": measure(0.613, 0.04, 670)},
    )
    entities = SuiteResult(
        suite="entity_tracking", status="skipped", source="/data", reason="no folder entity_tracking"
    )
    return EvaluationReport(
        run="r",
        checkpoint=checkpoint,
        path="/x",
        stage="interact" if interact else "pretrain",
        pretraining_words=60_000,
        interaction_words=400 if interact else 0,
        suites=(pairs, entities, quality),
        seconds=2.5,
        worker="w",
    )


def step(number: int, score: float) -> StepMetrics:
    zero = dict.fromkeys(
        [
            *("kl_mean", "kl_coefficient", "entropy_mean", "policy_loss", "value_loss", "approx_kl", "clip_fraction"),
            *("value_clip_fraction", "explained_variance", "gradient_norm", "passes_skipped", "ended_share"),
            "verdicts_failed",
        ],
        0,
    )
    return StepMetrics.model_validate(
        {
            **zero,
            "run": "r",
            "step": number,
            "policy_version": number,
            "stories": 24,
            "verdicts_ok": 24,
            "score_mean": score,
            "criteria_mean": {"readability": 1.0},
            "reward_mean": 0.5,
            "story_words_mean": 30.0,
            "story_tokens_mean": 40.0,
            "ratio_first_pass": 1.0,
            "words_prompt": 15,
            "words_teacher": 72 * (number + 1),
            "words_student": 700 * (number + 1),
            "words_spent": 15 + 72 * (number + 1),
            "write_s": 1.0,
            "wait_for_teacher_s": 0.25,
            "learn_s": 2.0,
            "seconds": 3.5,
        }
    )


def write_stories(folder: Path, number: int, mark: str) -> None:
    rows = [
        {
            "step": number,
            "index": i,
            "prompt": "Once upon a time,",
            "text": f"{mark} {i}",
            "total": float(i),
            "flags": [],
        }
        for i in reversed(range(6))
    ]
    folder.mkdir(exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), folder / f"part-{number:05d}.parquet")


def make_run(folder: Path, after: float, half: float = 0.2, steps: int = 2) -> Path:
    """A run folder as the services leave it, with numbers that we know."""
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(config.dump(config.resolve("smoke"), folder.name), encoding="utf-8")
    for name, words in (("chck_30k", 30_000), ("chck_60k", 60_000), ("chck_60k_rl_200", 200), ("chck_60k_rl_400", 400)):
        place = folder / "checkpoints" / name
        place.mkdir(parents=True)
        interact = "_rl_" in name
        facts: dict[str, object] = {
            "stage": "interact" if interact else "pretrain",
            "pretraining_words": 60_000 if interact else words,
            "interaction_words": words if interact else 0,
            "sha256": {},
        }
        (place / "manifest.json").write_text(json.dumps(facts), encoding="utf-8")
    for name, total in (("chck_60k", 2.0), ("chck_60k_rl_400", after)):
        place = folder / "evaluations" / name
        place.mkdir(parents=True)
        (place / "report.json").write_text(report(name, total, half).to_json(), encoding="utf-8")
    lines = [
        PretrainMetrics(
            run="r", step=5, words_seen=9, tokens_seen=9, loss=3.0, learning_rate=0.1, tokens_per_s=9, seconds=61.0
        ).to_json()
    ]
    for number in range(steps):
        lines.append(step(number, 2.0 + number).to_json())
        write_stories(folder / "stories", number, f"update{number}")
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def shown(folder: Path) -> str:
    out = io.StringIO()
    table.show(summarise(folder), Console(file=out, width=80))
    return out.getvalue()


def test_the_ends_are_the_last_checkpoints_of_each_stage(tmp_path: Path) -> None:
    assert summary.ends(make_run(tmp_path / "r", 4.0)).names == ("chck_60k", "chck_60k_rl_400")


def test_a_run_that_starts_from_a_named_checkpoint_is_compared_with_that(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "r", 4.0)
    settings = config.resolve("smoke", ["interact.start=chck_30k"])
    (folder / "run.yaml").write_text(config.dump(settings, "r"), encoding="utf-8")
    assert summary.ends(folder).before == "chck_30k"


def test_scores_words_time_and_stories_stand_in_the_table(tmp_path: Path) -> None:
    text = shown(make_run(tmp_path / "r", 4.0))
    for expected in (
        "2.00 [1.80, 2.20]",
        "4.00 [3.80, 4.20]",
        "+2.00 [+1.72, +2.28]",
        "readability",
        "61.3 [57.3, 65.3]",
        "670 items, generated",
        "100 stories, judged by rules (paper), rubric paper 1",
        "interaction, paid",
        "159",
        "1 min 01 s",
        "waiting for the teacher",
        "update0 0",
        "update0 2",
        "update1 2",
        "nobody picked them",
    ):
        assert expected in text, f"{expected!r} is not in\n{text}"
    assert "update0 3" not in text
    assert "entity tracking of chck_60k and chck_60k_rl_400 skipped: no folder" in text


@pytest.mark.parametrize(
    ("after", "half", "words"),
    [
        (4.0, 0.2, "rose by +2.00 points"),
        (2.2, 0.2, "No gain is shown"),
        (1.0, 0.2, "FELL by -1.00 points"),
        (4.0, 3.0, "No gain is shown"),
    ],
)
def test_a_gain_within_the_interval_is_not_called_one(tmp_path: Path, after: float, half: float, words: str) -> None:
    assert words in shown(make_run(tmp_path / "r", after, half))


def test_the_interval_of_a_difference_adds_as_squares() -> None:
    before, after = Measure(value=2, low=1.7, high=2.4, n=9), Measure(value=5, low=4.7, high=5.4, n=9)
    difference = Difference.of(before, after)
    assert difference.value == 3
    assert difference.low == pytest.approx(3 - 0.5)  # 0.3 below after, 0.4 above before
    assert difference.high == pytest.approx(3 + 0.5)


def test_time_is_the_sum_over_all_sessions(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "r", 4.0)
    for _ in range(2):
        watch = Stopwatch()
        with watch.timing("startup_s"), watch.timing("evaluation_wait_s"):
            pass
        watch.save(folder, "interrupted")
    with (folder / "sessions.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"started": "2')  # killed while writing
    assert len(Sessions.read(folder).sessions) == 2
    assert not Sessions.read(folder).finished
    phases = {phase.name: phase.seconds for phase in summarise(folder).phases}
    assert phases["pretraining"] == 61.0
    assert phases["interaction"] == 7.0
    assert phases["writing"] == 2.0
    assert phases["recording, saving"] == pytest.approx(0.5)
    assert phases["evaluation, beside it"] == 5.0


def test_a_run_that_has_only_begun_can_be_shown(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "run.yaml").write_text(config.dump(config.resolve("smoke"), "r"), encoding="utf-8")
    text = shown(folder)
    assert re.search(r"entity tracking % +not measured +not measured", text)
    assert "EWoK" not in text
    assert "No statement on the story score" in text


def test_a_run_that_no_up_has_seen_shows_its_words_and_no_start_up(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "r", 4.0)
    shutil.rmtree(folder / "evaluations")
    (folder / "sessions.jsonl").unlink(missing_ok=True)
    text = shown(folder)
    assert re.search(r"pretraining, seen +[1-9]", text)
    assert "start-up" not in text


def test_an_alarm_is_no_update(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "r", 4.0)
    alarm = Alarm(run="r", step=0, guard="kl", value=30.0, threshold=25.0, action="note", message="far away")
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(alarm.to_json() + "\n")
    assert summarise(folder).updates == 2
    files = RunFiles(folder)
    assert [update.step for update in files.metrics().updates] == [0, 1]
    assert files.problems == []


def test_a_cut_last_line_is_passed_over_and_another_is_an_error(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "r", 4.0)
    metrics = folder / "metrics.jsonl"
    good = metrics.read_text(encoding="utf-8")
    metrics.write_text(good + '{"phase": "inter', encoding="utf-8")
    assert summarise(folder).updates == 2
    metrics.write_text('{"phase": "inter\n' + good, encoding="utf-8")
    with pytest.raises(CommandError, match="line 1"):
        summarise(folder)


def test_a_folder_without_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="holds no run"):
        summarise(tmp_path)


def test_a_folder_with_a_damaged_report_is_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "r", 4.0)
    (folder / "evaluations" / "chck_60k" / "report.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CommandError, match="is not an evaluation report"):
        summarise(folder)


def test_durations_read_well() -> None:
    assert [table.duration(s) for s in (4.21, 59.9, 185, 7800)] == ["4.2 s", "59.9 s", "3 min 05 s", "2 h 10 min"]
