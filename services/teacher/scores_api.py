"""POST /score and POST /inspect."""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any

import anyio.to_thread
from fastapi import FastAPI, Query, Request, Response

from fabula_proto import ScoreRequest, ScoreResponse, Story
from services.teacher.batcher import BusyError
from services.teacher.bodies import json_body, parse_body, read_body, stories_of
from services.teacher.desk import Judged, Panel, Work
from services.teacher.flags import find_flags
from services.teacher.info import FlagSpan, Inspection, InspectRequest
from services.teacher.judges.base import JudgeUnavailableError
from services.teacher.problems import ProblemError, busy, describe_problems, not_ready
from services.teacher.registry import BuildingError
from services.teacher.roster import UnknownTeacherError
from services.teacher.service import TeacherService

BUILD_WAIT_S = 10.0  # a named teacher that is quick to build answers its first request
LOOK_EVERY_S = 0.05
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
        only_asks_for(request, "teacher")
        message = parse_body(await read_body(request, settings.max_body_bytes), ScoreRequest)
        stories = stories_of(message, settings.max_stories)
        names = one_choice(teacher, message.teachers)
        panel = await find_panel(service, names)
        work = await anyio.to_thread.run_sync(lambda: _admit(panel, stories))
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
        only_asks_for(request, "teacher")
        body = await read_body(request, settings.max_body_bytes)
        message = parse_body(body, InspectRequest, INSPECT_EXAMPLE)
        panel = await find_panel(service, one_choice(teacher, message.teachers))
        return await anyio.to_thread.run_sync(lambda: _inspection(panel, message.text))


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


def only_asks_for(request: Request, *known: str) -> None:
    """Refuse what the address asks for and nobody reads: a slip there would be answered by the wrong teacher.

    Raises:
        ProblemError: the address has another key.
    """
    if unknown := sorted(set(request.query_params) - set(known)):
        detail = f"the address asks for {', '.join(unknown)[:200]}, and only {', '.join(known)} can be asked for there"
        raise ProblemError(422, "Unknown question", detail)


async def find_panel(service: TeacherService, names: Sequence[str]) -> Panel:
    """Who answers for `names`. A teacher that is being built for the first time is waited for, for a while.

    Raises:
        ProblemError: 404 for a name that nobody has, 422 for an ensemble over two rubrics, 503 for who is not there.
    """
    patience = time.monotonic() + (BUILD_WAIT_S if names else 0.0)
    while True:
        try:
            service.check_open()
            return service.registry.panel(names)
        except UnknownTeacherError as error:
            raise ProblemError(404, "Unknown teacher", str(error.args[0])) from error
        except JudgeUnavailableError as error:
            if not isinstance(error, BuildingError) or time.monotonic() > patience:
                raise not_ready(str(error)) from error
        except ValueError as error:
            raise ProblemError(422, "No ensemble", str(error)) from error
        await asyncio.sleep(LOOK_EVERY_S)


def _admit(panel: Panel, stories: Sequence[Story]) -> Work:
    try:
        return panel.admit(stories)
    except BusyError as error:
        raise busy(str(error), error.retry_after_s) from error
    except JudgeUnavailableError as error:
        raise not_ready(str(error)) from error


async def _wait(request: Request, work: Work) -> Judged:
    """The answer; where the client leaves first, its stories are dropped from the line."""
    gone = asyncio.ensure_future(_until_gone(request))
    waiting: set[asyncio.Future[Any]] = {asyncio.wrap_future(future) for future in work.futures}
    try:
        while waiting:
            done, _ = await asyncio.wait({gone, *waiting}, return_when=asyncio.FIRST_COMPLETED)
            if gone in done:
                raise ProblemError(CLIENT_GONE, "Client gone", "the client left before its stories were judged")
            for future in done:
                future.exception()  # seen; `finish` raises it
            waiting -= done
        return await anyio.to_thread.run_sync(work.finish)
    except JudgeUnavailableError as error:
        raise not_ready(str(error)) from error
    finally:
        gone.cancel()
        for future in waiting:
            future.cancel()


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
