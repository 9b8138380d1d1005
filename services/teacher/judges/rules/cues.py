"""Finding cue words and phrases of data/groups.yaml in a row of words."""

from collections.abc import Iterator, Sequence
from functools import cache

from services.teacher.judges.rules.classes import groups

Phrases = dict[str, tuple[tuple[str, ...], ...]]


@cache
def phrases(name: str) -> Phrases:
    """The cues of a group by first word, longest first."""
    table: dict[str, list[tuple[str, ...]]] = {}
    for cue in groups()[name]:
        parts = tuple(part for word in cue.split() for part in _parts(word))
        table.setdefault(parts[0], []).append(parts)
    return {first: tuple(sorted(set(cues), key=lambda c: (-len(c), c))) for first, cues in table.items()}


def _parts(word: str) -> tuple[str, ...]:
    return (word[:-3], "n't") if word.endswith("n't") and len(word) > 3 else (word,)


def find(words: Sequence[str], name: str) -> Iterator[tuple[int, str]]:
    """(position, cue) of each cue of group `name` in `words` (lower case, clitics apart)."""
    table = phrases(name)
    for i in [i for i, word in enumerate(words) if word in table]:
        for cue in table[words[i]]:
            if len(cue) == 1 or tuple(words[i : i + len(cue)]) == cue:
                yield i, " ".join(cue)
                break
