"""vLLM's dialect, written from its sources and documentation, and run against 0.32.0.

- Prompt: `/tokenize` with messages renders the chat and gives ids, `/detokenize` gives the text back. `/tokenize` reads
  special tokens wherever they stand, so the story comes with its markers broken.
- Joint and independent: `/v1/completions` with a list of prompts as ids, `max_tokens` 1, `logprob_token_ids` for the
  answers' tokens. Servers before that (PR 43463, of 2026) drop the field without a word and give the 20 most
  probable tokens; the probe says which. `return_tokens_as_token_ids` names tokens "token_id:17".
  Log-probabilities are the model's own (`--logprobs-mode raw_logprobs`, the default), whatever is sampled with,
  `allowed_token_ids` included; a grammar is different.
- Sample: `structured_outputs: {"regex": ...}`; `guided_regex` was removed in 0.12 and is ignored.
- Every sampling setting is sent: what is left out comes from the model's generation_config.json.
"""

from collections.abc import Sequence
from typing import Any

from services.teacher.judges.remote.dialect import Description, DialectError, Draw, Frame, Piece, Sampled
from services.teacher.judges.remote.fields import as_dict, field, ids_at, limit_at, rows, text_at
from services.teacher.judges.remote.tokens import TEMPLATE_CONSTANTS, TokenDialect, plain
from services.teacher.judges.remote.tree import AnswerTree, MalformedAnswerError, Path, Token

TOP = 20  # --max-logprobs by default
NEUTRAL = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


class VllmDialect(TokenDialect):
    """See the module."""

    backend = "vllm"
    constrains = True

    async def describe(self) -> Description:
        """See `Dialect`."""
        models = rows(await self.http.get("/v1/models"), "data")
        named = {text_at(model, "id"): as_dict(model) for model in models}
        if not named or (self.model is not None and self.model not in named):
            raise DialectError(f"{self.http.url} serves {sorted(named)}, not {self.model!r}; name one of them")
        self.model = self.model or next(iter(named))
        self.context = limit_at(named[self.model], "max_model_len")
        version = text_at(await self.http.get("/version"), "version")
        root = named[self.model].get("root")
        weights = "" if root in (None, self.model) else f"+{root}"
        return Description(self.model, f"vllm-{version}{weights}", self.context)

    async def render(self, messages: list[dict[str, str]]) -> str:
        """See `TemplateDialect`."""
        asked = {
            "model": self.model,
            "messages": messages,
            "add_generation_prompt": True,
            "add_special_tokens": False,
            "chat_template_kwargs": TEMPLATE_CONSTANTS,
        }
        ids = ids_at(await self.http.post("/tokenize", asked), "tokens")
        text = text_at(await self.http.post("/detokenize", {"model": self.model, "tokens": ids}), "prompt")
        if await self.ids(text) != ids:
            raise DialectError(
                "what /detokenize makes of the chat is not what /tokenize read: the tokenizer does not keep its text; "
                "set clean_up_tokenization_spaces to false in its tokenizer_config.json"
            )
        return text

    async def pieces(self, text: str) -> list[Piece]:
        """See `TemplateDialect`."""
        asked = {"model": self.model, "prompt": text, "add_special_tokens": False, "return_token_strs": True}
        answer = await self.http.post("/tokenize", asked)
        ids, texts = ids_at(answer, "tokens"), rows(answer, "token_strs")
        if len(ids) != len(texts):
            raise MalformedAnswerError(f"/tokenize gave {len(ids)} tokens and {len(texts)} texts")
        return [Piece(i, plain(str(text))) for i, text in zip(ids, texts, strict=True)]

    async def ids(self, text: str) -> list[int]:
        """See `TokenDialect`."""
        asked = {"model": self.model, "prompt": text, "add_special_tokens": False}
        return ids_at(await self.http.post("/tokenize", asked), "tokens")

    async def read_tokens(self, prompt: list[int]) -> object:
        """See `TokenDialect`."""
        asked = {"model": self.model, "prompt": prompt, "max_tokens": 1}
        return field(await self.http.post("/v1/completions", asked), "usage", "prompt_tokens")

    async def next_tokens(self, prompt: Any, paths: Sequence[Path], tree: AnswerTree) -> dict[Path, dict[Token, float]]:
        """See `Dialect`: one request for all paths.

        Where all are forced to go on with the same token, it is the only one allowed, and the next one's
        log-probabilities come with it.
        """
        aheads = [tree.forced(path) for path in paths]
        forced = {ahead[-1] if ahead else None for ahead in aheads}
        places: list[Sequence[Path]] = [paths]
        if len(forced) == 1 and None not in forced:
            places.append([ahead for ahead in aheads if ahead])
        wanted = {token for group in places for path in group for token in tree.children[path]}
        asked: dict[str, Any] = {
            **NEUTRAL,
            "model": self.model,
            "prompt": [[*prompt, *path] for path in paths],
            "max_tokens": len(places),
            "temperature": 1.0,
            "logprobs": TOP,
            "logprob_token_ids": sorted(wanted, key=str),
            "return_tokens_as_token_ids": True,
        }
        if len(places) > 1:
            asked["allowed_token_ids"] = list(forced)
        choices = rows(await self.http.post("/v1/completions", asked), "choices")
        if sorted(field(choice, "index") for choice in choices) != list(range(len(paths))):
            raise MalformedAnswerError(f"{len(paths)} prompts got {len(choices)} choices")
        found = {}
        for choice in choices:
            for i, group in enumerate(places):
                found[group[choice["index"]]] = _by_id(as_dict(field(choice, "logprobs", "top_logprobs", i)))
        return found

    async def sample(self, prompt: Any, draw: Draw) -> Sampled:
        """See `Dialect`."""
        asked = {
            **NEUTRAL,
            "model": self.model,
            "prompt": prompt,
            "max_tokens": draw.max_tokens,
            "temperature": draw.temperature,
            "seed": draw.seed,
            "structured_outputs": {"regex": draw.pattern},
        }
        return Sampled(text_at(await self.http.post("/v1/completions", asked), "choices", 0, "text"))

    async def look(self, frame: Frame, prompt: Any) -> str:
        """See `Dialect`; also whether given token ids come back."""
        found = await super().look(frame, prompt)
        asked = {
            **NEUTRAL,
            "model": self.model,
            "prompt": prompt,
            "max_tokens": 1,
            "temperature": 1.0,
            "logprobs": 1,
            "logprob_token_ids": sorted({*prompt[-8:]}),
            "return_tokens_as_token_ids": True,
        }
        answer = await self.http.post("/v1/completions", asked)
        known = _by_id(as_dict(field(answer, "choices", 0, "logprobs", "top_logprobs", 0)))
        if set(known) >= set(prompt[-8:]):
            return f"{found}, log-probabilities of given tokens"
        return f"{found}, the {TOP} most probable tokens (coverage is a lower bound: logprob_token_ids is unknown here)"


def _by_id(logprobs: dict[str, Any]) -> dict[Token, float]:
    try:
        return {int(name.removeprefix("token_id:")): value for name, value in logprobs.items()}
    except ValueError as error:
        raise MalformedAnswerError("the server names tokens by their text, though asked for their ids") from error
