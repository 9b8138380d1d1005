"""llama.cpp's dialect (`llama-server`), written from its README and sources (2026).

- Prompt: `/apply-template` renders the chat, without the beginning-of-text token where the tokenizer adds it;
  `/tokenize` with `add_special` adds it. The story is tokenised with `parse_special: false`: control tokens are text
  then, but user-defined ones are not, so its markers are broken all the same.
- Joint and independent: `/completion` with a list of prompts as ids, `n_predict` 1, `n_probs`. The log-probabilities
  are a softmax of the raw logits, before grammar and temperature. Where an answer's token is not among the first 64
  and could still matter, more are asked for, up to all.
- Sample: a GBNF grammar. `cache_prompt` is on (its default): numbers may differ in the last digits with what was
  asked before.
"""

import math
from collections.abc import Sequence
from typing import Any

from services.teacher.judges.remote.dialect import Description, Draw, Piece, Sampled
from services.teacher.judges.remote.fields import as_dict, field, limit_at, rows, text_at
from services.teacher.judges.remote.tokens import TEMPLATE_CONSTANTS, TokenDialect
from services.teacher.judges.remote.tree import NEGLIGIBLE, AnswerTree, MalformedAnswerError, Path, Token

TOPS = (64, 2048, 1_000_000)  # the server cuts the last at its vocabulary
NEUTRAL = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "stream": False}


class LlamacppDialect(TokenDialect):
    """See the module."""

    backend = "llamacpp"
    constrains = True

    async def describe(self) -> Description:
        """See `Dialect`. The model is its alias, else its file's name; the revision the build and the file's size."""
        props = as_dict(await self.http.get("/props"))
        settings = props.get("default_generation_settings")
        self.context = limit_at(settings, "n_ctx") if isinstance(settings, dict) else None
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
        return await self._pieces(text)

    async def head_pieces(self, text: str) -> list[Piece]:
        """See `TokenDialect`."""
        return await self._pieces(text, add_special=True)

    async def story_pieces(self, text: str) -> list[Piece]:
        """See `TokenDialect`."""
        return await self._pieces(text, parse_special=False)

    async def _pieces(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[Piece]:
        asked = {"content": text, "add_special": add_special, "parse_special": parse_special, "with_pieces": True}
        found = rows(await self.http.post("/tokenize", asked), "tokens")
        return [Piece(int(field(token, "id")), _text(field(token, "piece"))) for token in found]

    async def next_tokens(self, prompt: Any, paths: Sequence[Path], tree: AnswerTree) -> list[dict[Token, float]]:
        """See `Dialect`: one request for all paths, and another for those of which too little came back."""
        found: dict[Path, dict[Token, float]] = {}
        for top in TOPS:
            missing = [path for path in paths if path not in found or _unsure(found[path], tree.children[path])]
            if missing:
                found.update(zip(missing, await self._most_probable(prompt, missing, top), strict=True))
        return [found[path] for path in paths]

    async def _most_probable(self, prompt: Any, paths: Sequence[Path], top: int) -> list[dict[Token, float]]:
        asked = {
            **NEUTRAL,
            "prompt": [[*prompt, *path] for path in paths],
            "n_predict": 1,
            "n_probs": top,
            "temperature": 0.0,
        }
        answer = await self.http.post("/completion", asked)
        answers = answer if isinstance(answer, list) else [answer]  # one prompt gets an object
        if len(answers) != len(paths):
            raise MalformedAnswerError(f"{len(paths)} prompts got {len(answers)} answers")
        answers = sorted(answers, key=lambda one: int(as_dict(one).get("index", 0)))
        tops = [rows(one, "completion_probabilities", 0, "top_logprobs") for one in answers]
        return [{int(field(token, "id")): field(token, "logprob") for token in one} for one in tops]

    async def sample(self, prompt: Any, draw: Draw) -> Sampled:
        """See `Dialect`."""
        digits = ' " " '.join([f"[0-{draw.levels - 1}]"] * draw.criteria)
        asked = {
            **NEUTRAL,
            "prompt": prompt,
            "n_predict": draw.max_tokens,
            "temperature": draw.temperature,
            "seed": draw.seed,
            "grammar": f'root ::= " "? {digits}',
        }
        return Sampled(text_at(await self.http.post("/completion", asked), "content"))


def _text(piece: object) -> str:
    """A piece of text; of a piece that is bytes, since it is no whole character, the text does not matter."""
    return piece if isinstance(piece, str) else "�"


def _unsure(found: dict[Token, float], wanted: Sequence[Token]) -> bool:
    """Whether a wanted token is missing that could have more than a negligible probability."""
    values = [value for value in found.values() if isinstance(value, int | float)]
    return any(token not in found for token in wanted) and math.exp(min([*values, 0.0])) > NEGLIGIBLE
