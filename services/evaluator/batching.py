"""Which tokens go through the model together. Pure."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

ATTENTION_SCALE = 2000
"""Attention over n tokens costs as much as the rest of GPT-2-small for n^2 / ATTENTION_SCALE tokens on a CPU."""
SHORT_ROW = 64
"""Up to here attention costs next to nothing, and rows of like length waste less padding than small ones of any."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text as tokens. `scored` are the positions, ascending, whose tokens' log-probabilities are wanted."""

    ids: tuple[int, ...]
    scored: tuple[int, ...]


def encode(ids: Sequence[int], offsets: Sequence[tuple[int, int]], completion_start: int) -> Encoded:
    """Mark the tokens that reach into the completion, as the BabyLM 2025 pipeline does for causal models.

    A token is scored when its character span ends after `completion_start` (moved by where the first token starts),
    so the token that straddles the boundary counts, a lone space before it does not, and special tokens, whose span
    is (0, 0), never do. A token is predicted from those before it, so the first is never scored. Tokens after the last
    scored one change nothing and are cut off.

    Args:
        ids: The text's tokens, length T, special tokens as the tokenizer adds them by default.
        offsets: Character span of each token, length T.
        completion_start: Character at which the completion begins.
    """
    start = completion_start + (offsets[0][0] if offsets else 0)
    scored = tuple(i for i, (_, end) in enumerate(offsets) if end > start and i > 0)
    return Encoded(tuple(ids[: scored[-1] + 1] if scored else ids), scored)


def encode_masked(ids: Sequence[int], offsets: Sequence[tuple[int, int]], completion_start: int, first: int) -> Encoded:
    """The same for masked models: all tokens are kept, and what is scored begins with position `first`."""
    scored = tuple(i for i, (_, end) in enumerate(offsets) if end > completion_start and i >= first)
    return Encoded(tuple(ids), scored)


@dataclass(frozen=True, slots=True)
class Tree:
    """Sequences merged where they begin alike: one row of nodes, each beginning once, every node after its parent.

    A sequence's last token is predicted, never read, so it has no node.
    """

    ids: tuple[int, ...]
    """The token of each node."""
    depths: tuple[int, ...]
    """The position of each node's token in its sequences."""
    members: tuple[int, ...]
    """Indices of the sequences."""
    paths: tuple[tuple[int, ...], ...]
    """For each member, the nodes of its tokens, in order: what its last token is predicted from."""


def trees(sequences: Sequence[Encoded], budget: int) -> list[Tree]:
    """Put every sequence into one tree of at most `budget` nodes (more where one sequence alone is longer).

    In lexicographic order a sequence shares most with its neighbours, whatever item they come from. It joins the
    neighbour's tree (which may have several roots) where that costs less than a row of its own: the shared tokens are
    saved, but attention runs over a longer row. Equal sequences share all nodes.
    """
    found: list[Tree] = []
    members: list[int] = []
    ids: list[int] = []
    depths: list[int] = []
    paths: list[tuple[int, ...]] = []
    previous: Sequence[int] = ()
    for index in sorted(range(len(sequences)), key=lambda i: sequences[i].ids):
        inputs = sequences[index].ids[:-1]
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(previous, inputs, strict=False)))
        if members and not _joins(len(ids), len(inputs), shared, budget):
            found.append(Tree(tuple(ids), tuple(depths), tuple(members), tuple(paths)))
            members, ids, depths, paths, shared = [], [], [], [], 0
        beginning = paths[-1][:shared] if paths else ()
        paths.append((*beginning, *range(len(ids), len(ids) + len(inputs) - shared)))
        members.append(index)
        ids += inputs[shared:]
        depths += range(shared, len(inputs))
        previous = inputs
    if members:
        found.append(Tree(tuple(ids), tuple(depths), tuple(members), tuple(paths)))
    return found


def _joins(nodes: int, length: int, shared: int, budget: int) -> bool:
    together = nodes + length - shared
    saved = shared + (nodes**2 + length**2 - together**2) / ATTENTION_SCALE
    return shared == length or (together <= budget and (together <= SHORT_ROW or saved > 0))


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
