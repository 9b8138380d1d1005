"""What a checkpoint is asked: an item is a few candidates, of which the first is right."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One continuation. The model reads `context + completion`; only the completion's tokens are summed."""

    context: str
    completion: str

    @property
    def text(self) -> str:
        """What the model reads."""
        return self.context + self.completion


@dataclass(frozen=True, slots=True)
class Item:
    """Candidates to be ranked by log-probability; `candidates[0]` is right.

    `uid` is the paradigm (BabyLM's UID), the stratum that macro averages are taken over; `groups` are further
    classifications, (name, value), such as ("field", "syntax"). `rating` is the share of people who preferred
    `candidates[0]`, 0..1, for items on which people disagree; none has a right answer there.
    """

    uid: str
    candidates: tuple[Candidate, ...]
    groups: tuple[tuple[str, str], ...] = ()
    rating: float | None = None


@dataclass(frozen=True, slots=True)
class ItemSet:
    """A suite's items and where they came from: a path, or `generated`."""

    items: tuple[Item, ...]
    source: str


def minimal_pair(uid: str, good: str, bad: str, groups: tuple[tuple[str, str], ...] = ()) -> Item:
    """Two whole sentences, of which `good` should be the more probable."""
    return Item(uid=uid, candidates=(Candidate("", good), Candidate("", bad)), groups=groups)


def choice(uid: str, context: str, options: Sequence[str], groups: tuple[tuple[str, str], ...] = ()) -> Item:
    """Several continuations of one context; `options[0]` is right."""
    return Item(uid=uid, candidates=tuple(Candidate(context, option) for option in options), groups=groups)


def chosen(scores: Sequence[float]) -> int:
    """Index of the highest score; the first of equals, as the BabyLM 2025 pipeline's `torch.max` does on a CPU."""
    return max(range(len(scores)), key=lambda i: (scores[i], -i))


def tied(scores: Sequence[float]) -> tuple[int, ...]:
    """Indices of the candidates that reach the highest score exactly, where there is more than one; else none."""
    best = max(scores)
    indices = tuple(i for i, score in enumerate(scores) if score == best)
    return indices if len(indices) > 1 else ()
