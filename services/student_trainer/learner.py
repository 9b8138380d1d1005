"""What an update does to the state: rewards, advantages, the algorithm's steps, KL controller and ledger."""

from dataclasses import replace

import torch

from fabula_proto import Verdict
from services.student_trainer.advantages import masked_mean
from services.student_trainer.algorithms import make_algorithm
from services.student_trainer.algorithms.experience import Experience, JudgedStories
from services.student_trainer.algorithms.updating import UpdateStats, update
from services.student_trainer.interaction_state import InteractionState
from services.student_trainer.ledger import BudgetSpentError
from services.student_trainer.next_word import NextWord
from services.student_trainer.rewards import (
    WrittenStory,
    length_bonus,
    missing_end_penalty,
    repetition_penalty,
    story_rewards,
)
from services.student_trainer.rollout import Rollout
from services.student_trainer.settings import RunSettings
from services.student_trainer.words import count_words


class Learner:
    """One run's updates of its `state`. `next_word`: corpus batches that follow each; none: none do."""

    def __init__(self, settings: RunSettings, state: InteractionState, next_word: NextWord | None) -> None:
        self.settings = settings
        self.state = state
        self.next_word = next_word
        self.algorithm = make_algorithm(settings.interact)
        reward = settings.interact.reward
        self.shapings = (
            length_bonus(reward.length_weight, settings.interact.max_new_tokens),
            repetition_penalty(reward.repetition_weight),
            missing_end_penalty(reward.missing_end_weight),
        )
        self.prompt_words = count_words(settings.interact.prompt)

    def affordable(self, steps: int) -> bool:
        """Whether the ledger can pay for so many steps, those in flight included."""
        try:
            self.state.ledger.reserve(self.cost(steps))
        except BudgetSpentError:
            return False
        return True

    def cost(self, steps: int) -> int:
        """Words that the next `steps` updates cost: of the teacher, of the prompt, of the corpus."""
        options, ledger = self.settings.interact, self.state.ledger
        words = ledger.cost(steps * options.batch_size, self.prompt_words, options.teacher_words_per_story)
        if self.next_word is not None:
            words += self.next_word.words(range(self.state.step, self.state.step + steps))
        return words

    def experience(self, rollout: Rollout, verdicts: list[Verdict]) -> tuple[Experience, torch.Tensor]:
        options = self.settings.interact
        stories = [
            WrittenStory(text, count_words(text), ended)
            for text, ended in zip(rollout.texts, rollout.ended_B.tolist(), strict=True)
        ]
        rewards_B, usable_B = story_rewards(
            verdicts, stories, options.reward.weights, self.shapings, per_criterion=options.reward.per_criterion
        )
        value_head = self.state.policy.value_head
        if self.state.step == 0 and value_head is not None and options.ppo.value_init == "mean":
            value_head.start_at(float(masked_mean(rewards_B, usable_B)))
        device = rollout.mask_BT.device
        judged = JudgedStories(
            rollout.sequences_BS,
            rollout.mask_BT,
            rewards_B.to(device),
            usable_B.to(device),
            behaviour_BT=rollout.logprobs_BT if options.lag else None,
        )
        experience = self.algorithm.gather(self.state.policy, judged, self.state.kl.coefficient, options.temperature)
        return experience, rewards_B

    def update(self, experience: Experience, rollout: Rollout) -> UpdateStats:
        """The update and everything that must change with it: controller, ledger, step."""
        options, state = self.settings.interact, self.state
        generator = torch.Generator().manual_seed((self.settings.seed << 20) + state.step)
        stats = update(self.algorithm, state.policy, state.optimizer, experience, options.temperature, generator)
        corpus_words = 0
        if self.next_word is not None:
            loss = self.next_word.learn(state.policy, state.optimizer, self.algorithm, state.step)
            stats = replace(stats, next_word_loss=loss)
            corpus_words = self.next_word.words(range(state.step, state.step + 1))
        state.kl_used = state.kl.coefficient
        state.kl.update(experience.kl_per_story, experience.stories)
        state.ledger = state.ledger.pay(
            len(rollout.texts),
            self.prompt_words,
            options.teacher_words_per_story,
            sum(count_words(text) for text in rollout.texts),
            corpus_words,
        )
        state.step += 1
        state.in_flight.pop(0)
        return stats
