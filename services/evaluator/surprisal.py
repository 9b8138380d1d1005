"""Surprisal of words in context, as the BabyLM 2025 pipeline's reading task computes it, a forward a sentence.

The pipeline asks the model once a word and once more for each further token of the word, a text at a time. Its
questions are kept as they are, token for token:
- The context is tokenised with the special tokens that the tokenizer adds, the word alone and without them.
- After a word's first token the context grows by that token's text, is tokenised anew, and the next token's text is
  tokenised alone; the first token of that is asked for. No space stands between the context and the word.
- A causal model is asked at the context's last token. A masked one reads the context and three mask tokens: `mlm` asks
  at the first of them, `mntp` at the token before it.

What we do differently, and why:
1. Every question is collected first, and equal ones are asked once. Those to a causal model that begin alike, which
   are those of a sentence, share their forward.
2. Sequences are sorted by length and batched under a token budget.
3. Log-probabilities are added instead of probabilities multiplied: a long word cannot underflow to 0.
4. Types of tokens are not handed to the model. The pipeline hands over whatever the tokenizer returns; a BERT takes
   zeros anyway, and a GPT-2 would add the embedding of token 0 to every position.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from services.evaluator.batching import Encoded, token_batches
from services.evaluator.engine import TOKEN_BUDGET, Engine
from services.evaluator.errors import ItemsError
from services.evaluator.forward import halving, log_probabilities

MASKS_APPENDED = 3


@dataclass(frozen=True, slots=True)
class Question:
    """How probable is token `target` at the model's output `position` (0..T-1) after reading `ids` (T)?"""

    ids: tuple[int, ...]
    position: int
    target: int


@dataclass(frozen=True, slots=True)
class WordInContext:
    """A word and the text before it; the pipeline puts no space between them."""

    context: str
    word: str


class Questioner:
    """Turns words in context into questions to one model.

    Args:
        tokenizer: The checkpoint's; a masked backend needs its mask token.
        backend: What the model is.

    Raises:
        ItemsError: a masked backend, and the tokenizer has no mask token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, backend: Literal["causal", "mlm", "mntp"]) -> None:
        self._tokenizer = tokenizer
        self._mask_id: int | None = None
        self._appended = ""
        self._offset = -1  # of the output that is asked, from the sequence's end or its last mask token
        if backend != "causal":
            token = tokenizer.mask_token
            if not isinstance(token, str):
                raise ItemsError(f"backend {backend} needs a mask token, and the checkpoint's tokenizer has none")
            self._mask_id = tokenizer.mask_token_id
            self._appended = token * MASKS_APPENDED
            self._offset = -MASKS_APPENDED - (backend == "mntp")
        self._word_pieces: dict[str, list[int]] = {}

    def questions(self, item: WordInContext) -> list[Question]:
        """One question for each token of the word; the word's log-probability is the sum of their answers.

        Raises:
            ItemsError: the word or the context has no tokens.
        """
        context = item.context
        pieces = self._pieces(item.word)
        questions = [self._question(context, pieces[0])]
        for before, piece in pairwise(pieces):
            context += self._text(before)
            questions.append(self._question(context, self._pieces(self._text(piece))[0]))
        return questions

    def _question(self, context: str, target: int) -> Question:
        ids = tuple(self._tokenizer(context + self._appended)["input_ids"])
        # The pipeline knows of one special token, such as [SEP], behind the masks.
        behind = 0 if self._mask_id is None or ids[-1] == self._mask_id else 1
        position = len(ids) + self._offset - behind
        if position < 0:
            raise ItemsError(f"the context {context!r} has no token that predicts the next; leave the row out")
        return Question(ids, position, target)

    def _pieces(self, text: str) -> list[int]:
        if text not in self._word_pieces:
            self._word_pieces[text] = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        pieces = self._word_pieces[text]
        if not pieces:
            raise ItemsError(f"the checkpoint's tokenizer makes no token of {text!r}; leave the row out")
        return pieces

    def _text(self, piece: int) -> str:
        return str(self._tokenizer.decode(piece))


def causal_surprisals(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    words: Sequence[WordInContext],
    part_done: Callable[[float], None],
) -> list[float]:
    """-log p(word | context) in nats under the causal model of `engine`, one a word, in order.

    Raises:
        ItemsError: a word cannot be asked for, does not fit the model's context, or the answer is not finite.
    """

    def answer(questions: list[Question]) -> list[float]:
        sequences = [Encoded((*question.ids, question.target), (len(question.ids),)) for question in questions]
        return [value for (value,) in engine.token_log_probabilities(sequences, part_done)]

    return _surprisals(words, Questioner(tokenizer, "causal"), answer)


def masked_surprisals(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    words: Sequence[WordInContext],
    part_done: Callable[[float], None],
    *,
    backend: Literal["mlm", "mntp"],
    context: int | None,
    token_budget: int = TOKEN_BUDGET,
) -> list[float]:
    """-log p(word | context) in nats under a masked language model, one a word, in order.

    Args:
        model: In evaluation mode.
        tokenizer: Its tokenizer, with a mask token.
        words: The words.
        part_done: Told the share of the work that is done, 0..1.
        backend: `mlm` or `mntp`.
        context: Most tokens that the model reads; none where it has no bound.
        token_budget: Padded tokens in one forward.

    Raises:
        ItemsError: a word cannot be asked for, does not fit the model's context, or the answer is not finite.
    """

    def answer(questions: list[Question]) -> list[float]:
        longest = max(len(question.ids) for question in questions)
        if context is not None and longest > context:
            raise ItemsError(f"a sentence of {longest} tokens does not fit the checkpoint's context of {context}")
        answers: dict[Question, float] = {}
        for batch in token_batches([len(question.ids) for question in questions], token_budget):
            asked = [questions[i] for i in batch]
            answers |= dict(zip(asked, halving(asked, lambda part: _ask(model, tokenizer, part)), strict=True))
            part_done(len(answers) / len(questions))
        if not all(isfinite(value) for value in answers.values()):
            raise ItemsError("the checkpoint gives log-probabilities that are not finite; take an earlier one")
        return [answers[question] for question in questions]

    with torch.inference_mode():
        return _surprisals(words, Questioner(tokenizer, backend), answer)


def _surprisals(
    words: Sequence[WordInContext], questioner: Questioner, answer: Callable[[list[Question]], list[float]]
) -> list[float]:
    asked = {word: questioner.questions(word) for word in dict.fromkeys(words)}
    unique = list(dict.fromkeys(question for questions in asked.values() for question in questions))
    answers = dict(zip(unique, answer(unique), strict=True))
    return [-sum(answers[question] for question in asked[word]) for word in words]


def _ask(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question]) -> list[float]:
    """One forward, padded on the right with the tokenizer's padding: some models count positions from it."""
    pad = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else 0
    lengths = [len(question.ids) for question in questions]
    rows = [[*q.ids, *[pad] * (max(lengths) - len(q.ids))] for q in questions]
    mask = [[1] * n + [0] * (max(lengths) - n) for n in lengths]
    wanted = [(row, question.position, question.target) for row, question in enumerate(questions)]
    return log_probabilities(
        model,
        wanted,
        whole=True,
        input_ids=torch.tensor(rows, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
    )
