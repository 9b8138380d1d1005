"""The one thread that judges. HTTP requests and the queue worker both go through here, slice by slice."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from fabula_proto import Story, TeacherIdentity, Verdict, VerdictStatus
from services.teacher.judges.base import Judge, JudgeUnavailableError, judge_stories


class JudgeRoom:
    """Judges one slice of stories at a time on a thread of its own.

    A caller hands in its next slice when the last one is done, and slices are taken in order of arrival: with several
    callers the judge goes round them, so that a batch of a thousand stories delays a single story by one slice.
    """

    def __init__(self, judge: Judge, slice_stories: int) -> None:
        self._judge = judge
        self._slice_stories = slice_stories
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="judge")

    @property
    def identity(self) -> TeacherIdentity:
        """Who judges here."""
        return self._judge.identity

    async def judge_async(self, stories: Sequence[Story]) -> list[Verdict]:
        """One verdict a story, in order. A caller that goes away has no further slice judged.

        Raises:
            JudgeUnavailableError: nothing can be judged now.
        """
        verdicts: list[Verdict] = []
        for part in self._slices(stories):
            verdicts += await asyncio.wrap_future(self._thread.submit(self._judge_or_bisect, part))
        return verdicts

    def judge(self, stories: Sequence[Story]) -> list[Verdict]:
        """The same for a caller on a thread: blocks until all are judged.

        Raises:
            JudgeUnavailableError: nothing can be judged now.
        """
        verdicts: list[Verdict] = []
        for part in self._slices(stories):
            verdicts += self._thread.submit(self._judge_or_bisect, part).result()
        return verdicts

    def close(self) -> None:
        """Finish what is being judged, then stop the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _slices(self, stories: Sequence[Story]) -> Iterator[Sequence[Story]]:
        for start in range(0, len(stories), self._slice_stories):
            yield stories[start : start + self._slice_stories]

    def _judge_or_bisect(self, stories: Sequence[Story]) -> list[Verdict]:
        """Judge; where the judge breaks, halve until the story that breaks it stands alone, and fail that one."""
        try:
            return judge_stories(self._judge, stories)
        except JudgeUnavailableError:
            raise
        except (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
            if len(stories) == 1:
                reason = f"the judge broke on this story: {type(error).__name__}: {error}"[:500]
                return [Verdict(story_id=stories[0].id, status=VerdictStatus.FAILED, reason=reason)]
        middle = len(stories) // 2
        return self._judge_or_bisect(stories[:middle]) + self._judge_or_bisect(stories[middle:])
