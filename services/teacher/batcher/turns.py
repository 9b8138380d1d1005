"""Whose turn it is: the stories that wait, and which of them the next batch takes. No thread and no clock in here.

Fair between tickets: they stand in line, and the first story of the first ticket is in the next batch, whatever its
length. A ticket whose first story was taken goes to the end of the line before the next batch is formed, behind those
who came meanwhile. Nobody is ever put in front of a ticket that waits: with m tickets in line when it joins, its first
story is taken within m batches.

Cheap within a batch: a model computes on padded tokens, longest x stories. So the rest of the batch is filled by
length, from a bounded window of stories that is itself filled one story a ticket at a time.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

WINDOW_BATCHES = 4  # the window holds this many full batches: enough to find stories of one length
SEATS = 4  # so many tickets in front have a story taken if it fits at all; more would cost a batch much padding
MOST_PADDED = 2  # padded tokens per token of a story, at most: what is shorter or longer by more waits for its like

Key = TypeVar("Key", bound=Hashable)


class Turns(Generic[Key]):
    """The waiting stories of all tickets. A ticket is known by its `Key`, a story by its position in its ticket."""

    def __init__(self, batch_tokens: int, batch_stories: int) -> None:
        self._batch_tokens = batch_tokens
        self._batch_stories = batch_stories
        self._line: OrderedDict[Key, dict[int, int]] = OrderedDict()  # ticket -> position -> tokens
        self._served: list[Key] = []  # whose first story is in the last batch
        self.stories = 0

    def add(self, key: Key, tokens: Sequence[int]) -> None:
        """Put a ticket at the end of the line, with a story for each entry of `tokens`: its length, at least 1."""
        self._line[key] = dict(enumerate(tokens))
        self.stories += len(tokens)

    def take(self, at_most: int | None = None) -> list[tuple[Key, int]]:
        """The next batch, in the order of turns; it does not wait any more. Empty where nothing waits.

        Args:
            at_most: stories, where that is less than a full batch.
        """
        for key in self._served:
            if key in self._line:
                self._line.move_to_end(key)
        window = list(self._window())
        stories = self._batch_stories if at_most is None else min(at_most, self._batch_stories)
        seats = min(SEATS, len(self._line))
        chosen = choose([tokens for _, _, tokens in window], seats, self._batch_tokens, stories)
        # The window begins with the first story of each ticket.
        self._served = [window[i][0] for i in chosen if i < len(self._line)]
        batch = [window[i][:2] for i in chosen]
        for key, position in batch:
            del self._line[key][position]
            if not self._line[key]:
                del self._line[key]
        self.stories -= len(batch)
        return batch

    def drop(self, key: Key) -> int:
        """Forget what waits of a ticket.

        Returns:
            The tokens of the forgotten stories.
        """
        stories = self._line.pop(key, {})
        self.stories -= len(stories)
        return sum(stories.values())

    def _window(self) -> Iterator[tuple[Key, int, int]]:
        """Ticket, position and tokens of the first waiting stories: the first one of every ticket, then the second."""
        size = WINDOW_BATCHES * self._batch_stories
        tickets = deque((key, iter(stories.items())) for key, stories in islice(self._line.items(), size))
        while tickets and size:
            key, stories = tickets.popleft()
            for position, tokens in islice(stories, 1):
                yield key, position, tokens
                tickets.append((key, stories))
                size -= 1


def choose(tokens: Sequence[int], seats: int, batch_tokens: int, batch_stories: int) -> list[int]:
    """Which stories to judge in one batch, as ascending positions in `tokens`.

    The first story is always taken, alone where it is beyond the budget; then the others that have a seat and fit; then
    those nearest in length to the longest, shorter or longer, whichever costs less padding. A story fits where the
    batch stays within its budget and is not padding for the most part.

    Args:
        tokens: lengths of the stories in the window, in the order of their turns.
        seats: how many of the first are the first stories of their tickets.
        batch_tokens: padded tokens, longest x stories.
        batch_stories: how many stories.
    """
    chosen = list(range(min(1, len(tokens))))
    longest = told = sum(tokens[:1])

    def fits(length: int) -> bool:
        count = len(chosen) + 1
        padded = max(longest, length) * count
        return count <= batch_stories and padded <= batch_tokens and padded <= MOST_PADDED * (told + length)

    for i in range(1, min(seats, len(tokens))):
        if fits(tokens[i]):
            chosen.append(i)
            longest, told = max(longest, tokens[i]), told + tokens[i]
    rest = sorted(set(range(len(tokens))).difference(chosen), key=lambda i: (tokens[i], -i))
    shorter = [i for i in rest if tokens[i] <= longest]  # the nearest is the last
    longer = sorted((i for i in rest if tokens[i] > longest), key=lambda i: (-tokens[i], -i))
    while shorter or longer:
        down = longest - tokens[shorter[-1]] if shorter else None
        up = (tokens[longer[-1]] - longest) * len(chosen) if longer else None
        nearest = longer if down is None or (up is not None and up < down) else shorter
        i = nearest.pop()
        if fits(tokens[i]):
            chosen.append(i)
            longest, told = max(longest, tokens[i]), told + tokens[i]
        else:
            nearest.clear()  # the others on this side are further away
    return sorted(chosen)
