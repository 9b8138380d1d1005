"""`measure(text)`: every feature of a story by name, so that a verdict can be explained."""

from dataclasses import dataclass

from services.teacher.judges.rules.discourse import Discourse, discourse
from services.teacher.judges.rules.entities import Continuity, continuity
from services.teacher.judges.rules.grammar import FINITE_LABELS
from services.teacher.judges.rules.lexicon import model
from services.teacher.judges.rules.readability import Readability, readability
from services.teacher.judges.rules.repetition import Repetition, repetition
from services.teacher.judges.rules.style import Style, style
from services.teacher.judges.rules.text import read
from services.teacher.judges.rules.topics import Topics, topics
from services.teacher.judges.rules.tricks import Tricks, flags, tricks

MIN_WORDS, MIN_OPEN_WORDS = 4, 12


@dataclass(frozen=True, slots=True)
class Measures:
    """All features of one story. `tells` is false for an empty or sub-sentence text; the rest is then None."""

    words: int
    sentences: int
    tells: bool
    readability: Readability | None = None
    repetition: Repetition | None = None
    continuity: Continuity | None = None
    discourse: Discourse | None = None
    style: Style | None = None
    topics: Topics | None = None
    tricks: Tricks | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of what looks like an attempt to please the judge."""
        if self.tricks is None or self.repetition is None:
            return ("too_short",)
        return flags(self.tricks, self.repetition.stale_sentences)

    def flat(self) -> dict[str, float]:
        """`group.feature` -> value, for reports."""
        out: dict[str, float] = {"words": self.words, "sentences": self.sentences}
        for name in ("readability", "repetition", "continuity", "discourse", "style", "topics", "tricks"):
            features = getattr(self, name)
            if features is not None:
                out |= {f"{name}.{key}": float(value) for key, value in features._asdict().items()}
        return out


def measure(text: str) -> Measures:
    """Measure any text. Never raises; time is linear in its length.

    A text without a closed sentence of MIN_WORDS words with a finite verb, or without MIN_OPEN_WORDS words if none is
    closed, is no story: `tells` is false.
    """
    document = read(text)
    tagger = model()
    sentences = [
        tagger.tag(s, continues=i == 0 and s.tokens[0].surface[:1].islower()) for i, s in enumerate(document.sentences)
    ]
    closed = any(
        s.closed and len(s.words) >= MIN_WORDS and any(w.label in FINITE_LABELS for w in tagged)
        for s, tagged in zip(document.sentences, sentences, strict=True)
    )
    if not closed and document.words < MIN_OPEN_WORDS:
        return Measures(document.words, len(sentences), tells=False)
    again = repetition(sentences)
    return Measures(
        words=document.words,
        sentences=len(sentences),
        tells=True,
        readability=readability(document, sentences, again.doubled),
        repetition=again,
        continuity=continuity(sentences),
        discourse=discourse(sentences, closed=document.sentences[-1].closed),
        style=style(sentences),
        topics=topics(sentences),
        tricks=tricks(sentences),
    )
