"""A run's recorded stories and verdicts in place of the queue.

The table of stories holds texts, and a text does not say its tokens. So a replay writes the stories again, from the
run's own random streams, and they have to be the recorded ones word for word.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fabula_proto import CriterionScore, ScoredBatch, StoryBatch, TeacherIdentity, Verdict, VerdictStatus
from services.student_trainer.interaction import StopRequestedError
from services.student_trainer.records import PROBABILITIES, story_part
from services.student_trainer.story_queue import Collected

NEEDED = {
    *("story_id", "prompt", "text", "status", "reason", "flags", "total", "teacher_reward", "coverage"),
    *("kl", "worker", *(f"teacher_{name}" for name in TeacherIdentity.model_fields)),
}

Row = Mapping[str, Any]


class ReplayError(RuntimeError):
    """The record cannot be replayed: something is missing, or this machine writes other stories."""


class RecordedVerdicts:
    """Stands in for the queue: a story has to be a recorded one, and gets the verdict that it got.

    Raises:
        ReplayError: nothing is recorded, or a file is missing or broken.
    """

    def __init__(self, stories: Path) -> None:
        parts = sorted(stories.glob("part-*.parquet"))
        if not parts:
            raise ReplayError(f"{stories} holds no part-*.parquet: the run has no judged stories to learn from")
        if missing := [path for step in range(len(parts)) if not (path := story_part(stories, step)).exists()]:
            raise ReplayError(f"{missing[0]} is missing; a replay needs the stories of every update from 0 on")
        self._rows: dict[str, Row] = {row["story_id"]: row for part in parts for row in _rows(part)}
        self.steps, self.stories = len(parts), len(self._rows)
        self.at_end = False

    def row(self, story_id: str) -> Row:
        """What is recorded of a story."""
        return self._rows[story_id]

    def send(self, batch: StoryBatch) -> None:
        """Compare the stories with the recorded ones, as far as the record goes.

        Raises:
            ReplayError: one is not the recorded one.
        """
        if batch.step >= self.steps:
            return
        for story in batch.stories:
            row = self._rows.get(story.id)
            if row is None or (row["prompt"], row["text"]) != (story.prompt, story.text):
                raise ReplayError(
                    f"story {story.id} {_difference(story.text, row)}. Stories are the same where settings, start, "
                    "machine and versions are; the updates before this one are saved"
                )

    def collect(self, batches: Sequence[StoryBatch], timeout_s: float, keep_waiting: Callable[[], None]) -> Collected:
        """The recorded verdicts, at once.

        Raises:
            StopRequestedError: the record ends before this update.
        """
        keep_waiting()
        if batches[0].step >= self.steps:
            self.at_end = True
            raise StopRequestedError
        return Collected([self._scored(batch) for batch in batches], wait_for_student_s=0.0)

    def forget(self, step: int) -> None:
        """Nothing was taken from anywhere."""

    def discard(self) -> None:
        """Nothing was taken from anywhere."""

    def paused(self, since_s: float, until_s: float) -> None:
        """No teacher waits."""

    def _scored(self, batch: StoryBatch) -> ScoredBatch:
        rows = [self._rows[story.id] for story in batch.stories]
        return ScoredBatch(
            run=batch.run,
            step=batch.step,
            chunk=batch.chunk,
            digest=batch.digest,
            verdicts=tuple(recorded_verdict(row) for row in rows),
            teacher=TeacherIdentity(**{name: rows[0][f"teacher_{name}"] for name in TeacherIdentity.model_fields}),
            worker=rows[0]["worker"],
            seconds=0.0,
        )


def recorded_verdict(row: Row) -> Verdict:
    """The verdict of a row, with all that is recorded of it: its numbers are the very ones that were learned from."""
    criteria = {
        column.removeprefix(PROBABILITIES): CriterionScore.from_probabilities(levels).model_copy(
            update={"probabilities": tuple(levels), "mean": row[f"score_{column.removeprefix(PROBABILITIES)}"]}
        )
        for column, levels in row.items()
        if column.startswith(PROBABILITIES) and levels is not None
    }
    return Verdict(
        story_id=row["story_id"],
        status=VerdictStatus(row["status"]),
        criteria=criteria or None,
        total=row["total"],
        reward=row["teacher_reward"],
        coverage=row["coverage"],
        flags=tuple(row["flags"] or ()),
        reason=row["reason"],
    )


def _rows(part: Path) -> list[Row]:
    try:
        table = pq.read_table(part)
    except (OSError, pa.ArrowException) as error:
        raise ReplayError(f"{part} cannot be read ({error}); restore it") from error
    if missing := sorted(NEEDED - set(table.column_names)):
        raise ReplayError(f"{part} has no {', '.join(missing)}: another version recorded it; replay with that version")
    rows: list[Row] = table.to_pylist()
    return rows


def _difference(text: str, row: Row | None) -> str:
    """How a story differs from the recorded one, from a few letters before the first difference on."""
    if row is None:
        return f"comes out as {text[:60]!r} here and is not recorded"
    was: str = row["text"]
    first = next(
        (place for place, (a, b) in enumerate(zip(text, was, strict=False)) if a != b), min(len(text), len(was))
    )
    shown = slice(max(0, first - 20), first + 40)
    return f"was recorded as {was[shown]!r} and comes out as {text[shown]!r} here (from letter {shown.start} on)"
