"""What the API answers: runs, their checkpoints, metrics and stories."""

from typing import Any

from pydantic import Field

from fabula_proto import Alarm, EvaluationReport, PretrainMetrics, StepMetrics
from fabula_proto.base import Message


class RunSummary(Message):
    """A run as a line in a list."""

    run: str
    preset: str | None = None
    updated_at: float = Field(description="Time of the last change, seconds since 1970.")
    checkpoints: int = Field(ge=0, description="Complete checkpoints.")
    evaluations: int = Field(ge=0, description="Checkpoints with a report.")


class RunList(Message):
    """All runs, the one changed last first."""

    runs: tuple[RunSummary, ...]


class CheckpointInfo(Message):
    """A checkpoint folder."""

    checkpoint: str
    complete: bool = Field(description="Its manifest, which is written last, is there.")
    pretraining_words: int = Field(ge=0, description="As its name says; 0 where the name says nothing.")
    interaction_words: int = Field(ge=0)


class RunDetail(Message):
    """Everything about a run but its curves and stories."""

    run: str
    updated_at: float
    config: dict[str, Any] = Field(description="run.yaml as it is.")
    checkpoints: tuple[CheckpointInfo, ...] = Field(description="By words seen, then by words spent.")
    latest_pretrain: PretrainMetrics | None = None
    latest_step: StepMetrics | None = None
    reports: tuple[EvaluationReport, ...] = Field(description="In the order of the checkpoints.")
    unreadable: tuple[str, ...] = Field(default=(), description="Files that are there and cannot be read, and why.")


class RunMetrics(Message):
    """The curves, and what the guards raised."""

    run: str
    pretrain: tuple[PretrainMetrics, ...]
    interact: tuple[StepMetrics, ...]
    pretrain_lines: int = Field(ge=0, description="Lines there are, of which `pretrain` may be a part.")
    interact_lines: int = Field(ge=0)
    alarms: tuple[Alarm, ...] = Field(description="All of them, in the order in which they were raised.")
    paused: bool = Field(description="The run waits until its file PAUSED is removed.")
    unreadable_lines: int = Field(ge=0, description="Complete lines that are no metrics.")


class StoryRow(Message):
    """A story from the run's Parquet dataset. Numbers are none where there was no verdict."""

    index: int
    story_id: str
    policy_version: int
    prompt: str
    text: str
    words: int
    tokens: int
    ended: bool
    status: str
    total: float | None = None
    teacher_reward: float | None = None
    reward: float | None = None
    kl: float | None = None
    flags: tuple[str, ...] = ()
    reason: str | None = None
    criteria: dict[str, float] = Field(default_factory=dict, description="Mean level by criterion.")


class StoryPage(Message):
    """Some stories of one step."""

    run: str
    steps: tuple[int, ...] = Field(description="Steps that have stories, ascending.")
    step: int | None = Field(description="Step of these stories; none where the run has no stories.")
    total: int = Field(ge=0, description="Stories of this step.")
    offset: int = Field(ge=0)
    stories: tuple[StoryRow, ...]
    unreadable_parts: int = Field(default=0, ge=0, description="Parquet files that cannot be read, for now or at all.")


class WorkerInfo(Message):
    """The queue worker."""

    alive: bool
    working_on: str | None = Field(default=None, description="run/checkpoint in hand.")
    suite: str | None = None
    done: int = Field(default=0, ge=0)
    total: int = Field(default=0, ge=0)
    finished: int = Field(default=0, ge=0, description="Reports written since the start.")
    last_error: str | None = None


class EvaluatorInfo(Message):
    """What this evaluator measures, and with what."""

    version: str
    worker_name: str
    runs_dir: str
    suites: tuple[str, ...]
    eval_data: str = Field(description="Folder, or `generated` for the evaluator's own items.")
    teacher_url: str | None
    queue: WorkerInfo | None = Field(description="None where no queue was given.")


class Alive(Message):
    """The process serves."""

    status: str = "alive"


class Ready(Message):
    """Checkpoints are being measured, where there is a queue, and pages served."""

    status: str = "ready"
