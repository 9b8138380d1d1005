"""A question put to a model: log-probabilities of every answer, for a batch of stories in one forward pass."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from services.teacher.judges import joint
from services.teacher.judges.lm.forward import TreeForward
from services.teacher.judges.lm.question import Question

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answers:
    """Log-probabilities (A,), in nats, of a question's answers to one story."""

    plain: Tensor  # at temperature 1
    tempered: Tensor  # at the judge's own temperature


class Scorer:
    """`question` put to `model`, its head computed once."""

    def __init__(self, model: Any, question: Question, *, temperature: float, chunk: int) -> None:
        self.question = question
        self.forward = TreeForward(model, question.tree, chunk=chunk)
        self.prefix = self.forward.prefix(question.head)
        self._temperature = temperature

    def answers(self, prompts: Sequence[Sequence[int]], *, cached: bool = True) -> list[Answers]:
        """The answers to each prompt, as `Question.prompt` makes them.

        Args:
            prompts: at least one.
            cached: whether the head's keys and values are reused or computed again.
        """
        if cached:
            logits = self.forward.tree_logits(prompts, self.prefix)
        else:
            logits = self.forward.tree_logits([[*self.question.head, *tokens] for tokens in prompts])
        plain = tempered = self._logprobs(logits, 1.0)
        if self._temperature != 1.0:
            tempered = self._logprobs(logits, self._temperature)
        return [Answers(*pair) for pair in zip(plain, tempered, strict=True)]

    def answers_or_halve(self, prompts: Sequence[Sequence[int]]) -> list[Answers | None]:
        """The answers to each prompt; where memory is too small, of each half. None: too small for that."""
        try:
            return list(self.answers(prompts))
        except torch.OutOfMemoryError:
            log.warning("out of memory with %d stories of up to %d tokens", len(prompts), max(map(len, prompts)))
        found: list[Answers | None] = []
        middle = (len(prompts) + 1) // 2
        for half in filter(None, (prompts[:middle], prompts[middle:])):
            torch.cuda.empty_cache()
            try:
                found += self.answers(half)
            except torch.OutOfMemoryError:
                found += [None] * len(half)
        return found

    def _logprobs(self, logits: Sequence[Tensor], temperature: float) -> Tensor:
        edges = joint.edge_logprobs_BN(logits, self.question.tree, temperature)
        return joint.answer_logprobs_BA(edges.cpu(), self.question.tree)
