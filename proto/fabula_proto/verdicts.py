"""Stories and what a teacher says of them."""

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from math import isclose, log
from typing import Annotated, Self

from pydantic import Field, model_validator

from fabula_proto.base import Message

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PROBABILITY_TOLERANCE = 1e-4


class Story(Message):
    """A story as it is sent to a teacher. The teacher judges `text` alone; `prompt` is what the student was given."""

    id: str = Field(min_length=1, max_length=200, description="Unique within its request or batch.")
    prompt: str = Field(default="", description="What the student was asked to continue; not judged.")
    text: str = Field(description="The student's own words, without the prompt. May be empty: that scores 0.")


class StoryInput(Message):
    """A story in a request: `id` may be left out, then its position in the list is its id."""

    id: str | None = Field(default=None, min_length=1, max_length=200)
    prompt: str = ""
    text: str


class TeacherIdentity(Message):
    """Who judged. Two verdicts are comparable only where these agree; it is part of every cache key."""

    backend: str = Field(description="Kind of judge: rules, transformers, tgi, ...")
    model: str = Field(description="Model name or path; for the rules judge, the name of its rule set.")
    revision: str = Field(description="Model revision or content hash of the rule set.")
    rubric: str = Field(description="Name of the rubric.")
    rubric_version: str
    rubric_hash: str = Field(description="First 12 hexadecimal digits of the SHA-256 of the rubric's canonical form.")
    mode: str = Field(description="How numbers are obtained: rules, joint, independent, sample or ensemble.")


class VerdictStatus(StrEnum):
    """`ok` alone carries numbers. `failed`: the teacher could not judge. `refused`: it will not judge this story."""

    OK = "ok"
    FAILED = "failed"
    REFUSED = "refused"


class CriterionScore(Message):
    """One criterion's distribution over the rubric's levels 0..L-1 (L = 4 in the paper's rubric)."""

    probabilities: tuple[Probability, ...] = Field(min_length=2, description="P(level) for level 0, 1, ..., L-1.")
    mean: float = Field(ge=0.0, description="Expected level, in 0..L-1.")
    mode: int = Field(ge=0, description="Most probable level; the lower one of a tie.")
    entropy: float = Field(ge=0.0, description="Entropy of the probabilities in nats, 0..ln L: the teacher's doubt.")
    halo: Probability | None = Field(
        default=None,
        description="Share of this criterion's entropy that knowing the other criteria's levels would remove: mutual "
        "information over entropy, from the joint distribution. None where the teacher has no joint one.",
    )
    disagreement: float | None = Field(
        default=None, ge=0.0, description="Standard deviation of the members' means, in levels; ensembles only."
    )

    @model_validator(mode="after")
    def _is_a_distribution(self) -> Self:
        total = sum(self.probabilities)
        if not isclose(total, 1.0, abs_tol=PROBABILITY_TOLERANCE):
            raise ValueError(f"probabilities sum to {total:.6f}; a distribution over levels sums to 1")
        expectation = sum(level * p for level, p in enumerate(self.probabilities))
        if not isclose(self.mean, expectation, abs_tol=10 * PROBABILITY_TOLERANCE):
            raise ValueError(f"mean {self.mean:.6f} is not the expectation {expectation:.6f} of its probabilities")
        return self

    @classmethod
    def from_probabilities(
        cls, probabilities: Sequence[float], *, halo: float | None = None, disagreement: float | None = None
    ) -> Self:
        """Normalise `probabilities` (non-negative, length L, positive sum) and take mean, mode and entropy.

        Raises:
            ValueError: the weights cannot be normalised.
        """
        weights = [float(p) for p in probabilities]
        total = sum(weights)
        if not total > 0.0 or min(weights) < 0.0:
            raise ValueError(f"probabilities {weights} cannot be normalised; expected non-negative with a positive sum")
        normalised = tuple(p / total for p in weights)
        mean = sum(level * p for level, p in enumerate(normalised))
        return cls(
            probabilities=normalised,
            mean=mean,
            mode=normalised.index(max(normalised)),
            entropy=max(0.0, -sum(p * log(p) for p in normalised if p > 0.0)),
            halo=halo,
            disagreement=disagreement,
        )


class Verdict(Message):
    """A teacher's answer for one story. A failure is never a number: only `ok` has criteria, total and reward."""

    story_id: str
    status: VerdictStatus
    criteria: dict[str, CriterionScore] | None = Field(default=None, description="Keyed by criterion, in rubric order.")
    total: float | None = Field(default=None, ge=0.0, description="Sum of the criteria's means (paper's rubric: 0-9).")
    reward: Probability | None = Field(default=None, description="Weighted criteria scaled to 0..1.")
    coverage: Probability | None = Field(
        default=None, description="Probability mass the judge put on valid answers before normalising; rules: 1."
    )
    flags: tuple[str, ...] = Field(default=(), description="What looks like an attempt to please the judge.")
    reason: str | None = Field(default=None, description="Why there are no numbers; only on failed and refused.")
    members: dict[str, float] | None = Field(
        default=None, description="An ensemble's teachers by name, each with its own total; None for a single teacher."
    )
    cached: bool = Field(default=False, description="Whether these numbers were remembered from an earlier request.")

    @model_validator(mode="after")
    def _numbers_iff_ok(self) -> Self:
        numbers = (self.criteria, self.total, self.reward, self.coverage)
        if self.status is VerdictStatus.OK:
            if any(n is None for n in numbers) or not self.criteria:
                raise ValueError("an ok verdict carries criteria, total, reward and coverage")
            if self.reason is not None:
                raise ValueError("an ok verdict has no reason; reasons explain missing numbers")
        elif any(n is not None for n in numbers):
            raise ValueError(f"a {self.status.value} verdict carries no numbers")
        elif not self.reason:
            raise ValueError(f"a {self.status.value} verdict says its reason")
        return self


def duplicate_ids(stories: Sequence[Story]) -> list[str]:
    """Ids that occur more than once, sorted."""
    ids = sorted(story.id for story in stories)
    return sorted({a for a, b in pairwise(ids) if a == b})


def stories_digest(stories: Sequence[Story], asked: str = "") -> str:
    """16 hexadecimal digits over ids, prompts and texts in order: says whether two batches hold the same stories.

    `asked` says what is wanted of them; where it is given, it counts.
    """
    digest = hashlib.sha256()
    for story in stories:
        for part in (story.id, story.prompt, story.text):
            encoded = part.encode("utf-8", errors="surrogatepass")
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
    digest.update(asked.encode("utf-8", errors="surrogatepass"))
    return digest.hexdigest()[:16]


class ScoreRequest(Message):
    """Body of `POST /score`: stories as plain strings or as objects with `text` and, if wanted, `id` and `prompt`."""

    stories: tuple[str | StoryInput, ...] = Field(min_length=1)
    teachers: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        default=(),
        max_length=16,
        description="Names of teachers: one judges alone, several as an ensemble. Left out: the service's own.",
    )

    def as_stories(self) -> tuple[Story, ...]:
        """The stories with ids filled in: a story without one gets its position, `"0"`, `"1"`, ...

        Raises:
            ValueError: two stories have the same id.
        """
        stories = tuple(
            Story(id=str(i), text=item)
            if isinstance(item, str)
            else Story(id=item.id if item.id is not None else str(i), prompt=item.prompt, text=item.text)
            for i, item in enumerate(self.stories)
        )
        if repeated := duplicate_ids(stories):
            raise ValueError(f"story ids {repeated} occur more than once; give each story an id of its own or none")
        return stories


class ScoreResponse(Message):
    """Answer of `POST /score`: one verdict a story, in the order of the request, and who gave them."""

    verdicts: tuple[Verdict, ...]
    teacher: TeacherIdentity
    members: dict[str, TeacherIdentity] = Field(
        default_factory=dict, description="An ensemble's teachers by name; empty for a single teacher."
    )
