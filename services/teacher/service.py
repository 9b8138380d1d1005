"""The teacher's life: a judge is built, the queue is served, readiness says so, and a drain ends it."""

import logging
import threading
from importlib import metadata

from services.teacher import info
from services.teacher.judges.base import Judge, JudgeUnavailableError, Noted
from services.teacher.judges.build import build_judge
from services.teacher.room import JudgeRoom
from services.teacher.rubric import load_rubric
from services.teacher.screening import ScreenedJudge
from services.teacher.settings import TeacherSettings
from services.teacher.worker import QueueWorker

log = logging.getLogger(__name__)


class TeacherService:
    """State shared by the routes and the worker. Its methods may be called from any thread.

    Raises:
        RubricError: the settings name a rubric that cannot be read.
        ValueError: `redis_url` is not an address of a Redis server.
    """

    def __init__(self, settings: TeacherSettings, judge: Judge | None = None) -> None:
        self.settings = settings
        self.rubric = load_rubric(settings.rubric)
        self._lock = threading.Lock()
        self._room: JudgeRoom | None = None
        self._notes: tuple[str, ...] = ()
        self._reason = f"the judge {settings.teacher!r} has not been built yet"
        self._draining = False
        self._worker: QueueWorker | None = None
        if settings.redis_url is not None:
            self._worker = QueueWorker(
                settings.redis_url, settings.worker, lease_s=settings.lease_s, max_deliveries=settings.max_deliveries
            )
        if judge is not None:
            self._admit(judge)

    def start(self) -> None:
        """Build the judge on a thread where none was given, and serve the queue once there is one."""
        if self._room is not None:
            self._serve_queue(self._room)
            return
        self._reason = f"the judge {self.settings.teacher!r} is being built; ask again soon"
        # A daemon: a model that is still loading must not hold up the exit.
        threading.Thread(target=self._build, name="build-judge", daemon=True).start()

    def drain(self) -> None:
        """Turn readiness off and take no new work; work that has begun goes on."""
        self._draining = True
        if self._worker is not None:
            self._worker.finish()

    def stop(self) -> None:
        """Drain, finish the batch in hand, and end the threads."""
        with self._lock:
            self._draining = True
        if self._worker is not None:
            self._worker.stop()
        if self._room is not None:
            self._room.close()

    @property
    def room(self) -> JudgeRoom:
        """Where stories are judged.

        Raises:
            JudgeUnavailableError: there is no judge (yet), or the teacher is about to end.
        """
        if self._draining:
            raise JudgeUnavailableError("the teacher is shutting down; ask another one, or this one again later")
        if self._room is None:
            raise JudgeUnavailableError(self._reason)
        return self._room

    def why_not_ready(self) -> str | None:
        """None when stories are judged over HTTP and, if there is one, from the queue; else the reason."""
        try:
            _ = self.room
        except JudgeUnavailableError as error:
            return str(error)
        return self._worker.why_not_ready() if self._worker is not None else None

    def info(self) -> info.TeacherInfo:
        """Everything about this teacher, for GET /info."""
        reason = self.why_not_ready()
        no_queue = info.QueueInfo(enabled=False, connected=False, batches=0, stories=0)
        return info.TeacherInfo(
            version=metadata.version("fabula"),
            worker=self.settings.worker,
            ready=reason is None,
            reason=reason,
            teacher=self.settings.teacher,
            identity=self._room.identity if self._room is not None else None,
            notes=self._notes,
            rubric=info.rubric_info(self.rubric),
            limits=info.limits(self.settings),
            queue=self._worker.info() if self._worker is not None else no_queue,
        )

    def _build(self) -> None:
        try:
            judge = build_judge(self.settings.spec, self.rubric)
        except JudgeUnavailableError as error:
            self._reason = str(error)
            log.error("no judge: %s", error)
            return
        except Exception as error:  # outermost edge of this thread: the process lives on and says why
            self._reason = f"building the judge {self.settings.teacher!r} failed: {type(error).__name__}: {error}"
            log.exception("building the judge failed")
            return
        with self._lock:
            if self._draining:
                return
            room = self._admit(judge)
            self._serve_queue(room)
        log.info("judge ready: %s", judge.identity.to_json())

    def _admit(self, judge: Judge) -> JudgeRoom:
        self._notes = judge.notes if isinstance(judge, Noted) else ()
        screened = ScreenedJudge(judge, self.rubric, self.settings.max_story_chars)
        self._room = JudgeRoom(screened, self.settings.batch_stories)
        return self._room

    def _serve_queue(self, room: JudgeRoom) -> None:
        if self._worker is not None:
            self._worker.start(room)
