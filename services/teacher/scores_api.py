"""POST /score and POST /inspect."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import anyio.to_thread
from fastapi import FastAPI, Query, Request, Response

from fabula_proto import ScoreRequest, ScoreResponse, Story, Verdict
from services.teacher.batcher import BusyError
from services.teacher.bodies import json_body, parse_body, read_body, stories_of
from services.teacher.desk import Judged, Panel, Work
from services.teacher.flags import find_flags
from services.teacher.info import FlagSpan, Inspection, InspectRequest
from services.teacher.judges.base import JudgeUnavailableError
from services.teacher.problems import ProblemError, busy, describe_problems, not_ready
from services.teacher.roster import UnknownTeacherError
from services.teacher.service import TeacherService

BUILD_WAIT_S = 10.0  # a named teacher that is quick to build answers its first request
CLIENT_GONE = 499  # nginx's number for it; nobody reads the answer, the log and the metrics do
INSPECT_EXAMPLE = '{"text": "Once upon a time, a fox lost his lantern. The owl found it."}'

Teacher = Annotated[
    list[str] | None,
    Query(description="Name of a teacher, see GET /teachers; several (repeated) judge as an ensemble."),
]


def add_score(app: FastAPI, service: TeacherService) -> None:
    """Serve POST /score."""
    settings = service.settings
    problems = describe_problems(
        {
            400: "Empty body, or not JSON",
            404: "No teacher has this name",
            413: "Too many bytes or stories",
            422: "JSON, but not a score request",
            429: "No room; Retry-After says when there should be",
            503: "The judge is not ready",
        }
    )

    @app.post("/score", responses=problems, openapi_extra=json_body("ScoreRequest"), summary="Judge stories")
    async def score(request: Request, response: Response, teacher: Teacher = None) -> ScoreResponse:
        """One verdict a story, in the order of the request. A story alone is judged, not its prompt."""
        message = parse_body(await read_body(request, settings.max_body_bytes), ScoreRequest)
        stories = stories_of(message, settings.max_stories)
        names = one_choice(teacher, message.teachers)
        work = await anyio.to_thread.run_sync(lambda: find_panel(service, names).admit_or_busy(stories))
        judged = await _wait(request, work)
        service.metrics.stories_in("http", len(stories))
        response.headers.update(timing_headers(judged))
        return ScoreResponse(verdicts=judged.verdicts, teacher=judged.identity, members=dict(judged.members))


def add_inspect(app: FastAPI, service: TeacherService) -> None:
    """Serve POST /inspect."""
    settings = service.settings
    problems = describe_problems({400: "Empty body, or not JSON", 404: "No teacher has this name", 422: "No text"})

    @app.post("/inspect", responses=problems, openapi_extra=json_body("InspectRequest"), summary="What a teacher reads")
    async def inspect(request: Request, teacher: Teacher = None) -> Inspection:
        """The exact prompt for a story, and where the story raises which flag. Nothing is judged."""
        body = await read_body(request, settings.max_body_bytes)
        message = parse_body(body, InspectRequest, INSPECT_EXAMPLE)
        names = one_choice(teacher, message.teachers)
        return await anyio.to_thread.run_sync(lambda: _inspection(find_panel(service, names).panel, message.text))


def _inspection(panel: Panel, text: str) -> Inspection:
    flags = tuple(FlagSpan(name=f.name, start=f.start, end=f.end) for f in find_flags(text, panel.rubric))
    return Inspection(prompts=panel.prompts(Story(id="0", text=text)), flags=flags)


def one_choice(query: Sequence[str] | None, body: Sequence[str]) -> tuple[str, ...]:
    """The teachers asked for in the address or in the body.

    Raises:
        ProblemError: both name teachers, and not the same.
    """
    if query and body and tuple(query) != tuple(body):
        detail = f"the address asks for {list(query)}, the body for {list(body)}; name teachers in one of them"
        raise ProblemError(422, "Two choices of teachers", detail)
    return tuple(query or body)


class FoundPanel:
    """A panel whose errors are problems."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel

    def admit_or_busy(self, stories: Sequence[Story]) -> Work:
        """Take stories in, or say 429 or 503."""
        try:
            return self.panel.admit(stories)
        except BusyError as error:
            raise busy(str(error), error.retry_after_s) from error
        except JudgeUnavailableError as error:
            raise not_ready(str(error)) from error


def find_panel(service: TeacherService, names: Sequence[str], wait_s: float = BUILD_WAIT_S) -> FoundPanel:
    """Who answers for `names`. Blocks while a named teacher is built, for a while.

    Raises:
        ProblemError: 404 for a name that nobody has, 422 for an ensemble over two rubrics, 503 for who is not there.
    """
    try:
        service.check_open()
        return FoundPanel(service.registry.panel(names, wait_s=wait_s if names else 0.0))
    except UnknownTeacherError as error:
        raise ProblemError(404, "Unknown teacher", str(error.args[0])) from error
    except JudgeUnavailableError as error:
        raise not_ready(str(error)) from error
    except ValueError as error:
        raise ProblemError(422, "No ensemble", str(error)) from error


async def _wait(request: Request, work: Work) -> Judged:
    """The answer; where the client leaves first, its stories are dropped from the line."""
    gone = asyncio.ensure_future(_until_gone(request))
    answers: asyncio.Future[list[list[Verdict]]] = asyncio.gather(*map(asyncio.wrap_future, work.futures))
    either: set[asyncio.Future[Any]] = {gone, answers}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not answers.done():
            raise ProblemError(CLIENT_GONE, "Client gone", "the client left before its stories were judged")
        return await anyio.to_thread.run_sync(work.finish)
    except JudgeUnavailableError as error:
        raise not_ready(str(error)) from error
    finally:
        gone.cancel()
        if not answers.done():
            work.cancel()
            answers.cancel()
        elif not answers.cancelled():
            answers.exception()  # seen: `finish` raises it where it matters


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def timing_headers(judged: Judged) -> dict[str, str]:
    """Where the time went, in milliseconds, by the names that text-embeddings-inference made common."""
    return {
        "x-queue-time": str(round(1000 * judged.queue_s)),
        "x-inference-time": str(round(1000 * judged.inference_s)),
        "x-cache-hits": str(sum(verdict.cached for verdict in judged.verdicts)),
    }
