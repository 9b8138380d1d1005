"""llama.cpp's llama-server: health, props, models, tokenize, detokenize, apply-template and completion.

Followed: llama-server b10605 (2026-08), a real one built for a CPU and asked with `tests/wire/exchanges.py`, and its
sources tools/server/{README.md,server-http.cpp,server-schema.cpp,server-task.cpp,server-context.cpp} and
common/sampling.cpp. What is easily got wrong:

- a prompt given as text gets a beginning token, one of ids does not; `/apply-template` leaves the template's own away,
  so that text with one in front, sent as text, has two;
- `/tokenize` makes control tokens of their texts unless `parse_special: false`;
- `n_probs` gives the model's own probabilities, whatever grammar, bias and options say; the drawn token need not be
  among them. With `post_sampling_probs` they are those after the samplers, and the grammar is not one of them: it is
  asked last, and only a token that it forbids is drawn again;
- a control token's text is "" there; after a broken character there are no probabilities at all;
- unless they are set: temperature 0.8, top_k 40, top_p 0.95, min_p 0.05;
- unknown keys are ignored; a body that is no JSON, or holds a lone surrogate, is answered 500;
- several prompts get a list; while the model loads, every page says 503, /health too.
"""

import codecs
import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from tests.wire.constraint import BadGrammarError, Constraint
from tests.wire.controls import Controls, Guard
from tests.wire.engine import Engine, Sampling, Step
from tests.wire.gbnf import gbnf_constraint

BUILD = "b10605-tiny"
LOWEST = -3.4028234663852886e38
PUBLIC = ("/", "/health", "/v1/health")
DEFAULTS = {
    "n_predict": -1,
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "repeat_penalty": 1.0,
    "repeat_last_n": 64,
    "seed": 4294967295,
    "n_probs": 0,
    "post_sampling_probs": False,
    "return_tokens": False,
    "cache_prompt": True,
    "ignore_eos": False,
    "stream": False,
}
KINDS = {"invalid_request_error": 400, "exceed_context_size_error": 400, "server_error": 500}


class LlamaError(Exception):
    """An error in llama-server's form."""

    def __init__(self, kind: str, message: str, **more: int) -> None:
        super().__init__(message)
        self.kind = kind
        self.more = more


def create_llamacpp(engine: Engine, controls: Controls, *, alias: str = "tiny") -> FastAPI:
    """The server as an application."""
    app = FastAPI()
    server = _Server(engine, controls, alias)
    _middleware(app, controls)

    @app.get("/health")
    @app.get("/v1/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    @app.get("/models")
    def models() -> dict[str, Any]:
        return server.models()

    @app.get("/props")
    def props() -> dict[str, Any]:
        return server.props()

    @app.post("/tokenize")
    async def tokenize(request: Request) -> dict[str, Any]:
        return server.tokenize(await _read(request))

    @app.post("/detokenize")
    async def detokenize(request: Request) -> dict[str, Any]:
        body = await _read(request)
        return {"content": engine.text(body.get("tokens", []), skip_special=False)}

    @app.post("/apply-template")
    async def apply_template(request: Request) -> dict[str, Any]:
        return {"prompt": server.template(await _read(request))}

    @app.post("/completion")
    @app.post("/completions")
    async def completion(request: Request) -> Any:
        body = await _read(request)
        return await run_in_threadpool(server.complete, body)

    return app


def _middleware(app: FastAPI, controls: Controls) -> None:
    def check(path: str, headers: Headers) -> Response | None:
        given = headers.get("authorization", "") or headers.get("x-api-key", "")
        if path not in PUBLIC and controls.api_key not in (None, given.removeprefix("Bearer ")):
            error: dict[str, Any] = {"message": "Invalid API Key", "type": "authentication_error", "code": 401}
            return JSONResponse({"error": error}, 401)
        if controls.loading:
            error = {"message": "Loading model", "type": "unavailable_error", "code": 503}
            return JSONResponse({"error": error}, 503)
        return None

    app.add_middleware(Guard, check=check)

    @app.exception_handler(LlamaError)
    def failed(_request: Request, error: LlamaError) -> JSONResponse:
        code = KINDS[error.kind]
        body = {"code": code, "message": str(error), "type": error.kind} | error.more
        return JSONResponse({"error": body}, code)

    @app.exception_handler(HTTPException)
    def not_found(_request: Request, _error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}, 404)


async def _read(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
        json.dumps(body, ensure_ascii=False).encode()  # a lone surrogate is a parse error
    except ValueError as error:
        raise LlamaError("server_error", f"[json.exception.parse_error.101] parse error: {error}") from error
    if not isinstance(body, dict):
        raise LlamaError("server_error", "[json.exception.type_error.306] cannot use value() with this type")
    return body


class _Server:
    def __init__(self, engine: Engine, controls: Controls, alias: str) -> None:
        self.engine = engine
        self.controls = controls
        self.alias = alias
        self._begin = engine.piece(engine.begin_id)

    def models(self) -> dict[str, Any]:
        meta = {"n_vocab": self.engine.vocabulary, "n_ctx": self.engine.context, "n_ctx_train": self.engine.context}
        card = {"id": self.alias, "aliases": [self.alias], "tags": [], "object": "model", "created": 0}
        old: dict[str, Any] = {"name": self.alias, "model": self.alias, "type": "model", "capabilities": ["completion"]}
        old |= dict.fromkeys(("modified_at", "size", "digest", "description", "parameters"), "")
        details: dict[str, Any] = dict.fromkeys(("parent_model", "family", "parameter_size", "quantization_level"), "")
        old |= {"tags": [""], "details": details | {"format": "gguf", "families": [""]}}
        return {"models": [old], "object": "list", "data": [card | {"owned_by": "llamacpp", "meta": meta}]}

    def props(self) -> dict[str, Any]:
        return {
            "default_generation_settings": {"params": dict(DEFAULTS), "n_ctx": self.engine.context},
            "total_slots": 4,
            "model_alias": self.alias,
            "model_ftype": "all F32",
            "model_path": f"{self.engine.folder.name}.gguf",
            "modalities": {"vision": False, "video": False, "audio": False},
            "media_marker": "<__media_tiny__>",
            "endpoint_slots": True,
            "endpoint_props": False,
            "endpoint_metrics": False,
            "ui": True,
            "ui_settings": {},
            "chat_template": str(self.engine.tokenizer.chat_template),
            "chat_template_caps": {"supports_system_role": True},
            "bos_token": self._begin,
            "eos_token": self.engine.piece(self.engine.end_id),
            "build_info": BUILD,
            "is_sleeping": False,
            "cors_proxy_enabled": False,
        }

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        text = body.get("content", "")
        if not isinstance(text, str):
            kind = "number" if isinstance(text, (int, float)) else "object"
            raise LlamaError("server_error", f"[json.exception.type_error.302] type must be string, but is {kind}")
        ids = self.engine.encode(
            text, add_special=body.get("add_special", False), parse_special=body.get("parse_special", True)
        )
        if text == "" and not body.get("add_special"):
            ids = []
        if not body.get("with_pieces"):
            return {"tokens": ids}
        return {"tokens": [{"id": i, "piece": _piece(self.engine.bytes_of(i))} for i in ids]}

    def template(self, body: dict[str, Any]) -> str:
        if "messages" not in body:
            raise LlamaError("invalid_request_error", "'messages' is required")
        messages = body["messages"]
        if not messages:
            return self.engine.chat([{"role": "user", "content": ""}]).rpartition("<|eot_id|>")[2]
        go_on = messages[-1].get("role") == "assistant"
        text = self.engine.chat(messages, answer=not go_on, go_on=go_on)
        return text.removeprefix(self._begin) if self.engine.begins_each_text else text

    def complete(self, body: dict[str, Any]) -> Any:
        options = _options(body)
        if "prompt" not in body:
            raise LlamaError("invalid_request_error", "[json.exception.out_of_range.403] key 'prompt' not found")
        prompts, single = self._prompts(body["prompt"])
        answers = [self._complete_one(i, ids, body, options) for i, ids in enumerate(prompts)]
        return answers[0] if single else answers

    def _prompts(self, prompt: Any) -> tuple[list[list[int]], bool]:
        """Each prompt's ids, and whether there is but one. A list with a number at its top level is one prompt."""
        if isinstance(prompt, (str, dict)) or (isinstance(prompt, list) and any(isinstance(p, int) for p in prompt)):
            return [self._ids(prompt)], True
        if not isinstance(prompt, list) or not prompt:
            raise LlamaError("invalid_request_error", '"prompt" must not be empty')
        return [self._ids(one) for one in prompt], False

    def _ids(self, prompt: Any) -> list[int]:
        if isinstance(prompt, dict):
            prompt = prompt.get("prompt_string", "")
        parts = prompt if isinstance(prompt, list) else [prompt]
        ids: list[int] = []
        for place, part in enumerate(parts):
            ids += [part] if isinstance(part, int) else self.engine.encode(part, add_special=place == 0)
        if any(not 0 <= i < self.engine.vocabulary for i in ids):
            raise LlamaError("invalid_request_error", "Prompt contains invalid tokens")
        return ids

    def _complete_one(
        self, index: int, ids: list[int], body: dict[str, Any], options: dict[str, Any]
    ) -> dict[str, Any]:
        context = self.engine.context
        if len(ids) >= context:
            message = f"request ({len(ids)} tokens) exceeds the available context size ({context} tokens)"
            raise LlamaError(
                "exceed_context_size_error", f"{message}, try increasing it", n_prompt_tokens=len(ids), n_ctx=context
            )
        ids = self.controls.read(ids, self.engine.text(ids, skip_special=False), self.engine.begin_id)
        constraint = None if self.controls.ignore_constraint else _grammar(body)
        limit = options["n_predict"] if options["n_predict"] >= 0 else context
        # One token is written even where none was asked for.
        limit = min(max(1, limit), max(1, context - len(ids)))
        steps = self.engine.write(ids, limit, _sampling(options), constraint, grammar_last=True)
        tokens = [step.token for step in steps]
        ended = bool(tokens) and tokens[-1] == self.engine.end_id and not options["ignore_eos"]
        text = self.engine.text(tokens)
        answer = {
            "index": index,
            "content": text,
            "tokens": tokens if options["return_tokens"] else [],
            "id_slot": 0,
            "stop": True,
            "model": self.alias,
            "tokens_predicted": len(tokens),
            "tokens_evaluated": len(ids),
            "generation_settings": options,
            "prompt": self.engine.text(ids, skip_special=False),
            "has_new_line": "\n" in text,
            "truncated": False,
            "stop_type": "eos" if ended else "limit",
            "stopping_word": "",
            "tokens_cached": len(ids) + len(tokens) - 1,
            "timings": {"cache_n": 0, "prompt_n": len(ids), "prompt_ms": 1.0, "predicted_n": len(tokens)},
        }
        if options["n_probs"] > 0 and not text.endswith("\ufffd") and not self.controls.drop_logprobs:
            after = bool(options["post_sampling_probs"])
            answer["completion_probabilities"] = [self._row(step, options["n_probs"], after=after) for step in steps]
        return answer

    def _row(self, step: Step, count: int, *, after: bool) -> dict[str, Any]:
        logprobs = step.final if after else step.raw
        values: list[float] = (logprobs.exp() if after else logprobs.clamp(min=LOWEST)).tolist()

        def one(token: int) -> dict[str, Any]:
            data = b"" if token in self.engine.special_ids else self.engine.bytes_of(token)
            text = codecs.getincrementaldecoder("utf-8")("replace").decode(data)  # what is begun is left out
            row = {"id": token, "token": text, "bytes": list(data)}
            return row | {"prob" if after else "logprob": values[token]}

        best = logprobs.topk(min(count, self.engine.vocabulary)).indices.tolist()
        shown = [one(token) for token in best if not after or values[token] > 0.0]
        return one(step.token) | {"top_probs" if after else "top_logprobs": shown}


def _piece(data: bytes) -> str | list[int]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


def _options(body: dict[str, Any]) -> dict[str, Any]:
    given = dict(body)
    for name, other in (("n_predict", "max_completion_tokens"), ("n_predict", "max_tokens"), ("n_probs", "logprobs")):
        if name not in given and other in given:
            given[name] = given[other]
    options: dict[str, Any] = dict(DEFAULTS)
    for name, default in DEFAULTS.items():
        value = given.get(name)
        if value is None:
            continue
        wanted = "boolean" if isinstance(default, bool) else "number"
        if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, (bool, int, float)):
            kinds = {bool: "boolean", str: "string", list: "array", dict: "object"}
            found = kinds.get(type(value), "number")
            message = f"Field '{name}': [json.exception.type_error.302] type must be {wanted}, but is {found}"
            raise LlamaError("invalid_request_error", message)
        options[name] = value if not isinstance(default, int) or isinstance(default, bool) else int(value)
    options["logit_bias"] = _bias(body.get("logit_bias", []))
    return options


def _bias(given: Any) -> list[dict[str, float]]:
    pairs = given.items() if isinstance(given, dict) else given
    found = [(token, bias) for token, bias in pairs if isinstance(token, int) or str(token).isdigit()]
    return [{"token": int(token), "bias": -1e9 if bias is False else float(bias)} for token, bias in found]


def _sampling(options: dict[str, Any]) -> Sampling:
    return Sampling(
        temperature=max(0.0, options["temperature"]),
        top_k=options["top_k"],
        top_p=options["top_p"],
        min_p=options["min_p"],
        repeat_penalty=options["repeat_penalty"],
        repeat_last_n=options["repeat_last_n"],
        seed=None if options["seed"] in (-1, 4294967295) else options["seed"],
        bias=tuple((int(row["token"]), row["bias"]) for row in options["logit_bias"]),
        ignore_end=options["ignore_eos"],
    )


def _grammar(body: dict[str, Any]) -> Constraint | None:
    try:
        if body.get("grammar"):
            return gbnf_constraint(str(body["grammar"]))
        if body.get("json_schema"):
            return Constraint.json_schema(body["json_schema"])
    except BadGrammarError as error:
        message = f"Failed to initialize samplers: failed to parse grammar ({error})"
        raise LlamaError("invalid_request_error", message) from error
    return None
