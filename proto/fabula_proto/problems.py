"""Errors over HTTP: RFC 9457 problem details, the same shape from every service."""

from pydantic import Field

from fabula_proto.base import Message

PROBLEM_MEDIA_TYPE = "application/problem+json"


class FieldError(Message):
    """One value that was not accepted."""

    location: str = Field(description="Path of the value in the request, such as stories.2.text.")
    message: str = Field(description="What was expected, and the value where it helps.")


class Problem(Message):
    """RFC 9457 problem details."""

    type: str = Field(default="about:blank", description="URI of the kind of problem.")
    title: str = Field(description="Short name of the kind of problem.")
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What went wrong this time, with the value, and what to do about it.")
    errors: tuple[FieldError, ...] = Field(default=(), description="One entry a refused value.")
