"""Next-word prediction between the updates of an algorithm: `interact.mixed`.

After PPO-ptx (Ouyang et al. 2022, arXiv 2203.02155, section 3.5), which mixes the pretraining loss into PPO so that
the student does not forget what it read. What we do differently:

1. Corpus batches are optimiser steps of their own after each update, `batches_per_update` of them, with the same
   optimiser and a learning rate of their own; there is no coefficient, which Adam would mostly divide away.
2. They go with any algorithm. Dropout stays off, as in the rest of interaction.
3. Words read count: the ledger is charged with them, repetitions included, and the budget is asked before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from services.student_trainer.algorithms.experience import Algorithm
from services.student_trainer.algorithms.updating import finite_gradient_norm
from services.student_trainer.corpus import load_documents
from services.student_trainer.dataset import Blocks, derive_seed, epoch_order
from services.student_trainer.learning_settings import MixedSettings
from services.student_trainer.policy import Policy
from services.student_trainer.pretrain_start import filled
from services.student_trainer.ranks import Ranks
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.settings import RunSettings
from services.student_trainer.token_cache import cached_blocks, open_blocks


@dataclass(frozen=True)
class NextWord:
    """Batches of the corpus: which ones follow an update is a function of `seed` and the update alone.

    Blocks flow in one stream, epoch after epoch, each in an order of its own. `micro_batch_size`: blocks a forward at
    most; none: all.
    """

    blocks: Blocks
    settings: MixedSettings
    seed: int
    micro_batch_size: int | None = None

    @classmethod
    def open(
        cls, folder: RunFolder, settings: RunSettings, tokenizer: PreTrainedTokenizerBase, ranks: Ranks
    ) -> "NextWord | None":
        """The run's corpus in the student's tokens; none where nothing is mixed in.

        Raises:
            CorpusError: the corpus cannot be read, or fills no block.
        """
        mixed, pretraining = settings.interact.mixed, settings.pretrain
        if not mixed.batches_per_update:
            return None
        corpus = load_documents(settings.corpus, settings.seed)
        place = ranks.on_main(
            lambda beat: cached_blocks(folder.path / "tokens", corpus.train, tokenizer, pretraining.block_tokens, beat)
        )
        return cls(filled(open_blocks(place), corpus), mixed, settings.seed, pretraining.micro_batch_size)

    def batches(self, update: int) -> Tensor:
        """Indices of the blocks that follow update `update` (from 0), [batches_per_update, batch_size]."""
        count = self.settings.batches_per_update * self.settings.batch_size
        places = range(update * count, (update + 1) * count)
        blocks, seed = len(self.blocks), derive_seed(self.seed, "mixed", 0)
        orders = {epoch: epoch_order(blocks, seed, epoch) for epoch in {place // blocks for place in places}}
        chosen = torch.stack([orders[place // blocks][place % blocks] for place in places])
        return chosen.reshape(-1, self.settings.batch_size)

    def words(self, updates: range) -> int:
        """Words read after these updates."""
        return sum(int(self.blocks.words_N[self.batches(update)].sum()) for update in updates)

    def learn(self, policy: Policy, optimizer: torch.optim.Optimizer, algorithm: Algorithm, update: int) -> float:
        """The steps after update `update`; mean cross-entropy before each, in nats a token.

        Of several processes each computes its share of a batch.

        Raises:
            NotFiniteError: before a gradient with a NaN or infinity is applied.
        """
        losses = []
        for rows_B in self.batches(update):
            optimizer.zero_grad(set_to_none=True)
            losses.append(self._accumulate_gradient(policy, rows_B))
            finite_gradient_norm(policy, algorithm)
            with _learning_rate(optimizer, self.settings.learning_rate):
                optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return sum(losses) / len(losses)

    def _accumulate_gradient(self, policy: Policy, rows_B: Tensor) -> float:
        loss = torch.zeros((), dtype=torch.float64)
        for rows, weight in policy.own_micro_batches(rows_B, self.micro_batch_size):
            tokens_RT = self.blocks.tokens_NT[rows].to(policy.model.device, torch.int64)
            share = policy.next_word_loss(tokens_RT) * (weight * len(rows) / len(rows_B))
            share.backward()
            loss += share.detach().cpu()
        policy.sum_gradients()
        return float(policy.ranks.sum(loss))


@contextmanager
def _learning_rate(optimizer: torch.optim.Optimizer, rate: float | None) -> Iterator[None]:
    """Another rate for all parameters, then each group's own again."""
    own = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] if rate is None else rate
    try:
        yield
    finally:
        for group, before in zip(optimizer.param_groups, own, strict=True):
            group["lr"] = before
