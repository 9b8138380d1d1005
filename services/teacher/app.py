"""The teacher over HTTP: POST /score, probes, /info, and documentation that needs no internet."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata, resources
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from fabula_proto import PROBLEM_MEDIA_TYPE, Problem, ScoreRequest, ScoreResponse, Story
from services.teacher.info import Alive, Ready, TeacherInfo
from services.teacher.judges.base import Judge, JudgeUnavailableError
from services.teacher.problems import (
    EXAMPLE,
    ProblemError,
    add_problem_handlers,
    invalid_request,
    not_ready,
)
from services.teacher.service import TeacherService
from services.teacher.settings import TeacherSettings

DESCRIPTION = "Judges stories by a rubric. `POST /score` takes stories and answers with a verdict for each, in order."


def create_app(settings: TeacherSettings, judge: Judge | None = None) -> FastAPI:
    """The teacher as an ASGI app.

    Args:
        settings: what can be set.
        judge: used at once where given; otherwise the lifespan builds the one that the settings name, on a thread.

    Raises:
        RubricError: the settings name a rubric that cannot be read.
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
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service
    add_problem_handlers(app)
    _add_score(app, service)
    _add_probes(app, service)
    _add_pages(app)
    _describe_messages(app)
    return app


def _add_score(app: FastAPI, service: TeacherService) -> None:
    settings = service.settings

    async def stories_of(request: Request) -> tuple[Story, ...]:
        # Read here and not by FastAPI, which would ask for a JSON header that plain `curl -d` does not send and would
        # let lone surrogates through.
        body = await _read_body(request, settings.max_body_bytes)
        return parse_stories(body, settings.max_stories)

    problems = _problems(
        {
            400: "Empty body, or not JSON",
            413: "Too many bytes or stories",
            422: "JSON, but not a score request",
            503: "The judge is not ready",
        }
    )
    body = {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ScoreRequest"}}},
    }

    @app.post("/score", responses=problems, openapi_extra={"requestBody": body}, summary="Judge stories")
    async def score(stories: Annotated[tuple[Story, ...], Depends(stories_of)]) -> ScoreResponse:
        """One verdict a story, in the order of the request. A story alone is judged, not its prompt."""
        try:
            room = service.room
            return ScoreResponse(verdicts=tuple(await room.judge_async(stories)), teacher=room.identity)
        except JudgeUnavailableError as error:
            raise not_ready(str(error)) from error


def _problems(descriptions: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """The problem documents that a route may answer with, for the OpenAPI document."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": text, "content": content} for status, text in descriptions.items()}


async def _read_body(request: Request, max_bytes: int) -> bytes:
    """The request's body, never more than `max_bytes` of it in memory."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                detail = f"the body has more than {max_bytes} bytes; send fewer stories a request"
                raise ProblemError(413, "Body too large", detail)
    except ClientDisconnect as error:
        raise ProblemError(400, "Body cut off", "the client left before its body ended; send it whole") from error
    return bytes(body)


def parse_stories(body: bytes, max_stories: int) -> tuple[Story, ...]:
    """The stories of a request body.

    Raises:
        ProblemError: the body is empty, no JSON, not a ScoreRequest, or holds too many stories.
    """
    if not body.strip():
        raise ProblemError(400, "Empty body", f"the body is empty; send {EXAMPLE}")
    try:
        request = ScoreRequest.from_json(body)
    except ValidationError as error:
        raise invalid_request(error) from error
    if len(request.stories) > max_stories:
        detail = f"{len(request.stories)} stories in one request; at most {max_stories}: send them in several"
        raise ProblemError(413, "Too many stories", detail)
    try:
        return request.as_stories()
    except ValueError as error:
        raise ProblemError(422, "Duplicate story ids", str(error)) from error


def _add_probes(app: FastAPI, service: TeacherService) -> None:
    @app.get("/livez", summary="Is the process alive?")
    async def livez() -> Alive:
        """200 as long as the process serves, whether or not there is a judge."""
        return Alive()

    @app.get("/readyz", responses=_problems({503: "Not ready, and why"}), summary="Can stories be judged?")
    def readyz() -> Ready:
        """200 when stories are judged; 503 with the reason when there is no judge, no queue, or a shutdown."""
        if (reason := service.why_not_ready()) is not None:
            raise not_ready(reason)
        return Ready()

    @app.get("/info", summary="Who judges, by what rubric, within what limits")
    def info() -> TeacherInfo:
        """Identity, rubric, limits, and the state of the queue."""
        return service.info()


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        page = resources.files("services.teacher").joinpath("pages/docs.html")
        return HTMLResponse(page.read_text(encoding="utf-8"))


def _describe_messages(app: FastAPI) -> None:
    """Add what the routes read and answer by themselves to the OpenAPI document."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        document = described()
        for message in (ScoreRequest, Problem):
            schema = message.model_json_schema(ref_template="#/components/schemas/{model}")
            document["components"]["schemas"].update({**schema.pop("$defs", {}), message.__name__: schema})
        return document

    app.openapi = openapi  # type: ignore[method-assign]
