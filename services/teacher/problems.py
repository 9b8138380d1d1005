"""Errors over HTTP as RFC 9457 problem documents: the value, what was expected, the cure."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from fabula_proto import PROBLEM_MEDIA_TYPE, FieldError, Problem

EXAMPLE = '{"stories": ["Once upon a time, a fox lost his lantern. The owl found it."]}'
MAX_ERRORS = 20
MAX_SHOWN = 3
RETRY_AFTER_S = 5


class ProblemError(Exception):
    """Ends a request with a problem document."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        errors: Sequence[FieldError] = (),
        *,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(
            title=printable(title), status=status, detail=printable(detail), errors=tuple(errors[:MAX_ERRORS])
        )
        self.retry_after_s = retry_after_s


def printable(text: str) -> str:
    """`text` with what UTF-8 cannot carry escaped, so that an error about a bad string can be sent."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The document as a response of its own status."""
    body = problem.model_dump_json(exclude_defaults=False)
    return Response(body, status_code=problem.status, headers=dict(headers or {}), media_type=PROBLEM_MEDIA_TYPE)


def not_ready(reason: str) -> ProblemError:
    """503: the judge or the queue is not there; ask again."""
    return ProblemError(503, "Not ready", reason, retry_after_s=RETRY_AFTER_S)


def busy(reason: str, retry_after_s: int) -> ProblemError:
    """429: there is no room in the line for these stories."""
    return ProblemError(429, "No room", reason, retry_after_s=retry_after_s)


def describe_problems(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """The problem documents that a route may answer with, for the OpenAPI document."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": text, "content": content} for status, text in descriptions.items()}


def invalid_request(error: ValidationError, example: str = EXAMPLE) -> ProblemError:
    """What a body that does not fit its message is answered: 400 where it is no JSON, else 422."""
    details = error.errors(include_url=False)
    if details[0]["type"] == "json_invalid":
        why = str(details[0]["msg"]).removeprefix("Invalid JSON: ")
        if "hex escape" in why:
            why += "; a lone surrogate is no text, replace it first"
        return ProblemError(400, "Not JSON", f"the body is not JSON ({why}); send {example}")
    errors = _field_errors(details)
    shown = "; ".join(f"{error.location}: {error.message}" for error in errors[:MAX_SHOWN])
    more = f"; and {len(errors) - MAX_SHOWN} more" if len(errors) > MAX_SHOWN else ""
    return ProblemError(422, "Invalid request", f"{shown}{more}; a request is, for example, {example}", errors)


def _field_errors(details: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    # A story may be a string or an object, and pydantic reports both attempts. For an object the first says nothing;
    # a number is neither, and one message says so. A list that lost an element is no longer "too short".
    objects = {d["loc"][:2] for d in details if d["loc"][2:3] == ("StoryInput",) and d["type"] != "model_type"}
    errors: dict[str, FieldError] = {}
    for detail in details:
        loc = tuple(part for part in detail["loc"] if part not in ("str", "StoryInput"))
        is_other_branch = detail["loc"][2:3] == ("str",) and detail["loc"][:2] in objects
        is_consequence = detail["type"] == "too_short" and detail["input"]
        if is_other_branch or is_consequence:
            continue
        location = printable(".".join(str(part) for part in loc)) or "body"
        errors.setdefault(location, FieldError(location=location, message=printable(_message(detail))))
    return list(errors.values())


def _message(detail: Mapping[str, Any]) -> str:
    value = repr(detail["input"])
    shown = value if len(value) <= 80 else value[:77] + "..."
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"unknown key with value {shown}"
    if kind == "missing":
        return "this key is required and missing"
    if kind == "too_short" and detail["loc"] == ("stories",):
        return "an empty list; send at least one story"
    if kind in ("string_type", "model_type") and len(detail["loc"]) == 3:
        return f"{shown} is neither a string nor an object with `text`"
    return f"{detail['msg']}, found {shown}"


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""

    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)  # noqa: S101  # registered for this type alone; narrows it
        headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
        return problem_response(error.problem, headers)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        paths = ", ".join(_served(request.app))
        asked = f"{request.method} {request.url.path}"
        details = {
            404: ("Unknown path", f"{asked} is not served here; there are {paths}"),
            405: ("Wrong method", f"{asked} is not allowed; there are {paths}"),
        }
        title, detail = details.get(error.status_code, ("Request refused", str(error.detail)))
        problem = Problem(title=title, status=error.status_code, detail=printable(detail))
        return problem_response(problem, error.headers)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        errors = [
            FieldError(location=".".join(map(str, d["loc"])), message=f"{d['msg']}, found {repr(d.get('input'))[:80]}")
            for d in error.errors()
        ]
        detail = printable("; ".join(f"{e.location}: {e.message}" for e in errors[:MAX_SHOWN]))
        return problem_response(Problem(title="Invalid request", status=422, detail=detail, errors=tuple(errors)))

    async def unexpected(request: Request, error: Exception) -> Response:
        asked = f"{request.method} {request.url.path}"
        detail = f"{asked} failed by a fault of the teacher ({type(error).__name__}); see its log"
        return problem_response(Problem(title="Internal error", status=500, detail=detail))

    app.add_exception_handler(ProblemError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)


def _served(app: FastAPI) -> list[str]:
    """Each route that the OpenAPI document names, such as `POST /score`."""
    return [f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods]
