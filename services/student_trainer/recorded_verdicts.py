"""A run's recorded stories and verdicts in place of the queue.

The table of stories holds texts, and a text does not say its tokens. So a replay writes the stories again, from the
run's own random streams, and they have to be the recorded ones word for word. Verdicts are recorded in float32. What
is learned from, the story's reward, is a float32 and recorded exactly: verdicts are taken within their rounding such
that they give this very reward.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fabula_proto import CriterionScore, ScoredBatch, StoryBatch, TeacherIdentity, Verdict, VerdictStatus
from services.student_trainer.interaction import StopRequestedError
from services.student_trainer.records import story_part
from services.student_trainer.rewards import (
    Shaping,
    WrittenStory,
    length_bonus,
    missing_end_penalty,
    repetition_penalty,
    story_rewards,
)
from services.student_trainer.settings import InteractSettings
from services.student_trainer.story_queue import StoryQueue

LEVELS = (4, 2, 3, *range(5, 12))  # of a criterion; the record does not say how many there are
HALVINGS = 60
ROUNDING = 1e-4  # rewards that differ by more do not differ by float32's rounding
NEEDED = {
    *("story_id", "prompt", "text", "words", "ended", "status", "reason", "flags", "total", "teacher_reward", "reward"),
    *("kl", "worker", *(f"teacher_{name}" for name in TeacherIdentity.model_fields)),
}
SCORE = "score_"

Row = Mapping[str, Any]


class ReplayError(RuntimeError):
    """The record cannot be replayed: something is missing, or this machine writes other stories."""


class RecordedVerdicts(StoryQueue):
    """Stands in for the queue: a story has to be a recorded one, and gets the verdict that it got.

    Raises:
        ReplayError: nothing is recorded, or a file is missing or broken.
    """

    def __init__(self, stories: Path, options: InteractSettings) -> None:
        parts = sorted(stories.glob("part-*.parquet"))
        if not parts:
            raise ReplayError(f"{stories} holds no part-*.parquet: the run has no judged stories to learn from")
        if missing := [path for step in range(len(parts)) if not (path := story_part(stories, step)).exists()]:
            raise ReplayError(f"{missing[0]} is missing; a replay needs the stories of every update from 0 on")
        self._rows: dict[str, Row] = {row["story_id"]: row for part in parts for row in _rows(part)}
        self._options = options
        self._shapings = _shapings(options)
        self.steps, self.stories = len(parts), len(self._rows)
        self.at_end = False

    def row(self, story_id: str) -> Row:
        """What is recorded of a story."""
        return self._rows[story_id]

    def send(self, batch: StoryBatch) -> None:
        """Compare the stories with the recorded ones.

        Raises:
            ReplayError: one is not the recorded one.
            StopRequestedError: the record ends before this update.
        """
        if batch.step >= self.steps:
            self.at_end = True
            raise StopRequestedError
        for story in batch.stories:
            row = self._rows.get(story.id)
            if row is None or (row["prompt"], row["text"]) != (story.prompt, story.text):
                raise ReplayError(
                    f"story {story.id} {_difference(story.text, row)}. Stories are the same where settings, start, "
                    "machine and versions are; the updates before this one are saved"
                )

    def collect(
        self, batches: Sequence[StoryBatch], timeout_s: float, keep_waiting: Callable[[], None]
    ) -> list[ScoredBatch]:
        """The recorded verdicts, at once."""
        keep_waiting()
        return [self._scored(batch) for batch in batches]

    def forget(self, step: int) -> None:
        """Nothing was taken from anywhere."""

    def _scored(self, batch: StoryBatch) -> ScoredBatch:
        rows = [self._rows[story.id] for story in batch.stories]
        return ScoredBatch(
            run=batch.run,
            step=batch.step,
            chunk=batch.chunk,
            digest=batch.digest,
            verdicts=tuple(recorded_verdict(row, self._options, self._shapings) for row in rows),
            teacher=TeacherIdentity(**{name: rows[0][f"teacher_{name}"] for name in TeacherIdentity.model_fields}),
            worker=rows[0]["worker"],
            seconds=0.0,
        )


def recorded_verdict(row: Row, options: InteractSettings, shapings: Sequence[Shaping]) -> Verdict:
    """The verdict of a row: its numbers within their rounding, such that they give exactly the recorded reward.

    Reward and criteria move together, by a share of what float32 rounds away; the reward rises with it, so that
    halving finds the place. Coverage and the shape of a distribution are not recorded, and not learned from.

    Raises:
        ReplayError: no such verdict gives the recorded reward.
    """
    if row["reward"] is None:
        return Verdict(
            story_id=row["story_id"],
            status=VerdictStatus(row["status"]),
            reason=row["reason"],
            flags=tuple(row["flags"] or ()),
        )
    story = WrittenStory(row["text"], row["words"], row["ended"])
    highest = max(value for key, value in row.items() if key.startswith(SCORE) and value is not None)
    for levels in LEVELS:
        if highest > levels - 1:
            continue
        low, high, share = -1.0, 1.0, 0.0
        for _ in range(HALVINGS):
            verdict = _within_rounding(row, levels, share)
            found = float(story_rewards([verdict], [story], options.reward.weights, shapings)[0][0])
            if found == row["reward"]:
                return verdict
            if abs(found - row["reward"]) > ROUNDING:
                break  # another number of levels, or no verdict of this reward
            low, high = (share, high) if found < row["reward"] else (low, share)
            share = (low + high) / 2
    raise ReplayError(
        f"the recorded verdict of story {row['story_id']} does not give the recorded reward {row['reward']!r}; were "
        "the reward's settings in run.yaml changed, or the stories written by another version?"
    )


def _within_rounding(row: Row, levels: int, share: float) -> Verdict:
    """The verdict whose numbers lie `share` (-1..1) of half a float32 step away from the recorded ones."""

    def moved(value: float, top: float) -> float:
        return min(max(value + share * float(np.spacing(np.float32(value))) / 2, 0.0), top)

    scores = {
        key.removeprefix(SCORE): moved(value, levels - 1)
        for key, value in row.items()
        if key.startswith(SCORE) and value is not None
    }
    return Verdict(
        story_id=row["story_id"],
        status=VerdictStatus.OK,
        criteria={name: _around(mean, levels) for name, mean in scores.items()},
        total=row["total"],
        reward=moved(row["teacher_reward"], 1.0),
        coverage=1.0,
        flags=tuple(row["flags"] or ()),
    )


def _around(mean: float, levels: int) -> CriterionScore:
    low = min(math.floor(mean), levels - 2)
    probabilities = [0.0] * levels
    probabilities[low], probabilities[low + 1] = 1.0 - (mean - low), mean - low
    return CriterionScore.from_probabilities(probabilities)


def _shapings(options: InteractSettings) -> tuple[Shaping, ...]:
    """As `interact` shapes rewards."""
    reward = options.reward
    return (
        length_bonus(reward.length_weight, options.max_new_tokens),
        repetition_penalty(reward.repetition_weight),
        missing_end_penalty(reward.missing_end_weight),
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
