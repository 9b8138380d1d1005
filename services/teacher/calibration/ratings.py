"""Stories that people rated: the file format of `fabula teacher calibrate`, which HANNA (Chhun et al. 2022) fits."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fabula_proto import CriterionScore, Story, TeacherIdentity, Verdict, VerdictStatus

Half = Literal["tune", "test"]
Ratings = tuple[float, ...]
HUMAN = "human"
LEVELS = 4  # the paper's rubric: ratings that are compared with verdicts are put on 0..3


class RatingsError(ValueError):
    """A file holds no ratings; the message says where and how to mend it."""


class Rated(BaseModel):
    """A story with people's ratings, and those of language models where there are some. Other keys are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, coerce_numbers_to_str=True)

    story_id: str = Field(min_length=1, max_length=200)
    text: str = Field(validation_alias=AliasChoices("text", "story"))
    prompt: str = ""
    system: str | None = Field(default=None, description="Who wrote the story.")
    scale: tuple[float, float] = Field(default=(1.0, 5.0), description="Lowest and highest rating.")
    human: dict[str, Ratings] = Field(min_length=1, description="Criterion -> one rating a rater.")
    llm: dict[str, dict[str, float | Ratings]] = Field(
        default_factory=dict,
        description="Judge -> criterion -> a rating or several. One outside the scale is a failed one and left out: "
        "HANNA's judges have -1 for an answer that could not be read, averaged with others.",
    )

    @model_validator(mode="after")
    def _people_keep_to_the_scale(self) -> Self:
        low, high = self.scale
        if not low < high:
            raise ValueError(f"scale {list(self.scale)} does not rise; expected [lowest, highest]")
        for criterion, given in self.human.items():
            if not given or not all(low <= rating <= high for rating in given):
                raise ValueError(f"human ratings {list(given)} of {criterion}; expected one or more in {low}..{high}")
        return self

    @property
    def words(self) -> int:
        """Whitespace-separated words of the story."""
        return len(self.text.split())

    @property
    def story(self) -> Story:
        """The story as a teacher is sent it."""
        return Story(id=self.story_id, prompt=self.prompt, text=self.text)

    def mean(self, judge: str, criterion: str) -> float | None:
        """Mean rating of a criterion by people (`human`) or by a language model; None where it has none."""
        if judge == HUMAN:
            given: float | Ratings | None = self.human.get(criterion)
        else:
            given = self.llm.get(judge, {}).get(criterion)
        if given is None:
            return None
        low, high = self.scale
        valid = [r for r in ((given,) if isinstance(given, float) else given) if low <= r <= high]
        return fmean(valid) if valid else None

    def verdict(self, judge: str, criteria: Sequence[str]) -> Verdict:
        """A judge's ratings as a verdict over LEVELS levels; `failed` where one of `criteria` has no valid rating.

        A mean between two levels becomes probabilities of these two, with the same mean. Total and reward are over all
        of `criteria`, each of equal weight.
        """
        low, high = self.scale
        top = LEVELS - 1
        scores: dict[str, CriterionScore] = {}
        for criterion in criteria:
            if (mean := self.mean(judge, criterion)) is None:
                reason = f"{judge} gave no rating of {criterion} within {low}..{high}"
                return Verdict(story_id=self.story_id, status=VerdictStatus.FAILED, reason=reason)
            level = (mean - low) / (high - low) * top
            nearness = [max(0.0, 1.0 - abs(level - whole)) for whole in range(LEVELS)]
            scores[criterion] = CriterionScore.from_probabilities(nearness)
        total = math.fsum(score.mean for score in scores.values())
        return Verdict(
            story_id=self.story_id,
            status=VerdictStatus.OK,
            criteria=scores,
            total=total,
            reward=min(1.0, total / (top * len(scores))),
            coverage=1.0,
        )


def half(prompt: str) -> Half:
    """`tune` or `test`, by the parity of the prompt's SHA-256. The rules judge was fitted by looking at `tune` only."""
    return "tune" if int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 2 == 0 else "test"


def read_ratings(path: Path) -> list[Rated]:
    """Every story of a JSON Lines file.

    Raises:
        RatingsError: the file cannot be read, is empty, has a line that is no rated story, or an id twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RatingsError(f"ratings {str(path)!r} cannot be read: {error}; expected JSON Lines in UTF-8") from error
    found: dict[str, Rated] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rated = Rated.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            wrong = f"{where}: {first['msg'].removeprefix('Value error, ')}".removeprefix(": ")
            raise RatingsError(f"{path}:{number} is no rated story ({wrong}); see docs/calibration.md") from error
        if rated.story_id in found:
            raise RatingsError(f"{path}:{number} has story_id {rated.story_id!r} again; give each story its own")
        found[rated.story_id] = rated
    if not found:
        raise RatingsError(f"ratings {str(path)!r} hold no story; expected one a line")
    return list(found.values())


def judges_of(rated: Sequence[Rated]) -> list[str]:
    """The language models that rated, in order of first appearance."""
    return list(dict.fromkeys(judge for row in rated for judge in row.llm))


def criteria_of(rated: Sequence[Rated], judge: str = HUMAN) -> list[str]:
    """The criteria that people, or a language model, rated, in order of first appearance."""
    given: list[Mapping[str, object]] = [row.human if judge == HUMAN else row.llm.get(judge, {}) for row in rated]
    return list(dict.fromkeys(criterion for row in given for criterion in row))


def rater_identity(name: str, judge: str, criteria: Sequence[str]) -> TeacherIdentity:
    """Whose ratings they are, in the form that a teacher has. `name`: the file's name."""
    return TeacherIdentity(
        backend="ratings",
        model=judge,
        revision=name,
        rubric=name,
        rubric_version="1",
        rubric_hash=hashlib.sha256("\n".join(criteria).encode()).hexdigest()[:12],
        mode="ratings",
    )
