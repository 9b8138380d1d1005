"""Which sequences go through the model together. Pure."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A candidate as tokens. `scored` are the positions, ascending and >= 1, whose log-probabilities are summed.

    A token at position i is predicted from the tokens before it, so position 0 is never scored.
    """

    ids: tuple[int, ...]
    scored: tuple[int, ...]


def encode(ids: Sequence[int], offsets: Sequence[tuple[int, int]], completion_start: int) -> Encoded:
    """Mark the tokens that reach into the completion, as the BabyLM 2025 pipeline does for causal models.

    A token is scored when its character span ends after `completion_start` (moved by where the first token starts),
    so the token that straddles the boundary counts, a lone space before it does not, and special tokens, whose span
    is (0, 0), never do. Tokens after the last scored one change nothing and are cut off.

    Args:
        ids: The text's tokens, length T, special tokens as the tokenizer adds them by default.
        offsets: Character span of each token, length T.
        completion_start: Character at which the completion begins.
    """
    start = completion_start + (offsets[0][0] if offsets else 0)
    scored = tuple(i for i, (_, end) in enumerate(offsets) if end > start and i > 0)
    return Encoded(tuple(ids[: scored[-1] + 1] if scored else ids), scored)


def shared_prefix(candidates: Sequence[Encoded]) -> int:
    """Number of leading tokens that all candidates have in common and of which none is scored."""
    columns = zip(*(candidate.ids for candidate in candidates), strict=False)
    same = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    return min(same, *(candidate.scored[0] for candidate in candidates))


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first, with `longest * number <= budget` (one at least)."""
    batch: list[int] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = longest or lengths[index]
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch, longest = [], lengths[index]
        batch.append(index)
    if batch:
        yield batch


def grouped(keys: Sequence[Key]) -> dict[Key, list[int]]:
    """Key to the indices that have it, keys in the order in which they first occur."""
    groups: defaultdict[Key, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        groups[key].append(index)
    return dict(groups)
