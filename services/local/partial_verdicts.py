"""Verdicts of a long judging, kept as they come: one that was interrupted goes on where it was."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from fabula_proto import TeacherIdentity, Verdict, VerdictStatus


class Memory(Protocol):
    """What is known already of a teacher's verdicts."""

    def known(self, teacher: TeacherIdentity) -> Mapping[str, Verdict]:
        """By story id; such a story need not be judged again."""

    def keep(self, teacher: TeacherIdentity, verdicts: Sequence[Verdict]) -> None:
        """Remember more."""


class NoMemory:
    """Knows and keeps nothing."""

    def known(self, teacher: TeacherIdentity) -> Mapping[str, Verdict]:
        """Nothing."""
        return {}

    def keep(self, teacher: TeacherIdentity, verdicts: Sequence[Verdict]) -> None:
        """Let them go."""


class PartialVerdicts:
    """A file for each teacher, a verdict a line. A failed verdict is not known: that story is judged again.

    Args:
        place: file of a teacher; another one for whoever differs in anything.
    """

    def __init__(self, place: Callable[[TeacherIdentity], Path]) -> None:
        self._place = place

    def known(self, teacher: TeacherIdentity) -> Mapping[str, Verdict]:
        """Those of the file; a last line that a kill cut short is passed over."""
        path = self._place(teacher)
        found: dict[str, Verdict] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                verdict = Verdict.from_json(line)
            except ValidationError:
                continue
            if verdict.status is not VerdictStatus.FAILED:
                found[verdict.story_id] = verdict
        return found

    def keep(self, teacher: TeacherIdentity, verdicts: Sequence[Verdict]) -> None:
        """Append them, each line after a line break of its own: what a kill cut short stays alone."""
        path = self._place(teacher)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(f"\n{verdict.to_json()}" for verdict in verdicts))

    def forget(self, teacher: TeacherIdentity) -> None:
        """All is judged, and written elsewhere."""
        self._place(teacher).unlink(missing_ok=True)
