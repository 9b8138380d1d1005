"""What each `fabula up` of a run took: one line a session in sessions.jsonl, so that a continued run adds up."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

FILE = "sessions.jsonl"
# `paused`: a part of the run was done as asked, such as `fabula pretrain`.
Outcome = Literal["finished", "paused", "interrupted", "failed"]


class Session(BaseModel):
    """Wall-clock seconds of one `up`, by what it was waiting for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    started: str
    outcome: Outcome
    startup_s: float = 0.0
    training_s: float = 0.0
    evaluation_wait_s: float = 0.0


class Stopwatch:
    """Measures a session."""

    def __init__(self) -> None:
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, part: Literal["startup_s", "training_s", "evaluation_wait_s"]) -> Iterator[None]:
        """Add the time spent inside to `part`, also when it ends in an error."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds[part] = self._seconds.get(part, 0.0) + time.monotonic() - start

    def save(self, folder: Path, outcome: Outcome) -> None:
        """Append the session to the run's file."""
        session = Session(started=self._started, outcome=outcome, **self._seconds)
        with (folder / FILE).open("a", encoding="utf-8") as file:
            file.write(session.model_dump_json() + "\n")


class Sessions(BaseModel):
    """All sessions of a run."""

    model_config = ConfigDict(frozen=True)

    sessions: tuple[Session, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The sessions so far; a line that a crash cut short is passed over."""
        try:
            lines = (folder / FILE).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return cls()
        sessions = []
        for line in lines:
            try:
                sessions.append(Session.model_validate_json(line))
            except ValidationError:
                continue
        return cls(sessions=tuple(sessions))

    @property
    def finished(self) -> bool:
        """Whether some session saw the run to its end, reports included."""
        return any(session.outcome == "finished" for session in self.sessions)

    @property
    def startup_s(self) -> float:
        """Seconds until the services were ready, all sessions together."""
        return sum(session.startup_s for session in self.sessions)

    @property
    def evaluation_wait_s(self) -> float:
        """Seconds waited for reports after the trainer was done, all sessions together."""
        return sum(session.evaluation_wait_s for session in self.sessions)
