"""Text Generation Inference: info, tokenize, chat_tokenize, generate and chat completions.

Followed: TGI 3.3.6-dev0 (commit db931fcf, 2026-01), router/src/{lib,server,validation}.rs and
infer/{mod,chat_template}.rs for the wire, server/text_generation_server/utils/tokens.py, utils/logits_process.py and
models/flash_causal_lm.py for the numbers. What is easily got wrong:

- `/generate` puts before `inputs` what the tokenizer puts before a text, always; `/chat_tokenize` gives text that has
  the template's beginning token already, and the chat route adds none;
- `temperature: 0` and `top_p: 1.0` are errors on `/generate`; the chat route takes a temperature of 0 as greedy;
- `top_n_tokens` is at most 5 unless the server was started otherwise, and ties are all shown;
- log-probabilities are taken after grammar, temperature and filters: what is forbidden is not shown at all;
- without `parameters` tokens are drawn, with `parameters: {}` they are not;
- a control token's text becomes that token, in `inputs` and in messages; `prefill` stays empty (REQUEST_LOGPROBS=0);
- more than `max_concurrent_requests` at once are answered 429, without Retry-After; unreadable bodies in plain text;
- an API key guards `/generate`, `/tokenize` and the chat, but not `/info`, `/health` or `/chat_tokenize`.
"""

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.datastructures import Headers

from tests.wire.controls import Controls, Guard
from tests.wire.engine import Engine, Step
from tests.wire.tgi_protocol import (
    ChatBody,
    GenerateBody,
    InferError,
    Parameters,
    RejectedError,
    constraint_of,
    invalid,
    read_body,
    sampling_of,
)

VERSION = "3.3.6-dev0"
GUARDED = ("/", "/generate", "/tokenize", "/v1/chat/completions")


def create_tgi(engine: Engine, controls: Controls, *, max_concurrent_requests: int = 128) -> FastAPI:
    """The server as an application. `controls.loading` is a backend that does not answer."""
    app = FastAPI()
    server = _Server(engine, controls, max_concurrent_requests)
    _errors(app)

    def check(path: str, headers: Headers) -> Response | None:
        if controls.api_key is None or path not in GUARDED:
            return None
        known = headers.get("authorization", "").lower() == f"bearer {controls.api_key}".lower()
        return None if known else Response(status_code=401)

    app.add_middleware(Guard, check=check)

    @app.get("/health")
    def health() -> Response:
        if controls.loading:
            return JSONResponse({"error": "unhealthy", "error_type": "healthcheck"}, 503)
        return Response(status_code=200)

    @app.get("/info")
    def info() -> dict[str, Any]:
        return server.info()

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        name = server.info()["model_id"]
        return {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": name}]}

    @app.post("/tokenize")
    async def tokenize(request: Request) -> list[dict[str, Any]]:
        body = await read_body(request, GenerateBody)
        return server.tokens(body.inputs, add_special=True)

    @app.post("/chat_tokenize")
    async def chat_tokenize(request: Request) -> dict[str, Any]:
        body = await read_body(request, ChatBody)
        text = server.template(body)
        return {"tokenize_response": server.tokens(text, add_special=False), "templated_text": text}

    @app.post("/generate")
    async def generate(request: Request) -> JSONResponse:
        body = await read_body(request, GenerateBody)
        return await run_in_threadpool(server.generate, body)

    @app.post("/")
    async def compatible(request: Request) -> JSONResponse:
        """What huggingface_hub's client asks: as `/generate`, the answer in a list."""
        body = await read_body(request, GenerateBody)
        answer = await run_in_threadpool(server.generate, body)
        return JSONResponse([json.loads(bytes(answer.body))])

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> JSONResponse:
        body = await read_body(request, ChatBody)
        return await run_in_threadpool(server.chat, body)

    return app


class _Server:
    def __init__(self, engine: Engine, controls: Controls, concurrency: int) -> None:
        self.engine = engine
        self.controls = controls
        self._concurrency = concurrency
        self._permits = threading.Semaphore(concurrency)

    def info(self) -> dict[str, Any]:
        return {
            "model_id": str(self.engine.folder),
            "model_sha": None,
            "model_pipeline_tag": None,
            "max_concurrent_requests": self._concurrency,
            "max_best_of": 2,
            "max_stop_sequences": 4,
            "max_input_tokens": self.engine.context - 1,
            "max_total_tokens": self.engine.context,
            "validation_workers": 2,
            "max_client_batch_size": 4,
            "router": "text-generation-router",
            "version": VERSION,
            "sha": None,
            "docker_label": None,
        }

    def tokens(self, text: str, *, add_special: bool) -> list[dict[str, Any]]:
        """Token ids with the place of each in the text, in bytes."""
        data = text.encode()
        rows, at = [], 0
        for place, token in enumerate(self.engine.encode(text, add_special=add_special)):
            length = len(self.engine.bytes_of(token))
            if add_special and place == 0 and self.engine.begins_each_text:
                length = 0  # the beginning token stands nowhere in the text
            piece = data[at : at + length].decode(errors="replace")
            rows.append({"id": token, "text": piece, "start": at, "stop": at + length})
            at += length
        return rows

    def template(self, body: ChatBody) -> str:
        if not body.messages:
            raise InferError("Template error: no messages", "template_error", 422)
        last = body.messages[-1]
        text = self.engine.chat(body.messages)
        if last["role"] == "assistant" and (at := text.rfind(last["content"])) >= 0:
            return text[: at + len(last["content"])].rstrip()
        return text

    def generate(self, body: GenerateBody) -> JSONResponse:
        wanted = body.parameters
        ids, steps = self._write(body.inputs, wanted, add_special=True)
        text = self.engine.text([step.token for step in steps])
        answer: dict[str, Any] = {"generated_text": body.inputs + text if wanted.return_full_text else text}
        if wanted.details or wanted.decoder_input_details:
            answer["details"] = self._details(steps, wanted)
        headers = {"x-compute-type": "cpu", "x-prompt-tokens": str(len(ids)), "x-generated-tokens": str(len(steps))}
        return JSONResponse(answer, headers=headers)

    def chat(self, body: ChatBody) -> JSONResponse:
        wanted = Parameters(
            temperature=None if body.temperature == 0 else body.temperature,
            do_sample=body.temperature != 0,
            top_p=body.top_p,
            max_new_tokens=body.max_tokens,
            stop=body.stop or [],
            seed=body.seed,
            top_n_tokens=body.top_logprobs,
            grammar=body.response_format,
            details=True,
        )
        ids, steps = self._write(self.template(body), wanted, add_special=False)
        details = self._details(steps, wanted)
        tops = details.get("top_tokens", [[]] * len(steps))
        content = [
            _chat_token(t) | {"top_logprobs": [_chat_token(o) for o in top]}
            for t, top in zip(details["tokens"], tops, strict=True)
        ]
        reason = "stop" if details["finish_reason"] == "eos_token" else details["finish_reason"]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.engine.text([step.token for step in steps])},
            "logprobs": {"content": content} if body.logprobs and not self.controls.drop_logprobs else None,
            "finish_reason": reason,
        }
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(steps), "total_tokens": len(ids) + len(steps)}
        head = {"object": "chat.completion", "id": "", "created": int(time.time()), "model": str(self.engine.folder)}
        return JSONResponse(head | {"system_fingerprint": f"{VERSION}-native", "choices": [choice], "usage": usage})

    def _write(self, text: str, wanted: Parameters, *, add_special: bool) -> tuple[list[int], list[Step]]:
        if not self._permits.acquire(blocking=False):
            raise InferError("Model is overloaded", "overloaded", 429)
        try:
            return self._write_now(text, wanted, add_special=add_special)
        finally:
            self._permits.release()

    def _write_now(self, text: str, wanted: Parameters, *, add_special: bool) -> tuple[list[int], list[Step]]:
        sampling, constraint = sampling_of(wanted), constraint_of(wanted.grammar)
        if not text:
            raise invalid("`inputs` cannot be empty")
        ids = self.engine.encode(text, add_special=add_special)
        if wanted.truncate is not None:
            ids = ids[-wanted.truncate :]
        context = self.engine.context
        limit = wanted.max_new_tokens if wanted.max_new_tokens is not None else max(0, context - len(ids))
        if len(ids) + limit > context:
            raise invalid(
                f"`inputs` tokens + `max_new_tokens` must be <= {context}. Given: {len(ids)} `inputs` tokens and "
                f"{limit} `max_new_tokens`"
            )
        if len(ids) > context - 1:
            raise invalid(f"`inputs` must have less than {context - 1} tokens. Given: {len(ids)}")
        if self.controls.loading:
            raise InferError("Request failed during generation: transport error", "generation", 424)
        ids = self.controls.read(ids, text, self.engine.begin_id)
        if self.controls.ignore_constraint:
            constraint = None
        return ids, self.engine.write(ids, limit, sampling, constraint)

    def _details(self, steps: Sequence[Step], wanted: Parameters) -> dict[str, Any]:
        # A token that is both the last one allowed and the end token counts as the last one allowed.
        limited = wanted.max_new_tokens is None or len(steps) >= wanted.max_new_tokens
        details: dict[str, Any] = {
            "finish_reason": "length" if limited else "eos_token",
            "generated_tokens": len(steps),
            "seed": wanted.seed,
            "prefill": [],
            "tokens": [self._token(step.token, step, shown_alone=True) for step in steps],
        }
        if wanted.top_n_tokens and not self.controls.drop_logprobs:
            details["top_tokens"] = [self._top(step, wanted.top_n_tokens) for step in steps]
        return details

    def _top(self, step: Step, count: int) -> list[dict[str, Any]]:
        best = float(step.final.topk(count).values[-1])
        values = step.final.tolist()
        shown = [i for i, value in enumerate(values) if value >= best and value > -float("inf")]
        shown.sort(key=values.__getitem__, reverse=True)
        return [self._token(i, step, shown_alone=False) for i in shown]

    def _token(self, token: int, step: Step, *, shown_alone: bool) -> dict[str, Any]:
        text = self.engine.piece(token)
        if shown_alone and "\ufffd" in text:
            text = ""  # what is written is decoded as it grows; a broken character waits for its rest
        special = token in self.engine.named_special_ids
        return {"id": token, "text": text, "logprob": float(step.final[token]), "special": special}


def _chat_token(token: dict[str, Any]) -> dict[str, Any]:
    return {"token": token["text"], "logprob": token["logprob"]}


def _errors(app: FastAPI) -> None:
    @app.exception_handler(InferError)
    def infer(_request: Request, error: InferError) -> JSONResponse:
        return JSONResponse({"error": str(error), "error_type": error.kind}, error.status)

    @app.exception_handler(RejectedError)
    def rejected(_request: Request, error: RejectedError) -> PlainTextResponse:
        return PlainTextResponse(str(error), error.status)
