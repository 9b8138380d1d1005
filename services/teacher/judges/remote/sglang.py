"""SGLang's dialect, written from its sources and documentation (0.5).

- Prompt: raw requests get no chat template, so that the model's tokenizer is loaded here, by the path that the server
  gives (`/get_model_info`) or by the name after `#` in the teacher's name. Transformers does that, without torch.
- Joint and independent: `POST /v1/score` with the prompt as `query`, the answers so far as `items` and the answers'
  tokens as `label_token_ids`, all of them ids, `apply_softmax` false: the probabilities of these very tokens over the
  whole vocabulary. No item is empty: the prompt's last token begins each. A server with
  `--multi-item-scoring-delimiter` would put that token between them and is refused.
- Sample: `/generate` with a `regex`. `sampling_seed` has an effect only under `--enable-deterministic-inference`.
"""

import math
from collections.abc import Sequence
from typing import Any

from services.teacher.judges.base import JudgeUnavailableError
from services.teacher.judges.remote.dialect import Description, DialectError, Draw, Frame, Piece, Sampled
from services.teacher.judges.remote.fields import as_dict, ids_at, limit_at, rows, text_at
from services.teacher.judges.remote.http import RequestRefusedError
from services.teacher.judges.remote.tokens import TEMPLATE_CONSTANTS, TokenDialect, plain
from services.teacher.judges.remote.tree import AnswerTree, MalformedAnswerError, Path, Token


class SglangDialect(TokenDialect):
    """See the module."""

    backend = "sglang"
    constrains = True
    _tokenizer: Any = None

    async def describe(self) -> Description:
        """See `Dialect`. The name after `#` names the tokenizer, where the server's path to it is no use here."""
        info = as_dict(await self._either("/get_model_info", "/model_info"))
        name = text_at(info, "model_path")
        server = as_dict(await self._either("/get_server_info", "/server_info"))
        if server.get("multi_item_scoring_delimiter") is not None:
            raise DialectError(
                "the server runs with --multi-item-scoring-delimiter, which changes prompts: leave it out"
            )
        models = rows(await self.http.get("/v1/models"), "data")
        self.context = limit_at(as_dict(models[0]), "max_model_len") if models else None
        if self._tokenizer is None:
            self._tokenizer = _load_tokenizer(self.model or str(info.get("tokenizer_path") or name))
        weights = f"+{info['weight_version']}" if info.get("weight_version") not in (None, "", "default") else ""
        seeded = bool(server.get("enable_deterministic_inference"))
        return Description(name, f"sglang-{server.get('version', 'unknown')}{weights}", self.context, seeded)

    async def render(self, messages: list[dict[str, str]]) -> str:
        """See `TemplateDialect`."""
        from jinja2 import TemplateError  # with transformers' own needs, not with the judge's

        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **TEMPLATE_CONSTANTS
            )
        except (TemplateError, ValueError) as error:
            raise RequestRefusedError(400, f"the tokenizer's chat template: {error}") from error
        return str(text)

    async def pieces(self, text: str) -> list[Piece]:
        """See `TemplateDialect`."""
        return self._pieces(text, split_special_tokens=False)

    async def story_pieces(self, text: str) -> list[Piece]:
        """See `TokenDialect`."""
        return self._pieces(text, split_special_tokens=True)

    def _pieces(self, text: str, *, split_special_tokens: bool) -> list[Piece]:
        ids = self._tokenizer(text, add_special_tokens=False, split_special_tokens=split_special_tokens)["input_ids"]
        entries = self._tokenizer.convert_ids_to_tokens(ids)
        return [Piece(int(i), plain(str(entry))) for i, entry in zip(ids, entries, strict=True)]

    async def next_tokens(self, prompt: Any, paths: Sequence[Path], tree: AnswerTree) -> dict[Path, dict[Token, float]]:
        """See `Dialect`: one request for all paths, those that they are forced to go on to included."""
        paths = [*paths, *(ahead for path in paths if (ahead := tree.forced(path)))]
        wanted = sorted({int(token) for path in paths for token in tree.children[path]})
        asked = {
            "query": prompt[:-1],
            "items": [[prompt[-1], *path] for path in paths],
            "label_token_ids": wanted,
            "apply_softmax": False,
        }
        if self.model is not None:
            asked["model"] = self.model
        scores = rows(await self.http.post("/v1/score", asked), "scores")
        if len(scores) != len(paths) or any(len(rows(row)) != len(wanted) for row in scores):
            raise MalformedAnswerError(f"asked for {len(paths)} rows of {len(wanted)} scores, got another shape")
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

    async def look(self, frame: Frame, prompt: Any) -> str:
        """See `Dialect`; also whether the server's tokenizer agrees with the one here, where it can be asked."""
        found = await super().look(frame, prompt)
        try:
            answer = await self.http.post("/tokenize", {"prompt": frame.head, "add_special_tokens": False})
        except (JudgeUnavailableError, RequestRefusedError):
            return f"{found}, the server's tokenizer not compared (it has no /tokenize)"
        if ids_at(answer, "tokens") != [piece.id for piece in await self.pieces(frame.head)]:
            raise DialectError(
                "the tokenizer here reads the prompt differently from the server's; name the server's after # in the "
                "teacher's name"
            )
        return f"{found}, the server's tokenizer"

    async def _either(self, path: str, newer: str) -> Any:
        try:
            return await self.http.get(path)
        except JudgeUnavailableError as error:
            if error.passing:
                raise
            return await self.http.get(newer)


def _load_tokenizer(source: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise DialectError(
            "teacher sglang needs transformers for the model's chat template, since the server applies none to raw "
            "requests; install it with: pip install 'transformers>=5.20' jinja2 (torch is not needed)"
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, ImportError) as error:
        why = " ".join(str(error).split())[:200]
        raise DialectError(
            f"the tokenizer {source!r} cannot be loaded here ({why}); name one that can, as sglang:URL#NAME"
        ) from error
    if not tokenizer.chat_template:
        raise DialectError(f"the tokenizer {source!r} has no chat template; serve an instruct model")
    return tokenizer


def _log(score: object) -> float:
    if isinstance(score, bool) or not isinstance(score, int | float) or not score >= 0.0:
        raise MalformedAnswerError(f"a score is {score!r}, which no probability can be")
    return math.log(score) if score else -math.inf
