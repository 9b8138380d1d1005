"""What vLLM accepts: bodies, their limits, and its errors. Sources: see tests/wire/vllm.py."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tests.wire.constraint import BadGrammarError, Constraint
from tests.wire.engine import Sampling

MAX_LOGPROBS = 20
MAX_LOGPROB_TOKEN_IDS = 128


class RefusedError(Exception):
    """A request that is answered with an error of OpenAI's form."""

    def __init__(self, message: str, *, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


class Body(BaseModel):
    """What the two ways to generate have in common. Unknown keys are kept and ignored."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    max_tokens: int | None = None
    n: int | None = 1
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stream: bool | None = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    allowed_token_ids: list[int] | None = None
    logprob_token_ids: list[int] | None = None
    structured_outputs: dict[str, Any] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None


class CompletionBody(Body):
    """`POST /v1/completions`."""

    prompt: list[Annotated[int, Field(ge=0)]] | list[list[Annotated[int, Field(ge=0)]]] | str | list[str] | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None
    add_special_tokens: bool = True


class ChatBody(Body):
    """`POST /v1/chat/completions`."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    chat_template_kwargs: dict[str, Any] | None = None


class TokenizeBody(BaseModel):
    """`POST /tokenize`, of a text or of a chat."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = False
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None


class DetokenizeBody(BaseModel):
    """`POST /detokenize`."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0)]]


def sampling_of(body: Body, logprobs: int | None, vocabulary: int) -> Sampling:
    """How the tokens are to be drawn.

    Raises:
        RefusedError: a parameter is out of its range.
    """
    temperature = 1.0 if body.temperature is None else body.temperature
    top_p = 1.0 if body.top_p is None else body.top_p
    top_k, min_p = body.top_k or 0, body.min_p or 0.0
    if temperature < 0:
        message = f"temperature must be non-negative, got {temperature}. (parameter=temperature, value={temperature})"
        raise RefusedError(message, param="temperature")
    if not 0 < top_p <= 1:
        raise RefusedError(f"top_p must be in (0, 1], got {top_p}. (parameter=top_p, value={top_p})", param="top_p")
    if top_k < -1:
        raise RefusedError(f"top_k must be 0 (disable), or at least 1, got {top_k}.")
    if not 0 <= min_p <= 1:
        raise RefusedError(f"min_p must be in [0, 1], got {min_p}.")
    wanted = vocabulary if logprobs == -1 else logprobs or 0
    if wanted > MAX_LOGPROBS:
        message = f"Requested sample logprobs of {wanted}, which is greater than max allowed: {MAX_LOGPROBS}"
        raise RefusedError(f"{message} (parameter=logprobs, value={wanted})", param="logprobs")
    _check_ids(body, vocabulary)
    return Sampling(
        temperature=temperature,
        top_k=max(0, top_k),
        top_p=top_p,
        min_p=min_p,
        seed=body.seed,
        allowed_ids=None if body.allowed_token_ids is None else tuple(body.allowed_token_ids),
        ignore_end=body.ignore_eos,
    )


def _check_ids(body: Body, vocabulary: int) -> None:
    named = body.logprob_token_ids or []
    if len(named) > MAX_LOGPROB_TOKEN_IDS:
        message = f"Requested logprob_token_ids of length {len(named)}, which is greater than max allowed: "
        raise RefusedError(f"{message}{MAX_LOGPROB_TOKEN_IDS}", param="logprob_token_ids")
    if unknown := [i for i in named if not 0 <= i < vocabulary]:
        message = f"token_id(s) {unknown} in logprob_token_ids contain out-of-vocab token ids."
        raise RefusedError(message, param="logprob_token_ids")
    allowed = body.allowed_token_ids
    if allowed is not None and not allowed:
        raise RefusedError("allowed_token_ids is not None and empty!", param="allowed_token_ids")
    if any(not 0 <= i < vocabulary for i in allowed or []):
        raise RefusedError("allowed_token_ids contains out-of-vocab token id!", param="allowed_token_ids")


def constraint_of(body: Body) -> Constraint | None:
    """What the answer must be.

    Raises:
        RefusedError: several kinds of constraint, none that is known, or a broken one.
    """
    wanted = body.structured_outputs
    if wanted is None:
        return None
    kinds = {kind: value for kind in ("json", "regex", "choice") if (value := wanted.get(kind)) is not None}
    if len(kinds) > 1:
        message = "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice')."
        raise RefusedError(f"{message} (parameter=structured_outputs)", param="structured_outputs")
    try:
        match kinds:
            case {"choice": texts}:
                return Constraint.choice(texts)
            case {"regex": pattern}:
                return Constraint(pattern)
            case {"json": schema}:
                return Constraint.json_schema(schema)
    except BadGrammarError as error:
        raise RefusedError(f"Grammar error: {error}") from error
    message = "You must use one kind of structured outputs constraint but none are specified"
    raise RefusedError(f"{message}: {wanted}")
