"""The algorithms that learn from judged stories. They share rollout, reward, loop and `update`; see `Algorithm`."""

from services.student_trainer.algorithms.bon import BestOfN
from services.student_trainer.algorithms.experience import Algorithm
from services.student_trainer.algorithms.grpo import GRPO
from services.student_trainer.algorithms.ppo import PPO
from services.student_trainer.algorithms.reinforce_plus_plus import ReinforcePlusPlus
from services.student_trainer.algorithms.rloo import RLOO
from services.student_trainer.settings import InteractSettings


def make_algorithm(options: InteractSettings) -> Algorithm:
    """The algorithm that `interact.algorithm` names."""
    estimator = options.kl.estimator
    match options.algorithm:
        case "ppo":
            return PPO(options.ppo, estimator or "k1")
        case "rloo":
            return RLOO(options.rloo, estimator or "k1")
        case "grpo":
            return GRPO(options.grpo, estimator or "k3", options.max_new_tokens)
        case "reinforce++":
            return ReinforcePlusPlus(options.reinforce_plus_plus, estimator or "k1")
        case "bon":
            return BestOfN(options.bon)
