"""What can go wrong while a checkpoint is measured, as one tree of exceptions."""

from dataclasses import dataclass


class EvaluatorError(Exception):
    """Anything the evaluator can say about its input, its checkpoint or its teacher; the message names the cure."""


class CheckpointError(EvaluatorError):
    """The checkpoint cannot be loaded or cannot be used for what was asked."""


class ItemsError(EvaluatorError):
    """Items cannot be scored with this checkpoint, such as one that is longer than its context."""


class SuiteFailedError(EvaluatorError):
    """A suite has no result worth a number; the other suites go on."""


class MissingDataError(EvaluatorError):
    """There is no data for this suite where it was looked for; the suite is skipped, not failed."""


class AbandonedError(EvaluatorError):
    """The process is stopping; nothing is written, and the work will be delivered again."""


class RunNotFoundError(EvaluatorError):
    """No such run, or no such part of it."""


class JobNotFoundError(EvaluatorError):
    """No such evaluation."""


class JobStateError(EvaluatorError):
    """The evaluation is in a state in which this cannot be done."""


class OrderError(EvaluatorError):
    """An evaluation is asked for that cannot be made."""


@dataclass
class BadDataError(EvaluatorError):
    """A data file holds something that cannot be used.

    `where` is a file (and member of an archive), `line` counts from 1, `value` is what was found.
    """

    where: str
    line: int | None
    value: str
    expected: str
    cure: str

    def __str__(self) -> str:
        place = self.where if self.line is None else f"{self.where}, line {self.line}"
        shown = self.value if len(self.value) <= 120 else f"{self.value[:117]}..."
        return f"{place}: found {shown}; expected {self.expected}; {self.cure}"


class TeacherError(EvaluatorError):
    """The teacher gave no usable answer."""


class TeacherUnavailableError(TeacherError):
    """The teacher could not be reached, or stayed busy, for as long as we were told to wait."""


class TeacherRefusedError(TeacherError):
    """The teacher answered with a problem that another try would not change."""


class TeacherProtocolError(TeacherError):
    """The teacher's answer does not follow the protocol."""
