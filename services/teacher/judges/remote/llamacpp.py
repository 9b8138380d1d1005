"""llama.cpp's dialect (`llama-server`), written from its README and run against a server of August 2026.

- Prompt: `/apply-template` renders the chat, without the beginning-of-text token where the tokenizer adds it;
  `/tokenize` with `add_special` adds it. The story is tokenised with `parse_special: false`: control tokens are text
  then, but user-defined ones are not, so its markers are broken all the same.
- Joint and independent: `/completion` with a prompt as ids, `n_predict` 1, `n_probs`. The log-probabilities are a
  softmax of the raw logits, before grammar, temperature and `logit_bias`. Where an answer's token is not among the
  first 64 and could still matter, more are asked for, up to all.
- Sample: a GBNF grammar.
- Each slot has a cache of `n_ctx` tokens, or all share one (`--kv-unified`, the default where `-np` is left out), which
  the server does not tell. Prompts that do not fit a shared one together fail, all of them, with HTTP 500; from the
  first time on no more are sent at once than fit it.
- `cache_prompt` is on and keys and values are float16, both by default: numbers differ in the third digit after the
  point from what float32 gives, and a little with what was asked before.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from services.teacher.judges.remote.dialect import Description, Draw, Piece, Sampled
from services.teacher.judges.remote.fields import as_dict, field, ids_at, limit_at, rows, text_at
from services.teacher.judges.remote.http import Http, ServerFaultError, together
from services.teacher.judges.remote.tokens import TEMPLATE_CONSTANTS, TokenDialect
from services.teacher.judges.remote.tree import NEGLIGIBLE, AnswerTree, Path, Token, checked

TOPS = (64, 2048, 1_000_000)  # the server cuts the last at its vocabulary
FULL = "Context size has been exceeded"
FORCED = 1000.0  # added to a logit, it makes the token certain
NEUTRAL = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "stream": False}


class _Room:
    """Tokens that fit the server at once; whoever does not fit waits, but nobody waits for an empty server."""

    def __init__(self, tokens: int) -> None:
        self.tokens, self._used, self._freed = tokens, 0, asyncio.Condition()

    @asynccontextmanager
    async def taken(self, tokens: int) -> AsyncIterator[None]:
        async with self._freed:
            await self._freed.wait_for(lambda: not self._used or self._used + tokens <= self.tokens)
            self._used += tokens
        try:
            yield
        finally:
            self._used -= tokens
            async with self._freed:
                self._freed.notify_all()


class LlamacppDialect(TokenDialect):
    """See the module."""

    backend = "llamacpp"
    constrains = True

    def __init__(self, http: Http, model: str | None) -> None:
        super().__init__(http, model)
        self._room = _Room(2**31)

    async def describe(self) -> Description:
        """See `Dialect`. The model is its alias, else its file's name; the revision the build and the file's size."""
        props = as_dict(await self.http.get("/props"))
        settings = props.get("default_generation_settings")
        self.context = limit_at(settings, "n_ctx") if isinstance(settings, dict) else None
        self._room.tokens = (self.context or 2**31) * (limit_at(props, "total_slots") or 1)
        path = str(props.get("model_path") or "").replace("\\", "/").rsplit("/", 1)[-1]
        models = as_dict(await self.http.get("/v1/models")).get("data") or [{}]
        meta = as_dict(models[0]).get("meta") or {}
        size = f"+size{meta['size']}" if isinstance(meta, dict) and "size" in meta else ""
        name = props.get("model_alias") or path or as_dict(models[0]).get("id") or "unknown"
        return Description(str(name), f"llamacpp-{props.get('build_info', 'unknown')}{size}", self.context)

    async def render(self, messages: list[dict[str, str]]) -> str:
        """See `TemplateDialect`."""
        asked = {"messages": messages, "chat_template_kwargs": TEMPLATE_CONSTANTS}
        return text_at(await self.http.post("/apply-template", asked), "prompt")

    async def pieces(self, text: str) -> list[Piece]:
        """See `TemplateDialect`."""
        asked = {"content": text, "with_pieces": True}
        found = rows(await self.http.post("/tokenize", asked), "tokens")
        return [Piece(int(field(token, "id")), _text(field(token, "piece"))) for token in found]

    async def ids(self, text: str) -> list[int]:
        """See `TokenDialect`."""
        return ids_at(await self.http.post("/tokenize", {"content": text}), "tokens")

    async def head_ids(self, text: str) -> list[int]:
        """See `TokenDialect`."""
        return ids_at(await self.http.post("/tokenize", {"content": text, "add_special": True}), "tokens")

    async def story_ids(self, text: str) -> list[int]:
        """See `TokenDialect`."""
        return ids_at(await self.http.post("/tokenize", {"content": text, "parse_special": False}), "tokens")

    async def read_tokens(self, prompt: list[int]) -> object:
        """See `TokenDialect`."""
        return field(await self._completed({**NEUTRAL, "prompt": prompt, "n_predict": 1}), "tokens_evaluated")

    async def next_tokens(self, prompt: Any, paths: Sequence[Path], tree: AnswerTree) -> dict[Path, dict[Token, float]]:
        """See `Dialect`: one request a path and those that it is forced to go on to; another where too little came."""
        found: dict[Path, dict[Token, float]] = {}
        for each in await together(*(self._after(prompt, path, tree) for path in paths)):
            found |= each
        return found

    async def _after(self, prompt: list[Any], path: Path, tree: AnswerTree) -> dict[Path, dict[Token, float]]:
        ahead = tree.forced(path)
        paths = [path] if ahead is None else [path, ahead]
        for top in TOPS:
            asked = {
                **NEUTRAL,
                "prompt": [*prompt, *path],
                "n_predict": len(paths),
                "n_probs": top,
                "temperature": 0.0,
                # What is written must be whole characters, or nothing is told of it. The numbers do not change by this.
                "logit_bias": [[token, FORCED] for token in tree.children[path]],
            }
            answer = await self._completed(asked)
            places = [rows(answer, "completion_probabilities", i, "top_logprobs") for i in range(len(paths))]
            found = [checked({int(field(t, "id")): field(t, "logprob") for t in place}) for place in places]
            if all(_enough(known, tree.children[p]) for p, known in zip(paths, found, strict=True)):
                break
        return dict(zip(paths, found, strict=True))

    async def _completed(self, asked: dict[str, Any]) -> Any:
        """The answer of `/completion`, asked for when the prompt fits beside those under way."""
        async with self._room.taken(len(asked["prompt"]) + asked["n_predict"]):
            believed = self._room.tokens
            try:
                return await self.http.post("/completion", asked)
            except ServerFaultError as error:
                if FULL not in str(error) or self.context is None or believed <= self.context:
                    raise
                self._room.tokens = self.context
        return await self._completed(asked)

    async def sample(self, prompt: Any, draw: Draw) -> Sampled:
        """See `Dialect`."""
        signs = ' " " '.join([draw.sign] * draw.criteria)
        asked = {
            **NEUTRAL,
            "prompt": prompt,
            "n_predict": draw.max_tokens,
            "temperature": draw.temperature,
            "seed": draw.seed,
            "grammar": f'root ::= " "? {signs}',
        }
        return Sampled(text_at(await self._completed(asked), "content"))


def _text(piece: object) -> str:
    """A piece of text; of a piece that is bytes, since it is no whole character, the text does not matter."""
    return piece if isinstance(piece, str) else "�"


def _enough(known: dict[Token, float], wanted: Sequence[Token]) -> bool:
    """Whether all wanted tokens came back, or those that did not have next to no probability."""
    return all(token in known for token in wanted) or math.exp(min(known.values(), default=0.0)) <= NEGLIGIBLE
