"""Settings of the algorithms that learn from verdicts, of the KL penalty and of the reward."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

KLEstimator = Literal["k1", "k2", "k3"]
AlgorithmName = Literal["ppo", "rloo", "grpo", "reinforce++", "bon"]


class Settings(BaseModel):
    """Frozen; unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class KLSettings(Settings):
    """Penalty for leaving the reference (the pretrained student). `bon` has none."""

    coefficient: float = Field(default=0.2, ge=0)
    adaptive: bool = True
    target: float = Field(default=6.0, gt=0, description="KL per story (k1), in nats, that the controller aims at.")
    horizon: int = Field(default=10_000, gt=0, description="In stories.")
    floor: float = Field(default=0.0, ge=0, description="The controller never goes below this coefficient.")
    estimator: KLEstimator | None = Field(
        default=None,
        description="None: the algorithm's own, k3 for grpo (in the loss), k1 for the others (in the reward).",
    )


class RewardSettings(Settings):
    """What the teacher's reward in 0..1 becomes; `rewards.py` has the formulas."""

    length_weight: float = Field(default=0.4, ge=0, description="Length bonus, the paper's.")
    repetition_weight: float = Field(default=0.0, ge=0, description="Taken off a story of nothing but repetition.")
    missing_end_weight: float = Field(default=0.0, ge=0, description="Taken off a story that did not end itself.")
    weights: dict[str, float] = Field(
        default={},
        description="Of criteria, such as {readability: 2}; others weigh 1. Empty: the teacher's own weights.",
    )

    per_criterion: bool = Field(
        default=False,
        description="Spread every criterion alike over the batch before they are averaged under `weights`.",
    )

    @model_validator(mode="after")
    def _weights_are_not_negative(self) -> Self:
        if negative := {name: weight for name, weight in self.weights.items() if weight < 0}:
            raise ValueError(f"weights must be 0 or more, not {negative}")
        return self


class LearningSettings(Settings):
    """What every algorithm has."""

    learning_rate: float = Field(default=1e-6, gt=0)
    micro_batch_size: int = Field(default=64, ge=1, description="Stories a forward; changes memory, not the result.")
    max_grad_norm: float | None = Field(default=None, gt=0)
    entropy_weight: float = Field(default=0.0, ge=0, description="Of the next-token entropy, in nats, as a bonus.")


class MixedSettings(Settings):
    """Next-word prediction on the run's own corpus between the updates of any algorithm; `next_word.py` has more."""

    batches_per_update: int = Field(default=0, ge=0, description="Steps on corpus batches after an update; 0: none.")
    batch_size: int = Field(default=8, ge=1, description="Blocks of pretrain.block_tokens tokens a step.")
    learning_rate: float | None = Field(default=None, gt=0, description="Of these steps; none: the algorithm's.")


class ClippedSettings(LearningSettings):
    """What algorithms share that go over a batch more than once, held back by a clipped ratio."""

    epochs: int = Field(default=1, ge=1)
    minibatch_size: int | None = Field(default=None, ge=1, description="Stories a pass; none means the whole batch.")
    ratio_clip: float = Field(default=0.2, gt=0)
    ratio_threshold: float = Field(default=10.0, gt=1, description="A pass whose mean ratio exceeds it is skipped.")


class PPOSettings(ClippedSettings):
    """PPO as TRL 0.9.4 runs it."""

    value_learning_rate: float | None = Field(default=None, gt=0, description="Of the value head; none: the same.")
    value_init: Literal["default", "mean"] = Field(
        default="default",
        description="Value head's start: torch's default, or the first batch's mean reward everywhere.",
    )
    epochs: int = Field(default=4, ge=1)
    gamma: float = Field(default=1.0, gt=0, le=1)
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    value_clip: float = Field(default=0.2, gt=0)
    value_weight: float = Field(default=0.1, ge=0)


class RLOOSettings(LearningSettings):
    """RLOO: one gradient step a batch."""

    group_size: int | None = Field(default=None, ge=2, description="Stories a baseline; none means the whole batch.")


class GRPOSettings(ClippedSettings):
    """GRPO; Dr. GRPO is `scale_by_std: false, length_norm: constant`."""

    group_size: int | None = Field(default=None, ge=2, description="Stories a group; none means the whole batch.")
    scale_by_std: bool = Field(default=True, description="Divide advantages by the group's standard deviation.")
    length_norm: Literal["story", "constant"] = Field(
        default="story", description="A story's token losses are divided by its length, or by max_new_tokens."
    )


class ReinforcePlusPlusSettings(ClippedSettings):
    """REINFORCE++."""

    gamma: float = Field(default=1.0, gt=0, le=1)


class BestOfNSettings(LearningSettings):
    """Best of n: next-word prediction on the batch's best stories."""

    best_share: float = Field(
        default=0.1, gt=0, le=1, description="Of the usable stories; at least one is learned from."
    )
    epochs: int = Field(default=1, ge=1)
