"""What travels over the queue: stories out, verdicts back, checkpoints announced."""

from typing import Literal, Self

from pydantic import Field, model_validator

from fabula_proto.base import Message
from fabula_proto.verdicts import Story, TeacherIdentity, Verdict, duplicate_ids, stories_digest

STORIES_STREAM = "fabula:stories"
CHECKPOINTS_STREAM = "fabula:checkpoints"
REPORTS_STREAM = "fabula:reports"
TEACHERS_GROUP = "teachers"
EVALUATORS_GROUP = "evaluators"


def scores_stream(run: str) -> str:
    """Name of the stream on which the verdicts of `run` come back."""
    return f"fabula:scores:{run}"


class StoryBatch(Message):
    """One chunk of one step's stories, asking for verdicts."""

    run: str = Field(min_length=1)
    step: int = Field(ge=0, description="Update that will learn from these stories, from 0.")
    chunk: int = Field(ge=0, description="Position among the step's chunks, from 0.")
    chunks: int = Field(ge=1, description="How many chunks the step has.")
    policy_version: int = Field(ge=0, description="Number of updates the writing policy had seen.")
    stories: tuple[Story, ...] = Field(min_length=1)
    request_id: str | None = Field(
        default=None, min_length=1, max_length=128, description="Names this work in every service's log."
    )
    teacher: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Name of the teacher that shall judge, see GET /teachers; none: the run's, else the service's own.",
    )
    fresh: bool = Field(default=False, description="Judge anew: no verdict that is remembered from before will do.")

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        if repeated := duplicate_ids(self.stories):
            raise ValueError(f"story ids {repeated} occur more than once in batch {self.run}/{self.step}/{self.chunk}")
        return self

    @property
    def digest(self) -> str:
        """Identifies what is asked: the stories, and who shall judge them where the batch says so.

        Verdicts of another text, or of another teacher than was named, are never taken for these.
        """
        asked = f"{self.teacher or ''}{' fresh' if self.fresh else ''}"
        return stories_digest(self.stories, asked)

    @property
    def key(self) -> str:
        """Identifies the work: a second delivery has the same key, and its result is dropped."""
        return f"{self.run}/{self.step}/{self.chunk}/{self.digest}"


class ScoredBatch(Message):
    """The verdicts for one StoryBatch, in its order."""

    run: str
    step: int = Field(ge=0)
    chunk: int = Field(ge=0)
    digest: str = Field(description="`StoryBatch.digest` of the batch that was judged.")
    verdicts: tuple[Verdict, ...] = Field(min_length=1)
    teacher: TeacherIdentity
    worker: str = Field(description="Name of the teacher process that judged.")
    seconds: float = Field(ge=0.0, description="Time from taking the batch to having its verdicts, waiting included.")
    request_id: str | None = Field(default=None, description="`StoryBatch.request_id`, as it came.")


class CheckpointReady(Message):
    """A checkpoint is complete on disk and may be measured."""

    run: str
    checkpoint: str = Field(description="Its name, such as chck_90M or chck_90M_rl_100k.")
    path: str = Field(description="Folder that `AutoModelForCausalLM.from_pretrained` loads; seen by every service.")
    stage: Literal["pretrain", "interact"]
    pretraining_words: int = Field(ge=0, description="Words seen in next-word prediction, repetitions counted.")
    interaction_words: int = Field(ge=0, description="Words of input spent in interaction, by the ledger.")

    @property
    def key(self) -> str:
        """Identifies the work for idempotent results."""
        return f"{self.run}/{self.checkpoint}"
