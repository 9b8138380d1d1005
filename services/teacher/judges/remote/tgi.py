"""Text Generation Inference's dialect, written from its sources (3.3, the last; in maintenance since 2025-12).

- Prompt: `/chat_tokenize` renders the chat. `/generate` takes text alone and always adds the special tokens, so a
  beginning-of-text marker that the template wrote is cut off; `/tokenize`, which does the same, shows what is read.
  The prompt is tokenised as one text, markers in it are control tokens: the story comes with its own broken.
- Joint and independent: `/generate` with `max_new_tokens` 1 and `top_n_tokens`, read from `details.top_tokens`.
  `--max-top-n-tokens` allows 5 unless raised. Log-probabilities are taken after the grammar, so the first question has
  none. Where answers' tokens are not among those that came back and could still matter, the same is asked with a
  grammar of these and one that did: what comes back are the true ratios, and that one gives their scale.
- Sample: `grammar: {"type": "regex"}`. A `temperature` of 0 is an error there, none is sent but the judge's.

Why huggingface_hub's client is not used. All of this could go through `AsyncInferenceClient.text_generation` only, and
that cannot be trusted (2.4.0): after one HTTP 400 that names `model_kwargs`, from whatever server, it drops `details`,
`grammar` and the like from every later call in the process (the list is kept under the model `None`, which is what a
client made for an address passes) and answers with plain text; `tests/unit/test_remote_tgi.py` shows it. Nor does it
know `/chat_tokenize`, `/tokenize` and `/info`. Its `chat_completion` passes all fields on and would do for mode sample
alone, at the price of a second HTTP library (httpx2) with connections, limits, retries and errors of its own.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from services.teacher.judges.lm.prompt import fenced as fenced_story
from services.teacher.judges.remote.dialect import Description, DialectError, Draw, Frame, Piece, Sampled
from services.teacher.judges.remote.fields import as_dict, field, limit_at, rows, text_at
from services.teacher.judges.remote.http import Http, RequestRefusedError, together
from services.teacher.judges.remote.tokens import TemplateDialect, read_as_sent
from services.teacher.judges.remote.tree import NEGLIGIBLE, AnswerTree, MalformedAnswerError, Path, Token, checked

TOP = 20  # or as many as --max-top-n-tokens allows


class TgiDialect(TemplateDialect):
    """See the module."""

    backend = "tgi"
    constrains = True

    def __init__(self, http: Http, model: str | None) -> None:
        super().__init__(http, model)
        self._added = 0  # special tokens that the server puts before every text
        self._top = TOP
        self._context: int | None = None
        self._texts: dict[Path, str] = {(): ""}

    async def describe(self) -> Description:
        """See `Dialect`."""
        info = as_dict(await self.http.get("/info"))
        self._context = limit_at(info, "max_input_tokens") or limit_at(info, "max_input_length")
        one, other = await together(self._all_pieces("a"), self._all_pieces("b"))
        self._added = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b or a.text)
        revision = info.get("model_sha") or f"tgi-{info.get('version', 'unknown')}"
        return Description(text_at(info, "model_id"), str(revision), self._context)

    async def render(self, messages: list[dict[str, str]]) -> str:
        """See `TemplateDialect`; without the special tokens that the server adds."""
        text = text_at(await self.http.post("/chat_tokenize", {"messages": messages}), "templated_text")
        read = await self._all_pieces(text)
        added, first = read[: self._added], read[self._added : 2 * self._added]
        if [piece.id for piece in added] == [piece.id for piece in first]:
            text = text.removeprefix(_text(first))
        return text

    async def pieces(self, text: str) -> list[Piece]:
        """See `TemplateDialect`."""
        return (await self._all_pieces(text))[self._added :]

    async def _all_pieces(self, text: str) -> list[Piece]:
        found = rows(await self.http.post("/tokenize", {"inputs": text}))
        return [Piece(int(field(token, "id")), text_at(token, "text")) for token in found]

    async def kept(self, frame: Frame, spelled: list[tuple[Piece, ...]]) -> list[tuple[Piece, ...]]:
        """See `TemplateDialect`: those that the server reads token by token as they are written behind a prompt."""
        prompt = frame.head + fenced_story("The fox found a lamp.") + frame.tail
        start = [piece.id for piece in await self._all_pieces(prompt)]
        prefixes = {candidate[:i] for candidate in spelled for i in range(1, len(candidate))}

        async def is_read(prefix: tuple[Piece, ...]) -> bool:
            read = await self._all_pieces(prompt + _text(prefix))
            return [piece.id for piece in read] == start + [piece.id for piece in prefix]

        ordered = sorted(prefixes, key=str)
        good = dict(zip(ordered, await together(*map(is_read, ordered)), strict=True))
        usable = [c for c in spelled if all(good[c[:i]] for i in range(1, len(c)))]
        for candidate in usable:
            for i in range(len(candidate) + 1):
                self._texts[tuple(piece.id for piece in candidate[:i])] = _text(candidate[:i])
        return usable

    async def prompt(self, frame: Frame, fenced: str, tree: AnswerTree) -> str:
        """See `Dialect`: text. How many tokens it takes is left to the server, which refuses what is too long."""
        return frame.head + fenced + frame.tail

    async def next_tokens(self, prompt: Any, paths: Sequence[Path], tree: AnswerTree) -> dict[Path, dict[Token, float]]:
        """See `Dialect`: one request a path, and another where too little came back.

        Where a path is forced to go on in one way, two tokens are asked for: if the most probable one is the forced
        one, the second's log-probabilities are those after it.
        """
        found: dict[Path, dict[Token, float]] = {}
        for each in await together(*(self._after(prompt, path, tree) for path in paths)):
            found |= each
        return found

    async def _after(self, prompt: str, path: Path, tree: AnswerTree) -> dict[Path, dict[Token, float]]:
        ahead = tree.forced(path)
        first, *more = await self._most_probable(prompt + self._texts[path], tokens=1 if ahead is None else 2)
        found = {path: await self._completed(prompt, path, tree.children[path], first)}
        if ahead is not None and more and first and max(first, key=lambda token: first[token]) == ahead[-1]:
            found[ahead] = await self._completed(prompt, ahead, tree.children[ahead], more[0])
        return found

    async def _completed(
        self, prompt: str, path: Path, wanted: Sequence[Token], found: dict[Token, float]
    ) -> dict[Token, float]:
        """`found` with those of the wanted tokens that are missing, by the ratios that a grammar gives."""
        missing = [token for token in wanted if token not in found]
        if not missing or len(missing) == len(wanted) or math.exp(min(found.values())) <= NEGLIGIBLE:
            return found
        anchor = max((token for token in wanted if token in found), key=lambda token: found[token])
        most = max(1, self._top - 1)
        groups = [missing[i : i + most] for i in range(0, len(missing), most)]
        held = await together(*(self._held(prompt, path, [anchor, *group]) for group in groups))
        for group, ratios in zip(groups, held, strict=True):
            if anchor not in ratios:
                raise MalformedAnswerError("with a grammar the server gave none of the tokens that it has without")
            scale = found[anchor] - ratios[anchor]
            found = found | {token: ratios[token] + scale for token in group if token in ratios}
        return found

    async def _held(self, prompt: str, path: Path, allowed: Sequence[Token]) -> dict[Token, float]:
        """Log-probabilities of the next token where it can be none but the allowed ones."""
        texts = [self._texts[(*path, token)].removeprefix(self._texts[path]) for token in allowed]
        (found,) = await self._most_probable(prompt + self._texts[path], f"({'|'.join(texts)})")
        return found

    async def _most_probable(
        self, inputs: str, pattern: str | None = None, *, tokens: int = 1
    ) -> list[dict[Token, float]]:
        """The most probable tokens at each of `tokens` places, or fewer where the model ends; the best one is taken."""
        parameters: dict[str, Any] = {"max_new_tokens": tokens, "details": True, "top_n_tokens": self._top}
        if pattern is not None:
            parameters["grammar"] = {"type": "regex", "value": pattern}
        try:
            answer = await self.http.post("/generate", {"inputs": inputs, "parameters": parameters})
        except RequestRefusedError as error:
            limit = re.search(r"top_n_tokens.*<= (\d+)", str(error))
            if limit is None or not 0 < int(limit[1]) < parameters["top_n_tokens"]:
                raise
            self._top = int(limit[1])
            return await self._most_probable(inputs, pattern, tokens=tokens)
        places = rows(answer, "details", "top_tokens")
        if not places:
            raise MalformedAnswerError("the server's answer has no details.top_tokens, though asked for them")
        return [checked({int(field(t, "id")): field(t, "logprob") for t in rows(place)}) for place in places]

    async def sample(self, prompt: Any, draw: Draw) -> Sampled:
        """See `Dialect`."""
        parameters: dict[str, Any] = {
            "max_new_tokens": draw.max_tokens,
            "do_sample": True,
            "temperature": draw.temperature,
            "seed": draw.seed,
            "grammar": {"type": "regex", "value": draw.pattern},
        }
        answer = await self.http.post("/generate", {"inputs": prompt, "parameters": parameters})
        return Sampled(text_at(answer, "generated_text"))

    async def look(self, frame: Frame, prompt: Any) -> str:
        """See `Dialect`: what the server adds in front stands there once; how many tokens it shows."""
        read = [piece.id for piece in await self._all_pieces(prompt)]
        if self._added and read[: self._added] == read[self._added : 2 * self._added]:
            raise DialectError(f"the prompt begins with token {read[0]} (BOS) twice; mend the server's chat template")
        body = {"inputs": prompt, "parameters": {"max_new_tokens": 1}}
        _, count = await self.http.post_for("/generate", body, "x-prompt-tokens")
        if count is not None:
            read_as_sent(int(count) if count.isdecimal() else count, len(read))
        return (
            f"{'one BOS' if self._added else 'no BOS'}, the {self._top} most probable tokens and a grammar for the rest"
        )


def _text(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)
