"""Does another teacher agree that the stories get better?

Optimising against one judge raises its score for ever, while what the score stood for rises and then falls (arXiv
2210.10760). A judge that nothing is learned from sees the difference. We compare changes, not scores, since two
teachers never agree on levels: by how much more the training reward rose since the first check than the held-out one.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pvariance, variance

from fabula_proto import HeldOutCheck, ScoredBatch, Verdict
from services.student_trainer.rewards import usable_reward

Z_95 = 1.96


def sample(seed: int, step: int, batch_size: int, size: int) -> list[int]:
    """Which stories of an update are judged twice: at most `size` indices, ascending; a function of the arguments."""

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{seed}/{step}/{index}".encode()).digest()

    return sorted(sorted(range(batch_size), key=rank)[:size])


def compare(training: Sequence[Verdict], held_out: ScoredBatch) -> HeldOutCheck:
    """Both teachers' rewards of the same stories. A story counts where both gave one."""
    pairs = list(zip(held_out.verdicts, training, strict=True))
    both = [
        (mine, other)
        for theirs, ours in pairs
        if (mine := usable_reward(ours)) is not None and (other := usable_reward(theirs)) is not None
    ]
    failed = len(pairs) - len(both)
    reason = next((verdict.reason for pair in pairs for verdict in pair if usable_reward(verdict) is None), None)
    if not both:
        return HeldOutCheck(teacher=held_out.teacher, stories=0, failed=failed, reason=reason)
    gaps = [mine - other for mine, other in both]
    return HeldOutCheck(
        teacher=held_out.teacher,
        stories=len(both),
        failed=failed,
        reason=reason,
        training_mean=fmean(mine for mine, _ in both),
        held_out_mean=fmean(other for _, other in both),
        gap_mean=fmean(gaps),
        gap_variance=variance(gaps) if len(gaps) > 1 else pvariance(gaps),
    )


@dataclass(frozen=True)
class Parting:
    """Changes of the mean reward (0..1) from the first check to the last ones."""

    training: float
    held_out: float
    low: float  # of the 95 % interval of training - held_out

    @property
    def gap(self) -> float:
        """How much more the training reward rose."""
        return self.training - self.held_out


def parting(checks: Sequence[HeldOutCheck], window: int) -> Parting | None:
    """The last `window` checks against the first one; none while there are not as many after it.

    The interval is that of a difference of means (normal): stories of different updates are independent draws, and a
    story's two rewards are compared with each other, so that what makes both high or low cancels out.
    """
    if len(checks) <= window:
        return None
    first, last = checks[0], checks[-window:]

    def change(name: str) -> float:
        return fmean(getattr(check, name) for check in last) - float(getattr(first, name))

    variance_of_gap = _of_mean(first) + sum(_of_mean(check) for check in last) / window**2
    low = change("gap_mean") - Z_95 * math.sqrt(variance_of_gap)
    return Parting(change("training_mean"), change("held_out_mean"), low)


def _of_mean(check: HeldOutCheck) -> float:
    """Variance of the mean gap of a check."""
    return (check.gap_variance or 0.0) / check.stories
