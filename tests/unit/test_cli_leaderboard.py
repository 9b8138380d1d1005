"""`fabula leaderboard`: real commands on run folders whose evaluations hold answers of our choice."""

import csv
import io
import json
import os
import re
import resource
import sys
from pathlib import Path

import pytest
from rich.console import Console

from services.cli import main
from services.evaluator.comparison import mcnemar
from services.local import leaderboard_tables
from services.local.comparing import weights
from services.local.leaderboard import Leaderboard, Row, leaderboard
from tests.evaluated_runs import Answers, Suite, boxes, new_run, pairs, stories, write_evaluation

GOOD: Answers = {"agreement": [0] * 180 + [1] * 20, "islands": [0] * 90 + [1] * 110}
WORSE: Answers = {"agreement": [0] * 120 + [1] * 80, "islands": [0] * 95 + [1] * 105}


def two_checkpoints(folder: Path, after: Suite, *more: Suite) -> Path:
    """A run whose pretraining ended in GOOD answers and whose interaction ended in `after`."""
    run = new_run(folder, ("chck_1M", "chck_2M"))
    write_evaluation(run, "chck_1M", (1_000_000, 0), [pairs(WORSE)])
    write_evaluation(run, "chck_2M", (2_000_000, 0), [pairs(GOOD), stories([2.0, 2.5, None, 1.5] * 20)])
    write_evaluation(run, "chck_2M_rl_100k", (2_000_000, 100_000), [after, *more])
    return run


def rows(board: Leaderboard) -> dict[str, Row]:
    return {row.evaluation: row for row in board.rows}


def shown(board: Leaderboard, width: int = 120) -> str:
    out = io.StringIO()
    leaderboard_tables.show(board, Console(file=out, width=width))
    return out.getvalue()


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["fabula", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_changes_from_the_start_of_interaction_are_paired(tmp_path: Path) -> None:
    run = two_checkpoints(tmp_path / "r", pairs(WORSE), stories([4.0, 4.5, 3.5, 4.0] * 20))
    board = leaderboard([run])
    assert [row.evaluation for row in board.rows] == ["chck_1M", "chck_2M", "chck_2M_rl_100k"]
    base, after = rows(board)["chck_2M"], rows(board)["chck_2M_rl_100k"]
    assert base.is_base
    assert base.cells["blimp"].delta is None
    assert after.base == "chck_2M"
    delta = after.cells["blimp"].delta
    assert delta is not None
    assert delta.value == pytest.approx((120 - 180) / 200 / 2 + (95 - 90) / 200 / 2)
    assert delta.low < delta.value < delta.high < 0
    assert delta.p == mcnemar(60, 5)
    story = after.cells["storytelling"].delta
    assert story is not None
    assert story.value == pytest.approx(2.0)
    assert story.low > 0
    assert story.p is None


@pytest.mark.parametrize(
    ("suite", "totals", "flagged"),
    [
        pytest.param(pairs(WORSE), [4.0, 4.5] * 40, True, id="score-up-pairs-down"),
        pytest.param(pairs(WORSE), [2.0, 2.5, 1.5, 2.0] * 20, False, id="score-same-pairs-down"),
        pytest.param(pairs(GOOD), [4.0, 4.5] * 40, False, id="score-up-pairs-same"),
    ],
)
def test_reward_up_grammar_down_is_flagged(tmp_path: Path, suite: Suite, totals: list[float], flagged: bool) -> None:
    board = leaderboard([two_checkpoints(tmp_path / "r", suite, stories(totals))])
    assert [row.reward_up_grammar_down for row in board.rows] == [False, False, flagged]
    assert ("! r: chck_2M_rl_100k: reward up, grammar down: " in shown(board)) is flagged


def test_paradigms_of_a_suite_are_corrected_by_holm(tmp_path: Path) -> None:
    after = {**GOOD, "agreement": [0] * 172 + [1] * 28}
    board = leaderboard([two_checkpoints(tmp_path / "r", pairs(after))], suite="blimp")
    assert board.columns == ("agreement", "islands")
    cells = rows(board)["chck_2M_rl_100k"].cells
    changed, same = cells["agreement"], cells["islands"]
    assert changed.measure is not None
    assert changed.measure.value == 172 / 200
    assert changed.delta is not None
    assert same.delta is not None
    assert changed.delta.p == pytest.approx(mcnemar(8, 0))
    assert changed.delta.p_holm == pytest.approx(2 * mcnemar(8, 0))
    assert (same.delta.value, same.delta.p_holm) == (0.0, 1.0)
    text = shown(board)
    assert "-4.0 [-7.0, -1.5] p .016" in text
    assert "chck_2M_rl_100k: of 2 paradigms 0 rose and 1 fell beyond chance" in text


def test_entity_tracking_is_averaged_within_its_splits(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r", ("chck_1M",))
    before = {"regular_0_ops": [0, 0, 1, 2], "regular_1_ops": [0, 1], "ambiref_0_ops": [1, 1]}
    after = {**before, "ambiref_0_ops": [0, 1]}
    write_evaluation(run, "chck_1M", (1, 0), [boxes(before)])
    write_evaluation(run, "chck_1M_rl_1k", (1, 1), [boxes(after)])
    delta = rows(leaderboard([run]))["chck_1M_rl_1k"].cells["entity_tracking"].delta
    assert delta is not None
    assert delta.value == pytest.approx(0.5 * 0.5)
    assert sum(weights(list(before)).values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("suite", "why"),
    [
        pytest.param(pairs({"agreement": [0] * 200}), "other numbers of items than in chck_2M", id="items"),
        pytest.param(pairs(WORSE, reason="3 items left out"), r"other items: here \(3 items left out\)", id="left-out"),
        pytest.param(Suite(pairs(WORSE).result), "no choices.json", id="no-choices"),
        pytest.param(
            Suite(pairs(GOOD).result, pairs(WORSE).files), "the headline is no average over the paradigms", id="altered"
        ),
    ],
)
def test_other_items_are_not_compared(tmp_path: Path, suite: Suite, why: str) -> None:
    board = leaderboard([two_checkpoints(tmp_path / "r", suite)])
    cell = rows(board)["chck_2M_rl_100k"].cells["blimp"]
    assert cell.delta is None
    assert cell.measure is not None
    text = " ".join(shown(board).split())
    assert re.search(f"chck_2M_rl_100k blimp: not compared: {why}", text)


def test_stories_of_another_prompt_or_teacher_are_not_compared(tmp_path: Path) -> None:
    other_prompt = stories([4.0] * 80, prompt="In a hole")
    told = stories([4.0] * 80)
    assert told.result.teacher is not None
    stricter = told.result.teacher.model_copy(update={"model": "stricter"})
    other_teacher = Suite(told.result.model_copy(update={"teacher": stricter}), told.files)
    for number, (suite, why) in enumerate([(other_prompt, "another prompt"), (other_teacher, "another teacher")]):
        run = two_checkpoints(tmp_path / str(number), suite)
        cell = rows(leaderboard([run]))["chck_2M_rl_100k"].cells["storytelling"]
        assert cell.delta is None
        assert (cell.not_compared or "").startswith(why)


def test_another_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = two_checkpoints(tmp_path / "r", pairs(GOOD))
    assert run_command(monkeypatch, "leaderboard", run, "--base", "chck_1M", "--json") == 0
    board = Leaderboard.model_validate_json(capsys.readouterr().out)
    assert {name: row.base for name, row in rows(board).items()} == {
        "chck_1M": None,
        "chck_2M": "chck_1M",
        "chck_2M_rl_100k": "chck_1M",
    }
    assert run_command(monkeypatch, "leaderboard", run, "--base", "chck_9M") == 2
    assert (
        "no evaluation 'chck_9M' to compare with; it has chck_1M, chck_2M, chck_2M_rl_100k" in capsys.readouterr().err
    )


def test_a_base_with_several_evaluations_is_compared_on_the_same_data(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r", ("chck_1M",))
    full = pairs(GOOD)
    fast = Suite(full.result.model_copy(update={"source": "fast"}), full.files)
    later = pairs(WORSE)
    after = Suite(later.result.model_copy(update={"source": "fast"}), later.files)
    write_evaluation(run, "chck_1M", (1, 0), [full])
    write_evaluation(run, "chck_1M", (1, 0), [fast], name="chck_1M-fast")
    write_evaluation(run, "chck_1M_rl_1k", (1, 1), [after])
    write_evaluation(run, "chck_1M_rl_2k", (1, 2), [stories([1.0])])
    found = rows(leaderboard([run]))
    assert [name for name, row in found.items() if row.is_base] == ["chck_1M", "chck_1M-fast"]
    assert found["chck_1M_rl_1k"].cells["blimp"].delta is not None
    only = rows(leaderboard([run], base="chck_1M-fast"))
    assert only["chck_1M"].base == "chck_1M-fast"
    assert (only["chck_1M"].cells["blimp"].not_compared or "").startswith("other items: here; chck_1M-fast had fast")
    assert list(rows(leaderboard([run], suite="blimp"))) == ["chck_1M", "chck_1M-fast", "chck_1M_rl_1k"]


def test_a_start_that_was_not_evaluated_is_said_and_nothing_is_compared(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r", ("chck_1M", "chck_2M"))
    write_evaluation(run, "chck_1M", (1_000_000, 0), [pairs(WORSE)])
    write_evaluation(run, "chck_2M_rl_1k", (2_000_000, 1_000), [pairs(GOOD)])
    board = leaderboard([run])
    assert all(row.base is None and row.cells["blimp"].delta is None for row in board.rows)
    assert "chck_2M was not evaluated" in board.problems[0]


def test_a_start_in_another_run_is_found_by_its_name(tmp_path: Path) -> None:
    run = two_checkpoints(tmp_path / "r", pairs(WORSE))
    (run / "run.yaml").write_text("interact: {start: ../other/checkpoints/chck_1M}\n")
    assert rows(leaderboard([run]))["chck_2M_rl_100k"].base == "chck_1M"


def test_several_runs_and_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [two_checkpoints(tmp_path / name, pairs(WORSE)) for name in ("one", "two")]
    file = tmp_path / "all.csv"
    assert run_command(monkeypatch, "leaderboard", *runs, "--csv", file) == 0
    out = capsys.readouterr().out
    assert "one/chck_2M_rl_100k" in out
    assert "two/chck_2M_rl_100k" in out
    with file.open(newline="") as lines:
        table = list(csv.DictReader(lines))
    wanted = {"run": "two", "checkpoint": "chck_2M_rl_100k", "suite": "blimp", "measure": "paradigm/agreement"}
    [line] = [row for row in table if wanted.items() <= row.items()]
    assert (line["pretraining_words"], line["interaction_words"]) == ("2000000", "100000")
    assert (float(line["value"]), int(line["n"]), line["source"]) == (0.6, 200, "here")
    assert float(line["low"]) < 0.6 < float(line["high"])


def test_a_csv_that_cannot_be_written_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands in for a disk that is full."""
    run, file = two_checkpoints(tmp_path / "r", pairs(WORSE)), tmp_path / "out" / "all.csv"
    assert run_command(monkeypatch, "leaderboard", run, "--csv", file) == 0
    before = file.read_bytes()
    assert before.endswith(b"\r\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 1, hard))
    try:
        assert run_command(monkeypatch, "leaderboard", run, "--csv", file) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"the CSV cannot be written to {file}: File too large" in " ".join(capsys.readouterr().err.split())
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]
    for wrong in (file / "x.csv", tmp_path):
        assert run_command(monkeypatch, "leaderboard", run, "--csv", wrong) == 1
        assert "cannot be written" in capsys.readouterr().err


def test_a_csv_goes_through_links_and_into_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, file, link = two_checkpoints(tmp_path / "r", pairs(WORSE)), tmp_path / "all.csv", tmp_path / "link.csv"
    link.symlink_to(file)
    assert run_command(monkeypatch, "leaderboard", run, "--csv", link) == 0
    assert link.readlink() == file
    reading, writing = os.pipe()
    assert run_command(monkeypatch, "leaderboard", run, "--csv", f"/dev/fd/{writing}") == 0
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == file.read_bytes()


def test_a_narrow_terminal_gets_the_suites_below_each_other(tmp_path: Path) -> None:
    run = two_checkpoints(tmp_path / "r", pairs(WORSE), stories([4.0] * 80), pairs(WORSE, suite="x"))
    board = leaderboard([run])
    wide, narrow = shown(board, 200), shown(board, 60)
    assert (wide.count("checkpoint  "), narrow.count("checkpoint  ")) == (1, 2)
    for piece in ("53.8 [", "-13.7 [-17.0, -10.5] p <.001", "+2.00 ["):
        assert piece in wide
        assert piece in narrow


def test_no_number_is_cut_at_any_width(tmp_path: Path) -> None:
    suites = [pairs(WORSE, suite=name) for name in ("blimp_supplement", "ewok", "comps")]
    run = two_checkpoints(tmp_path / "r", pairs(WORSE), stories([4.0] * 80), *suites)
    for board in (leaderboard([run]), leaderboard([run], suite="blimp")):
        assert [width for width in range(60, 160) if "…" in shown(board, width)] == []


def test_mistakes_end_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "leaderboard", tmp_path / "none") == 2
    assert "holds no run" in capsys.readouterr().err
    run = new_run(tmp_path / "r")
    assert run_command(monkeypatch, "leaderboard", run) == 1
    assert "no checkpoint of" in capsys.readouterr().err
    folder = write_evaluation(run, "chck_1M", (1, 0), [pairs(GOOD)])
    write_evaluation(run, "chck_2M", (2, 0), [pairs(GOOD)])
    assert run_command(monkeypatch, "leaderboard", run, "--suite", "glue") == 2
    assert "suite 'glue' was not measured; there are blimp" in capsys.readouterr().err
    (folder / "blimp" / "choices.json").write_text(json.dumps({"agreement": "yes"}))
    assert run_command(monkeypatch, "leaderboard", run) == 1
    assert "choices.json cannot be read" in capsys.readouterr().err
    (folder / "report.json").write_text("{")
    assert run_command(monkeypatch, "leaderboard", run) == 0
    assert "report.json cannot be read" in " ".join(capsys.readouterr().out.split())
