"""SGLang: model info, tokenize, generate and score.

Followed: SGLang 0.5.23 (its wheel), srt/entrypoints/http_server.py, entrypoints/openai/{protocol,serving_score,
serving_tokenize}.py, managers/{io_struct,tokenizer_manager,tokenizer_manager_score_mixin}.py, layers/sampler.py,
sampling/{sampling_params,sampling_batch_info}.py and api/v1/api_types.py. What is easily got wrong:

- `/v1/score` of texts tokenises `query + item` as one raw text, with a beginning token and no chat template; of ids it
  joins the lists. Scores are probabilities over the whole vocabulary unless `apply_softmax`;
- the log-probabilities of `/generate` are taken after the grammar and after the temperature;
- `sampling_seed` does nothing unless the server runs with deterministic inference;
- an unknown key in `sampling_params` is refused, elsewhere it is ignored;
- `token_ids_logprob` of one prompt is a flat list; of several, a list of lists;
- log-probabilities come as [logprob, id, text or null]; several prompts get a list, one gets an object;
- errors of `/generate` are {"error": {"message"}}, those of /v1 {"object": "error", "message", "type", "code"}.
"""

import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers

from tests.wire.controls import Controls, Guard
from tests.wire.engine import Engine
from tests.wire.sglang_protocol import DetokenizeBody, GenerateBody, NativeError, OpenAIError, ScoreBody, TokenizeBody
from tests.wire.sglang_server import SGLangServer

VERSION = "0.5.23"


def create_sglang(engine: Engine, controls: Controls, *, model: str = "tiny", deterministic: bool = False) -> FastAPI:
    """The server as an application. While `controls.loading`, it is up and says 503 to whoever asks for its health."""
    app = FastAPI()
    server = SGLangServer(engine, controls, deterministic=deterministic)
    _errors(app)

    def check(path: str, headers: Headers) -> Response | None:
        if controls.api_key is None or path.startswith(("/health", "/ready", "/metrics")):
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and key == controls.api_key
        return None if known else JSONResponse({"error": "Unauthorized"}, 401)

    app.add_middleware(Guard, check=check)

    @app.get("/health")
    @app.get("/health_generate")
    def health() -> Response:
        return Response(status_code=503 if controls.loading else 200)

    @app.get("/get_model_info")
    @app.get("/model_info")
    def model_info() -> dict[str, Any]:
        return {
            "model_path": str(engine.folder),
            "served_model_name": model,
            "tokenizer_path": str(engine.folder),
            "is_generation": True,
            "preferred_sampling_params": None,
            "weight_version": "default",
            "load_format": "auto",
            "has_image_understanding": False,
            "has_audio_understanding": False,
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
        }

    @app.get("/get_server_info")
    @app.get("/server_info")
    def server_info() -> dict[str, Any]:
        return {
            "model_path": str(engine.folder),
            "served_model_name": model,
            "context_length": engine.context,
            "enable_deterministic_inference": deterministic,
            "version": VERSION,
            "internal_states": [],
        }

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        card = {"id": model, "object": "model", "created": int(time.time()), "owned_by": "sglang", "root": model}
        return {"object": "list", "data": [card | {"parent": None, "max_model_len": engine.context}]}

    @app.post("/tokenize")
    @app.post("/v1/tokenize")
    def tokenize(body: TokenizeBody) -> dict[str, Any]:
        return server.tokenize(body)

    @app.post("/detokenize")
    @app.post("/v1/detokenize")
    def detokenize(body: DetokenizeBody) -> dict[str, Any]:
        return server.detokenize(body)

    @app.post("/generate")
    def generate(body: GenerateBody) -> Any:
        return server.generate(body)

    @app.post("/v1/score")
    def score(body: ScoreBody) -> dict[str, Any]:
        return server.score(body)

    return app


def _errors(app: FastAPI) -> None:
    @app.exception_handler(NativeError)
    def native(request: Request, error: NativeError) -> JSONResponse:
        if request.url.path == "/generate":
            return JSONResponse({"error": {"message": str(error)}}, 400)
        return _error(str(error), "BadRequestError", 400)

    @app.exception_handler(OpenAIError)
    def refused(_request: Request, error: OpenAIError) -> JSONResponse:
        return _error(str(error), error.kind, error.status)

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return _error(f"{error} {error.errors()}", "Bad Request", 400)


def _error(message: str, kind: str, status: int) -> JSONResponse:
    return JSONResponse({"object": "error", "message": message, "type": kind, "param": None, "code": status}, status)
