"""`fabula rescore`: the recorded stories of a run judged again by another teacher, and the two compared."""

import hashlib
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from rich.console import Console
from rich.progress import Progress

from fabula_proto import Message, TeacherIdentity, Verdict, stories_digest
from services.local.agreement_tables import Part, Sheet, estimate_cell, teacher_line
from services.local.errors import CommandError, not_installed
from services.local.partial_verdicts import PartialVerdicts
from services.local.run_files import checked_folder
from services.local.scorers import Scored, score_stories

try:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from services.local.recorded_stories import IDENTITY, SCORE, RecordedStory, read_recorded
    from services.teacher.calibration.comparison import Agreement, ComparisonError, Side, SideSummary, compare
    from services.teacher.calibration.estimates import Estimate, estimates
    from services.teacher.calibration.statistics import FloatArray, moments
except ImportError as error:
    raise not_installed(error) from error

RANGES = 5


class RecordedTeacher(Message):
    """Who judged while the run learned, and how many stories."""

    teacher: TeacherIdentity
    stories: int


class RangeScores(Message):
    """Means over some updates' stories that both teachers judged, with 95 % intervals (bootstrap over stories)."""

    first_step: int
    last_step: int
    pairs: int
    recorded: Estimate
    again: Estimate
    difference: Estimate = Field(description="again - recorded.")


class Rescoring(Message):
    """Everything `fabula rescore` says."""

    run: str
    file: str = Field(description="Where the new verdicts are, a row a story.")
    teachers: tuple[RecordedTeacher, ...] = Field(description="Several where the run's teacher was changed.")
    recorded: SideSummary
    again: SideSummary
    stories: int
    pairs: int = Field(description="Stories with an ok verdict of both: all numbers are over these.")
    measure: str = Field(description="What the ranges are means of: total, or reward where the rubrics differ.")
    ranges: tuple[RangeScores, ...]
    agreement: tuple[Agreement, ...]
    not_shared: tuple[str, ...] = Field(description="Criteria of one teacher alone; the total is left out with them.")


def rescore(folder: Path, side: str, limit: int | None, console: Console) -> Rescoring:
    """Have `side` judge the stories that the run in `folder` recorded, write its verdicts, and compare.

    One that was interrupted goes on: verdicts are kept as they come, until all are written.

    Args:
        folder: of the run; its records are only read.
        side: see `score_stories`.
        limit: at most so many stories, evenly spread over the run.
        console: where progress is shown.

    Raises:
        CommandError: there is no run or it has no stories, the teacher cannot judge, or fewer than 2 stories have a
            verdict of both (the new ones are written then, too).
    """
    folder = checked_folder(folder)
    rows = read_recorded(folder / "stories")
    if limit is not None and limit < len(rows):
        rows = [rows[place * len(rows) // limit] for place in range(limit)]
    stories = [row.story for row in rows]
    digest = stories_digest(stories)
    partial = PartialVerdicts(lambda teacher: folder / "rescored" / f".{file_name(teacher)}-{digest}.jsonl")
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{side} judges {len(stories)} stories", total=len(stories))
        scored = score_stories(side, stories, lambda done: progress.advance(task, done), partial)
    path = folder / "rescored" / f"{file_name(scored.teacher)}.parquet"
    _write(path, folder.name, rows, scored)
    partial.forget(scored.teacher)
    try:
        return _compared(folder.name, path, rows, side, scored)
    except ComparisonError as error:
        raise CommandError(f"{error}. The new verdicts are in {path}", exit_code=1) from error


def file_name(teacher: TeacherIdentity) -> str:
    """Name of a teacher's file: two that differ in anything, such as the rubric, have different ones."""
    digest = hashlib.sha256(teacher.to_json().encode()).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{teacher.backend}-{Path(teacher.model).name}-{digest}")


def _write(path: Path, run: str, rows: Sequence[RecordedStory], scored: Scored) -> None:
    """The new verdicts in the columns of stories/, without the text; all or nothing."""
    verdicts = scored.verdicts
    names = list(dict.fromkeys(name for v in verdicts if v is not None and v.criteria for name in v.criteria))
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {
        "run": (pa.string(), [run] * len(rows)),
        "step": (pa.int32(), [row.step for row in rows]),
        "index": (pa.int32(), [row.fields["index"] for row in rows]),
        "story_id": (pa.string(), [row.fields["story_id"] for row in rows]),
        "status": (pa.string(), ["absent" if v is None else v.status.value for v in verdicts]),
        "flags": (pa.list_(pa.string()), [[] if v is None else list(v.flags) for v in verdicts]),
        "reason": (pa.string(), [None if v is None else v.reason for v in verdicts]),
        "coverage": (pa.float64(), [None if v is None else v.coverage for v in verdicts]),
        "total": (pa.float64(), [None if v is None else v.total for v in verdicts]),
        "teacher_reward": (pa.float64(), [None if v is None else v.reward for v in verdicts]),
    }
    for name in names:
        means = [None if v is None or v.criteria is None else v.criteria[name].mean for v in verdicts]
        columns[f"{SCORE}{name}"] = (pa.float64(), list(means))
    for name in IDENTITY:
        columns[f"teacher_{name}"] = (pa.string(), [getattr(scored.teacher, name)] * len(rows))
    table = pa.table({name: pa.array(values, type=kind) for name, (kind, values) in columns.items()})
    building = path.with_name(f".building-{path.name}")
    try:
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, building, compression="zstd")
        building.replace(path)
    except OSError as error:
        raise CommandError(f"the verdicts cannot be written to {path}: {error.strerror}", exit_code=1) from error


def _compared(run: str, path: Path, rows: Sequence[RecordedStory], side: str, scored: Scored) -> Rescoring:
    judged = next((v.criteria for v in scored.verdicts if v is not None and v.criteria), {})
    levels = {name: len(score.probabilities) for name, score in judged.items()}
    try:
        verdicts = [row.verdict(levels) for row in rows]
        teachers = Counter(row.teacher for row in rows)
    except (ValidationError, KeyError) as error:
        raise CommandError(f"the stories of run {run} hold a row that is no verdict: {error}", exit_code=1) from error
    recorded = Side("recorded", teachers.most_common(1)[0][0], verdicts)
    # Each story alone is drawn: they share a prompt.
    found = compare(recorded, Side(side, scored.teacher, scored.verdicts), range(len(rows)), "fabula rescore")
    measure = "reward" if found.not_shared else "total"
    return Rescoring(
        run=run,
        file=str(path),
        teachers=tuple(RecordedTeacher(teacher=who, stories=count) for who, count in teachers.most_common()),
        recorded=found.a,
        again=found.b,
        stories=found.stories,
        pairs=found.pairs,
        measure=measure,
        ranges=tuple(_ranges(rows, verdicts, scored.verdicts, measure)),
        agreement=found.agreement,
        not_shared=found.not_shared,
    )


def _ranges(
    rows: Sequence[RecordedStory], recorded: Sequence[Verdict], again: Sequence[Verdict | None], measure: str
) -> Iterator[RangeScores]:
    """Means over at most RANGES stretches of updates, as equal as they can be."""
    pairs: dict[int, list[tuple[float, float]]] = {}
    for row, before, after in zip(rows, recorded, again, strict=True):
        a, b = getattr(before, measure), getattr(after, measure, None)
        if a is not None and b is not None:
            pairs.setdefault(row.step, []).append((a, b))
    steps = sorted(pairs)
    count = min(RANGES, len(steps))
    for place in range(count):
        chosen = steps[place * len(steps) // count : (place + 1) * len(steps) // count]
        values = [pair for step in chosen for pair in pairs[step]]
        groups: list[Hashable] = list(range(len(values)))
        a_N, b_N = zip(*values, strict=True)

        def means(weights_BN: FloatArray, a_N: Sequence[float] = a_N, b_N: Sequence[float] = b_N) -> list[FloatArray]:
            mean_BK, _ = moments([a_N, b_N], weights_BN)
            return [mean_BK[:, 0], mean_BK[:, 1], mean_BK[:, 1] - mean_BK[:, 0]]

        of_recorded, of_again, difference = estimates(means, groups)
        yield RangeScores(
            first_step=chosen[0],
            last_step=chosen[-1],
            pairs=len(values),
            recorded=of_recorded,
            again=of_again,
            difference=difference,
        )


def parts(rescoring: Rescoring) -> Iterator[Part]:
    """Sentences and tables for a terminal."""
    r = rescoring
    for judged in r.teachers:
        yield f"Recorded: {judged.stories} stories judged by {teacher_line(judged.teacher)}"
    yield f"Again: {teacher_line(r.again.teacher)}"
    yield Sheet(
        f"{r.pairs} of {r.stories} stories have an ok verdict of both",
        ("", "ok", "failed", "refused", "absent"),
        [
            (name, *map(str, (side.ok, side.failed, side.refused, side.absent)))
            for name, side in (("recorded", r.recorded), ("again", r.again))
        ],
    )
    yield from (f"Stories {reason}" for side in (r.recorded, r.again) for reason in side.reasons)
    yield Sheet(
        f"Mean {r.measure} of the updates' stories, with 95 % intervals (bootstrap over stories)",
        ("updates", "stories", "recorded", "again", "again - recorded"),
        [(_steps(x), str(x.pairs), *map(estimate_cell, (x.recorded, x.again, x.difference))) for x in r.ranges],
    )
    yield Sheet(
        "Agreement on a story, with 95 % intervals",
        ("", "weighted kappa", "Spearman", "bias (again - recorded)"),
        [(row.name, *map(estimate_cell, (row.kappa, row.spearman, row.bias))) for row in r.agreement],
    )
    if r.not_shared:
        yield f"Left out, for one teacher alone judges it: {', '.join(r.not_shared)}; and the total with it."
    yield f"Verdicts written to {r.file}"


def _steps(scores: RangeScores) -> str:
    first, last = scores.first_step, scores.last_step
    return str(first) if first == last else f"{first}-{last}"
