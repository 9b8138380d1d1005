"""`fabula ledger`: the account of a run that has none yet, of one that works, and of one with broken files."""

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from services.cli import main
from services.local.errors import CommandError
from services.local.ledgers import RunLedger, read_ledger, show
from services.student_trainer.ledger import Ledger


def checkpoint(folder: Path, name: str, *, updates: int = 0, spent: int = 0, pretraining: int = 900) -> None:
    path = folder / "checkpoints" / name / "manifest.json"
    path.parent.mkdir(parents=True)
    stage = "interact" if "_rl_" in name else "pretrain"
    facts = {"stage": stage, "step": updates, "pretraining_words": pretraining, "interaction_words": spent}
    path.write_text(json.dumps({**facts, "seed": 42, "sha256": {}}))


def update(step: int, teacher: int, student: int, corpus: int = 0) -> str:
    words = {"words_prompt": 16, "words_teacher": teacher, "words_corpus": corpus, "words_student": student}
    words["words_spent"] = 16 + teacher + corpus
    return json.dumps({"phase": "interact", "step": step, "score_mean": 1.5, **words}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three updates of 24 stories paid, a checkpoint after two of them."""
    folder = tmp_path / "r"
    checkpoint(folder, "chck_900")
    checkpoint(folder, "chck_900_rl_100", updates=2, spent=160)
    (folder / "run.yaml").write_text("run: r\npreset: smoke\n")
    (folder / "metrics.jsonl").write_text(
        json.dumps({"phase": "pretrain", "words_seen": 900}) + "\n" + update(0, 72, 500) + update(1, 144, 990)
    )
    account = Ledger(budget=250)
    for written in (500, 490, 510):
        account = account.pay(24, 16, 3, written)
    account.write(folder / "ledger.json")
    return folder


def printed(ledger: RunLedger) -> list[str]:
    """The lines that `show` prints on 80 columns."""
    console = Console(width=80)
    with console.capture() as capture:
        show(ledger, console)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_words_of_prompt_teacher_and_student_apart(folder: Path) -> None:
    ledger = read_ledger(folder)
    assert ledger.account is not None
    # 16 prompt words once, 3 * 24 * 3 of the teacher; what the student wrote is free.
    assert ledger.account.model_dump() == {
        "budget": 250,
        "prompt": 16,
        "teacher": 216,
        "corpus": 0,
        "student": 1500,
        "stories": 72,
        "spent": 232,
        "left": 18,
    }
    assert ledger.pretraining == 900
    before, after = ledger.milestones
    assert (before.checkpoint, before.spent, before.student) == ("chck_900", 0, 0)
    assert (after.checkpoint, after.updates, after.spent) == ("chck_900_rl_100", 2, 160)
    assert (after.prompt, after.teacher, after.student) == (16, 144, 990)
    assert ledger.problems == ()


def test_corpus_words_are_part_of_what_was_spent(tmp_path: Path) -> None:
    """`interact.mixed` at the paper's size: a column of its own, and the table still fits 80 columns."""
    folder = tmp_path / "mixed"
    checkpoint(folder, "chck_100M", pretraining=100_000_000)
    checkpoint(folder, "chck_100M_rl_1M", updates=233, spent=960_691, pretraining=100_000_000)
    (folder / "run.yaml").write_text("run: mixed\n")
    (folder / "metrics.jsonl").write_text(update(232, 251_640, 5_871_600, corpus=709_035))
    account = Ledger(budget=1_000_000).pay(233 * 360, 16, 3, 5_871_600, corpus_words=709_035)
    account.write(folder / "ledger.json")

    ledger = read_ledger(folder)
    assert ledger.account is not None
    paid = ledger.account
    assert (paid.corpus, paid.spent) == (709_035, paid.prompt + paid.teacher + paid.corpus)
    before, after = ledger.milestones
    assert (before.corpus, after.corpus) == (0, 709_035)
    assert after.spent == 16 + 251_640 + 709_035
    lines = printed(ledger)
    assert any(line.split() == ["corpus,", "read", "between", "updates", "709,035"] for line in lines)
    (head,) = (line for line in lines if line.split()[:2] == ["updates", "spent"])
    assert head.split()[2:] == ["prompt", "teacher", "corpus", "student", "pretraining"]
    assert lines[-1].endswith(" 233 960,691     16 251,640 709,035 5,871,600 100,000,000")


def test_a_run_without_corpus_words_has_no_column_for_them(folder: Path) -> None:
    assert not any("corpus" in line for line in printed(read_ledger(folder)))


def test_interaction_that_started_early_counts_the_pretraining_of_its_start(folder: Path, tmp_path: Path) -> None:
    checkpoint(folder, "chck_2k", pretraining=2000)
    assert read_ledger(folder).pretraining == 900  # rl_100 came from chck_900
    new = tmp_path / "new"
    checkpoint(new, "chck_500", pretraining=500)
    checkpoint(new, "chck_2k", pretraining=2000)
    (new / "run.yaml").write_text("interact: {start: chck_500}")
    assert read_ledger(new).pretraining == 500


def test_no_ledger_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text("preset: smoke\n")
    (tmp_path / "metrics.jsonl").write_text('{"phase": "pretrain", "words_seen": 1234}\n{"phase": "pretr')
    monkeypatch.setattr(sys, "argv", ["fabula", "ledger", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = " ".join(capsys.readouterr().out.split())
    assert (ended.value.code, "no ledger yet" in said, "has seen 1,234 words" in said) == (0, True, True)


def test_broken_files_are_named_and_the_rest_is_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "checkpoints" / "chck_900" / "manifest.json").write_text("{")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("not json\n")
    monkeypatch.setattr(sys, "argv", ["fabula", "ledger", "--json", str(folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    ledger = RunLedger.from_json(capsys.readouterr().out)
    assert ended.value.code == 1
    assert ledger.account is not None
    assert [kept.checkpoint for kept in ledger.milestones] == ["chck_900_rl_100"]
    assert [problem.partition(" cannot be read")[0] for problem in ledger.problems] == [
        "metrics.jsonl, line 4",
        "checkpoints/chck_900/manifest.json",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "ledger.json is no word account.*goes on"),
        ('{"budget": 5, "spent": 0, "coins": 1}', "ledger.json is no word account.*coins"),
        (
            '{"budget": 99, "prompt_words": 16, "spent": 3}',
            "says that 3 words are spent; prompt, teacher and corpus make 16",
        ),
    ],
)
def test_a_broken_account_is_said(folder: Path, content: str, said: str) -> None:
    (folder / "ledger.json").write_text(content)
    with pytest.raises(CommandError, match=said):
        read_ledger(folder)


def test_a_folder_without_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"there is no run\.yaml"):
        read_ledger(tmp_path)
