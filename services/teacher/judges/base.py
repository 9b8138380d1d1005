"""What every judge is: an identity, a way to make a story ready, and verdicts for stories that are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from fabula_proto import Story, TeacherIdentity, Verdict


class JudgeUnavailableError(RuntimeError):
    """A judge cannot be built or used; the message says why and what to do.

    `passing`: it may work later without anybody's help, as when a server is still loading its model.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True)
class Asked:
    """A story made ready to be judged: tokenised, and known to fit."""

    story: Story
    tokens: int  # what it costs the judge, at least 1: tokens of its own prompt, shared prefix not counted
    payload: Any = None  # what the judge made of it, such as token ids; only the judge looks inside


class Judge(Protocol):
    """Judges stories by a rubric."""

    @property
    def identity(self) -> TeacherIdentity:
        """Who judges: stays the same for the life of the judge."""
        ...

    @property
    def lanes(self) -> int:
        """How many calls of `judge` may run at once: 1 for a model in this process, more where a server batches."""
        ...

    def prepare(self, story: Story) -> Asked | Verdict:
        """The story made ready, or the verdict `refused` or `failed` that it gets without being judged.

        May be called from any thread, at the same time as `judge`.
        """
        ...

    def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        """One verdict a story, in order. One bad story never spoils another's: its verdict is failed or refused.

        Called from `lanes` threads at most.

        Raises:
            JudgeUnavailableError: nothing can be judged now (the model is gone, the server is down).
        """
        ...

    def close(self) -> None:
        """Let go of connections and memory. No call follows."""
        ...


@runtime_checkable
class Noted(Protocol):
    """A judge that has something to say about itself, shown in /info."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the reader of /info, such as a warning that the model looks untrained."""
        ...


@runtime_checkable
class Prompting(Protocol):
    """A judge that asks a language model, and can show what it asks."""

    def prompts(self, story: Story) -> tuple[str, ...]:
        """The exact texts that the model reads for this story, one a question; control tokens written out."""
        ...


def judge_stories(judge: Judge, stories: Sequence[Story]) -> list[Verdict]:
    """One verdict a story, in order, all in one call: for a caller that has the judge to itself.

    Raises:
        JudgeUnavailableError: nothing can be judged now.
    """
    prepared = [judge.prepare(story) for story in stories]
    asked = [item for item in prepared if isinstance(item, Asked)]
    answers = iter(judge.judge(asked) if asked else [])
    return [next(answers) if isinstance(item, Asked) else item for item in prepared]
