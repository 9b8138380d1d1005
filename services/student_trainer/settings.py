"""A run's settings: typed, frozen, unknown keys refused.

Defaults are those of arXiv 2509.15714 and its code (TRL 0.9.4); presets/paper.yaml says what we correct.
"""

import hashlib
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

GRAMMAR = "grammar"


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CorpusSettings(_Settings):
    """Where next-word prediction gets its text."""

    source: str = Field(default=GRAMMAR, description="`grammar`, a file, a folder, or `hf:<dataset id>`.")
    text_field: str = Field(default="text", description="Key of the text in .jsonl rows and Hugging Face rows.")
    train_share: float = Field(default=0.9, gt=0, lt=1, description="Share of documents used for training.")
    use_splits: bool = Field(
        default=True,
        description="Respect the splits a corpus comes with; else its training rows are divided by train_share.",
    )
    grammar_words: int = Field(default=200_000, gt=0, description="Size of the generated corpus, in words.")


class TokenizerSettings(_Settings):
    """Byte-level BPE with the special tokens <s> <pad> </s> <unk> <mask>."""

    vocab_size: int = Field(default=16_000, ge=300)
    min_frequency: int = Field(default=2, ge=1)


class StudentSettings(_Settings):
    """Shape of the GPT-2 student."""

    layers: int = Field(default=12, ge=1)
    heads: int = Field(default=12, ge=1)
    width: int = Field(default=768, ge=8)
    context: int = Field(default=512, ge=32, description="Positions, in tokens.")
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be divisible by heads {self.heads}")
        return self


class PretrainSettings(_Settings):
    """Next-word prediction: AdamW, warm-up, linear decay."""

    word_budget: int = Field(default=900_000_000, gt=0, description="Words to see, repetitions counted.")
    learning_rate: float = Field(default=5e-5, gt=0)
    warmup_ratio: float = Field(default=0.01, ge=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    block_tokens: int = Field(default=512, ge=16)
    batch_size: int = Field(default=32, ge=1, description="Blocks an optimiser step.")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="bfloat16 means autocast.")
    milestones: tuple[int, ...] = Field(default=(), description="Words seen at which a checkpoint is kept.")
    log_every: int = Field(default=20, ge=1, description="Optimiser steps between lines of metrics.jsonl.")
    save_every_s: float = Field(default=300.0, gt=0, description="Seconds between saves of the resume point.")


class KLSettings(_Settings):
    """Penalty for leaving the reference (the pretrained student). Per token, k1: logp - reference logp."""

    coefficient: float = Field(default=0.2, ge=0)
    adaptive: bool = True
    target: float = Field(default=6.0, gt=0, description="KL per story, in nats, that the controller aims at.")
    horizon: int = Field(default=10_000, gt=0, description="In stories.")
    floor: float = Field(default=0.0, ge=0, description="The controller never goes below this coefficient.")


class PPOSettings(_Settings):
    """PPO as TRL 0.9.4 runs it."""

    learning_rate: float = Field(default=1e-6, gt=0)
    value_learning_rate: float | None = Field(default=None, gt=0, description="Of the value head; none: the same.")
    value_init: Literal["default", "mean"] = Field(
        default="default",
        description="Value head's start: torch's default, or the first batch's mean reward everywhere.",
    )
    epochs: int = Field(default=4, ge=1)
    minibatch_size: int | None = Field(default=None, description="Stories a pass; none means the whole batch.")
    micro_batch_size: int = Field(default=64, ge=1, description="Stories a forward; changes memory, not the result.")
    gamma: float = Field(default=1.0, gt=0, le=1)
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    ratio_clip: float = Field(default=0.2, gt=0)
    value_clip: float = Field(default=0.2, gt=0)
    value_weight: float = Field(default=0.1, ge=0)
    ratio_threshold: float = Field(default=10.0, gt=1, description="A pass whose mean ratio exceeds it is skipped.")
    max_grad_norm: float | None = Field(default=None, gt=0)


class RewardSettings(_Settings):
    """`(t + length_weight * words / max_new_tokens) / (1 + length_weight)` with t the teacher's reward in 0..1."""

    length_weight: float = Field(default=0.4, ge=0)


class InteractSettings(_Settings):
    """Learning from the teacher's verdicts."""

    start: str | None = Field(
        default=None, description="Pretraining checkpoint to start from: a name, or a folder; none means the last."
    )
    prompt: str = "Let me tell you a long, magical tale. Once upon a time, in a faraway land,"
    word_budget: int = Field(
        default=1_000_000, gt=0, description="Words of input: the prompt once, the teacher's words."
    )
    teacher_words_per_story: int = Field(default=3, ge=0)
    batch_size: int = Field(default=360, ge=1)
    chunk_size: int = Field(default=60, ge=1, description="Stories sent to the teacher at a time.")
    max_new_tokens: int = Field(default=90, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    checkpoint_every_words: int = Field(default=100_000, gt=0)
    save_every_s: float = Field(default=300.0, gt=0, description="Seconds between saves of the resume point.")
    max_failed_share: float = Field(default=0.1, ge=0, le=1, description="Past it the run stops, its state saved.")
    verdict_timeout_s: float = Field(default=600.0, gt=0, description="Longest wait for the teacher within a step.")
    reward: RewardSettings = RewardSettings()
    kl: KLSettings = KLSettings()
    ppo: PPOSettings = PPOSettings()

    @model_validator(mode="after")
    def _minibatches_divide_the_batch(self) -> Self:
        size = self.ppo.minibatch_size
        if size is not None and self.batch_size % size:
            options = [d for d in range(1, self.batch_size + 1) if self.batch_size % d == 0]
            near = sorted(sorted(options, key=lambda d: abs(d - size))[:2])
            raise ValueError(
                f"batch_size {self.batch_size} must be divisible by minibatch_size {size}; "
                f"try {' or '.join(str(d) for d in near)}"
            )
        return self


class EvaluationSettings(_Settings):
    """What is measured, and how much of it."""

    stories: int = Field(default=200, ge=1, description="Stories written per checkpoint for story quality.")
    checkpoints: Literal["ends", "all"] = Field(default="all", description="`ends`: before and after interaction only.")


class RunSettings(_Settings):
    """Everything that decides a run's result."""

    preset: str = "paper"
    seed: int = Field(default=42, ge=0)
    threads: int | None = Field(default=None, ge=1, description="CPU threads; none lets torch choose.")
    corpus: CorpusSettings = CorpusSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    student: StudentSettings = StudentSettings()
    pretrain: PretrainSettings = PretrainSettings()
    interact: InteractSettings = InteractSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _lengths_fit_the_context(self) -> Self:
        if self.pretrain.block_tokens > self.student.context:
            raise ValueError(
                f"pretrain.block_tokens {self.pretrain.block_tokens} exceeds student.context {self.student.context}"
            )
        if self.interact.max_new_tokens >= self.student.context:
            raise ValueError(
                f"interact.max_new_tokens {self.interact.max_new_tokens} leaves no room for the prompt in "
                f"student.context {self.student.context}"
            )
        return self

    @property
    def hash(self) -> str:
        """6 hexadecimal digits over all settings: the same command finds its run again."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:6]
