"""Evaluations that are asked for over HTTP."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from fabula_proto.base import Message
from fabula_proto.reports import SuiteResult

JobState = Literal["waiting", "running", "done", "failed", "cancelled"]


class EvaluationOrder(Message):
    """What `POST /evaluations` takes."""

    checkpoint: str = Field(
        min_length=1, description="`<run>/<checkpoint>` of the evaluator's runs, or a folder that it may read."
    )
    suites: tuple[str, ...] | None = Field(default=None, min_length=1, description="None: the evaluator's own choice.")
    data: str | None = Field(
        default=None, min_length=1, description="Evaluation data; none: the evaluator's own setting."
    )
    stories: int | None = Field(
        default=None, ge=1, description="Stories to write; none: the run's, or the evaluator's."
    )
    seed: int | None = Field(default=None, ge=0, description="None: the evaluator's own.")
    again: bool = Field(default=False, description="Measure suites anew that are finished with the same settings.")


class JobProgress(Message):
    """How far a running evaluation is."""

    suite: str = Field(description="`loading` before the first suite.")
    done: int = Field(ge=0)
    total: int = Field(ge=0, description="Items, stories or steps of the suite.")


class EvaluationJob(Message):
    """An evaluation that was asked for. `done` says that every suite has a result; each result says which."""

    id: str
    order: EvaluationOrder
    state: JobState
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    starts: int = Field(default=0, ge=0, description="How often it was begun; more than once after a worker died.")
    position: int | None = Field(default=None, ge=0, description="Evaluations before it, where it waits.")
    progress: JobProgress | None = Field(default=None, description="Where it runs in the process that was asked.")
    results: tuple[SuiteResult, ...] = Field(default=(), description="Finished suites; partial while it runs.")
    reason: str | None = Field(default=None, description="Why it failed.")
    report: str | None = Field(default=None, description="The report file, once it is done.")


class EvaluationJobs(Message):
    """Answer of `GET /evaluations`, the oldest first."""

    evaluations: tuple[EvaluationJob, ...]
