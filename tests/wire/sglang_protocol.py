"""What SGLang accepts: bodies, their limits, and its errors. Sources: see tests/wire/sglang.py."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tests.wire.constraint import BadGrammarError, Constraint
from tests.wire.engine import Sampling

# sampling_params is the one place where SGLang refuses a key that it does not know.
SAMPLING_KEYS = (
    "max_new_tokens",
    "stop",
    "stop_token_ids",
    "stop_regex",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "min_new_tokens",
    "n",
    "json_schema",
    "regex",
    "ebnf",
    "structural_tag",
    "ignore_eos",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "no_stop_trim",
    "stream_interval",
    "logit_bias",
    "sampling_seed",
    "custom_params",
    "beam_width",
    "watermark",
    "choice",
)


class NativeError(Exception):
    """An error of SGLang's own routes."""


class OpenAIError(Exception):
    """An error of the routes under /v1."""

    def __init__(self, message: str, kind: str = "BadRequestError", status: int = 400) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status


class SamplingParams(BaseModel):
    """`sampling_params`; null stands for the default."""

    model_config = ConfigDict(extra="ignore")

    max_new_tokens: int | None = 128
    temperature: float | None = 1.0
    top_p: float | None = 1.0
    top_k: int | None = None
    min_p: float | None = 0.0
    n: int | None = 1
    regex: str | None = None
    json_schema: str | None = None
    ebnf: str | None = None
    ignore_eos: bool | None = False
    skip_special_tokens: bool | None = True
    sampling_seed: int | None = None


class GenerateBody(BaseModel):
    """`POST /generate`. Unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore")

    text: str | list[str] | None = None
    input_ids: list[int] | list[list[int]] | None = None
    sampling_params: dict[str, Any] | list[dict[str, Any]] | None = None
    return_logprob: bool | list[bool] | None = None
    logprob_start_len: int | list[int] | None = None
    top_logprobs_num: int | list[int] | None = None
    token_ids_logprob: list[int] | list[list[int]] | None = None
    return_text_in_logprobs: bool | None = None
    stream: bool | None = False


class ScoreBody(BaseModel):
    """`POST /v1/score`. Unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore")

    query: str | list[int] | None = None
    items: str | list[str] | list[list[int]] | None = None
    label_token_ids: list[int] | list[list[int]] | None = None
    apply_softmax: bool = False
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    return_token_logprobs: bool = False
    item_first: bool = False
    model: str = "default"


class TokenizeBody(BaseModel):
    """`POST /tokenize`, of texts or of a chat."""

    model_config = ConfigDict(extra="allow")

    model: str = "default"
    prompt: str | list[str] | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "TokenizeBody":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("Exactly one of 'prompt' or 'messages' must be provided.")
        return self


class DetokenizeBody(BaseModel):
    """`POST /detokenize`."""

    model: str = "default"
    tokens: list[int] | list[list[int]]
    skip_special_tokens: bool = True


def params_of(given: dict[str, Any] | None) -> SamplingParams:
    """`sampling_params`, read.

    Raises:
        NativeError: an unknown key, or a value out of its range.
    """
    for key in given or {}:
        if key not in SAMPLING_KEYS:
            listed = ", ".join(f"`{name}`" for name in SAMPLING_KEYS)
            raise NativeError(f"unknown field `{key}`, expected one of {listed}")
    params = SamplingParams.model_validate(given or {})
    temperature = 1.0 if params.temperature is None else params.temperature
    top_p = 1.0 if params.top_p is None else params.top_p
    if temperature < 0.0:
        raise NativeError(f"temperature must be a non-negative finite number, got {temperature}.")
    if not 0.0 < top_p <= 1.0:
        raise NativeError(f"top_p must be in (0, 1], got {top_p}.")
    if params.top_k is not None and params.top_k != -1 and params.top_k < 1:
        raise NativeError(f"top_k must be -1 (disable) or at least 1, got {params.top_k}.")
    if params.max_new_tokens is not None and params.max_new_tokens < 0:
        raise NativeError(f"max_new_tokens must be at least 0, got {params.max_new_tokens}.")
    if sum(value is not None for value in (params.regex, params.json_schema, params.ebnf)) > 1:
        raise NativeError("Only one of json_schema, regex, ebnf, or structural_tag can be set.")
    return params


def sampling_of(params: SamplingParams, *, deterministic: bool) -> Sampling:
    """How tokens are drawn. The seed counts only where the server was started with deterministic inference."""
    return Sampling(
        temperature=1.0 if params.temperature is None else params.temperature,
        top_p=1.0 if params.top_p is None else params.top_p,
        top_k=params.top_k if params.top_k is not None and params.top_k > 0 else 0,
        min_p=params.min_p or 0.0,
        seed=(42 if params.sampling_seed is None else params.sampling_seed) if deterministic else None,
        ignore_end=bool(params.ignore_eos),
    )


def constraint_of(params: SamplingParams) -> Constraint | None:
    """What the answer must be.

    Raises:
        NativeError: a grammar that cannot be read.
    """
    try:
        if params.regex:
            return Constraint(params.regex)
        if params.json_schema:
            return Constraint.json_schema(_loaded(params.json_schema))
    except BadGrammarError as error:
        raise NativeError(f"Invalid grammar request: {error}") from error
    if params.ebnf:
        raise NativeError("ebnf is not spoken here")
    return None


def _loaded(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadGrammarError(str(error)) from error
    if not isinstance(value, dict):
        raise BadGrammarError(f"{text!r} is no schema")
    return value
