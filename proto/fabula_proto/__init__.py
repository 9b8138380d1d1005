"""The messages that Fabula's services exchange. The models here are the source of truth for proto/schema."""

from fabula_proto.base import Message
from fabula_proto.batches import (
    CHECKPOINTS_STREAM,
    EVALUATORS_GROUP,
    REPORTS_STREAM,
    STORIES_STREAM,
    TEACHERS_GROUP,
    CheckpointReady,
    ScoredBatch,
    StoryBatch,
    scores_stream,
)
from fabula_proto.evaluations import (
    EvaluationJob,
    EvaluationJobs,
    EvaluationOrder,
    JobProgress,
    JobState,
)
from fabula_proto.metrics import PretrainMetrics, StepMetrics
from fabula_proto.problems import PROBLEM_MEDIA_TYPE, FieldError, Problem
from fabula_proto.reports import EvaluationReport, Measure, SampleStory, SuiteResult
from fabula_proto.verdicts import (
    CriterionScore,
    ScoreRequest,
    ScoreResponse,
    Story,
    StoryInput,
    TeacherIdentity,
    Verdict,
    VerdictStatus,
    stories_digest,
)
from fabula_proto.watching import Alarm, AlarmAction, CanaryCheck, HeldOutCheck, Watch

__all__ = [
    "CHECKPOINTS_STREAM",
    "EVALUATORS_GROUP",
    "PROBLEM_MEDIA_TYPE",
    "REPORTS_STREAM",
    "STORIES_STREAM",
    "TEACHERS_GROUP",
    "Alarm",
    "AlarmAction",
    "CanaryCheck",
    "CheckpointReady",
    "CriterionScore",
    "EvaluationJob",
    "EvaluationJobs",
    "EvaluationOrder",
    "EvaluationReport",
    "FieldError",
    "HeldOutCheck",
    "JobProgress",
    "JobState",
    "Measure",
    "Message",
    "PretrainMetrics",
    "Problem",
    "SampleStory",
    "ScoreRequest",
    "ScoreResponse",
    "ScoredBatch",
    "StepMetrics",
    "Story",
    "StoryBatch",
    "StoryInput",
    "SuiteResult",
    "TeacherIdentity",
    "Verdict",
    "VerdictStatus",
    "Watch",
    "scores_stream",
    "stories_digest",
]
