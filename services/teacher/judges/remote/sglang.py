"""SGLang's dialect, written from its sources and documentation (0.5).

- Prompt: raw requests get no chat template. Newer servers render a chat with `/tokenize` (seen in 0.5.23), and
  `/detokenize` gives its text. For older ones the model's tokenizer is loaded here, by the path that the server gives
  (`/get_model_info`) or by the name after `#` in the teacher's name, and compared with the server's.
- Joint and independent: `POST /v1/score` with the prompt as `query`, the answers so far as `items` and the answers'
  tokens as `label_token_ids`, all of them ids, `apply_softmax` false: the probabilities of these very tokens over the
  whole vocabulary. No item is empty: the prompt's last token begins each. A server with
  `--multi-item-scoring-delimiter` would put that token between them and is refused.
- Sample: `/generate` with a `regex`. `sampling_seed` has an effect only under `--enable-deterministic-inference`.
"""

import math
from collections.abc import Sequence
from typing import Any

from services.teacher.judges.remote.dialect import Description, DialectError, Draw, Frame, Piece, Sampled
from services.teacher.judges.remote.fields import as_dict, field, ids_at, limit_at, rows, text_at
from services.teacher.judges.remote.http import Http, MissingRouteError, RequestRefusedError
from services.teacher.judges.remote.local_tokenizer import LocalTokenizer, load_tokenizer
from services.teacher.judges.remote.tokens import TEMPLATE_CONSTANTS, TokenDialect
from services.teacher.judges.remote.tree import AnswerTree, MalformedAnswerError, Path, Token


class SglangDialect(TokenDialect):
    """See the module. `local`: a tokenizer to use instead of the server's."""

    backend = "sglang"
    constrains = True

    def __init__(self, http: Http, model: str | None, local: LocalTokenizer | None = None) -> None:
        super().__init__(http, model)
        self._local = local

    async def describe(self) -> Description:
        """See `Dialect`."""
        info = as_dict(await self._either("/get_model_info", "/model_info"))
        server = as_dict(await self._either("/get_server_info", "/server_info"))
        if server.get("multi_item_scoring_delimiter") is not None:
            raise DialectError(
                "the server runs with --multi-item-scoring-delimiter, which changes prompts: leave it out"
            )
        served = {text_at(model, "id"): as_dict(model) for model in rows(await self.http.get("/v1/models"), "data")}
        self.context = next((limit_at(model, "max_model_len") for model in served.values()), None)
        name = text_at(info, "model_path")
        if self._local is None:
            await self._find_tokenizer(str(info.get("tokenizer_path") or name), list(served))
        weights = f"+{info['weight_version']}" if info.get("weight_version") not in (None, "", "default") else ""
        seeded = bool(server.get("enable_deterministic_inference"))
        return Description(name, f"sglang-{server.get('version', 'unknown')}{weights}", self.context, seeded)

    async def render(self, messages: list[dict[str, str]]) -> str:
        """See `TemplateDialect`."""
        if self._local is not None:
            return self._local.render(messages)
        ids = await self._chat_ids(messages)
        asked = {"tokens": ids, "skip_special_tokens": False}
        text = text_at(await self.http.post("/detokenize", asked), "text")
        if await self.ids(text) != ids:
            raise DialectError(
                "what /detokenize makes of the chat is not what /tokenize read: the tokenizer does not keep its text; "
                "set clean_up_tokenization_spaces to false in its tokenizer_config.json"
            )
        return text

    async def ids(self, text: str) -> list[int]:
        """See `TokenDialect`."""
        if self._local is not None:
            return self._local.ids(text, trusted=True)
        return await self._server_ids(text)

    async def story_ids(self, text: str) -> list[int]:
        """See `TokenDialect`."""
        return await self._server_ids(text) if self._local is None else self._local.ids(text, trusted=False)

    async def pieces(self, text: str) -> list[Piece]:
        """See `TemplateDialect`. A token's text is what it adds to those before it."""
        if self._local is not None:
            return self._local.pieces(text)
        ids = await self._server_ids(text)
        asked = {"tokens": [ids[: i + 1] for i in range(len(ids))], "skip_special_tokens": False}
        grown = ["", *map(str, rows(await self.http.post("/detokenize", asked), "text"))] if ids else [""]
        return [Piece(i, after.removeprefix(before)) for i, before, after in zip(ids, grown, grown[1:], strict=False)]

    async def next_tokens(self, prompt: Any, paths: Sequence[Path], tree: AnswerTree) -> dict[Path, dict[Token, float]]:
        """See `Dialect`: one request for all paths, those that they are forced to go on to included."""
        paths = [*paths, *(ahead for path in paths if (ahead := tree.forced(path)))]
        wanted = sorted({int(token) for path in paths for token in tree.children[path]})
        answer = await self._score(prompt, [[prompt[-1], *path] for path in paths], wanted)
        scores = rows(answer, "scores")
        if len(scores) != len(paths) or any(len(rows(row)) != len(wanted) for row in scores):
            raise MalformedAnswerError(f"{len(paths)} answers so far got no log-probabilities of {len(wanted)} tokens")
        found: list[dict[Token, float]] = [dict(zip(wanted, map(_log, row), strict=True)) for row in scores]
        return dict(zip(paths, found, strict=True))

    async def sample(self, prompt: Any, draw: Draw) -> Sampled:
        """See `Dialect`."""
        asked = {
            "input_ids": prompt,
            "sampling_params": {
                "max_new_tokens": draw.max_tokens,
                "temperature": draw.temperature,
                "top_p": 1.0,
                "top_k": -1,
                "min_p": 0.0,
                "sampling_seed": draw.seed,
                "regex": draw.pattern,
            },
        }
        return Sampled(text_at(await self.http.post("/generate", asked), "text"))

    async def read_tokens(self, prompt: list[int]) -> object:
        """See `TokenDialect`. Servers before 2026 say nothing of it."""
        usage = as_dict(await self._score(prompt, [prompt[-1:]], [prompt[-1]])).get("usage")
        return field(usage, "prompt_tokens") if usage else len(prompt)

    async def look(self, frame: Frame, prompt: Any) -> str:
        """See `Dialect`; also whether a tokenizer in this process agrees with the server's, where that can be asked."""
        found = await super().look(frame, prompt)
        if self._local is None:
            return found
        try:
            theirs = await self._server_ids(frame.head)
        except (MissingRouteError, RequestRefusedError):
            return f"{found}, a tokenizer of our own (the server has no /tokenize to compare it with)"
        if theirs != await self.ids(frame.head):
            raise DialectError(
                "the tokenizer here reads the prompt differently from the server's; name the server's after # in the "
                "teacher's name"
            )
        return f"{found}, a tokenizer of our own that reads as the server's"

    async def _find_tokenizer(self, path: str, served: list[str]) -> None:
        ours = self.model is None or self.model in served
        try:
            await self._chat_ids([{"role": "user", "content": "Hello."}])
        except (MissingRouteError, RequestRefusedError):
            self._local = load_tokenizer(path if ours else str(self.model))
            return
        if not ours:
            raise DialectError(f"{self.http.url} serves {served}, not {self.model!r}; name one of them, or none")

    async def _chat_ids(self, messages: list[dict[str, str]]) -> list[int]:
        asked = {
            "messages": messages,
            "add_generation_prompt": True,
            "add_special_tokens": False,
            "chat_template_kwargs": TEMPLATE_CONSTANTS,
        }
        return ids_at(await self.http.post("/tokenize", asked), "tokens")

    async def _server_ids(self, text: str) -> list[int]:
        return ids_at(await self.http.post("/tokenize", {"prompt": text, "add_special_tokens": False}), "tokens")

    async def _score(self, prompt: list[int], items: list[list[Any]], labels: list[int]) -> Any:
        asked = {"query": prompt[:-1], "items": items, "label_token_ids": labels, "apply_softmax": False}
        return await self.http.post("/v1/score", asked)

    async def _either(self, path: str, newer: str) -> Any:
        try:
            return await self.http.get(path)
        except MissingRouteError:
            return await self.http.get(newer)


def _log(score: object) -> float:
    if isinstance(score, bool) or not isinstance(score, int | float) or not score >= 0.0:
        raise MalformedAnswerError(f"a score is {score!r}, which no probability can be")
    return math.log(score) if score else -math.inf
