"""Errors over HTTP as RFC 9457 problem documents."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from fabula_proto import PROBLEM_MEDIA_TYPE, FieldError, Problem
from services.evaluator.errors import EvaluatorError, JobNotFoundError, JobStateError, OrderError, RunNotFoundError

PATHS = (
    "GET /, /info, /livez, /readyz, /metrics, /api/runs, /api/runs/<run>, /api/runs/<run>/metrics and .../stories, "
    "POST and GET /evaluations, GET and DELETE /evaluations/<id>"
)
RETRY_AFTER_S = 5
MAX_ERRORS = 20


_STATUS: tuple[tuple[tuple[type[EvaluatorError], ...], int, str], ...] = (
    ((RunNotFoundError, JobNotFoundError), 404, "Not found"),
    ((JobStateError,), 409, "Not possible now"),
    ((OrderError,), 422, "Value not accepted"),
)


class NotReadyError(EvaluatorError):
    """503: the queue worker cannot work now."""


def printable(text: str) -> str:
    """`text` with what UTF-8 cannot carry escaped, so that an error about a bad string can be sent."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        problem.model_dump_json(),
        status_code=problem.status,
        headers=dict(headers or {}),
        media_type=PROBLEM_MEDIA_TYPE,
    )


def _problem(status: int, title: str, detail: str, errors: tuple[FieldError, ...] = ()) -> Problem:
    return Problem(title=title, status=status, detail=printable(detail), errors=errors[:MAX_ERRORS])


async def _ours(_: Request, error: Exception) -> Response:
    for kinds, status, title in _STATUS:
        if isinstance(error, kinds):
            return _response(_problem(status, title, str(error)))
    if isinstance(error, NotReadyError):
        return _response(_problem(503, "Not ready", str(error)), {"Retry-After": str(RETRY_AFTER_S)})
    return _response(_problem(500, "Unreadable data", str(error)))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for this type alone; narrows it
    asked = f"{request.method} {request.url.path}"
    details = {
        404: ("Unknown path", f"{asked} is not served here; there are {PATHS}"),
        405: ("Wrong method", f"{asked} is not allowed; there are {PATHS}"),
    }
    title, detail = details.get(error.status_code, ("Request refused", str(error.detail)))
    return _response(_problem(error.status_code, title, detail), error.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors = tuple(
        FieldError(
            location=printable(".".join(str(part) for part in detail["loc"])),
            message=printable(f"{detail['msg']}, found {str(detail['input'])[:80]!r}"),
        )
        for detail in error.errors()
    )
    shown = "; ".join(f"{e.location}: {e.message}" for e in errors[:3])
    return _response(_problem(422, "Value not accepted", f"{shown}; change it and ask again", errors))


async def _unexpected(request: Request, error: Exception) -> Response:
    detail = f"{request.method} {request.url.path} failed by a fault of the evaluator ({type(error).__name__}); "
    return _response(_problem(500, "Internal error", detail + "see its log"))


def problem_responses(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of a route's problems: status to its meaning."""
    return {
        status: {"model": Problem, "description": text, "content": {PROBLEM_MEDIA_TYPE: {}}}
        for status, text in descriptions.items()
    }


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""
    app.add_exception_handler(EvaluatorError, _ours)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _unexpected)
