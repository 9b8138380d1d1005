"""An audit from the first question to the report."""

from collections.abc import Callable, Sequence

from fabula_proto import Story, TeacherIdentity, Verdict
from services.teacher.audit.plan import plan
from services.teacher.audit.report import AuditReport, summarise
from services.teacher.judges.base import Judge, judge_stories
from services.teacher.rubric import Criterion

Score = Callable[[Sequence[str]], Sequence[Verdict]]
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
        score: one verdict for each of at most `chunk` texts, in order. What it raises ends the audit.
        teacher: who judges.
        criteria: the rubric's, which some attacks quote.
        seed: of the attacks' random choices and of the bootstrap.
        quick: 6 base stories in place of 20.
        progress: called with texts judged and texts in all, after each chunk.
    """
    planned = plan(criteria, seed=seed, quick=quick)
    texts = planned.texts
    verdicts: list[Verdict] = []
    for start in range(0, len(texts), chunk):
        verdicts += score(texts[start : start + chunk])
        if progress is not None:
            progress(len(verdicts), len(texts))
    return summarise(planned, verdicts, teacher)


def scorer(judge: Judge) -> Score:
    """`score` for a judge in this process that nobody else uses. Put it behind the screen first: ScreenedJudge."""

    def score(texts: Sequence[str]) -> list[Verdict]:
        return judge_stories(judge, [Story(id=str(i), text=text) for i, text in enumerate(texts)])

    return score
