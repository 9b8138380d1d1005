"""The mixture: which kinds of text the corpus holds, in which shares, as a deterministic stream of documents."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from services.student_trainer.grammar.boxes import box_story
from services.student_trainer.grammar.plain import child_talk, description, facts, instructions
from services.student_trainer.grammar.tales import broken_tale, rambling_tale, whole_tale
from services.student_trainer.words import count_words

WHOLE_SHARE = 0.20
RAMBLING_SHARE = 0.24
BROKEN_SHARE = 0.16
TALK_SHARE = 0.10
DESCRIPTION_SHARE = 0.12
FACTS_SHARE = 0.05
INSTRUCTIONS_SHARE = 0.04
BOXES_SHARE = 0.09

KINDS: dict[str, tuple[float, Callable[[Random], str]]] = {
    "tale": (WHOLE_SHARE, whole_tale),
    "ramble": (RAMBLING_SHARE, rambling_tale),
    "broken": (BROKEN_SHARE, broken_tale),
    "talk": (TALK_SHARE, child_talk),
    "description": (DESCRIPTION_SHARE, description),
    "facts": (FACTS_SHARE, facts),
    "instructions": (INSTRUCTIONS_SHARE, instructions),
    "boxes": (BOXES_SHARE, box_story),
}
"""Kind -> share of documents (they sum to 1) and its generator. See docs/grammar.md for why these."""


@dataclass(frozen=True)
class Document:
    """One text of the corpus and what kind it is; the student sees the text alone."""

    kind: str
    text: str


def generate_documents(words: int, seed: int) -> Iterator[Document]:
    """Documents until at least `words` whitespace words are out. Pure: the same arguments, the same stream.

    A longer stream begins with the shorter one of the same seed.
    """
    rng = Random(seed)
    kinds = list(KINDS)
    shares = [KINDS[kind][0] for kind in kinds]
    written = 0
    while written < words:
        kind = rng.choices(kinds, shares)[0]
        text = KINDS[kind][1](rng)
        written += count_words(text)
        yield Document(kind, text)
