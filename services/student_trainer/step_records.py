"""From a finished update to its records: one row a story, one line of metrics. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fabula_proto import ScoredBatch, StepMetrics
from services.student_trainer.algorithms.experience import Experience
from services.student_trainer.algorithms.updating import UpdateStats
from services.student_trainer.in_flight import WrittenStep
from services.student_trainer.interaction_state import InteractionState
from services.student_trainer.records import StoryRow
from services.student_trainer.rewards import usable_reward
from services.student_trainer.words import count_words


@dataclass(frozen=True)
class StepTimes:
    """Where an update's time went, in seconds."""

    write_s: float
    wait_for_teacher_s: float
    wait_for_student_s: float
    learn_s: float


def story_rows(
    written: WrittenStep,
    scored: Sequence[ScoredBatch],
    rewards_B: Tensor,
    experience: Experience,
) -> list[StoryRow]:
    """Stories with their verdicts, in story order."""
    judged = [
        (story, verdict, result)
        for batch, result in zip(written.batches, scored, strict=True)
        for story, verdict in zip(batch.stories, result.verdicts, strict=True)
    ]
    rollout = written.rollout
    tokens, ended, kl = rollout.mask_BT.sum(dim=1).tolist(), rollout.ended_B.tolist(), experience.kl_B.tolist()
    return [
        StoryRow(
            story=story,
            index=index,
            words=count_words(story.text),
            tokens=int(tokens[index]),
            ended=ended[index],
            kl=kl[index],
            reward=None if usable_reward(verdict) is None else float(rewards_B[index]),
            verdict=verdict,
            batch=result,
        )
        for index, (story, verdict, result) in enumerate(judged)
    ]


def step_metrics(
    run: str,
    state: InteractionState,
    written: WrittenStep,
    rows: Sequence[StoryRow],
    experience: Experience,
    stats: UpdateStats,
    times: StepTimes,
) -> StepMetrics:
    """The line of the update that led to `state`. At least one row has a usable verdict."""
    ok = [row for row in rows if row.reward is not None]
    ledger = state.ledger
    return StepMetrics(
        run=run,
        step=written.step,
        policy_version=written.policy_version,
        stories=len(rows),
        verdicts_ok=len(ok),
        verdicts_failed=len(rows) - len(ok),
        score_mean=_mean([row.verdict.total for row in ok if row.verdict.total is not None]),
        criteria_mean=_criteria_means(ok),
        reward_mean=_mean([row.reward for row in ok if row.reward is not None]),
        story_words_mean=_mean([row.words for row in rows]),
        story_tokens_mean=_mean([row.tokens for row in rows]),
        ended_share=_mean([row.ended for row in rows]),
        kl_mean=experience.kl_per_story,
        kl_coefficient=state.kl_used,
        entropy_mean=experience.entropy,
        **vars(stats),
        words_prompt=ledger.prompt_words,
        words_teacher=ledger.teacher_words,
        words_corpus=ledger.corpus_words,
        words_student=ledger.student_words,
        words_spent=ledger.spent,
        **vars(times),
        seconds=times.write_s + times.wait_for_teacher_s + times.learn_s,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _criteria_means(ok: Sequence[StoryRow]) -> dict[str, float]:
    scored = [row.verdict.criteria for row in ok if row.verdict.criteria is not None]
    return {name: _mean([criteria[name].mean for criteria in scored]) for name in scored[0]}
