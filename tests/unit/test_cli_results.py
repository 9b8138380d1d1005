"""`fabula results`: the pipeline's layout and the leaderboard's submission, from evaluations of our making."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from fabula_proto import Measure, SuiteResult
from services.cli import main
from services.evaluator.suites import glue
from services.local.evaluated import read_run
from services.local.pipeline_results import TRACKS, collect
from services.local.submission import expected, submission
from tests.evaluated_runs import Suite, boxes, new_run, of_outcome, pairs, stories, write_evaluation, wugs

TRACK = "strict-small"
SIZES = expected()
FAST, FULL = ("zero_shot/causal/blimp/blimp_fast", "zero_shot/causal/blimp/blimp_filtered")
SUBMISSION = "all_full_preds_and_fast_scores_causal.json"


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["fabula", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def measured(suite: str, path: str, measures: Mapping[str, float], files: Mapping[str, Any]) -> Suite:
    """A suite with the measures and files given; the first measure is its headline."""
    result = SuiteResult(
        suite=suite,
        status="ok",
        source="here",
        headline=next(iter(measures)),
        unit="some",
        measures={name: Measure(value=value, low=value, high=value, n=9) for name, value in measures.items()},
        results_path=path,
    )
    return Suite(result, {name: json.dumps(content) for name, content in files.items()})


def predicted(items: Mapping[str, int]) -> dict[str, dict[str, list[dict[str, object]]]]:
    return {uid: {"predictions": [{"id": f"{uid}_{i}", "pred": "it"} for i in range(n)]} for uid, n in items.items()}


def parts(split: str) -> Iterator[Suite]:
    """Every zero-shot suite in full size; the first item of each paradigm is wrong."""
    for name, part in (SIZES.full if split == "full" else SIZES.fast).items():
        path, files = f"zero_shot/causal/{part.path}", {"predictions.json": predicted(part.items)}
        if name == "reading":
            yield measured(name, path, {"eye_tracking": 1.25, "self_paced": 2.5}, files)
        elif name.startswith("wug"):
            yield measured(name, path, {"spearman": 0.5}, files)
        else:
            choices = {uid: [1] + [0] * (n - 1) for uid, n in part.items.items()}
            yield measured(name, path, {"accuracy": 0.9}, {**files, "choices.json": choices})


def surprisals(checkpoint: str, rows: int) -> Suite:
    path = "zero_shot/causal/AoA_word"
    return measured("aoa", path, {"surprisal": 3.0}, {"surprisal.json": {"results": [{"step": checkpoint}] * rows}})


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which everything was measured; the fast suites' files are the same everywhere."""
    run = new_run(tmp_path_factory.mktemp("runs") / "whole.v1")
    fast, shared = list(parts("fast")), run.parent / "shared"
    for suite in fast:
        for name, text in suite.files.items():
            (shared / suite.result.suite).mkdir(parents=True, exist_ok=True)
            (shared / suite.result.suite / name).write_text(text)
    for revision in TRACKS[TRACK]:
        words = (int(revision[5:-1]) * 1_000_000, 0)
        reports = [Suite(suite.result) for suite in fast]
        folder = write_evaluation(run, revision, words, [*reports, surprisals(revision, SIZES.aoa)])
        for suite in fast:
            (folder / suite.result.suite).symlink_to(shared / suite.result.suite)
    tasks = {f"{task}/predictions.json": predicted({task: n}) for task, n in SIZES.glue.items()}
    full = [*parts("full"), measured("glue", "finetune", {"accuracy": 0.5}, tasks)]
    write_evaluation(run, "chck_100M", (100_000_000, 0), full, name="chck_100M-full")
    return run


def test_a_complete_submission(
    complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "results", complete, "--to", tmp_path, "--submission", "--track", TRACK) == 0
    place = tmp_path / "results" / "whole"  # the pipeline, too, cuts a name at its last dot
    assert capsys.readouterr().out.split() == [str(place / SUBMISSION)]
    content = json.loads((place / SUBMISSION).read_text())
    assert {name: {uid: len(rows["predictions"]) for uid, rows in content[name].items()} for name in SIZES.full} == {
        name: part.items for name, part in SIZES.full.items()
    }
    assert {task: len(rows["predictions"]) for task, rows in content["glue"].items()} == SIZES.glue
    assert [row["step"] for row in content["aoa"]["results"]] == [
        revision for revision in TRACKS[TRACK] for _ in range(SIZES.aoa)
    ]
    fast = content["fast_eval_results"]
    assert fast.keys() == SIZES.fast.keys()
    assert fast["blimp"] == [dict.fromkeys(SIZES.fast["blimp"].items, 199 / 200)] * len(TRACKS[TRACK])
    assert fast["entity_tracking"][0]["regular_5_ops"] == 158 / 159
    assert fast["wug_past"][-1] == {"wug_past": 0.5}
    assert fast["reading"][3] == {"spr": 0.025, "rt": 0.0125}
    assert {path.name for path in place.iterdir()} == {*TRACKS[TRACK], "main", SUBMISSION}
    final = {path.relative_to(place / "main").as_posix() for path in (place / "main").rglob("*.json")}
    assert {f"{FAST}/predictions.json", f"{FULL}/predictions.json", "finetune/rte/predictions.json"} <= final
    assert not [path for path in final if path.endswith("choices.json")]


def test_what_a_submission_lacks_is_named_and_nothing_is_written(
    complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "half"
    (run / "evaluations").mkdir(parents=True)
    (run / "run.yaml").write_text("preset: smoke\n")
    for folder in (complete / "evaluations").iterdir():
        if folder.name != "chck_5M":
            (run / "evaluations" / folder.name).symlink_to(folder)
    short = dict(SIZES.full["ewok"].items)
    short["social-properties"] -= 1
    del short["agent-properties"]
    path = f"zero_shot/causal/{SIZES.full['ewok'].path}"
    suites = [
        *(suite for suite in parts("full") if suite.result.suite != "ewok"),
        measured("ewok", path, {"accuracy": 0.5}, {"predictions.json": predicted({**short, "chess": 3})}),
        measured("glue", "finetune", {"accuracy": 0.5}, {"rte/predictions.json": predicted({"rte": 139})}),
    ]
    (run / "evaluations" / "chck_100M-full").unlink()
    write_evaluation(run, "chck_100M", (100_000_000, 0), suites, name="chck_100M-full")
    command = ("results", run, "--to", tmp_path / "out", "--submission", "--track", TRACK)
    assert run_command(monkeypatch, *command) == 1
    said = capsys.readouterr().err
    for problem in (
        "main (chck_100M) ewok: agent-properties: no predictions, not 2,210",
        "main (chck_100M) ewok: social-properties: 327 predictions, not 328",
        "main (chck_100M) ewok: unknown paradigms chess",
        "main (chck_100M) qqp: not measured (no finetune/qqp/predictions.json)",
        "chck_5M aoa: no surprisals, not 8,005",
        f"chck_5M blimp: not measured (no {FAST}/predictions.json)",
    ):
        assert f"  {problem}\n" in said + "\n"
    assert not (tmp_path / "out").exists()
    assert run_command(monkeypatch, *command, "--partial") == 0
    assert "! chck_5M reading: not measured" in capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "results" / "half" / SUBMISSION).read_text())
    assert content["fast_eval_results"]["blimp"][4] is None
    assert content["fast_eval_results"]["blimp"][5] is not None
    assert list(content["glue"]) == ["rte"]


def test_scores_are_those_that_the_pipeline_computes_from_predictions_and_data(tmp_path: Path) -> None:
    """By the suites' own arithmetic; here again from the predicted texts and the answers."""
    run = new_run(tmp_path / "r")
    ratings, scores = (0.9, 0.2, 0.6, 0.4, 0.1), (3.0, -1.0, 0.5, 2.0, -2.0)
    path = "zero_shot/causal/entity_tracking/entity_tracking_fast"
    suites = [
        pairs({"b": [0, 1, 0], "a": [1, 1, 0, 0, 0]}, path=FAST),
        boxes({"regular_1_ops": [0, 4], "regular_0_ops": [0, 0, 3]}, path=path),
        wugs(ratings, scores, "zero_shot/causal/wug_adj/wug_adj_nominalization"),
    ]
    folder = write_evaluation(run, "chck_1M", (1_000_000, 0), suites)
    content, _ = submission(collect(read_run(run)))
    fast = {name: scores for name, [scores, *_] in content["fast_eval_results"].items()}
    predictions = {s: json.loads((folder / s / "predictions.json").read_text()) for s in ("blimp", "entity_tracking")}
    for suite, right in (("blimp", "good "), ("entity_tracking", " the thing 0.")):
        assert fast[suite] == {
            uid: sum(row["pred"].startswith(right) for row in rows["predictions"]) / len(rows["predictions"])
            for uid, rows in predictions[suite].items()
        }
    assert fast["wug_adj"] == {"wug_adj": pytest.approx(scipy.stats.spearmanr(scores, ratings).statistic)}
    assert fast["reading"] is None


def test_a_checkpoints_evaluations_are_put_together(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r")
    write_evaluation(run, "chck_1M", (1, 0), [pairs({"a": [0]}, path=FULL)], name="all")
    write_evaluation(run, "chck_1M", (1, 0), [pairs({"a": [0, 1]}, path=FAST), stories([1.0])])
    write_evaluation(run, "chck_1M", (1, 0), [pairs({"a": [1]}, path=FAST)], name="again")
    found = collect(read_run(run))
    folders = {path.rpartition("/")[0]: file.parent.parent.name for path, file in found.files["chck_1M"].items()}
    assert folders == {FAST: "chck_1M", FULL: "all"}


def test_the_layout_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = new_run(tmp_path / "r")
    answers = {"rte": glue.Answers((0, 1), (0, 0))}
    tuned = of_outcome("glue", glue.evaluate(answers, "here", 0), "finetune")
    write_evaluation(run, "chck_1M", (1, 0), [pairs({"a": [0, 1]}, path=FAST), tuned])
    write_evaluation(run, "chck_1M_rl_1k", (1, 1), [pairs({"a": [0, 0]}, path=FAST)])
    command = ("results", run, "--to", tmp_path / "out")
    assert run_command(monkeypatch, *command, "--final", "chck_1M") == 0
    place = tmp_path / "out" / "results" / "r"
    assert capsys.readouterr().out == f"{place}: chck_1M, chck_1M_rl_1k; main is chck_1M\n"
    written = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    blimp = {f"{FAST}/predictions.json", f"{FAST}/best_temperature_report.txt"}
    finetuned = {"finetune/rte/predictions.json", "finetune/rte/results.txt"}
    assert written == {f"{revision}/{path}" for revision in ("main", "chck_1M") for path in blimp | finetuned} | {
        f"chck_1M_rl_1k/{path}" for path in blimp
    }
    source = run / "evaluations" / "chck_1M" / "blimp" / "predictions.json"
    assert (place / "main" / FAST / "predictions.json").read_bytes() == source.read_bytes()
    assert run_command(monkeypatch, *command) == 2
    assert "is there already; delete it or give another folder with --to" in capsys.readouterr().err


def test_mistakes_end_without_a_traceback_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(tmp_path / "r")
    write_evaluation(run, "chck_1M", (1, 0), [pairs({"a": [0]}), stories([1.0])])
    out = tmp_path / "out"
    for arguments, code, said in (
        ((tmp_path / "none",), 2, "holds no run"),
        ((run,), 1, "nothing of r was measured on BabyLM data"),
        ((run, "--final", "chck_9M"), 2, "no evaluated checkpoint 'chck_9M'; it has chck_1M"),
        ((run, "--partial"), 2, "--partial is about the submission file"),
    ):
        assert run_command(monkeypatch, "results", *arguments, "--to", out) == code
        assert said in capsys.readouterr().err
    masked = FAST.replace("causal", "mlm")
    write_evaluation(run, "chck_1M", (1, 0), [pairs({"a": [0]}, path=FAST)], name="causal")
    write_evaluation(run, "chck_1M", (1, 0), [pairs({"a": [0]}, path=masked)], name="mlm")
    assert run_command(monkeypatch, "results", run, "--to", out) == 2
    assert "backends causal, mlm; give one of them with --backend" in capsys.readouterr().err
    out.write_text("a file")
    assert run_command(monkeypatch, "results", run, "--to", out, "--backend", "mlm") == 1
    assert "the results cannot be written to" in capsys.readouterr().err
    assert out.read_text() == "a file"
