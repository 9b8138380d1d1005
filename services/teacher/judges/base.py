"""What every judge is: an identity, and verdicts for stories."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from fabula_proto import Story, TeacherIdentity, Verdict


class JudgeUnavailableError(RuntimeError):
    """A judge cannot be built or used; the message says why and what to do."""


class Judge(Protocol):
    """Judges stories by a rubric. Called from one thread at a time."""

    @property
    def identity(self) -> TeacherIdentity:
        """Who judges: stays the same for the life of the judge."""
        ...

    def judge(self, stories: Sequence[Story]) -> list[Verdict]:
        """One verdict a story, in order. One bad story never spoils another's: its verdict is failed or refused.

        Raises:
            JudgeUnavailableError: nothing can be judged now (the model is gone, the server is down).
        """
        ...


@runtime_checkable
class Noted(Protocol):
    """A judge that has something to say about itself, shown in /info."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the reader of /info, such as a warning that the model looks untrained."""
        ...
