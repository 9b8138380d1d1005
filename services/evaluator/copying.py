"""The longest run of a story's words that stands word for word in the training text. Pure.

The stories, not the training text, are indexed, by a suffix automaton over words (Blumer et al. 1985): memory grows
with the stories alone, and the training text is read once, a document at a time.
"""

from collections.abc import Iterable, Sequence


class CopyFinder:
    """Finds what `stories` have in common with the documents that it is told to read."""

    def __init__(self, stories: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._link = [-1]
        self._length = [0]
        self._ends = [self._add(text.split()) for text in stories]
        self._found = [0] * len(self._next)
        """State -> the longest of its runs of words that was read so far."""

    def read(self, document: str) -> None:
        """Look for every run of its whitespace-separated words."""
        following, link, lengths, found = self._next, self._link, self._length, self._found
        state = length = 0
        for word in document.split():
            while state and word not in following[state]:
                state = link[state]
                length = lengths[state]
            state = following[state].get(word, 0)
            if state:
                length += 1
                if length > found[state]:
                    found[state] = length

    def longest(self) -> list[int]:
        """Words of the longest run found, for each story."""
        found = list(self._found)
        for state in sorted(range(1, len(found)), key=lambda s: -self._length[s]):
            shorter = self._link[state]
            if found[state]:  # whoever read a run has read its endings
                found[shorter] = max(found[shorter], self._length[shorter])
        # A state without a hit ends in the longest suffix that had one.
        for state in sorted(range(1, len(found)), key=lambda s: self._length[s]):
            found[state] = found[state] or found[self._link[state]]
        return [max((found[state] for state in states), default=0) for states in self._ends]

    def _add(self, words: Iterable[str]) -> list[int]:
        """Put one story into the automaton; the states of its prefixes, shortest first."""
        last, states = 0, []
        for word in words:
            last = self._extend(last, word)
            states.append(last)
        return states

    def _extend(self, last: int, word: str) -> int:
        known = self._next[last].get(word)
        if known is not None:
            return known if self._length[known] == self._length[last] + 1 else self._split(last, word, known)
        new = self._state(self._length[last] + 1, {})
        state = last
        while state != -1 and word not in self._next[state]:
            self._next[state][word] = new
            state = self._link[state]
        if state != -1:
            known = self._next[state][word]
            exact = self._length[known] == self._length[state] + 1
            self._link[new] = known if exact else self._split(state, word, known)
        else:
            self._link[new] = 0
        return new

    def _split(self, state: int, word: str, known: int) -> int:
        """A state for the shorter runs of `known`, those that end in `state` and `word`."""
        clone = self._state(self._length[state] + 1, dict(self._next[known]))
        self._link[clone] = self._link[known]
        self._link[known] = clone
        walk = state
        while walk != -1 and self._next[walk].get(word) == known:
            self._next[walk][word] = clone
            walk = self._link[walk]
        return clone

    def _state(self, length: int, following: dict[str, int]) -> int:
        self._next.append(following)
        self._link.append(-1)
        self._length.append(length)
        return len(self._next) - 1
