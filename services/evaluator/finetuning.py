"""Fine-tuning a checkpoint to classify pairs of texts, as the BabyLM 2025 evaluation pipeline does (its `finetune`).

A classifier head on the first position's hidden state, as its script asks, for causal models too: LayerNorm, Linear,
GELU, LayerNorm, Dropout 0.1, Linear. Every weight learns: AdamW (betas 0.9 and 0.999, decay 0.01), 6 % linear warm-up,
cosine decay to a tenth, an incomplete last batch dropped. After each epoch the validation rows are predicted, and the
best epoch by the task's metric counts, the earliest of equals. With the same seed and the same torch, weights drawn,
the data's order and, on a CPU, every dropout mask are the pipeline's. What we do differently, and why:

1. The pipeline copies the model after each step into an average with decay 0, and saves the best epoch's weights to
   predict once more. The copy equals the model and the predictions are those of that epoch, so we keep these alone.
2. Texts are tokenised once, not once an epoch; batches are padded to their longest text as there.
3. The first position of a causal model sees itself alone, so nothing after it is computed (see `first_position`).
4. A text is cut at the checkpoint's context where that is shorter than 512 tokens; there it is an index error.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from services.evaluator.errors import CheckpointError, SuiteFailedError
from services.evaluator.first_position import FullWidthDropout, reads_only_itself

SEQUENCE_LENGTH = 512
LEARNING_RATE = 3e-5
WEIGHT_DECAY = 0.01
WARMUP_SHARE = 0.06
FINAL_FACTOR = 0.1
HEAD_DROPOUT = 0.1
CPU = torch.device("cpu")
PREDICTED_AT_ONCE = 64

Metric = Callable[[Sequence[int], Sequence[int]], float]
"""Labels and predictions to a score, higher is better."""
Position = Literal["first", "last"]
Load = Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
"""A fresh base model on `device`, and its tokenizer; it may draw weights that the checkpoint lacks."""


@dataclass(frozen=True, slots=True)
class Example:
    """Two texts and the class they belong to."""

    first: str
    second: str
    label: int


@dataclass(frozen=True, slots=True)
class FineTuning:
    """How to fine-tune: `labels` classes, `batch_size` rows a step, `metric` choosing the best of `epochs`.

    `position`: whose hidden state is classified, the `first` token's, as the pipeline's script asks, or the `last`'s.
    `device`: where the model learns; its random state is left as it was.
    """

    labels: int
    batch_size: int
    epochs: int
    metric: Metric
    seed: int
    position: Position = "first"
    device: torch.device = CPU
    learning_rate: float = LEARNING_RATE

    def steps(self, train: int, valid: int) -> int:
        """Batches learned from and predicted, for progress."""
        return self.epochs * (train // self.batch_size + math.ceil(valid / PREDICTED_AT_ONCE))


@dataclass(frozen=True, slots=True)
class FineTuned:
    """The best epoch (from 1), its predictions of the validation rows in order, and the loss (nats) of every step."""

    epoch: int
    predictions: tuple[int, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Batch:
    """ids and mask (B, T), labels (B); `width` is the longest text, also where T is cut to the first position."""

    ids_BT: torch.Tensor
    mask_BT: torch.Tensor
    labels_B: torch.Tensor
    width: int


class Classifier(nn.Module):
    """A base model and a classifier head on its first or last position."""

    def __init__(self, encoder: PreTrainedModel, labels: int, position: Position) -> None:
        super().__init__()
        width = int(encoder.config.hidden_size)
        self.encoder = encoder
        self._position = position
        self.head = nn.Sequential(
            nn.LayerNorm(width, elementwise_affine=False),
            nn.Linear(width, width),
            nn.GELU(),
            nn.LayerNorm(width, elementwise_affine=False),
            nn.Dropout(HEAD_DROPOUT),
            nn.Linear(width, labels),
        )

    def forward(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """Logits (B, labels) of right-padded texts."""
        hidden_BTD = self.encoder(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        if self._position == "first":
            chosen_BD = hidden_BTD[:, 0]
        else:
            chosen_BD = hidden_BTD[torch.arange(len(ids_BT), device=ids_BT.device), mask_BT.sum(dim=1) - 1]
        logits: torch.Tensor = self.head(chosen_BD)
        return logits


def fine_tune(
    load: Load,
    train: Sequence[Example],
    valid: Sequence[Example],
    plan: FineTuning,
    done: Callable[[], None],
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> FineTuned:
    """Fine-tune a fresh model on `train` and predict `valid`. The process's random state is left as it was.

    Args:
        load: Called once, after the seed is set.
        train: At least one batch.
        valid: At least one row.
        plan: How.
        done: Called after each batch; what it raises (AbandonedError) ends the fine-tuning.
        autocast: Precision of the forward passes; fp32 by default.

    Raises:
        SuiteFailedError: fewer rows than a batch holds, a loss that is not finite, or too little memory.
        CheckpointError: from `load`, or a text has no token.
    """
    if len(train) < plan.batch_size:
        raise SuiteFailedError(f"{len(train)} training rows do not fill one batch of {plan.batch_size}; give more rows")
    with torch.random.fork_rng(devices=[plan.device] if plan.device.type == "cuda" else []):
        torch.manual_seed(plan.seed)
        try:
            encoder, tokenizer = load()
            model = Classifier(encoder, plan.labels, plan.position).to(plan.device)
            return _Run(model, tokenizer, plan, autocast).learn(train, valid, done)
        except torch.OutOfMemoryError as error:
            raise SuiteFailedError(
                f"fine-tuning, which takes four times the weights and more, does not fit on {plan.device}: {error}; "
                "set dtype to bfloat16 or device to cpu"
            ) from error


class _Run:
    def __init__(
        self,
        model: Classifier,
        tokenizer: PreTrainedTokenizerBase,
        plan: FineTuning,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._plan = plan
        self._autocast = autocast
        self._first_only = plan.position == "first" and reads_only_itself(model.encoder)

    def learn(self, train: Sequence[Example], valid: Sequence[Example], done: Callable[[], None]) -> FineTuned:
        train_batches = self._batches(train, self._plan.batch_size, shuffle=True)
        valid_batches = self._batches(valid, PREDICTED_AT_ONCE, shuffle=False)
        optimizer = torch.optim.AdamW(self._model.parameters(), lr=self._plan.learning_rate, weight_decay=WEIGHT_DECAY)
        steps = len(train_batches) * self._plan.epochs
        schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps))
        labels = [example.label for example in valid]
        losses: list[float] = []
        best: tuple[float, int, tuple[int, ...]] | None = None
        for epoch in range(1, self._plan.epochs + 1):
            for loss in self._train_epoch(train_batches, optimizer, schedule):
                losses.append(loss)
                done()
            predictions = self._predict(valid_batches, done)
            score = self._plan.metric(labels, predictions)
            if best is None or score > best[0]:
                best = (score, epoch, predictions)
        if best is None:
            raise ValueError(f"epochs = {self._plan.epochs}; expected 1 or more")
        return FineTuned(best[1], best[2], tuple(losses))

    def _train_epoch(
        self, batches: "DataLoader[_Batch]", optimizer: torch.optim.Optimizer, schedule: LambdaLR
    ) -> Iterator[float]:
        """One pass over the batches; the loss of each step."""
        self._model.train()
        replays = self._first_only and self._plan.device.type == "cpu"  # elsewhere kernels draw in ways of their own
        for batch in batches:
            with self._autocast(), FullWidthDropout(batch.width) if replays else nullcontext():
                loss = cross_entropy(self._model(batch.ids_BT, batch.mask_BT).float(), batch.labels_B)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise SuiteFailedError(f"the loss became {value} while fine-tuning; take an earlier checkpoint")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            yield value

    @torch.no_grad()
    def _predict(self, batches: "DataLoader[_Batch]", done: Callable[[], None]) -> tuple[int, ...]:
        self._model.eval()
        predictions: list[int] = []
        for batch in batches:
            with self._autocast():
                logits_BC = self._model(batch.ids_BT, batch.mask_BT)
            predictions += logits_BC.argmax(dim=-1).tolist()
            done()
        return tuple(predictions)

    def _batches(self, examples: Sequence[Example], size: int, *, shuffle: bool) -> "DataLoader[_Batch]":
        """Batches in the pipeline's order: torch's loader draws from the process's random state as it does there."""
        rows = list(zip(self._encode(examples), [example.label for example in examples], strict=True))
        return DataLoader(cast(Any, rows), size, shuffle=shuffle, drop_last=shuffle, collate_fn=self._collate)

    def _encode(self, examples: Sequence[Example]) -> list[list[int]]:
        context = getattr(self._model.encoder.config, "max_position_embeddings", None) or SEQUENCE_LENGTH
        ids: list[list[int]] = self._tokenizer(
            text=[example.first for example in examples],
            text_pair=[example.second for example in examples],
            truncation=True,
            max_length=min(SEQUENCE_LENGTH, context),
        )["input_ids"]
        if any(not row for row in ids):
            raise CheckpointError(
                "the checkpoint's tokenizer makes no token of a text; save it with its whole alphabet"
            )
        return ids

    def _collate(self, rows: list[tuple[list[int], int]]) -> _Batch:
        width = max(len(ids) for ids, _ in rows)
        kept = 1 if self._first_only else width
        ids_BT = torch.full((len(rows), kept), self._tokenizer.pad_token_id or 0)  # masked: any token would do
        mask_BT = torch.zeros(len(rows), kept, dtype=torch.long)
        for b, (ids, _) in enumerate(rows):
            ids_BT[b, : len(ids)] = torch.tensor(ids[:kept])
            mask_BT[b, : len(ids)] = 1
        labels_B = torch.tensor([label for _, label in rows])
        return _Batch(
            ids_BT.to(self._plan.device), mask_BT.to(self._plan.device), labels_B.to(self._plan.device), width
        )


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over the first 6 % of `steps`, then half a cosine down to a tenth."""
    warmup = int(WARMUP_SHARE * steps)
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, steps - warmup)
    return max(FINAL_FACTOR, FINAL_FACTOR + (1 - FINAL_FACTOR) * 0.5 * (1.0 + math.cos(math.pi * progress)))
