"""GET /teachers, who judges a run from the queue, POST /audit, and GET /metrics."""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import anyio
import anyio.to_thread
from fastapi import FastAPI, Path, Query, Request, Response

from fabula_proto import Story, Verdict
from fabula_proto.streams import TransportError
from services.teacher import audit
from services.teacher.assignments import Assignments
from services.teacher.bodies import json_body, parse_body, read_body
from services.teacher.info import RunTeachers, RunTeachersAnswer, Teachers
from services.teacher.judges.base import JudgeUnavailableError
from services.teacher.problems import ProblemError, describe_problems, not_ready
from services.teacher.scores_api import CLIENT_GONE, Teacher, find_panel, only_asks_for
from services.teacher.service import TeacherService

T = TypeVar("T")

RUN_EXAMPLE = '{"teachers": ["rules"]}'

Run = Annotated[str, Path(min_length=1, max_length=200, description="Name of the run, as its batches carry it.")]


def add_teachers(app: FastAPI, service: TeacherService) -> None:
    """Serve GET /teachers and /runs/{run}/teachers."""
    problems = describe_problems(
        {404: "No teacher has this name", 409: "There is no queue", 422: "Not a choice of teachers", 503: "Not there"}
    )

    @app.get("/teachers", summary="Who can be asked for by name")
    def teachers() -> Teachers:
        """Every named teacher with its state, and the ensembles."""
        return service.teachers()

    @app.get("/runs/{run}/teachers", responses=problems, summary="Who judges a run")
    async def run_teachers(run: Run) -> RunTeachersAnswer:
        """The teachers that the run was put on; none where each service's own judges it."""
        names = await _in_redis(lambda: _assignments(service).of(run))
        return RunTeachersAnswer(run=run, teachers=names, identity=(await find_panel(service, names)).identity)

    @app.put(
        "/runs/{run}/teachers",
        responses=problems,
        openapi_extra=json_body("RunTeachers"),
        summary="Put a run on other teachers",
    )
    async def put_run_teachers(request: Request, run: Run) -> RunTeachersAnswer:
        """From its next batch on, the run is judged by these. While they are not there: 503, and nothing changes."""
        body = await read_body(request, service.settings.max_body_bytes)
        names = parse_body(body, RunTeachers, RUN_EXAMPLE).teachers
        return await _assign(request, run, names)

    @app.delete("/runs/{run}/teachers", responses=problems, summary="Put a run back on the service's own teacher")
    async def delete_run_teachers(request: Request, run: Run) -> RunTeachersAnswer:
        """From its next batch on, the run is judged by each service's own teacher."""
        return await _assign(request, run, ())

    async def _assign(request: Request, run: str, names: tuple[str, ...]) -> RunTeachersAnswer:
        assignments = _assignments(service)
        panel = await find_panel(service, names)
        if await request.is_disconnected():  # whoever left may have chosen otherwise since
            raise ProblemError(CLIENT_GONE, "Client gone", "the client left before its choice was there")
        await _in_redis(lambda: assignments.assign(run, names))
        return RunTeachersAnswer(run=run, teachers=names, identity=panel.identity)


async def _in_redis(ask: Callable[[], T]) -> T:
    try:
        return await anyio.to_thread.run_sync(ask)
    except TransportError as error:
        raise not_ready(str(error)) from error


def _assignments(service: TeacherService) -> Assignments:
    if service.assignments is None:
        detail = "this teacher serves HTTP alone; set FABULA_REDIS_URL to the queue that the run uses"
        raise ProblemError(409, "No queue", detail)
    return service.assignments


def add_audit(app: FastAPI, service: TeacherService) -> None:
    """Serve POST /audit, where the settings allow it."""
    if not service.settings.audits:
        return
    problems = describe_problems({404: "No teacher has this name", 503: "The judge is not ready"})

    one_at_a_time = anyio.CapacityLimiter(1)

    @app.post("/audit", responses=problems, summary="How easily is this teacher fooled?")
    async def audit_teacher(
        request: Request,
        teacher: Teacher = None,
        quick: Annotated[bool, Query(description="Fewer base stories.")] = False,
        seed: Annotated[int, Query(ge=0, lt=2**32)] = 0,
    ) -> audit.AuditReport:
        """Judge our base stories with and without each attack; mean gain in total with an interval. Takes a while."""
        only_asks_for(request, "teacher", "quick", "seed")
        panel = await find_panel(service, tuple(teacher or ()))

        def score(stories: Sequence[Story]) -> Sequence[Verdict]:
            service.check_open()
            return panel.admit(stories, patient=True).finish().verdicts

        def work() -> audit.AuditReport:
            return audit.run(score, panel.identity, panel.rubric.criteria, quick=quick, seed=seed)

        try:
            return await anyio.to_thread.run_sync(work, limiter=one_at_a_time)
        except JudgeUnavailableError as error:
            raise not_ready(str(error)) from error


def add_metrics(app: FastAPI, service: TeacherService) -> None:
    """Serve GET /metrics."""

    @app.get("/metrics", summary="Prometheus metrics", response_class=Response)
    def metrics(request: Request) -> Response:
        """Queue tokens, batch sizes, times, 429s, verdicts by status, coverage, scores, cache hits."""
        service.why_not_ready()
        body, kind = service.metrics.render(request.headers.get("accept", ""))
        return Response(body, media_type=kind)
