"""Rubrics: what is judged, in versioned YAML. The paper's (arXiv 2509.15714, section on the teacher) is the default."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fabula_proto import CriterionScore, Verdict, VerdictStatus

DEFAULT_RUBRIC = "paper"


class RubricError(ValueError):
    """A rubric file is missing or is not a rubric; the message says what and how to mend it."""


class Criterion(BaseModel):
    """One thing to judge, with a description for each level 0..L-1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z_]*$")
    question: str = Field(min_length=1)
    levels: tuple[str, ...] = Field(min_length=2, max_length=10)
    weight: float = Field(default=1.0, gt=0.0)


class Rubric(BaseModel):
    """A versioned rubric. Whatever can change a verdict is in it; its hash is part of the identity.

    `instructions` and `reminder` name neither the criteria nor their number: a prompt may hold a single criterion, and
    how to answer is added to it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    instructions: str = Field(min_length=1)
    reminder: str = Field(min_length=1, description="Said again after the story.")
    criteria: tuple[Criterion, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _criteria_agree(self) -> Self:
        names = [c.name for c in self.criteria]
        if len(set(names)) < len(names):
            raise ValueError(f"criteria {names} must have different names")
        sizes = {c.name: len(c.levels) for c in self.criteria}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"criteria must have the same number of levels, found {sizes}")
        return self

    @property
    def levels(self) -> int:
        """L, the number of levels of every criterion (4 in the paper's rubric)."""
        return len(self.criteria[0].levels)

    @property
    def hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the canonical JSON form."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def split(self) -> tuple[Self, ...]:
        """One rubric a criterion, all else the same: what is asked where each criterion is judged alone."""
        return tuple(self.model_copy(update={"criteria": (criterion,)}) for criterion in self.criteria)

    def total(self, criteria: Mapping[str, CriterionScore]) -> float:
        """Sum of the criteria's means, 0..C*(L-1): what the paper reports as the story score (0-9)."""
        return sum(criteria[c.name].mean for c in self.criteria)

    def reward(self, criteria: Mapping[str, CriterionScore]) -> float:
        """Weighted mean of the criteria's means, scaled to 0..1; with equal weights, total / (C*(L-1))."""
        weight = sum(c.weight for c in self.criteria)
        value = sum(c.weight * criteria[c.name].mean for c in self.criteria) / (weight * (self.levels - 1))
        return min(1.0, max(0.0, value))

    def verdict(
        self,
        story_id: str,
        probabilities: Mapping[str, Sequence[float]],
        *,
        coverage: float = 1.0,
        flags: Sequence[str] = (),
        halo: Mapping[str, float] | None = None,
    ) -> Verdict:
        """An ok verdict from one distribution over levels (length L) for each criterion."""
        leaning = halo or {}
        criteria = {
            c.name: CriterionScore.from_probabilities(probabilities[c.name], halo=leaning.get(c.name))
            for c in self.criteria
        }
        return Verdict(
            story_id=story_id,
            status=VerdictStatus.OK,
            criteria=criteria,
            total=self.total(criteria),
            reward=self.reward(criteria),
            coverage=min(1.0, max(0.0, coverage)),
            flags=tuple(flags),
        )

    def zero_verdict(self, story_id: str, *, flags: Sequence[str] = ()) -> Verdict:
        """All criteria at level 0 for certain: the rubric's answer to an empty or sub-sentence story."""
        certain = [1.0] + [0.0] * (self.levels - 1)
        return self.verdict(story_id, {c.name: certain for c in self.criteria}, flags=flags)


def _shipped() -> dict[str, Traversable]:
    folder = resources.files("services.teacher").joinpath("rubrics")
    return {file.name.removesuffix(".yaml"): file for file in folder.iterdir()}


def rubric_beside(name_or_path: str, folder: Path) -> str:
    """The rubric that a file in `folder` names: one that ships stays a name, a path begins in `folder`."""
    if name_or_path in _shipped():
        return name_or_path
    return str(folder / Path(name_or_path).expanduser())


def load_rubric(name_or_path: str = DEFAULT_RUBRIC) -> Rubric:
    """Load a rubric that ships with the teacher by its name, or any rubric by the path of its YAML file.

    Raises:
        RubricError: there is no such rubric, or it is malformed.
    """
    shipped = _shipped()
    if name_or_path in shipped:
        text = shipped[name_or_path].read_text(encoding="utf-8")
    else:
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            names = ", ".join(sorted(shipped))
            message = (
                f"rubric {name_or_path!r} cannot be read ({error}); give one of {names} or the path of a YAML file"
            )
            raise RubricError(message) from error
    try:
        return Rubric.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError) as error:
        raise RubricError(f"rubric {name_or_path!r} is not a rubric: {error}") from error
