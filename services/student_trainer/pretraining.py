"""Next-word prediction up to a budget of words seen, with BabyLM's word milestones.

The result is a function of settings and corpus alone: batches and dropout are drawn from (seed, step), so that a
pretraining that was stopped or killed and started again ends with the same bytes on the same CPU. A batch is learned in
micro-batches, each process takes its share of them, and gradients are summed: the same step, up to rounding.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fabula_proto import PretrainMetrics
from services.student_trainer import checkpoints
from services.student_trainer.corpus import Corpus
from services.student_trainer.dataset import derive_seed, make_blocks
from services.student_trainer.pretrain_plan import Plan, learning_rate, make_plan, share_of_micro_batches
from services.student_trainer.pretrain_start import Facts, filled, first_student, make_optimizer, prepare
from services.student_trainer.pretrain_state import (
    Progress,
    append_line,
    drop_resume_points,
    load_resume_point,
    resume_folder,
    save_resume_point,
    take_back,
)
from services.student_trainer.ranks import Beat, RankLostError, Ranks
from services.student_trainer.settings import RunSettings
from services.student_trainer.sharding import Hollow, load_optimizer_state, shard, whole_model, whole_optimizer_state
from services.student_trainer.student import parameter_count
from services.student_trainer.token_cache import open_blocks

VALIDATION_TOKENS = 100_000
"""Validation loss is taken over at most this many tokens, so that a milestone stays cheap."""

__all__ = ["Facts", "pretrain"]


def pretrain(
    run_dir: Path,
    run: str,
    settings: RunSettings,
    corpus: Corpus,
    on_progress: Callable[[PretrainMetrics], None],
    stop: Callable[[], bool],
    on_checkpoint: Callable[[Path, Facts], None],
    ranks: Ranks | None = None,
) -> Path | None:
    """Pretrain in `run_dir`, or go on with it; a finished pretraining is not repeated.

    A checkpoint `chck_<milestone>` is kept at the first step whose words seen reach the milestone, the last one at the
    word budget. `on_checkpoint` hears of each at least once, also when a kill fell between the two. Of several
    processes the main one alone writes and reports; `stop()` counts in each.

    Returns:
        The final checkpoint's folder; none where `stop()` said so: then the resume point is saved.

    Raises:
        CorpusError: the corpus fills no block.
        StudentError: the student cannot be built.
        CheckpointError: a saved state is damaged.
        RankLostError: another process died or hangs; unless the student is divided, the state is saved.
    """
    ranks = ranks or Ranks()
    final = run_dir / "checkpoints" / checkpoints.pretrain_name(settings.pretrain.word_budget)

    def was_finished(_: Beat) -> bool:
        if checkpoints.is_complete(final) and resume_folder(run_dir).exists():
            on_checkpoint(final, checkpoints.facts(final))
            drop_resume_points(run_dir)
        return checkpoints.is_complete(final)

    if ranks.on_main(was_finished):
        return final
    with ranks.exchanging(), torch.random.fork_rng([ranks.device] if ranks.device.type == "cuda" else []):
        pretraining = _Pretraining(run_dir, run, settings, corpus, ranks)
        try:
            finished = pretraining.go_on(on_progress, stop, on_checkpoint)
        except RankLostError:
            pretraining.save_without_the_others()
            raise
    return final if finished else None


class _Pretraining:
    """One pretraining at work: model, optimiser, data and how far it is."""

    def __init__(self, run_dir: Path, run: str, settings: RunSettings, corpus: Corpus, ranks: Ranks) -> None:
        self.run_dir, self.run, self.settings = run_dir, run, settings.pretrain
        self.seed = settings.seed
        self.ranks, self.device = ranks, ranks.device
        self.sharded = self.settings.shard and ranks.world > 1
        self.hollow: Hollow | None = None
        self.own_micro_batches = share_of_micro_batches(self.settings, ranks, sharded=self.sharded)
        self.metrics = run_dir / "metrics.jsonl"
        place = ranks.on_main(lambda beat: prepare(run_dir, corpus, settings, beat))
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(run_dir / "tokenizer")
        self.blocks = filled(open_blocks(place), corpus)
        self.plan: Plan = make_plan(self.blocks, self.settings, self.seed)
        self.model, self.optimizer, self.progress = self._restore(settings)
        block_tokens = self.settings.block_tokens
        enough = max(1, VALIDATION_TOKENS // block_tokens)
        self.validation = make_blocks(corpus.validation, self.tokenizer, block_tokens, at_most=enough)
        if ranks.main:
            take_back(self.metrics, self.progress.metrics_bytes)

    def go_on(
        self,
        on_progress: Callable[[PretrainMetrics], None],
        stop: Callable[[], bool],
        on_checkpoint: Callable[[Path, Facts], None],
    ) -> bool:
        """Train to the end (true) or until `stop()` (false)."""
        saved_at = time.monotonic()
        while self.progress.step < self.plan.steps:
            if self.ranks.any(stop()):
                self._save_resume_point()
                return False
            self._step()
            step = self.progress.step
            if self.ranks.main and (step % self.settings.log_every == 0 or step == self.plan.steps):
                on_progress(self._log())
            if milestone := self.plan.keep.get(step):
                self._keep(milestone, on_checkpoint)
            if milestone or self.ranks.any(time.monotonic() - saved_at > self.settings.save_every_s):
                self._save_resume_point()
                saved_at = time.monotonic()
        self.ranks.on_main(lambda _: drop_resume_points(self.run_dir))
        return True

    def _step(self) -> None:
        started = time.perf_counter()
        step = self.progress.step + 1
        rate = learning_rate(step, self.plan.steps, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rows_B = self.plan.batch(step)
        loss_sum = torch.zeros((), dtype=torch.float64)
        for first, size in self.own_micro_batches:
            torch.manual_seed(derive_seed(self.seed, f"dropout/{first}" if first else "dropout", step))
            tokens_BT = self.blocks.tokens_NT[rows_B[first : first + size]].to(self.device, torch.int64)
            loss = self._loss(tokens_BT) * (size / len(rows_B))
            loss.backward()
            loss_sum += loss.detach().cpu()
        if not self.sharded:
            self.ranks.sum_gradients(self.model.parameters())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        loss_sum = self.ranks.sum(loss_sum)  # the others are needed no more: a step is taken whole or not at all
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress.step = step
        self.progress.loss_sum += loss_sum.item()
        self.progress.loss_steps += 1
        self.progress.interval_s += time.perf_counter() - started

    def _loss(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of each next token, in nats."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.dtype == "bfloat16"):
            logits_BTV = self.model(tokens_BT, use_cache=False).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1).float(), tokens_BT[:, 1:].flatten())

    def _log(self) -> PretrainMetrics:
        progress = self.progress
        tokens_per_step = self.settings.batch_size * self.settings.block_tokens
        line = PretrainMetrics(
            run=self.run,
            step=progress.step,
            words_seen=self.plan.words_seen(progress.step),
            tokens_seen=progress.step * tokens_per_step,
            loss=progress.loss_sum / progress.loss_steps,
            learning_rate=learning_rate(progress.step, self.plan.steps, self.settings),
            tokens_per_s=progress.loss_steps * tokens_per_step / progress.interval_s,
            seconds=progress.interval_s,
        )
        size = append_line(self.metrics, line.model_dump_json())
        self.progress = Progress(step=progress.step, metrics_bytes=size)
        return line

    def _keep(self, milestone: int, on_checkpoint: Callable[[Path, Facts], None]) -> None:
        validation_loss = self._validation_loss() if self.ranks.main or self.sharded else None
        folder = self.run_dir / "checkpoints" / checkpoints.pretrain_name(milestone)
        step = self.progress.step
        facts = {
            "run": self.run,
            "stage": "pretrain",
            "step": step,
            "milestone": milestone,
            "pretraining_words": self.plan.words_seen(step),
            "interaction_words": 0,
            "pretraining_tokens": step * self.settings.batch_size * self.settings.block_tokens,
            "epochs": step * self.settings.batch_size / len(self.blocks),
            "validation_loss": validation_loss,
            "parameters": parameter_count(self.model),
            "seed": self.seed,
        }
        with whole_model(self.model, self.hollow) as model:
            self.ranks.on_main(lambda _: checkpoints.save(folder, model, self.tokenizer, {"step": step}, facts))
        if self.ranks.main:
            on_checkpoint(folder, facts)

    @torch.no_grad()
    def _validation_loss(self) -> float | None:
        """Mean over validation blocks, in nats per token; none where the validation text fills no block."""
        tokens_NT = self.validation.tokens_NT
        if not len(tokens_NT):
            return None
        self.model.eval()
        batches = tokens_NT.to(self.device, torch.int64).split(
            self.settings.micro_batch_size or self.settings.batch_size
        )
        total = sum(self._loss(batch_BT).item() * len(batch_BT) for batch_BT in batches)
        self.model.train()
        return total / len(tokens_NT)

    def _restore(self, settings: RunSettings) -> tuple[PreTrainedModel, torch.optim.Optimizer, Progress]:
        point = load_resume_point(self.run_dir)
        model = first_student(settings, self.tokenizer) if point is None else point[0]
        model.to(self.device)  # type: ignore[arg-type]
        model.train()
        if self.sharded:
            self.hollow = Hollow(model)
            shard(model, self.ranks)
        optimizer = make_optimizer(model, self.settings)
        if point is None:
            return model, optimizer, Progress()
        _, optimizer_state, progress = point
        if self.sharded:
            load_optimizer_state(model, optimizer, optimizer_state)
        else:
            optimizer.load_state_dict(optimizer_state)
        return model, optimizer, progress

    def save_without_the_others(self) -> None:
        """Save the resume point in the main process, where it holds the whole state."""
        if self.ranks.main and not self.sharded:
            save_resume_point(self.run_dir, self.model, self.tokenizer, self.optimizer.state_dict(), self.progress)

    def _save_resume_point(self) -> None:
        state = whole_optimizer_state(self.model, self.optimizer) if self.sharded else self.optimizer.state_dict()
        with whole_model(self.model, self.hollow) as model:
            self.ranks.on_main(lambda _: save_resume_point(self.run_dir, model, self.tokenizer, state, self.progress))
