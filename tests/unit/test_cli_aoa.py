"""`fabula aoa`: the command over a run's evaluations; its arithmetic is tested with the suite."""

import json
import sys
from pathlib import Path

import pytest

from fabula_proto import Measure, SuiteResult
from services.cli import main
from tests.evaluated_runs import Suite, new_run, pairs, write_evaluation

WORDS = {"dog": 20.0, "ball": 18.0, "moon": 26.0, "think": 29.0}
CHANCE = 10.0


def learned(checkpoint: str, read: int, rank: int) -> Suite:
    """Surprisals after `rank` of 12 checkpoints: a word falls from chance to 0 at a time that its age sets."""
    rows = [
        {
            "step": checkpoint,
            "word_count": read,
            "target_word": word,
            "context_id": 0,
            "context": "The",
            "surprisal": CHANCE if rank <= (months - 15) * 0.7 else 0.5,
        }
        for word, months in WORDS.items()
    ]
    result = SuiteResult(
        suite="aoa",
        status="ok",
        source="here",
        headline="surprisal",
        unit="nats",
        measures={"surprisal": Measure(value=1.0, low=1.0, high=1.0, n=4)},
    )
    about = {"step": checkpoint, "words_read": read, "vocabulary": 22_026}  # ln is 10
    return Suite(result, {"surprisal.json": json.dumps({"results": rows}), "checkpoint.json": json.dumps(about)})


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["fabula", "aoa", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_the_order_of_learning_over_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, human = new_run(tmp_path / "r"), tmp_path / "human.csv"
    human.write_text("word_clean,aoa\n" + "".join(f"{word},{months}\n" for word, months in WORDS.items()))
    for rank in range(1, 13):
        read = 10**rank
        name = f"chck_{read}" if rank < 12 else "chck_last"
        write_evaluation(run, name, (read, 0), [learned(name, read, rank)])
        if rank == 3:
            assert run_command(monkeypatch, run, "--human", human) == 1
            assert "3 checkpoints differ in the words they have read" in capsys.readouterr().err
    write_evaluation(run, "chck_1000", (1000, 0), [pairs({"a": [0]})], name="pairs-only")
    write_evaluation(run, "chck_1000", (1000, 0), [learned("chck_1000", 1000, 12)], name="repeated")
    assert run_command(monkeypatch, run, "--human", human, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["words_read"] for one in found["checkpoints"]] == [10**rank for rank in range(1, 13)]
    ages = {word["word"]: word["paper"] for word in found["words"]}
    assert sorted(ages, key=ages.__getitem__) == ["ball", "dog", "moon", "think"]
    assert found["paper"]["r"] > 0.95
    assert found["paper"]["n"] == 4
    assert run_command(monkeypatch, run, "--human", human) == 0
    shown = capsys.readouterr().out
    assert f"{found['paper']['r']:.3f} [" in shown
    assert "12 checkpoints, from chck_10 (10 words)" in shown


def test_mistakes_end_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, tmp_path, "--human", tmp_path / "x.csv") == 2
    assert "holds no run" in capsys.readouterr().err
    run = new_run(tmp_path / "r")
    write_evaluation(run, "chck_1M", (1, 0), [pairs({"a": [0]})])
    assert run_command(monkeypatch, run, "--human", tmp_path / "x.csv") == 1
    assert "no checkpoint of r was evaluated on aoa; measure at least 5" in capsys.readouterr().err
    write_evaluation(run, "chck_1M", (1, 0), [learned("chck_1M", 1, 1)])
    assert run_command(monkeypatch, run, "--human", tmp_path / "x.csv") == 1
    assert "x.csv" in capsys.readouterr().err
