"""Ollama: version, tags, ps, show and chat.

Followed: Ollama v0.12.11 (where logprobs began) and its main branch of 2026-08 (fb307609): api/types.go,
server/{routes,prompt,logprob}.go, runner/ollamarunner/runner.go, runner/common/logprob.go and llm/llama_server.go.
What is easily got wrong:

- answers stream unless `stream: false`;
- log-probabilities are the model's own, whatever `format` and the options say; `top_logprobs` is at most 20;
- the token that ends the answer has none, so that an answer of no text has no `logprobs` at all;
- unless they are set: temperature 0.8, top_k 40, top_p 0.9, and (until 0.25) repeat_penalty 1.1 over the last 64
  tokens, those of the prompt included;
- a prompt beyond `num_ctx` (4096 unless set, and never more than the model has) is cut in the middle, silently, unless
  `truncate: false`; `prompt_eval_count` says how much was read;
- unknown options and keys are ignored, options of a wrong type are an error; an unknown model is 404;
- a control token's text in a message becomes that token; an assistant's message at the end is gone on with.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from tests.wire.constraint import BadGrammarError, Constraint
from tests.wire.controls import Controls
from tests.wire.engine import Engine, Sampling, Step

VERSION = "0.12.11"
DEFAULT_CONTEXT = 4096
INTEGERS = (
    "num_predict",
    "num_keep",
    "top_k",
    "repeat_last_n",
    "seed",
    "num_ctx",
    "num_batch",
    "num_gpu",
    "num_thread",
)
FLOATS = ("temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
TYPES: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "name": (str,),
    "messages": (list,),
    "stream": (bool,),
    "logprobs": (bool,),
    "top_logprobs": (int,),
    "options": (dict,),
    "truncate": (bool,),
    "shift": (bool,),
    "verbose": (bool,),
    "_debug_render_only": (bool,),
}
GO_NAMES = {str: "string", list: "array", bool: "bool", int: "number", float: "number", dict: "object"}


class OllamaError(Exception):
    """An error with Ollama's body: {"error": "..."}."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def create_ollama(engine: Engine, controls: Controls, *, model: str = "tiny") -> FastAPI:
    """The server as an application. While `controls.loading` its queue is full."""
    app = FastAPI()
    server = _Server(engine, controls, model)

    @app.api_route("/", methods=["GET", "HEAD"])
    def root() -> PlainTextResponse:
        return PlainTextResponse("Ollama is running")

    @app.get("/api/version")
    def version() -> dict[str, str]:
        return {"version": VERSION}

    @app.get("/api/tags")
    def tags() -> dict[str, Any]:
        return {"models": [server.listed() | {"modified_at": _now()}]}

    @app.get("/api/ps")
    def ps() -> dict[str, Any]:
        more = {"expires_at": _now(), "size_vram": 0, "context_length": min(DEFAULT_CONTEXT, engine.context)}
        return {"models": [server.listed() | more]}

    @app.post("/api/show")
    async def show(request: Request) -> dict[str, Any]:
        body = _read(await request.body(), "ShowRequest")
        server.check_model(str(body.get("model") or body.get("name") or ""))
        return server.show(verbose=bool(body.get("verbose")))

    @app.post("/api/chat")
    async def chat(request: Request) -> Response:
        body = _read(await request.body(), "ChatRequest")
        parts = await run_in_threadpool(server.chat, body)
        if body.get("stream") is False:
            return JSONResponse(_joined(parts))
        return StreamingResponse(_lines(parts), media_type="application/x-ndjson")

    @app.exception_handler(OllamaError)
    def failed(_request: Request, error: OllamaError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, error.status)

    return app


def _read(data: bytes, kind: str) -> dict[str, Any]:
    """The body as Go reads it: a lone surrogate becomes U+FFFD, a wrong type is an error, null is nothing."""
    if not data:
        raise OllamaError(400, "missing request body")
    try:
        body = json.loads(json.dumps(json.loads(data), ensure_ascii=False).encode("utf-8", errors="replace"))
    except ValueError as error:
        raise OllamaError(400, f"invalid character in body: {error}") from error
    if not isinstance(body, dict):
        raise OllamaError(400, f"json: cannot unmarshal {GO_NAMES[type(body)]} into Go value of type api.{kind}")
    body = {key: value for key, value in body.items() if value is not None}
    for key, kinds in TYPES.items():
        value = body.get(key)
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            message = f"json: cannot unmarshal {GO_NAMES[type(value)]} into Go struct field {kind}.{key}"
            raise OllamaError(400, f"{message} of type {GO_NAMES[kinds[0]]}")
    return body


class _Server:
    def __init__(self, engine: Engine, controls: Controls, model: str) -> None:
        self.engine = engine
        self.controls = controls
        self.model = model

    def listed(self) -> dict[str, Any]:
        name = f"{self.model}:latest"
        digest = f"{hash(self.engine.folder.name) & 0xFFFF:064x}"
        return {"name": name, "model": name, "size": 1_000_000, "digest": digest, "details": _DETAILS}

    def check_model(self, name: str) -> None:
        if not name:
            raise OllamaError(400, "model is required")
        if name.removesuffix(":latest") != self.model:
            raise OllamaError(404, f"model '{name}' not found")

    def show(self, *, verbose: bool) -> dict[str, Any]:
        names = self.engine.tokenizer.convert_ids_to_tokens(range(self.engine.vocabulary))
        info = {
            "general.architecture": "llama",
            "general.parameter_count": 123_456,
            "llama.context_length": self.engine.context,
            "llama.vocab_size": self.engine.vocabulary,
            "tokenizer.ggml.bos_token_id": self.engine.begin_id,
            "tokenizer.ggml.eos_token_id": self.engine.end_id,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.tokens": names if verbose else None,
            "tokenizer.ggml.token_type": [3 if i in self.engine.special_ids else 1 for i in range(len(names))]
            if verbose
            else None,
        }
        template = str(self.engine.tokenizer.chat_template)
        head = {"modelfile": "FROM tiny\n", "template": template, "details": _DETAILS, "model_info": info}
        return head | {"capabilities": ["completion"], "modified_at": _now()}

    def chat(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The parts of an answer, as they would stream."""
        top = body.get("top_logprobs", 0)
        if not 0 <= top <= 20:
            raise OllamaError(400, "top_logprobs must be between 0 and 20")
        self.check_model(body.get("model", ""))
        if body.get("think"):
            raise OllamaError(400, f'"{body["model"]}" does not support thinking')
        options = _options(body.get("options", {}))
        if self.controls.loading:
            raise OllamaError(503, "server busy, please try again.  maximum pending requests exceeded")
        messages = body.get("messages", [])
        if not messages:
            return [self._part("", done=True) | {"done_reason": "load"}]
        go_on = messages[-1].get("role") == "assistant"
        prompt = self.engine.chat(messages, answer=not go_on, go_on=go_on)
        if body.get("_debug_render_only"):
            return [{"model": body["model"], "created_at": _now(), "_debug_info": {"rendered_template": prompt}}]
        ids = self._fitted(self.engine.encode(prompt, add_special=False), options, cut=body.get("truncate", True))
        ids = self.controls.read(ids, self.engine.text(ids, skip_special=False), self.engine.begin_id)
        constraint = None if self.controls.ignore_constraint else _format(body.get("format"))
        room = max(1, min(int(options["num_ctx"]), self.engine.context) - len(ids))
        limit = min(int(options["num_predict"]), room) if options["num_predict"] >= 0 else room
        steps = self.engine.write(ids, limit, _sampling(options), constraint)
        return self._parts(ids, steps, top if body.get("logprobs") else None)

    def _parts(self, ids: list[int], steps: list[Step], top: int | None) -> list[dict[str, Any]]:
        ended = bool(steps) and steps[-1].token == self.engine.end_id
        parts = []
        for step in steps[:-1] if ended else steps:
            content = "" if step.token in self.engine.special_ids else self.engine.piece(step.token)
            part = self._part(content, done=False)
            if top is not None and content and not self.controls.drop_logprobs:
                part["logprobs"] = [self._logprob(step, top)]
            parts.append(part)
        counts = {"total_duration": 1, "load_duration": 1, "prompt_eval_duration": 1, "eval_duration": 1}
        last = {"done_reason": "stop" if ended else "length", "prompt_eval_count": len(ids), "eval_count": len(steps)}
        return [*parts, self._part("", done=True) | last | counts]

    def _part(self, content: str, *, done: bool) -> dict[str, Any]:
        message = {"role": "assistant", "content": content}
        return {"model": self.model, "created_at": _now(), "message": message, "done": done}

    def _logprob(self, step: Step, top: int) -> dict[str, Any]:
        def one(token: int) -> dict[str, Any]:
            text = self.engine.piece(token)
            return {"token": text, "logprob": float(step.raw[token]), "bytes": list(text.encode())}

        row = one(step.token)
        return row | {"top_logprobs": [one(i) for i in step.raw.topk(top).indices.tolist()]} if top else row

    def _fitted(self, ids: list[int], options: dict[str, Any], *, cut: bool) -> list[int]:
        context = min(int(options["num_ctx"]), self.engine.context)
        if len(ids) <= context:
            return ids
        if not cut:
            raise OllamaError(400, "the input length exceeds the context length")
        keep = min(int(options["num_keep"]), context - 1)
        return ids[:keep] + ids[keep + len(ids) - context :]


_DETAILS = {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "123K"}
_DETAILS["quantization_level"] = "F32"


def _options(given: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {
        "num_predict": -1,
        "num_keep": 4,
        "num_ctx": DEFAULT_CONTEXT,
        "seed": -1,
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.0,
        "repeat_penalty": 1.1,
        "repeat_last_n": 64,
    }
    for key, value in given.items():
        for names, kind in ((INTEGERS, "integer"), (FLOATS, "float32")):
            if key in names and value is not None:
                if isinstance(value, bool) or not isinstance(value, (int, float)):
                    raise OllamaError(500, f'option "{key}" must be of type {kind}')
                options[key] = int(value) if kind == "integer" else float(value)
    return options


def _sampling(options: dict[str, Any]) -> Sampling:
    return Sampling(
        temperature=options["temperature"],
        top_k=options["top_k"],
        top_p=options["top_p"],
        min_p=options["min_p"],
        repeat_penalty=options["repeat_penalty"],
        repeat_last_n=options["repeat_last_n"],
        seed=None if options["seed"] < 0 else options["seed"],
    )


def _format(wanted: Any) -> Constraint | None:
    if wanted in (None, ""):
        return None
    try:
        if wanted == "json":
            return Constraint(r"\{[^{}]*\}")
        if isinstance(wanted, dict):
            return Constraint.json_schema(wanted)
    except BadGrammarError as error:
        raise OllamaError(400, f"invalid format: {error}") from error
    raise OllamaError(500, f'invalid format: {json.dumps(wanted)}; expected "json" or a valid JSON Schema object')


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    whole = dict(parts[-1])
    if "message" in whole:
        content = "".join(part["message"]["content"] for part in parts)
        whole["message"] = {"role": "assistant", "content": content}
    logprobs = [row for part in parts for row in part.get("logprobs", [])]
    return whole | {"logprobs": logprobs} if logprobs else whole


def _lines(parts: list[dict[str, Any]]) -> Iterator[str]:
    for part in parts:
        yield json.dumps(part) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
