"""Request bodies: read whole within a limit, and parsed into messages or a problem that says what is wrong."""

import codecs
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from fabula_proto import Message, ScoreRequest, Story
from services.teacher.problems import EXAMPLE, ProblemError, invalid_request

M = TypeVar("M", bound=Message)


def json_body(name: str) -> dict[str, Any]:
    """What a route that reads its body by itself says about it in the OpenAPI document."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The request's body, never more than `max_bytes` of it in memory.

    Read here and not by FastAPI, which would ask for a JSON header that plain `curl -d` does not send and would let
    lone surrogates through.
    """
    if (coding := request.headers.get("content-encoding", "identity")).lower() != "identity":
        raise ProblemError(415, "Coded body", f"the body is coded as {coding[:40]!r}; send it as it is")
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


def parse_body(body: bytes, model: type[M], example: str = EXAMPLE) -> M:
    """The message in a body.

    Raises:
        ProblemError: the body is empty, no JSON, or not a `model`.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    if not body.strip():
        raise ProblemError(400, "Empty body", f"the body is empty; send {example}")
    try:
        return model.from_json(body)
    except ValidationError as error:
        raise invalid_request(error, example) from error


def stories_of(request: ScoreRequest, max_stories: int) -> tuple[Story, ...]:
    """The stories of a request, with ids.

    Raises:
        ProblemError: there are too many, or two have the same id.
    """
    if len(request.stories) > max_stories:
        detail = f"{len(request.stories)} stories in one request; at most {max_stories}: send them in several"
        raise ProblemError(413, "Too many stories", detail)
    try:
        return request.as_stories()
    except ValueError as error:
        raise ProblemError(422, "Duplicate story ids", str(error)) from error
