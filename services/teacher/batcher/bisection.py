"""A batch that breaks the judge is halved until the story that does it stands alone."""

import logging
from collections.abc import Sequence

from fabula_proto import Verdict, VerdictStatus
from services.teacher.judges.base import Asked, Judge, JudgeUnavailableError

log = logging.getLogger(__name__)


def judge_or_bisect(judge: Judge, asked: Sequence[Asked]) -> list[Verdict]:
    """One verdict a story, in order. A story that breaks the judge even when it is alone gets the verdict `failed`.

    For n stories of which k break it, the judge is called at most 1 + 2 k ceil(log2 n) times.

    Raises:
        JudgeUnavailableError: nothing can be judged now.
    """
    try:
        return _in_order(judge.judge(asked), asked)
    except JudgeUnavailableError:
        raise
    except (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
        told = f"{type(error).__name__}: {error}"
        log.warning("the judge broke on %d stories: %s", len(asked), told, exc_info=len(asked) == 1)
        if len(asked) == 1:
            reason = f"the judge broke on this story: {told}"[:500]
            return [Verdict(story_id=asked[0].story.id, status=VerdictStatus.FAILED, reason=reason)]
    middle = len(asked) // 2
    return judge_or_bisect(judge, asked[:middle]) + judge_or_bisect(judge, asked[middle:])


def _in_order(verdicts: list[Verdict], asked: Sequence[Asked]) -> list[Verdict]:
    """The verdicts, if there is one a story and in order: a judge that mixes them up breaks like any other."""
    if len(verdicts) != len(asked):
        raise ValueError(f"the judge gave {len(verdicts)} verdicts for {len(asked)} stories")
    for verdict, item in zip(verdicts, asked, strict=True):
        if verdict.story_id != item.story.id:
            raise ValueError(f"the judge gave a verdict of {verdict.story_id!r} where {item.story.id!r} was due")
    return verdicts
