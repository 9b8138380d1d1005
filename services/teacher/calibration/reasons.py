"""Why stories have no numbers."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from fabula_proto import Message, Verdict, VerdictStatus


class Reason(Message):
    """The most frequent reason among the stories of one side that failed, or that were refused."""

    status: Literal[VerdictStatus.FAILED, VerdictStatus.REFUSED]
    reason: str
    stories: int = Field(ge=1, description="How many have this reason.")

    def __str__(self) -> str:
        return f"{self.status.value}, most often ({self.stories}): {self.reason}"


def reasons(verdicts: Sequence[Verdict | None]) -> tuple[Reason, ...]:
    """The most frequent reason of each kind of verdict without numbers; none where there is no such verdict."""
    found: list[Reason] = []
    for status in (VerdictStatus.FAILED, VerdictStatus.REFUSED):
        given = Counter(v.reason for v in verdicts if v is not None and v.status is status and v.reason)
        found += [Reason(status=status, reason=reason, stories=count) for reason, count in given.most_common(1)]
    return tuple(found)
