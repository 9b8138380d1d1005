"""An audit from the first question to the report."""

from collections.abc import Callable, Sequence
from functools import partial

from fabula_proto import Story, TeacherIdentity, Verdict
from services.teacher.audit.plan import plan
from services.teacher.audit.report import AuditReport, summarise
from services.teacher.judges.base import Judge, judge_stories
from services.teacher.rubric import Criterion

Score = Callable[[Sequence[Story]], Sequence[Verdict]]
Progress = Callable[[int, int], None]
CHUNK = 64


def run(
    score: Score,
    teacher: TeacherIdentity,
    criteria: Sequence[Criterion],
    *,
    seed: int = 0,
    quick: bool = False,
    chunk: int = CHUNK,
    progress: Progress | None = None,
) -> AuditReport:
    """Audit any teacher.

    Args:
        score: one verdict for each of at most `chunk` stories, in order. What it raises ends the audit.
        teacher: who judges.
        criteria: the rubric's, which some attacks quote.
        seed: of the attacks' random choices and of the bootstrap.
        quick: 6 base stories in place of 20.
        progress: called with stories judged and stories in all, after each chunk.
    """
    planned = plan(criteria, seed=seed, quick=quick)
    stories = planned.stories
    verdicts: list[Verdict] = []
    for start in range(0, len(stories), chunk):
        verdicts += score(stories[start : start + chunk])
        if progress is not None:
            progress(len(verdicts), len(stories))
    return summarise(planned, verdicts, teacher)


def scorer(judge: Judge) -> Score:
    """`score` for a judge in this process that nobody else uses. Put it behind the screen first: ScreenedJudge."""
    return partial(judge_stories, judge)
