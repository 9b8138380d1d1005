"""`fabula ledger`: the word account of a run, with what had been spent at each checkpoint. No torch."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field
from rich.console import Console
from rich.table import Table

from fabula_proto import Message
from services.local.errors import CommandError
from services.local.run_files import Facts, RunFiles, UpdateLine, checked_folder
from services.local.table import plain_table
from services.student_trainer.ledger import Ledger


class Account(Message):
    """Words of interaction. `spent` is what the budget counts: the prompt once, the teacher's words, the corpus's."""

    budget: int
    prompt: int
    teacher: int
    corpus: int = Field(default=0, description="Read in next-word prediction between updates, repetitions counted.")
    student: int = Field(description="The student's own words: counted, but free.")
    stories: int
    spent: int
    left: int


class Milestone(Message):
    """A checkpoint that was kept, and the words up to it. None where metrics.jsonl does not have its update."""

    checkpoint: str
    updates: int
    pretraining: int
    spent: int
    prompt: int | None
    teacher: int | None
    corpus: int | None = None
    student: int | None


class RunLedger(Message):
    """Everything `fabula ledger` says."""

    run: str
    account: Account | None = Field(description="None where interaction has not begun.")
    pretraining: int = Field(description="Words seen in next-word prediction, repetitions counted.")
    milestones: tuple[Milestone, ...]
    problems: tuple[str, ...] = Field(description="Files that could not be read; their numbers are missing above.")


def read_ledger(folder: Path) -> RunLedger:
    """The account of the run in `folder`.

    Raises:
        CommandError: there is no run, or its account cannot be read.
    """
    folder = checked_folder(folder)
    account = _account(folder / "ledger.json")
    files = RunFiles(folder)
    metrics, kept = files.metrics(), files.checkpoints()
    after = {update.step + 1: update for update in metrics.updates}
    return RunLedger(
        run=folder.name,
        account=account,
        pretraining=_pretraining_words(files, kept, metrics.pretraining_words),
        milestones=tuple(_milestone(facts, after.get(facts.step)) for facts in kept),
        problems=tuple(files.problems),
    )


def _account(path: Path) -> Account | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        spent = data.pop("spent")
        ledger = Ledger.model_validate(data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CommandError(
            f"{path} is no word account ({' '.join(str(error).split())}). Checkpoints hold the account too: the run "
            "writes the file again when it goes on, with fabula up or fabula interact",
            exit_code=1,
        ) from error
    if spent != ledger.spent:
        raise CommandError(
            f"{path} says that {spent} words are spent; prompt, teacher and corpus make {ledger.spent}. It was "
            "edited: the run writes the file again when it goes on, with fabula up or fabula interact",
            exit_code=1,
        )
    return Account(
        budget=ledger.budget,
        prompt=ledger.prompt_words,
        teacher=ledger.teacher_words,
        corpus=ledger.corpus_words,
        student=ledger.student_words,
        stories=ledger.stories,
        spent=ledger.spent,
        left=ledger.budget - ledger.spent,
    )


def _pretraining_words(files: RunFiles, kept: Sequence[Facts], seen: int) -> int:
    """Words of pretraining behind the student: up to the checkpoint that interaction started from, if it has begun."""
    learned = [facts.pretraining_words for facts in kept if facts.stage == "interact"]
    if learned:
        return learned[-1]
    run_file = files.run_file()
    start = run_file.interact.start if run_file is not None else None
    for folder in (files.folder / "checkpoints" / start, Path(start)) if start is not None else ():
        if (folder / "manifest.json").is_file() and (facts := files.facts(folder / "manifest.json")) is not None:
            return facts.pretraining_words
    return max([seen, *(facts.pretraining_words for facts in kept)])


def _milestone(facts: Facts, update: UpdateLine | None) -> Milestone:
    begun = facts.stage == "interact"
    return Milestone(
        checkpoint=facts.name,
        updates=facts.step if begun else 0,
        pretraining=facts.pretraining_words,
        spent=facts.interaction_words,
        prompt=(update.words_prompt if update is not None else None) if begun else 0,
        teacher=(update.words_teacher if update is not None else None) if begun else 0,
        corpus=(update.words_corpus if update is not None else None) if begun else 0,
        student=(update.words_student if update is not None else None) if begun else 0,
    )


def show(ledger: RunLedger, console: Console) -> None:
    """Print the account as tables that fit 80 columns."""
    for part in _parts(ledger):
        console.print(part, highlight=False, markup=False)
    for problem in ledger.problems:
        console.print(f"! {problem}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _parts(ledger: RunLedger) -> Iterator[Table | str]:
    account = ledger.account
    if account is None:
        yield (
            f"Run {ledger.run} has no ledger yet: interaction has not begun, and nothing is spent. "
            f"Pretraining has seen {ledger.pretraining:,} words."
        )
    else:
        table = plain_table(f"Words of {ledger.run}", "", "")
        table.add_row("prompt, once", f"{account.prompt:,}")
        table.add_row(f"teacher's, for {account.stories:,} stories", f"{account.teacher:,}")
        if account.corpus:
            table.add_row("corpus, read between updates", f"{account.corpus:,}")
        table.add_row("spent", f"{account.spent:,}", style="bold")
        table.add_row("left", f"{account.left:,}")
        table.add_row("budget", f"{account.budget:,}")
        table.add_row("student's own, free", f"{account.student:,}", style="dim")
        table.add_row("pretraining, seen before", f"{ledger.pretraining:,}", style="dim")
        yield table
    if ledger.milestones:
        yield ""
        yield _milestones_table(ledger.milestones)


def _milestones_table(milestones: Sequence[Milestone]) -> Table:
    corpus = ["corpus"] if any(kept.corpus for kept in milestones) else []
    columns = ["updates", "spent", "prompt", "teacher", *corpus, "student", "pretraining"]
    table = plain_table("At each checkpoint", "", *columns)
    if corpus:
        table.padding = 0  # to fit 80 columns
    for kept in milestones:
        numbers = [getattr(kept, column) for column in columns]
        table.add_row(kept.checkpoint, *("-" if number is None else f"{number:,}" for number in numbers))
    return table
