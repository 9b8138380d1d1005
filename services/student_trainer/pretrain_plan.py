"""The course of a pretraining, known before it starts: how many steps, which blocks in each, which milestones where."""

from dataclasses import dataclass

import torch

from services.student_trainer.config import ConfigError
from services.student_trainer.dataset import Blocks, epoch_order
from services.student_trainer.ranks import Ranks
from services.student_trainer.settings import PretrainSettings


@dataclass(frozen=True)
class Plan:
    """Blocks flow in one stream, epoch after epoch, each in its own order; a step takes the next `batch_size` of it.

    Attributes:
        words_after_S: words seen after step 1, 2, ..., S; int64.
        keep: optimiser step -> milestone in words; the last step's is the word budget.
    """

    seed: int
    blocks: int
    batch_size: int
    words_after_S: torch.Tensor
    keep: dict[int, int]

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return len(self.words_after_S)

    def words_seen(self, step: int) -> int:
        """Words seen after `step` steps, repetitions counted."""
        return int(self.words_after_S[step - 1]) if step else 0

    def batch(self, step: int) -> torch.Tensor:
        """Indices of the blocks of step `step` (from 1); int64 of length `batch_size`."""
        first = (step - 1) * self.batch_size
        places = range(first, first + self.batch_size)
        orders = {epoch: epoch_order(self.blocks, self.seed, epoch) for epoch in {p // self.blocks for p in places}}
        return torch.stack([orders[place // self.blocks][place % self.blocks] for place in places])


def make_plan(blocks: Blocks, settings: PretrainSettings, seed: int) -> Plan:
    """Steps until the words seen reach the budget, and the first step at which each milestone is reached.

    Of milestones that one step reaches together, the largest names the checkpoint; those past the budget are never
    reached.
    """
    words_per_epoch = int(blocks.words_N.sum())
    epochs = settings.word_budget // words_per_epoch + 2 + settings.batch_size // len(blocks)
    stream = torch.cat([blocks.words_N[epoch_order(len(blocks), seed, epoch)] for epoch in range(epochs)])
    whole_steps = len(stream) // settings.batch_size
    per_step = stream[: whole_steps * settings.batch_size].reshape(whole_steps, settings.batch_size).sum(dim=1)
    words_after = per_step.cumsum(0)
    last = _first_step(words_after, settings.word_budget)
    keep = {_first_step(words_after, m): m for m in sorted(settings.milestones) if m < settings.word_budget}
    keep[last] = settings.word_budget
    return Plan(seed, len(blocks), settings.batch_size, words_after[:last], keep)


def learning_rate(step: int, steps: int, settings: PretrainSettings) -> float:
    """Rate of step `step` (from 1) of `steps`: linear up over the warm-up, then linear down to zero."""
    warmup = round(steps * settings.warmup_ratio)
    done = step - 1
    if done < warmup:
        return settings.learning_rate * (done + 1) / warmup
    return settings.learning_rate * (steps - done) / max(1, steps - warmup)


def share_of_micro_batches(settings: PretrainSettings, ranks: Ranks, *, sharded: bool) -> list[tuple[int, int]]:
    """First row and size of this process's micro-batches, each as large as may be; shares are whole ones.

    Raises:
        ConfigError: a divided model computes only where all do, and one process would have fewer than another.
    """
    rows = settings.batch_size
    size = -(-rows // ranks.world)
    size = min(size, settings.micro_batch_size or size)
    count = -(-rows // size)
    if sharded and count % ranks.world:
        raise ConfigError(
            f"pretrain.shard: {ranks.world} processes cannot share {count} micro-batches of {size} blocks evenly; "
            f"choose batch_size and micro_batch_size so that a batch has a multiple of {ranks.world}"
        )
    return [(number * size, min(size, rows - number * size)) for number in ranks.share(count)]


def _first_step(words_after: torch.Tensor, words: int) -> int:
    return int(torch.searchsorted(words_after, words)) + 1
