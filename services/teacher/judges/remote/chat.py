"""Servers that take a chat and give the most probable tokens by their text: Ollama, OpenAI and what speaks its API.

They write and tokenise the prompt out of our sight, and nothing can be put into the model's mouth for certain, so that
only the first token of an answer is known: modes independent and sample. A digit is found by its text, "2" or " 2".
One that is not among the 20 most probable tokens counts as having no probability: coverage is a lower bound.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.teacher.judges.lm import prompt
from services.teacher.judges.remote.dialect import Dialect, DialectError, Draw, Frame, Sampled
from services.teacher.judges.remote.fields import field, rows, text_at
from services.teacher.judges.remote.tree import (
    ROOT,
    AnswerTree,
    MalformedAnswerError,
    Path,
    Token,
    build_tree,
    logsumexp,
)
from services.teacher.rubric import Rubric

TOP = 20
USER = "\n\n[user]\n"
SYSTEM = "[system]\n"
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Ask:
    """One chat to be answered."""

    messages: Messages
    max_tokens: int
    temperature: float
    seed: int


class ChatDialect(Dialect):
    """See the module."""

    constrains = False
    temperature_to_look = 1.0  # with which one token is drawn that only its log-probabilities are wanted of

    @abstractmethod
    async def complete(self, ask: Ask) -> tuple[str, list[Any]]:
        """The answer's text, and an entry a token with `top_logprobs`, each of these with `token` and `logprob`."""

    async def frame(self, rubric: Rubric) -> Frame:
        """See `Dialect`: the messages written one after the other, cut where the story goes."""
        system, user = (message["content"] for message in prompt.messages(rubric, system=True))
        head, tail = f"{SYSTEM}{system}{USER}{user}".split(prompt.SLOT)
        return Frame(head, tail)

    async def tree(self, frame: Frame, rubric: Rubric) -> AnswerTree:
        """See `Dialect`: the first digit alone. A longer answer's coverage is that of its beginning."""
        return build_tree([{(str(level),)} for level in range(rubric.levels)])

    async def prompt(self, frame: Frame, fenced: str, tree: AnswerTree) -> Messages:
        """See `Dialect`: messages."""
        system, user = self.shown(frame, fenced).removeprefix(SYSTEM).split(USER, 1)
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]

    async def next_tokens(self, prompt: Any, paths: Sequence[Path], tree: AnswerTree) -> dict[Path, dict[Token, float]]:
        """See `Dialect`: after the prompt alone."""
        _, tokens = await self.complete(Ask(prompt, max_tokens=1, temperature=self.temperature_to_look, seed=0))
        return {ROOT: by_text(tokens)}

    async def sample(self, prompt: Any, draw: Draw) -> Sampled:
        """See `Dialect`: with log-probabilities, so that there is no need to ask and to pay twice."""
        text, tokens = await self.complete(Ask(prompt, draw.max_tokens, draw.temperature, draw.seed))
        return Sampled(text, by_text(tokens))

    async def look(self, frame: Frame, prompt: Any) -> str:
        """See `Dialect`: nothing can be seen."""
        return f"BOS left to the server, the {TOP} most probable tokens (coverage is a lower bound)"


def by_text(tokens: Sequence[object]) -> dict[Token, float]:
    """Log-probabilities of the first token by its text without a space in front, those of equal texts summed.

    Raises:
        MalformedAnswerError: there are none.
    """
    if not tokens:
        raise MalformedAnswerError("the server's answer has no log-probabilities, though asked for them")
    found: dict[Token, list[Any]] = {}
    for entry in rows(tokens[0], "top_logprobs"):
        text, value = text_at(entry, "token"), field(entry, "logprob")
        found.setdefault(text.removeprefix(" "), []).append(value)
    return {text: values[0] if len(values) == 1 else _sum(values) for text, values in found.items()}


def _sum(values: list[Any]) -> Any:
    return logsumexp(values) if all(isinstance(value, float | int) for value in values) else None


def need_model(model: str | None) -> str:
    """The model's name, which these servers must be told."""
    if model is None:
        raise DialectError("no model is named; write it after # in the teacher's name")
    return model
