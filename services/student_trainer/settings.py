"""A run's settings: typed, frozen, unknown keys refused.

Defaults are those of arXiv 2509.15714 and its code (TRL 0.9.4); presets/paper.yaml says what we correct.
"""

import hashlib
from typing import Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from services.student_trainer.guard_settings import GuardsSettings
from services.student_trainer.learning_settings import (
    AlgorithmName,
    BestOfNSettings,
    ClippedSettings,
    GRPOSettings,
    KLSettings,
    LearningSettings,
    MixedSettings,
    PPOSettings,
    ReinforcePlusPlusSettings,
    RewardSettings,
    RLOOSettings,
    Settings,
)

GRAMMAR = "grammar"
TrackerName = Literal["tensorboard", "trackio", "wandb"]


class CorpusSettings(Settings):
    """Where next-word prediction gets its text."""

    source: str = Field(default=GRAMMAR, description="`grammar`, a file, a folder, or `hf:<dataset id>`.")
    text_field: str = Field(default="text", description="Key of the text in .jsonl rows and Hugging Face rows.")
    train_share: float = Field(default=0.9, gt=0, lt=1, description="Share of documents used for training.")
    use_splits: bool = Field(
        default=True,
        description="Respect the splits a corpus comes with; else its training rows are divided by train_share.",
    )
    grammar_words: int = Field(default=200_000, gt=0, description="Size of the generated corpus, in words.")


class TokenizerSettings(Settings):
    """Byte-level BPE with the special tokens <s> <pad> </s> <unk> <mask>."""

    vocab_size: int = Field(default=16_000, ge=300)
    min_frequency: int = Field(default=2, ge=1)


class StudentSettings(Settings):
    """Kind and shape of the student: the paper's GPT-2, or any causal language model of transformers."""

    model: str = Field(default="gpt2", description="A causal model's name in transformers: gpt2, llama, qwen3, ...")
    layers: int = Field(default=12, ge=1)
    heads: int = Field(default=12, ge=1)
    width: int = Field(default=768, ge=8)
    context: int = Field(default=512, ge=32, description="Positions, in tokens.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Wherever the model has dropout.")
    config: dict[str, JsonValue] = Field(
        default={}, description="Further fields of the model's configuration, such as {num_key_value_heads: 2}."
    )
    init: str | None = Field(
        default=None,
        description="Begin with this causal model and its tokenizer, a folder or a Hub id, instead of random weights; "
        "the fields above then do not count. With pretrain.word_budget 0 interaction starts from it as it is.",
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be divisible by heads {self.heads}")
        return self


class PretrainSettings(Settings):
    """Next-word prediction: AdamW, warm-up, linear decay."""

    word_budget: int = Field(
        default=900_000_000, ge=0, description="Words to see, repetitions counted. 0 only with student.init."
    )
    learning_rate: float = Field(default=5e-5, gt=0)
    warmup_ratio: float = Field(default=0.01, ge=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    block_tokens: int = Field(default=512, ge=16)
    batch_size: int = Field(default=32, ge=1, description="Blocks an optimiser step.")
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Blocks a forward at most, for memory; none: all of a process's. Dropout is drawn anew in each.",
    )
    shard: bool = Field(
        default=False, description="Divide weights, gradients and optimiser state among the processes (FSDP)."
    )
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="bfloat16 means autocast.")
    milestones: tuple[int, ...] = Field(default=(), description="Words seen at which a checkpoint is kept.")
    log_every: int = Field(default=20, ge=1, description="Optimiser steps between lines of metrics.jsonl.")
    save_every_s: float = Field(default=300.0, gt=0, description="Seconds between saves of the resume point.")


class InteractSettings(Settings):
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
    cuda_graph: bool = Field(
        default=False,
        description="Write with a CUDA graph: a GPT-2's many small kernels start by one call. Not run by us on a GPU.",
    )
    lag: int = Field(
        default=0,
        ge=0,
        description="Updates that the writing policy is behind: the teacher judges while the student learns.",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="bfloat16: autocast where stories are scored and learned from; sampling is fp32."
    )
    shard: bool = Field(
        default=False,
        description="Divide weights, reference, gradients and optimiser state among the processes (FSDP); "
        "each gathers the weights to write with.",
    )
    checkpoint_every_words: int = Field(default=100_000, gt=0)
    save_every_s: float = Field(default=300.0, gt=0, description="Seconds between saves of the resume point.")
    max_failed_share: float = Field(default=0.1, ge=0, le=1, description="Past it the run stops, its state saved.")
    verdict_timeout_s: float = Field(default=600.0, gt=0, description="Longest wait for the teacher within a step.")
    reward: RewardSettings = RewardSettings()
    kl: KLSettings = KLSettings()
    algorithm: AlgorithmName = Field(default="ppo", description="Which of the blocks below is used.")
    ppo: PPOSettings = PPOSettings()
    rloo: RLOOSettings = RLOOSettings()
    grpo: GRPOSettings = GRPOSettings()
    reinforce_plus_plus: ReinforcePlusPlusSettings = ReinforcePlusPlusSettings()
    bon: BestOfNSettings = BestOfNSettings()
    mixed: MixedSettings = MixedSettings()
    guards: GuardsSettings = GuardsSettings()

    @property
    def learning(self) -> LearningSettings:
        """The chosen algorithm's settings."""
        blocks: dict[AlgorithmName, LearningSettings] = {
            "ppo": self.ppo,
            "rloo": self.rloo,
            "grpo": self.grpo,
            "reinforce++": self.reinforce_plus_plus,
            "bon": self.bon,
        }
        return blocks[self.algorithm]

    @field_validator("algorithm", mode="before")
    @classmethod
    def _mixed_is_none(cls, name: object) -> object:
        if name == "mixed":
            raise ValueError(
                "`mixed` goes with any algorithm: name one, and set interact.mixed.batches_per_update to 1 or more"
            )
        return name

    @model_validator(mode="after")
    def _parts_divide_the_batch(self) -> Self:
        learning = self.learning
        if isinstance(learning, ClippedSettings):
            _must_divide(self.batch_size, "minibatch_size", learning.minibatch_size)
        if isinstance(learning, RLOOSettings | GRPOSettings):
            _must_divide(self.batch_size, "group_size", learning.group_size)
        return self

    @model_validator(mode="after")
    def _loss_kl_has_a_gradient(self) -> Self:
        if self.algorithm == "grpo" and self.kl.estimator == "k1":
            raise ValueError(
                "kl.estimator k1 in grpo's loss pulls towards nothing: its expected gradient is 0; take k2 or k3"
            )
        return self


def _must_divide(batch_size: int, name: str, size: int | None) -> None:
    if size is not None and batch_size % size:
        divisors = [d for d in range(2, batch_size + 1) if batch_size % d == 0]
        near = sorted(sorted(divisors, key=lambda d: abs(d - size))[:2])
        raise ValueError(
            f"batch_size {batch_size} must be divisible by {name} {size}; try {' or '.join(str(d) for d in near)}"
        )


class EvaluationSettings(Settings):
    """What is measured, and how much of it."""

    stories: int = Field(default=200, ge=1, description="Stories written per checkpoint for story quality.")
    checkpoints: Literal["ends", "all"] = Field(default="all", description="`ends`: before and after interaction only.")


class TrackingSettings(Settings):
    """Who is told of the run while it works, besides its own records. No part of what decides its result."""

    trackers: tuple[TrackerName, ...] = ()
    project: str = Field(default="fabula", min_length=1, description="Name of the project in wandb and trackio.")
    close_s: float = Field(default=30.0, gt=0, description="Longest wait for trackers at the end, in seconds.")


class RunSettings(Settings):
    """Everything that decides a run's result, and who is told of it."""

    preset: str = "paper"
    seed: int = Field(default=42, ge=0)
    threads: int | None = Field(default=None, ge=1, description="CPU threads; none lets torch choose.")
    corpus: CorpusSettings = CorpusSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    student: StudentSettings = StudentSettings()
    pretrain: PretrainSettings = PretrainSettings()
    interact: InteractSettings = InteractSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _something_to_interact_with(self) -> Self:
        if self.pretrain.word_budget == 0 and self.student.init is None:
            raise ValueError("pretrain.word_budget 0 leaves a random student; set it, or student.init")
        return self

    @model_validator(mode="after")
    def _lengths_fit_the_context(self) -> Self:
        if self.student.init is not None:  # that model's own context counts, when it is there
            return self
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
    def decisive_json(self) -> str:
        """The settings that decide the result, as JSON: who is told of a run, or warned, or holds what, may change."""
        return self.model_dump_json(exclude={"tracking": True, "interact": {"guards": True, "shard": True}})

    @property
    def hash(self) -> str:
        """6 hexadecimal digits over the settings that decide the result: the same command finds its run again."""
        return hashlib.sha256(self.decisive_json.encode()).hexdigest()[:6]
