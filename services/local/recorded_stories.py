"""The stories that a run recorded, with the verdicts that it learned from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fabula_proto import CriterionScore, Story, TeacherIdentity, Verdict, VerdictStatus
from services.local.errors import CommandError

IDENTITY = tuple(TeacherIdentity.model_fields)
SCORE = "score_"


@dataclass(frozen=True)
class RecordedStory:
    """A row of stories/part-*.parquet."""

    fields: Mapping[str, Any]

    @property
    def step(self) -> int:
        """The update that learned from it."""
        return int(self.fields["step"])

    @property
    def story(self) -> Story:
        """What the teacher was given."""
        return Story(id=self.fields["story_id"], prompt=self.fields["prompt"], text=self.fields["text"])

    @property
    def teacher(self) -> TeacherIdentity:
        """Who judged it."""
        return TeacherIdentity(**{name: self.fields[f"teacher_{name}"] for name in IDENTITY})

    def verdict(self, levels: Mapping[str, int]) -> Verdict:
        """What the run recorded. Of a criterion that is the mean: its distribution is put on the two levels around it.

        Coverage is not recorded, and nothing here reads it.
        """
        fields = self.fields
        status = VerdictStatus(fields["status"])
        if status is not VerdictStatus.OK:
            return Verdict(story_id=fields["story_id"], status=status, reason=fields["reason"])
        means = {
            key.removeprefix(SCORE): mean for key, mean in fields.items() if key.startswith(SCORE) and mean is not None
        }
        return Verdict(
            story_id=fields["story_id"],
            status=status,
            criteria={name: _around(mean, levels.get(name, 0)) for name, mean in means.items()},
            total=fields["total"],
            reward=fields["teacher_reward"],
            coverage=1.0,
            flags=tuple(fields["flags"] or ()),
        )


def read_recorded(folder: Path) -> list[RecordedStory]:
    """All of a run's recorded stories in order.

    Raises:
        CommandError: there are none, or a file cannot be read.
    """
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise CommandError(
            f"{folder} holds no part-*.parquet: the run has no judged stories yet; let it interact first"
        )
    rows: list[RecordedStory] = []
    for part in parts:
        try:
            found = [RecordedStory(fields) for fields in pq.read_table(part).to_pylist()]
            rows += sorted(found, key=lambda row: (row.fields["step"], row.fields["index"]))
        except (OSError, KeyError, pa.ArrowException) as error:
            raise CommandError(f"{part} cannot be read ({error}); expected a run's stories", exit_code=1) from error
    return rows


def _around(mean: float, levels: int) -> CriterionScore:
    """A distribution with this mean on the two levels next to it, of at least `levels` levels."""
    low = int(mean)
    probabilities = [0.0] * max(levels, low + 1 + (mean > low), 2)
    probabilities[low] = 1.0 - (mean - low)
    if mean > low:
        probabilities[low + 1] = mean - low
    return CriterionScore.from_probabilities(probabilities)
