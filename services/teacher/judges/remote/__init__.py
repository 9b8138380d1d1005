"""Judges behind a server: TGI, vLLM, SGLang, llama.cpp, Ollama, and what speaks OpenAI's API."""

import os
from pathlib import Path

from services.teacher.judges.base import Judge, JudgeUnavailableError
from services.teacher.judges.remote.dialect import Dialect
from services.teacher.judges.remote.http import Http, LoopThread
from services.teacher.judges.remote.judge import RemoteJudge
from services.teacher.judges.remote.llamacpp import LlamacppDialect
from services.teacher.judges.remote.ollama import OllamaDialect
from services.teacher.judges.remote.openai import OpenaiDialect
from services.teacher.judges.remote.sglang import SglangDialect
from services.teacher.judges.remote.tgi import TgiDialect
from services.teacher.judges.remote.vllm import VllmDialect
from services.teacher.rubric import Rubric
from services.teacher.spec import TeacherSpec

DIALECTS: dict[str, type[Dialect]] = {
    dialect.backend: dialect
    for dialect in (TgiDialect, VllmDialect, SglangDialect, LlamacppDialect, OllamaDialect, OpenaiDialect)
}
USUAL_KEYS = {"openai": "OPENAI_API_KEY", "tgi": "HF_TOKEN"}


def build_remote_judge(spec: TeacherSpec, rubric: Rubric) -> Judge:
    """The judge behind the server that `spec` names, probed.

    Raises:
        JudgeUnavailableError: there is no such server, or it fails the probe; `passing` where waiting may help.
    """
    target = spec.target
    if target.url is None:
        raise JudgeUnavailableError(f"teacher {spec.judge!r} names no server")
    key, hint = _key(spec)
    url = target.url if target.backend == "openai" else target.url.removesuffix("/v1").removesuffix("/api")
    http = Http(url, key=key, timeout_s=spec.server_timeout_s, concurrency=spec.server_concurrency, key_hint=hint)
    loop = LoopThread(f"{target.backend}-client")
    try:
        return RemoteJudge(spec, rubric, DIALECTS[target.backend](http, target.model), loop)
    except BaseException:
        loop.run(http.close())
        loop.close()
        raise


def _key(spec: TeacherSpec) -> tuple[str | None, str]:
    """The server's key, and where it comes from in words."""
    name = spec.api_key_env or USUAL_KEYS.get(spec.target.backend)
    if name is None:
        return None, "name the environment variable with its key in FABULA_API_KEY_ENV"
    key = os.environ.get(name, "").strip() or _from_file(f"{name}_FILE")
    if key is None and spec.api_key_env:
        raise JudgeUnavailableError(f"teacher {spec.judge!r} takes its key from {name}, which is not set; set it")
    return key, f"put the right key into the environment variable {name}, or into the file that {name}_FILE names"


def _from_file(variable: str) -> str | None:
    """What the file holds that an environment variable names, as a container is given a secret; none where empty."""
    if not (path := os.environ.get(variable)):
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise JudgeUnavailableError(f"{variable}={path} cannot be read: {error}") from error
