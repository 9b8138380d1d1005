"""What `GET /info` and the probes say."""

from typing import Annotated, Literal

from pydantic import Field

from fabula_proto import Message, TeacherIdentity
from services.teacher.rubric import Rubric
from services.teacher.settings import TeacherSettings


class Ready(Message):
    """Answer of a probe that is content."""

    ready: bool = True


class Alive(Message):
    """Answer of /livez: the process serves."""

    alive: bool = True


class CriterionInfo(Message):
    """One criterion of the loaded rubric."""

    name: str
    question: str
    levels: tuple[str, ...]
    weight: float


class RubricInfo(Message):
    """The loaded rubric: pages that show verdicts follow it."""

    name: str
    version: str
    hash: str
    max_total: int
    criteria: tuple[CriterionInfo, ...]


class Limits(Message):
    """What a request may hold."""

    max_stories: int
    max_story_chars: int
    max_body_bytes: int
    batch_tokens: int
    batch_stories: int
    queued_tokens: int


class QueueInfo(Message):
    """State of the queue worker."""

    enabled: bool
    connected: bool
    batches: int
    stories: int
    reason: str | None = None


class TeacherEntry(Message):
    """One teacher that can be asked for by name."""

    name: str
    judge: str
    rubric: str
    state: Literal["idle", "building", "ready", "failed"]
    reason: str | None
    identity: TeacherIdentity | None
    notes: tuple[str, ...]


class Teachers(Message):
    """Who can be asked for with `?teacher=NAME` or `teachers`; one that is idle is built when it is asked for."""

    teachers: tuple[TeacherEntry, ...]
    ensembles: dict[str, tuple[str, ...]]
    problem: str | None = Field(default=None, description="Why a change of the teachers file was not taken over.")


class RunTeachers(Message):
    """Who judges a run's stories from the queue. Nobody named: the own teacher of each service."""

    teachers: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(default=(), max_length=16)


class RunTeachersAnswer(RunTeachers):
    """Who judges a run from its next batch on; the identity is what its verdicts will name."""

    run: str
    identity: TeacherIdentity | None


class FlagSpan(Message):
    """A place in a story that looks like an attempt to please the judge."""

    name: str
    start: int = Field(ge=0, description="First character, counted in Unicode code points.")
    end: int = Field(ge=0, description="One past the last character.")


class InspectRequest(Message):
    """Body of POST /inspect."""

    text: str
    teachers: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(default=(), max_length=16)


class Inspection(Message):
    """What a teacher reads when it judges a story. Nothing is judged for it."""

    prompts: dict[str, tuple[str, ...]] = Field(
        description="Per teacher, the exact texts that its model reads, control tokens written out; none where no "
        "model is asked: the rules judge, or a story that is 0 or refused without one."
    )
    flags: tuple[FlagSpan, ...] = Field(description="Where the story raises which flag.")


class TeacherInfo(Message):
    """Answer of /info."""

    service: str = "teacher"
    version: str
    worker: str
    ready: bool
    reason: str | None
    teacher: str
    identity: TeacherIdentity | None
    notes: tuple[str, ...]
    rubric: RubricInfo
    limits: Limits
    queue: QueueInfo
    teachers: Teachers


def rubric_info(rubric: Rubric) -> RubricInfo:
    """The rubric as /info shows it."""
    criteria = tuple(
        CriterionInfo(name=c.name, question=c.question, levels=c.levels, weight=c.weight) for c in rubric.criteria
    )
    return RubricInfo(
        name=rubric.name,
        version=rubric.version,
        hash=rubric.hash,
        max_total=len(criteria) * (rubric.levels - 1),
        criteria=criteria,
    )


def limits(settings: TeacherSettings) -> Limits:
    """The limits as /info shows them."""
    return Limits(
        max_stories=settings.max_stories,
        max_story_chars=settings.max_story_chars,
        max_body_bytes=settings.max_body_bytes,
        batch_tokens=settings.batch_tokens,
        batch_stories=settings.batch_stories,
        queued_tokens=settings.queued_tokens,
    )
