"""What `GET /info` and the probes say."""

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


class QueueInfo(Message):
    """State of the queue worker."""

    enabled: bool
    connected: bool
    batches: int
    stories: int
    reason: str | None = None


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
    )
