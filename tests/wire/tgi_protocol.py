"""What TGI accepts: bodies as serde reads them, their limits, and its errors. Sources: see tests/wire/tgi.py."""

import json
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tests.wire.constraint import BadGrammarError, Constraint
from tests.wire.engine import Sampling

MAX_TOP_N_TOKENS = 5
MAX_STOP_SEQUENCES = 4


class InferError(Exception):
    """An error in TGI's form: `error_type` and a status."""

    def __init__(self, message: str, kind: str, status: int) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status


class RejectedError(Exception):
    """A body that cannot be read at all: answered in plain text."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def invalid(message: str) -> InferError:
    """A request that is understood and refused."""
    return InferError(f"Input validation error: {message}", "validation", 422)


class Serde(BaseModel):
    """No number for a text, no text for a number; unknown keys are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Parameters(Serde):
    """`parameters` of `/generate`."""

    best_of: int | None = Field(default=None, ge=0)
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    max_new_tokens: int | None = Field(default=None, ge=0)
    return_full_text: bool | None = None
    stop: list[str] = []
    truncate: int | None = Field(default=None, ge=0)
    details: bool = False
    decoder_input_details: bool = False
    seed: int | None = Field(default=None, ge=0)
    top_n_tokens: int | None = Field(default=None, ge=0)
    grammar: dict[str, Any] | None = None


class GenerateBody(Serde):
    """`POST /generate`, `/tokenize`. Without `parameters` tokens are drawn, with them the best one is taken."""

    inputs: str
    parameters: Parameters = Field(default_factory=lambda: Parameters(do_sample=True))


class ChatBody(Serde):
    """`POST /v1/chat/completions`, `/chat_tokenize`."""

    model: str | None = None
    messages: list[dict[str, Any]]
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=0, alias="max_tokens")
    stop: list[str] | None = None
    seed: int | None = Field(default=None, ge=0)
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    response_format: dict[str, Any] | None = None


AnyBody = TypeVar("AnyBody", bound=Serde)


async def read_body(request: Request, kind: type[AnyBody]) -> AnyBody:
    """The body as axum's `Json` extractor reads it.

    Raises:
        RejectedError: another content type, no JSON, or JSON of another shape.
    """
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        raise RejectedError("Expected request with `Content-Type: application/json`", 415)
    try:
        value = json.loads(await request.body())
        json.dumps(value, ensure_ascii=False).encode()  # serde refuses a lone surrogate as it reads
    except ValueError as error:
        raise RejectedError(f"Failed to parse the request body as JSON: {error}", 400) from error
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = f"Failed to deserialize the JSON body into the target type: {where}: {first['msg']}"
        raise RejectedError(message, 422) from error


def sampling_of(wanted: Parameters) -> Sampling:
    """How tokens are to be drawn.

    Raises:
        InferError: a parameter is out of its range.
    """
    temperature = 1.0 if wanted.temperature is None else wanted.temperature
    checks = [
        (temperature > 0, "`temperature` must be strictly positive"),
        (wanted.repetition_penalty is None or wanted.repetition_penalty > 0, "`repetition_penalty` must be positive"),
        (wanted.top_p is None or 0 < wanted.top_p < 1, "`top_p` must be > 0.0 and < 1.0"),
        (wanted.typical_p is None or 0 < wanted.typical_p < 1, "`typical_p` must be > 0.0 and < 1.0"),
        (wanted.top_k is None or wanted.top_k > 0, "`top_k` must be strictly positive"),
        (wanted.max_new_tokens != 0, "`max_new_tokens` must be strictly positive"),
        (
            len(wanted.stop) <= MAX_STOP_SEQUENCES,
            f"`stop` supports up to {MAX_STOP_SEQUENCES} stop sequences. Given: {len(wanted.stop)}",
        ),
        (
            (wanted.top_n_tokens or 0) <= MAX_TOP_N_TOKENS,
            f"`top_n_tokens` must be >= 0 and <= {MAX_TOP_N_TOKENS}. Given: {wanted.top_n_tokens}",
        ),
    ]
    for holds, message in checks:
        if not holds:
            raise invalid(message)
    drawn = wanted.do_sample or temperature != 1.0 or wanted.top_k is not None or wanted.top_p is not None
    return Sampling(
        temperature=temperature if drawn else 0.0,
        top_k=wanted.top_k or 0,
        top_p=1.0 if wanted.top_p is None else wanted.top_p,
        repeat_penalty=1.0 if wanted.repetition_penalty is None else wanted.repetition_penalty,
        repeat_last_n=1_000_000,
        seed=wanted.seed,
    )


def constraint_of(grammar: dict[str, Any] | None) -> Constraint | None:
    """What the answer must be.

    Raises:
        InferError: a grammar that cannot be read.
        RejectedError: a kind of grammar that nobody knows.
    """
    if grammar is None:
        return None
    value = grammar.get("value")
    try:
        match grammar.get("type"):
            case "regex":
                return Constraint(str(value))
            case "json" | "json_object" if isinstance(value, dict):
                return _of_schema(value)
            case "json_schema" if isinstance(value, dict):
                return _of_schema(value.get("schema", {}))
    except BadGrammarError as error:
        raise InferError(f"Request failed during generation: Server error: {error}", "generation", 424) from error
    message = f"unknown variant `{grammar.get('type')}`, expected one of `json`, `regex`, `json_schema`"
    raise RejectedError(f"Failed to deserialize the JSON body into the target type: grammar: {message}", 422)


def _of_schema(schema: dict[str, Any]) -> Constraint:
    if "properties" not in schema:
        raise invalid("grammar is not valid: Grammar must have a 'properties' field")
    return Constraint.json_schema(schema)
