"""Every teacher of a service: built when first asked for, built again when its entry in the teachers file changes."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from services.teacher.desk import Desk, Panel
from services.teacher.judges.base import JudgeUnavailableError
from services.teacher.roster import DEFAULT, Roster, RosterError, read_roster
from services.teacher.settings import TeacherSettings
from services.teacher.spec import TeacherSpec

log = logging.getLogger(__name__)

State = Literal["idle", "building", "ready", "failed"]
FIRST_RETRY_S, LONGEST_RETRY_S = 2.0, 30.0
REST_S = 10.0  # after a failure for good, before somebody's question makes us try again


class BuildingError(JudgeUnavailableError):
    """The judge is being built, and no try has failed yet: worth a moment's wait."""


class Seat:
    """One named teacher: nobody yet, being built, or at work."""

    def __init__(self, name: str, spec: TeacherSpec, build: Callable[[str, TeacherSpec], Desk]) -> None:
        self.name = name
        self.spec = spec
        self._build = build
        self._changed = threading.Condition()
        self._desk: Desk | None = None
        self._closed = threading.Event()
        self._rests_until = 0.0
        self._missed = False  # a try failed: nobody waits for the next one
        self.state: State = "idle"
        self.reason: str | None = f"teacher {name} has not been asked for yet"

    def take(self, desk: Desk) -> None:
        """Seat a desk that somebody else built."""
        with self._changed:
            self._desk, self.state, self.reason = desk, "ready", None
            self._changed.notify_all()

    def start(self) -> None:
        """Begin to build, unless that was done. One that failed for good is tried again, after a rest."""
        with self._changed:
            if self.state in ("building", "ready") or self._closed.is_set() or time.monotonic() < self._rests_until:
                return
            self._missed = False
            self.state, self.reason = "building", f"the judge {self.spec.judge!r} is being built; ask again soon"
        # A daemon: a model that is still loading must not hold up the exit.
        threading.Thread(target=self._build_until_it_works, name=f"build-{self.name}", daemon=True).start()

    def desk(self, wait_s: float = 0.0) -> Desk:
        """The desk, built if need be.

        Raises:
            BuildingError: it is not there within `wait_s`.
            JudgeUnavailableError: a try to build it failed; `passing` where another one follows.
        """
        self.start()
        deadline = time.monotonic() + wait_s
        with self._changed:
            while self._desk is None and self._may_come_soon and (left := deadline - time.monotonic()) > 0.0:
                self._changed.wait(left)
            if self._desk is None:
                kind = BuildingError if self._may_come_soon else JudgeUnavailableError
                raise kind(self.reason or "no reason is known", passing=self.state == "building")
            return self._desk

    @property
    def _may_come_soon(self) -> bool:
        return self.state == "building" and not self._missed

    def built(self) -> Desk | None:
        """The desk if it is there, without building it."""
        return self._desk

    def close(self) -> None:
        """Let the teacher finish what it took in, and go."""
        with self._changed:
            self._closed.set()
            desk, self._desk = self._desk, None
            self.state, self.reason = "failed", "the teacher is shutting down"
            self._changed.notify_all()
        if desk is not None:
            desk.close()

    def _build_until_it_works(self) -> None:
        pause = FIRST_RETRY_S
        while not self._closed.is_set():
            try:
                desk = self._build(self.name, self.spec)
            except JudgeUnavailableError as error:
                log.warning("teacher %s: %s", self.name, error)
                if not self._failed(str(error), passing=error.passing):
                    return
            except Exception as error:  # outermost edge of this thread: the process lives on and says why
                log.exception("teacher %s: building the judge failed", self.name)
                self._failed(f"building the judge {self.spec.judge!r} failed: {type(error).__name__}: {error}")
                return
            else:
                self._seated(desk)
                return
            self._closed.wait(pause)
            pause = min(LONGEST_RETRY_S, 2 * pause)

    def _failed(self, reason: str, *, passing: bool = False) -> bool:
        """Note why there is no judge; whether another try makes sense."""
        with self._changed:
            self.reason = f"{reason} (trying again)" if passing else reason
            self.state = "building" if passing else "failed"
            self._missed = True
            self._rests_until = time.monotonic() + REST_S
            self._changed.notify_all()
        return passing

    def _seated(self, desk: Desk) -> None:
        with self._changed:
            if not self._closed.is_set():
                self._desk, self.state, self.reason = desk, "ready", None
                self._changed.notify_all()
                log.info("teacher %s is ready: %s", self.name, desk.identity.to_json())
                return
        desk.close()


class Registry:
    """The seats of a service's roster.

    Raises:
        RosterError: the teachers file cannot be used at the start. Later a broken file leaves everything as it is, and
            `problem` says why.
    """

    def __init__(self, settings: TeacherSettings, build: Callable[[str, TeacherSpec], Desk]) -> None:
        self._settings = settings
        self._build = build
        self._lock = threading.Lock()
        self._stamp = self._file_stamp()
        self._roster = read_roster(settings)
        self._seats = {name: Seat(name, spec, build) for name, spec in self._roster.teachers.items()}
        self.problem: str | None = None

    @property
    def own(self) -> Seat:
        """The service's own teacher: the one that answers where nobody is named."""
        return self._seats[DEFAULT]

    def roster(self) -> Roster:
        """Who can be asked for now."""
        self._follow_file()
        return self._roster

    def seats(self) -> list[Seat]:
        """All seats, the service's own first."""
        self._follow_file()
        return list(self._seats.values())

    def panel(self, names: Sequence[str], wait_s: float = 0.0) -> Panel:
        """Who answers a request for the teachers `names`; an empty one asks the service's own.

        Raises:
            UnknownTeacherError: nobody has such a name.
            JudgeUnavailableError: a teacher is not there within `wait_s`, or cannot be had at all.
            ValueError: the teachers judge by different rubrics.
        """
        self._follow_file()
        with self._lock:
            seats = [self._seats[name] for name in self._roster.members(names)]
        for seat in seats:
            seat.start()
        deadline = time.monotonic() + wait_s
        return Panel({seat.name: seat.desk(max(0.0, deadline - time.monotonic())) for seat in seats})

    def close(self) -> None:
        """Close every seat."""
        for seat in self._seats.values():
            seat.close()

    def _file_stamp(self) -> tuple[int, int] | None:
        if self._settings.teachers_file is None:
            return None
        try:
            found = Path(self._settings.teachers_file).expanduser().stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    def _follow_file(self) -> None:
        """Take over what changed in the teachers file since the last look."""
        with self._lock:
            if (stamp := self._file_stamp()) == self._stamp:
                return
            self._stamp = stamp
            try:
                roster = read_roster(self._settings)
            except RosterError as error:
                self.problem = str(error)
                log.warning("the teachers file changed and is not used: %s", error)
                return
            self.problem = None
            old, self._roster, self._seats = self._seats, roster, {}
            for name, spec in roster.teachers.items():
                kept = old.pop(name) if name in old and old[name].spec == spec else None
                self._seats[name] = kept or Seat(name, spec, self._build)
            self._seats[DEFAULT].start()
            log.info("the teachers file changed: %s", ", ".join(roster.names))
        for seat in old.values():
            # What it took in it finishes; that may take a while.
            threading.Thread(target=seat.close, name=f"close-{seat.name}", daemon=True).start()
