"""The teacher over HTTP: probes and pages, put together with the routes of scores_api and teachers_api."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata, resources
from typing import Any

from fastapi import FastAPI, Response

from fabula_proto import Message, Problem, ScoreRequest
from services.teacher.info import Alive, InspectRequest, Ready, RunTeachers, TeacherInfo
from services.teacher.judges.base import Judge
from services.teacher.middleware import RequestLog
from services.teacher.problems import add_problem_handlers, describe_problems, not_ready
from services.teacher.scores_api import add_inspect, add_score
from services.teacher.service import TeacherService
from services.teacher.settings import TeacherSettings
from services.teacher.teachers_api import add_audit, add_metrics, add_teachers

DESCRIPTION = "Judges stories by a rubric. `POST /score` takes stories and answers with a verdict for each, in order."
PAGES = (
    ("/", "playground.html", "text/html"),
    ("/playground.css", "playground.css", "text/css"),
    ("/playground.js", "playground.js", "text/javascript"),
    ("/docs", "docs.html", "text/html"),
)
BODIES: tuple[type[Message], ...] = (ScoreRequest, InspectRequest, RunTeachers, Problem)


def create_app(settings: TeacherSettings, judge: Judge | None = None) -> FastAPI:
    """The teacher as an ASGI app.

    Args:
        settings: what can be set.
        judge: used at once where given; otherwise the lifespan builds the one that the settings name, on a thread.

    Raises:
        RosterError, RubricError: the settings name a teachers file or a rubric that cannot be read.
    """
    service = TeacherService(settings, judge)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title="Fabula teacher",
        summary="Judges stories by a rubric",
        description=DESCRIPTION,
        version=metadata.version("fabula"),
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load their scripts from the internet
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service
    app.add_middleware(RequestLog, metrics=service.metrics)
    add_problem_handlers(app)
    for add in (add_score, add_inspect, add_teachers, add_audit, _add_probes, add_metrics):
        add(app, service)
    _add_pages(app)
    _describe_messages(app)
    return app


def _add_probes(app: FastAPI, service: TeacherService) -> None:
    @app.get("/livez", summary="Is the process alive?")
    async def livez() -> Alive:
        """200 as long as the process serves, whether or not there is a judge."""
        return Alive()

    @app.get("/readyz", responses=describe_problems({503: "Not ready, and why"}), summary="Can stories be judged?")
    def readyz() -> Ready:
        """200 when stories are judged; 503 with the reason when there is no judge, no queue, or a shutdown."""
        if (reason := service.why_not_ready()) is not None:
            raise not_ready(reason)
        return Ready()

    @app.get("/info", summary="Who judges, by what rubric, within what limits")
    def info() -> TeacherInfo:
        """Identity, rubric, limits, the named teachers, and the state of the queue."""
        return service.info()

    for path, route in (("/livez", livez), ("/readyz", readyz)):
        app.head(path, include_in_schema=False)(route)


def _add_pages(app: FastAPI) -> None:
    def serve(path: str, file: str, kind: str) -> None:
        @app.get(path, include_in_schema=False, name=file)
        async def page() -> Response:
            text = resources.files("services.teacher").joinpath("pages", file).read_text(encoding="utf-8")
            return Response(text, media_type=kind)

    for path, file, kind in PAGES:
        serve(path, file, kind)


def _describe_messages(app: FastAPI) -> None:
    """Add what the routes read and answer by themselves to the OpenAPI document."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        document = described()
        for message in BODIES:
            schema = message.model_json_schema(ref_template="#/components/schemas/{model}")
            document["components"]["schemas"].update({**schema.pop("$defs", {}), message.__name__: schema})
        return document

    app.openapi = openapi  # type: ignore[method-assign]
