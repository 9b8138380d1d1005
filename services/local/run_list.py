"""`fabula runs`: a line for each run folder, whatever became of it. No torch."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field
from rich.console import Console

from fabula_proto import Message
from services.local.errors import CommandError
from services.local.plan import UP_FILE
from services.local.run_files import RUN_FILE, Facts, Metrics, RunFiles
from services.local.sessions import FILE as SESSIONS
from services.local.sessions import Sessions
from services.local.table import plain_table
from services.student_trainer.folder_lock import TRAINER_LOCK, is_locked

LAST_UPDATES = 10  # as arXiv 2509.15714 averages
TEACHER_WIDTH = 40  # of a column; the model's folder may be long
LOCK = "up.lock"
PAUSED = "PAUSED"  # while this file is there, interaction waits before the next update
OURS = {UP_FILE, LOCK, TRAINER_LOCK, SESSIONS, "logs", "redis"}  # what a start may leave before it has written run.yaml
RECORDS = ("metrics.jsonl", "ledger.json", SESSIONS, RUN_FILE)

State = Literal["starting or failed", "pretraining", "interacting", "paused", "stopped", "finished", "unreadable"]


class RunLine(Message):
    """One run. None where it has nothing to say."""

    run: str
    preset: str | None
    state: State
    pretraining_words: int = Field(description="Words seen, repetitions counted.")
    pretraining_budget: int | None
    words_spent: int = Field(description="Prompt, teacher and corpus words.")
    word_budget: int | None
    updates: int
    score: float | None = Field(description=f"Mean of score_mean over the last {LAST_UPDATES} updates.")
    teacher: str | None
    changed: datetime = Field(description="When something was last recorded.")
    problems: tuple[str, ...] = Field(description="Files that could not be read.")


def list_runs(runs_dir: Path) -> list[RunLine]:
    """The runs in a folder, the one that changed last first. Folders that are no run of ours are left out.

    Raises:
        CommandError: there is no such folder.
    """
    runs_dir = runs_dir.expanduser()
    try:
        folders = [path for path in runs_dir.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise CommandError(
            f"the runs in {runs_dir} cannot be listed ({error.strerror}); give their folder with --runs-dir"
        ) from error
    lines = [_line(folder) for folder in folders if _is_run(folder)]
    return sorted(lines, key=lambda line: (line.changed, line.run), reverse=True)


def _is_run(folder: Path) -> bool:
    """Whether a run is, or was about to be, in the folder; a start that failed early leaves it empty."""
    return (folder / RUN_FILE).exists() or {path.name for path in folder.iterdir()} <= OURS


def _line(folder: Path) -> RunLine:
    files = RunFiles(folder)
    run_file, kept, metrics = files.run_file(), files.checkpoints(), files.metrics()
    teacher = _teacher(files)
    budget = run_file.interact.word_budget if run_file is not None else None
    scores = [update.score_mean for update in metrics.updates[-LAST_UPDATES:]]
    last = metrics.updates[-1] if metrics.updates else None
    return RunLine(
        run=folder.name,
        preset=run_file.preset if run_file is not None else None,
        state=_state(files, kept, metrics, budget),
        pretraining_words=max([metrics.pretraining_words, *(facts.pretraining_words for facts in kept)]),
        pretraining_budget=run_file.pretrain.word_budget if run_file is not None else None,
        words_spent=last.words_prompt + last.words_teacher + last.words_corpus if last is not None else 0,
        word_budget=budget,
        updates=len(metrics.updates),
        score=sum(scores) / len(scores) if scores else None,
        teacher=teacher,
        changed=_changed(folder),
        problems=tuple(files.problems),
    )


def _state(files: RunFiles, kept: Sequence[Facts], metrics: Metrics, budget: int | None) -> State:
    folder = files.folder
    if _is_trained(kept, budget):
        return "finished"
    begun = bool(metrics.updates) or (folder / "ledger.json").exists()
    if in_use(folder):
        at_work: State = "paused" if (folder / PAUSED).exists() else "interacting"
        return at_work if begun else "pretraining"
    if (folder / RUN_FILE).exists() and budget is None:
        return "unreadable"
    outcomes = [session.outcome for session in Sessions.read(folder).sessions]
    worked = begun or kept or metrics.pretraining_words or (folder / "resume").exists()
    # A start that somebody ended is a stop. The rest is not called failed: a process that loads holds no lock yet.
    return "stopped" if worked or outcomes[-1:] in (["interrupted"], ["paused"]) else "starting or failed"


def is_trained(folder: Path) -> bool:
    """Whether the run's last checkpoint is there: whatever its settings say from now on, it was not trained with it."""
    files = RunFiles(folder)
    run_file = files.run_file()
    return run_file is not None and _is_trained(files.checkpoints(), run_file.interact.word_budget)


def _is_trained(kept: Sequence[Facts], budget: int | None) -> bool:
    return any(facts.stage == "interact" and label_words(facts.name) == budget for facts in kept)


def label_words(checkpoint: str) -> int | None:
    """Words in the name of a checkpoint of interaction: `chck_90M_rl_100k` -> 100,000; none in other names."""
    label = checkpoint.rpartition("_rl_")[2]
    factor = {"M": 1_000_000, "k": 1_000}.get(label[-1:], 1)
    digits = label[:-1] if factor > 1 else label
    return int(digits) * factor if "_rl_" in checkpoint and digits.isdecimal() else None


def in_use(folder: Path) -> bool:
    """Whether a `fabula` command, a child of one that was killed, or a trainer holds the run."""
    return any(is_locked(folder / name) for name in (LOCK, TRAINER_LOCK))


def _teacher(files: RunFiles) -> str | None:
    """As the run was given it; a run that was not started by `fabula` is asked who judged its last stories."""
    path = files.folder / UP_FILE
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["teacher"])
    except FileNotFoundError:
        return _last_judge(files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        files.broken(path, error)
        return None


def _last_judge(files: RunFiles) -> str | None:
    parts = sorted((files.folder / "stories").glob("part-*.parquet"))
    if not parts:
        return None
    # Only such runs need it, and it takes a while to import.
    import pyarrow as pa
    from pyarrow import parquet

    try:
        rows = parquet.read_table(parts[-1], columns=["teacher_backend", "teacher_model"]).slice(0, 1).to_pylist()
    except (OSError, pa.ArrowException) as error:
        files.broken(parts[-1], error)
        return None
    return f"{rows[0]['teacher_backend']}:{rows[0]['teacher_model']}" if rows else None


def _changed(folder: Path) -> datetime:
    stamps = [path.stat().st_mtime for name in RECORDS if (path := folder / name).exists()]
    return datetime.fromtimestamp(max(stamps, default=folder.stat().st_mtime), UTC)


def show(runs: Sequence[RunLine], runs_dir: Path, console: Console) -> None:
    """Print the list as a table; times are local."""
    if not runs:
        console.print(f"No runs in {runs_dir}; start one with: fabula up", highlight=False, markup=False)
        return
    names = ("run", "preset", "state", "read", "spent", "updates", "score", "teacher", "changed")
    table = plain_table(None, *names)
    for line in runs:
        table.add_row(
            line.run,
            line.preset or "-",
            line.state,
            _words(line.pretraining_words, line.pretraining_budget),
            _words(line.words_spent, line.word_budget),
            str(line.updates),
            "-" if line.score is None else f"{line.score:.2f}",
            line.teacher or "-",
            line.changed.astimezone().strftime("%d %b %H:%M"),
        )
    for name, column in zip(names, table.columns, strict=True):
        column.justify = "left" if name in ("run", "preset", "state", "teacher") else "right"
    table.columns[names.index("teacher")].max_width = TEACHER_WIDTH
    # Never squeezed: a narrow terminal wraps its lines, and what reads a pipe finds names whole.
    console.width = max(console.width, 200)
    console.print(table, crop=False)
    for problem in _problems(runs):
        console.print(f"! {problem}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _problems(runs: Sequence[RunLine]) -> Iterator[str]:
    for line in runs:
        yield from (f"{line.run}: {problem}" for problem in line.problems)


def _words(count: int, budget: int | None) -> str:
    return _short(count) if budget is None else f"{_short(count)}/{_short(budget)}"


def _short(words: int) -> str:
    """Words in a few characters, rounded down: 376, 4.6k, 60k, 1.5M, 900M."""
    for unit, suffix in ((1_000_000, "M"), (1_000, "k")):
        if words >= unit:
            tenths = words * 10 // unit
            return f"{tenths // 10}{suffix}" if tenths >= 100 or tenths % 10 == 0 else f"{tenths / 10:.1f}{suffix}"
    return str(words)
