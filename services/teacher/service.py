"""The teacher's life: judges are built, the queue is served, readiness says so, and a drain ends it."""

from importlib import metadata

from services.teacher.assignments import Assignments
from services.teacher.batcher import BatchLimits
from services.teacher.cache import VerdictCache
from services.teacher.desk import Desk
from services.teacher.info import QueueInfo, TeacherEntry, TeacherInfo, Teachers, limits, rubric_info
from services.teacher.judges.base import Judge, JudgeUnavailableError
from services.teacher.judges.build import build_judge
from services.teacher.metrics import Metrics
from services.teacher.registry import Registry, Seat
from services.teacher.rubric import RubricError, load_rubric
from services.teacher.settings import TeacherSettings
from services.teacher.spec import TeacherSpec
from services.teacher.worker import QueueWorker


class TeacherService:
    """State shared by the routes and the worker. Its methods may be called from any thread.

    Raises:
        RosterError, RubricError: the teachers file or the rubric cannot be read.
        ValueError: `redis_url` is not an address of a Redis server.
    """

    def __init__(self, settings: TeacherSettings, judge: Judge | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._cache: VerdictCache | None = None
        self.assignments: Assignments | None = None
        self._worker: QueueWorker | None = None
        self.registry = Registry(settings, self.build_desk)
        self.rubric = load_rubric(self.registry.own.spec.rubric)
        if settings.redis_url is not None:
            self.assignments = Assignments(settings.redis_url)
            if settings.cache_ttl_s:
                self._cache = VerdictCache(settings.redis_url, settings.cache_ttl_s, self.metrics)
            self._worker = QueueWorker(settings, self.registry, self.assignments, self.metrics)
        self._draining = False
        if judge is not None:
            own = self.registry.own
            own.take(self._desk(own.name, own.spec, judge))

    def start(self) -> None:
        """Build the own judge where none was given, and serve the queue once there is one."""
        self.registry.own.start()
        if self._worker is not None:
            self._worker.start()

    def drain(self) -> None:
        """Turn readiness off and take no new work; work that has begun goes on."""
        self._draining = True
        if self._worker is not None:
            self._worker.finish()

    def stop(self) -> None:
        """Drain, finish what is in hand, and end the threads."""
        self.drain()
        if self._worker is not None:
            self._worker.stop()
        self.registry.close()
        for held in (self._cache, self.assignments):
            if held is not None:
                held.close()

    def check_open(self) -> None:
        """Raise JudgeUnavailableError where the teacher is about to end."""
        if self._draining:
            raise JudgeUnavailableError("the teacher is shutting down; ask another one, or this one again later")

    def why_not_ready(self) -> str | None:
        """None when stories are judged over HTTP and, if there is one, from the queue; else the reason."""
        try:
            self.check_open()
        except JudgeUnavailableError as error:
            return str(error)
        own = self.registry.own
        reason = own.reason if own.built() is None else None
        if reason is None and self._worker is not None:
            reason = self._worker.why_not_ready()
        self.metrics.ready(reason is None)
        return reason

    def info(self) -> TeacherInfo:
        """Everything about this teacher, for GET /info."""
        reason = self.why_not_ready()
        desk = self.registry.own.built()
        no_queue = QueueInfo(enabled=False, connected=False, batches=0, stories=0)
        return TeacherInfo(
            version=metadata.version("fabula"),
            worker=self.settings.worker,
            ready=reason is None,
            reason=reason,
            teacher=self.settings.teacher,
            identity=desk.identity if desk is not None else None,
            notes=desk.notes if desk is not None else (),
            rubric=rubric_info(self.rubric),
            limits=limits(self.settings),
            queue=self._worker.info() if self._worker is not None else no_queue,
            teachers=self.teachers(),
        )

    def teachers(self) -> Teachers:
        """Who can be asked for by name, and the state each is in."""
        roster = self.registry.roster()
        return Teachers(
            teachers=tuple(_entry(seat) for seat in self.registry.seats()),
            ensembles={name: spec.ensemble for name, spec in roster.ensembles.items()},
            problem=self.registry.problem,
        )

    def build_desk(self, name: str, spec: TeacherSpec) -> Desk:
        """One teacher at work, built at once: for its seat, or for somebody who will not wait for a server to return.

        Raises:
            JudgeUnavailableError: it cannot be had (now).
        """
        try:
            rubric = load_rubric(spec.rubric)
        except RubricError as error:
            raise JudgeUnavailableError(str(error)) from error
        return self._desk(name, spec, build_judge(spec, rubric))

    def _desk(self, name: str, spec: TeacherSpec, judge: Judge) -> Desk:
        settings, rubric = self.settings, load_rubric(spec.rubric)
        return Desk(
            judge,
            rubric,
            reward_map=spec.reward_map,
            min_coverage=spec.min_coverage,
            max_story_chars=settings.max_story_chars,
            limits=BatchLimits(settings.batch_tokens, settings.batch_stories, settings.queued_tokens),
            cache=self._cache,
            metrics=self.metrics.for_teacher(name, [criterion.name for criterion in rubric.criteria]),
        )


def _entry(seat: Seat) -> TeacherEntry:
    desk = seat.built()
    return TeacherEntry(
        name=seat.name,
        judge=seat.spec.judge,
        rubric=seat.spec.rubric,
        state=seat.state,
        reason=seat.reason,
        identity=desk.identity if desk is not None else None,
        notes=desk.notes if desk is not None else (),
    )
