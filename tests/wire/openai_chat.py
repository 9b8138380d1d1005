"""An OpenAI-compatible chat API: models and chat completions.

Followed: OpenAI's API reference (platform.openai.com/docs/api-reference/chat/create, .../guides/error-codes,
.../guides/rate-limits) and the model classes of the `openai` Python package 2.x (types/chat). What is easily got wrong:

- `top_logprobs` is at most 20 and needs `logprobs: true`; log-probabilities are the model's own;
- an unknown parameter is refused with 400, and so is a wrong type;
- 429 means "slow down", with Retry-After and x-ratelimit headers, or `insufficient_quota`, which time won't heal;
- an assistant's message at the end is a finished turn: the model starts another one;
- answers carry keys that no documentation named when the client was written.

Whether a control token's text in a message becomes that token differs from server to server behind this API. Here it
does, as in vLLM, SGLang and llama.cpp; OpenAI's own service treats it as text.
"""

import json
import time
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tests.wire.constraint import BadGrammarError, Constraint
from tests.wire.controls import Controls
from tests.wire.engine import Engine, Sampling, Step

MAX_TOP_LOGPROBS = 20


class ApiError(Exception):
    """An error in OpenAI's form."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


class ChatBody(BaseModel):
    """`POST /v1/chat/completions`; of the keys that the API knows, those that can matter to a judge are obeyed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    n: int | None = Field(default=None, ge=1, le=128)
    seed: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None
    response_format: dict[str, Any] | None = None
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    stream: bool | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    reasoning_effort: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None


def create_openai_chat(engine: Engine, controls: Controls, *, model: str = "tiny") -> FastAPI:
    """The API as an application, its paths under /v1. While `controls.loading`, it is overloaded: 503."""
    app = FastAPI()
    server = _Server(engine, controls, model)

    @app.get("/v1/models")
    def models(request: Request) -> dict[str, Any]:
        server.check_key(request)
        return {"object": "list", "data": [server.card()]}

    @app.get("/v1/models/{name:path}")
    def one_model(request: Request, name: str) -> dict[str, Any]:
        server.check_key(request)
        server.check_model(name)
        return server.card()

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> dict[str, Any]:
        server.check_key(request)
        body = _read(await request.body())
        return await run_in_threadpool(server.chat, body)

    @app.exception_handler(ApiError)
    def failed(_request: Request, error: ApiError) -> JSONResponse:
        kind = "invalid_request_error" if error.status < 500 else "server_error"
        body = {"message": str(error), "type": kind, "param": error.param, "code": error.code}
        return JSONResponse({"error": body}, error.status, headers={"x-request-id": f"req_{uuid4().hex}"})

    return app


def rate_limited(*, retry_after: str = "0") -> dict[str, Any]:
    """What `Controls.fail` needs to answer as the API does when a rate limit is reached."""
    message = "Rate limit reached for requests. Please try again in 20ms."
    error = {"message": message, "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    limits = {"x_ratelimit_limit_requests": "60", "x_ratelimit_remaining_requests": "0"}
    body = json.dumps({"error": error}).encode()
    return {"status": 429, "body": body, "retry_after": retry_after, "content_type": "application/json", **limits}


def _read(data: bytes) -> ChatBody:
    try:
        value = json.loads(data)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is no text
    except ValueError as error:
        message = "We could not parse the JSON body of your request."
        raise ApiError(400, f"{message} ({error})") from error
    try:
        return ChatBody.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ApiError(400, f"Unknown parameter: '{where}'.", code="unknown_parameter", param=where) from error
        message = f"Invalid value for '{where}': {first['msg']}."
        raise ApiError(400, message, code="invalid_value", param=where) from error


class _Server:
    def __init__(self, engine: Engine, controls: Controls, model: str) -> None:
        self.engine = engine
        self.controls = controls
        self.model = model

    def card(self) -> dict[str, Any]:
        return {"id": self.model, "object": "model", "created": 1700000000, "owned_by": "tests"}

    def check_key(self, request: Request) -> None:
        key = self.controls.api_key
        given = request.headers.get("authorization", "")
        if key is not None and not given:
            raise ApiError(
                401, "You didn't provide an API key. You need to provide your API key in an Authorization header."
            )
        if key is not None and given != f"Bearer {key}":
            shown = f"{given[7:10]}***{given[-4:]}"
            raise ApiError(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")

    def check_model(self, name: str) -> None:
        if name != self.model:
            message = f"The model `{name}` does not exist or you do not have access to it."
            raise ApiError(404, message, code="model_not_found")

    def chat(self, body: ChatBody) -> dict[str, Any]:
        self.check_model(body.model)
        if self.controls.loading:
            raise ApiError(503, "The engine is currently overloaded, please try again later")
        if body.top_logprobs is not None and not body.logprobs:
            message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
            raise ApiError(400, message, code="invalid_parameter_combination", param="top_logprobs")
        ids = self.engine.encode(self.engine.chat(body.messages), add_special=False)
        limit = body.max_completion_tokens or body.max_tokens or self.engine.context
        if len(ids) >= self.engine.context:
            message = (
                f"This model's maximum context length is {self.engine.context} tokens. However, your messages resulted "
                f"in {len(ids)} tokens. Please reduce the length of the messages."
            )
            raise ApiError(400, message, code="context_length_exceeded", param="messages")
        ids = self.controls.read(ids, self.engine.text(ids, skip_special=False), self.engine.begin_id)
        sampling, constraint = self._sampling(body), self._constraint(body)
        written = [
            self.engine.write(ids, min(limit, self.engine.context - len(ids)), sampling, constraint)
            for _ in range(body.n or 1)
        ]
        count = sum(map(len, written))
        return {
            "id": f"chatcmpl-{uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.model,
            "choices": [self._choice(i, steps, body) for i, steps in enumerate(written)],
            "usage": {
                "prompt_tokens": len(ids),
                "completion_tokens": count,
                "total_tokens": len(ids) + count,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            },
            "service_tier": "default",
            "system_fingerprint": "fp_tiny",
            "obfuscation": "q8fJ",
        }

    def _sampling(self, body: ChatBody) -> Sampling:
        return Sampling(
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=body.seed,
            bias=() if self.controls.ignore_constraint else _bias(body.logit_bias),
        )

    def _constraint(self, body: ChatBody) -> Constraint | None:
        wanted = body.response_format or {"type": "text"}
        if wanted.get("type") != "json_schema" or self.controls.ignore_constraint:
            return None
        schema = wanted.get("json_schema", {})
        if "name" not in schema:
            where = "response_format.json_schema.name"
            raise ApiError(
                400, f"Missing required parameter: '{where}'.", code="missing_required_parameter", param=where
            )
        try:
            return Constraint.json_schema(schema.get("schema", {}))
        except BadGrammarError as error:
            raise ApiError(400, f"Invalid schema for response_format: {error}", param="response_format") from error

    def _choice(self, index: int, steps: list[Step], body: ChatBody) -> dict[str, Any]:
        ended = bool(steps) and steps[-1].token == self.engine.end_id
        shown = steps[:-1] if ended else steps
        content = self.engine.text([step.token for step in shown])
        rows = [self._row(step, body.top_logprobs or 0) for step in shown] if body.logprobs else None
        if self.controls.drop_logprobs:
            rows = None
        return {
            "index": index,
            "message": {"role": "assistant", "content": content, "refusal": None, "annotations": []},
            "logprobs": None if rows is None else {"content": rows, "refusal": None},
            "finish_reason": "stop" if ended else "length",
            "content_filter_results": {},
        }

    def _row(self, step: Step, top: int) -> dict[str, Any]:
        def one(token: int) -> dict[str, Any]:
            data = self.engine.bytes_of(token)
            logprob = max(float(step.raw[token]), -9999.0)
            return {"token": self.engine.piece(token), "logprob": logprob, "bytes": list(data)}

        best = step.raw.topk(top).indices.tolist()
        return one(step.token) | {"top_logprobs": [one(token) for token in best]}


def _bias(given: dict[str, float] | None) -> tuple[tuple[int, float], ...]:
    try:
        pairs = tuple((int(token), bias) for token, bias in (given or {}).items())
    except ValueError as error:
        raise ApiError(400, f"Invalid key in 'logit_bias': {error}", param="logit_bias") from error
    if any(not -100 <= bias <= 100 for _, bias in pairs):
        raise ApiError(400, "Invalid value in 'logit_bias': expected -100 to 100.", param="logit_bias")
    return pairs
