"""Surprisal of words in context, as the BabyLM 2025 pipeline's reading task computes it, a forward a sentence.

The pipeline asks the model once a word and once more for each further token of the word, a text at a time. Its
questions are kept as they are, token for token:
- The context is tokenised with the special tokens that the tokenizer adds, the word alone and without them.
- After a word's first token the context grows by that token's text, is tokenised anew, and the next token's text is
  tokenised alone; the first token of that is asked for. No space stands between the context and the word.
- A causal model is asked at the context's last token. A masked one reads the context and three mask tokens: `mlm` asks
  at the first of them, `mntp` at the token before it.

What we do differently, and why:
1. Every question is collected first. A causal model's context that begins another context is answered by the longer
   one's forward, since a token is predicted from those before it alone; equal questions are asked once.
2. Sequences are sorted by length and batched under a token budget.
3. Log-probabilities are added instead of probabilities multiplied: a long word cannot underflow to 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from services.evaluator.batching import grouped, token_batches
from services.evaluator.errors import ItemsError

MASKS_APPENDED = 3
BACKENDS = ("causal", "mlm", "mntp")


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
        backend: `causal`, `mlm` or `mntp`.

    Raises:
        ItemsError: a masked backend, and the tokenizer has no mask token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, backend: str) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"backend {backend!r}; expected one of {', '.join(BACKENDS)}")
        self._tokenizer = tokenizer
        self._mask_id: int | None = None
        self._appended = ""
        self._offset = -1  # of the output that is asked, from the sequence's end or its first mask token
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
        after = (
            0 if self._mask_id is None or ids[-1] == self._mask_id else 1
        )  # </s> or [SEP]: the pipeline knows of one
        position = len(ids) + self._offset - after
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


def word_surprisals(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    words: Sequence[WordInContext],
    *,
    backend: str = "causal",
    token_budget: int = 1024,
    done: Callable[[int, int], None],
) -> list[float]:
    """-log p(word | context) in nats, one a word, in order.

    Args:
        model: In evaluation mode.
        tokenizer: Its tokenizer.
        words: The words.
        backend: `causal`, `mlm` or `mntp`.
        token_budget: Padded tokens in one forward.
        done: Told sequences read so far and in all.

    Raises:
        ItemsError: a word cannot be asked for, does not fit the model's context, or the answer is not finite.
    """
    questioner = Questioner(tokenizer, backend)
    asked = {word: questioner.questions(word) for word in dict.fromkeys(words)}
    unique = list(dict.fromkeys(question for questions in asked.values() for question in questions))
    longest = max((len(question.ids) for question in unique), default=0)
    context: int | None = getattr(model.config, "max_position_embeddings", None)
    if context is not None and longest > context:
        raise ItemsError(f"a sentence of {longest} tokens does not fit the checkpoint's context of {context}")
    with torch.inference_mode():
        answers = dict(
            zip(unique, _answers(model, unique, _inputs(tokenizer), backend, token_budget, done), strict=True)
        )
    if not all(isfinite(answer) for answer in answers.values()):
        raise ItemsError("the checkpoint gives log-probabilities that are not finite; take an earlier checkpoint")
    return [-sum(answers[question] for question in asked[word]) for word in words]


def sequences_to_read(sequences: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """Each sequence to one that begins with it: the fewest that have to be read by a causal model.

    Sorted, a sequence that begins others stands right before one of them.
    """
    ordered = sorted(set(sequences))
    reader: dict[tuple[int, ...], tuple[int, ...]] = {}
    after: tuple[int, ...] = ()
    for sequence in reversed(ordered):
        reader[sequence] = reader[after] if after[: len(sequence)] == sequence else sequence
        after = sequence
    return reader


def _inputs(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The model's further inputs: the pipeline hands over whatever the tokenizer returns."""
    return tuple(name for name in tokenizer.model_input_names if name == "token_type_ids")


def _answers(
    model: PreTrainedModel,
    questions: Sequence[Question],
    zeros: Sequence[str],
    backend: str,
    budget: int,
    done: Callable[[int, int], None],
) -> list[float]:
    """log p(target), nats, a question. `zeros` are inputs that are 0 at every token."""
    ids = [question.ids for question in questions]
    reader = sequences_to_read(ids) if backend == "causal" else {sequence: sequence for sequence in ids}
    readings = grouped([reader[question.ids] for question in questions])
    sequences = list(readings)
    answers = [0.0] * len(questions)
    read = 0
    for batch in token_batches([len(sequence) for sequence in sequences], budget):
        members = [(b, question) for b, i in enumerate(batch) for question in readings[sequences[i]]]
        logits_BTV = model(**_padded([sequences[i] for i in batch], zeros, model.device)).logits
        rows = torch.tensor([b for b, _ in members])
        positions = torch.tensor([questions[question].position for _, question in members])
        targets = torch.tensor([questions[question].target for _, question in members], device=model.device)
        logp_QV = torch.log_softmax(logits_BTV[rows, positions].float(), dim=-1)
        for (_, question), value in zip(members, logp_QV.gather(1, targets[:, None])[:, 0].tolist(), strict=True):
            answers[question] = value
        read += len(batch)
        done(read, len(sequences))
    return answers


def _padded(sequences: Sequence[tuple[int, ...]], zeros: Sequence[str], device: torch.device) -> dict[str, Any]:
    """Right-padded inputs (B, T) and their attention mask."""
    longest = max(map(len, sequences))
    ids_BT = torch.zeros((len(sequences), longest), dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    for b, sequence in enumerate(sequences):
        ids_BT[b, : len(sequence)] = torch.tensor(sequence)
        mask_BT[b, : len(sequence)] = 1
    inputs = {"input_ids": ids_BT, "attention_mask": mask_BT} | {name: torch.zeros_like(ids_BT) for name in zeros}
    return {name: tensor.to(device) for name, tensor in inputs.items()}
