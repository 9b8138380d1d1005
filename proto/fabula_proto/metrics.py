"""Lines of a run's metrics.jsonl: one a pretraining interval, one an interaction update. An alarm is a third kind."""

from typing import Literal

from pydantic import Field

from fabula_proto.base import Message
from fabula_proto.watching import Watch


class PretrainMetrics(Message):
    """Next-word prediction over one logging interval."""

    phase: Literal["pretrain"] = "pretrain"
    run: str
    step: int = Field(ge=1, description="Optimiser steps taken so far.")
    words_seen: int = Field(ge=0, description="Whitespace words seen so far, repetitions counted.")
    tokens_seen: int = Field(ge=0)
    loss: float = Field(description="Mean cross-entropy in nats per token over the interval.")
    learning_rate: float
    tokens_per_s: float = Field(ge=0.0)
    seconds: float = Field(ge=0.0, description="Length of the interval.")


class StepMetrics(Message):
    """One update of interaction. Means are over stories or response tokens, as each field says."""

    phase: Literal["interact"] = "interact"
    run: str
    step: int = Field(ge=0, description="Update, from 0.")
    policy_version: int = Field(ge=0, description="Updates the writing policy had seen; max(0, step - lag).")
    # stories and verdicts
    stories: int = Field(ge=1)
    verdicts_ok: int = Field(ge=0)
    verdicts_failed: int = Field(ge=0, description="Failed and refused verdicts; these stories are masked out.")
    score_mean: float = Field(description="Mean total of ok verdicts (paper's rubric: 0-9).")
    criteria_mean: dict[str, float] = Field(description="Mean level of each criterion over ok verdicts.")
    reward_mean: float = Field(description="Mean story reward, length bonus included, before KL.")
    story_words_mean: float = Field(description="Whitespace words the student wrote, mean over stories.")
    story_tokens_mean: float = Field(description="Response tokens, end token included, mean over stories.")
    ended_share: float = Field(ge=0.0, le=1.0, description="Share of stories that ended themselves with </s>.")
    # learning; what belongs to a value head is none where the algorithm has no such head
    kl_mean: float = Field(
        description="KL(policy || reference), estimate k1: sum over tokens, mean over stories; nats."
    )
    kl_coefficient: float = Field(ge=0.0, description="Coefficient used in this update.")
    entropy_mean: float = Field(description="Entropy of the next-token distribution, token mean, first pass; nats.")
    policy_loss: float = Field(
        description="The algorithm's policy loss, without KL and entropy terms, mean over passes."
    )
    value_loss: float | None
    approx_kl: float = Field(description="0.5 * mean (new logp - old logp)^2, mean over passes.")
    clip_fraction: float = Field(
        ge=0.0, le=1.0, description="Share of tokens whose ratio left the clip range; 0 where nothing is clipped."
    )
    value_clip_fraction: float | None = Field(ge=0.0, le=1.0)
    ratio_first_pass: float = Field(description="Mean probability ratio of the first pass; 1 where all is right.")
    explained_variance: float | None = Field(description="1 - Var(returns - values) / Var(returns), over tokens.")
    gradient_norm: float = Field(ge=0.0, description="Mean over passes, before any clipping.")
    passes_skipped: int = Field(ge=0, description="Passes skipped: past the ratio threshold, or without any gradient.")
    importance_mean: float | None = Field(
        default=None,
        description="Mean importance weight over tokens, policy before the update / policy that wrote; none at lag 0.",
    )
    importance_max: float | None = Field(default=None, description="The largest of these weights.")
    next_word_loss: float | None = Field(
        default=None,
        description="Cross-entropy of the corpus batches after the update, nats a token; none without any.",
    )
    # words, by the ledger, cumulative
    words_prompt: int = Field(ge=0)
    words_teacher: int = Field(ge=0)
    words_corpus: int = Field(default=0, ge=0, description="Read in next-word prediction between updates.")
    words_student: int = Field(ge=0)
    words_spent: int = Field(ge=0, description="Prompt, teacher and corpus words: what the word budget counts.")
    # time
    write_s: float = Field(ge=0.0)
    wait_for_teacher_s: float = Field(ge=0.0, description="Time in which the student had nothing to do.")
    wait_for_student_s: float = Field(
        default=0.0,
        ge=0.0,
        description="Time since the last update's verdicts in which the teacher had no story of this run to judge.",
    )
    learn_s: float = Field(ge=0.0)
    seconds: float = Field(ge=0.0)
    watch: Watch | None = Field(default=None, description="What the guards saw; none in runs older than the guards.")
