"""What every judge is spared: control characters, empty stories, fragments, and texts beyond the limit. And what every
verdict carries, whoever judged: the flags that the story's text raises (services.teacher.flags).

The zero rule of the paper's rubric ("an empty story, or one shorter than a full sentence, must score 0 0 0") is applied
here, before any model is asked, so that all judges agree on it. A text holds a full sentence when

- a sentence-final mark (. ! ? or another script's) stands after at least 2 words ("He ran."), or
- it has at least 8 words without any such mark: a story that was cut off is judged, not zeroed. Of the sentences of
  1,074 children's stories 29 % have fewer words, of a sample of TinyStories 40 %; 97 % and 99 % have 2 or more.

A word is a run of non-space characters with a letter or a digit in it; in scripts that put no spaces between words,
each character counts as one.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from fabula_proto import Story, TeacherIdentity, Verdict, VerdictStatus
from services.teacher.flags import flag_names
from services.teacher.judges.base import Asked, Judge
from services.teacher.rubric import Rubric
from services.teacher.student_text import student_words

MIN_WORDS_WITH_MARK = 2
MIN_WORDS_WITHOUT_MARK = 8

# Han, kana, Thai, Lao, Khmer, Myanmar: written without spaces between words.
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
# The look-behind and the possessive quantifiers keep a run of a hundred thousand dots linear.
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s|$)|[。！？｡।॥؟۔።]")


def count_words(text: str) -> int:
    """Words in `text`, as the zero rule counts them (module docstring)."""
    unspaced = sum(1 for c in _UNSPACED.findall(text) if unicodedata.category(c)[0] == "L")
    spaced = sum(1 for run in _UNSPACED.sub(" ", text).split() if any(c.isalnum() for c in run))
    return unspaced + spaced


def has_full_sentence(text: str) -> bool:
    """Whether `text` holds at least one full sentence, by the rule in the module docstring."""
    words = 0
    start = 0
    for mark in _SENTENCE_END.finditer(text):
        words += count_words(text[start : mark.start()])
        if words >= MIN_WORDS_WITH_MARK:
            return True
        start = mark.end()
    return words + count_words(text[start:]) >= MIN_WORDS_WITHOUT_MARK


def screen(story: Story, rubric: Rubric, max_chars: int) -> Story | Verdict:
    """The story as a judge should see it, or the verdict that needs no judge."""
    if len(story.text) > max_chars:
        reason = f"the story has {len(story.text)} characters; at most {max_chars} are judged: send a shorter one"
        return Verdict(story_id=story.id, status=VerdictStatus.REFUSED, reason=reason)
    text = student_words(story.text)
    if not has_full_sentence(text):
        return rubric.zero_verdict(story.id, flags=("too_short",))
    return story if text == story.text else story.model_copy(update={"text": text})


@dataclass(frozen=True)
class _Flagged:
    """What the inner judge made ready, and the flags that the text raised."""

    asked: Asked
    flags: tuple[str, ...]


class ScreenedJudge:
    """A judge behind the screen: the inner judge sees only stories that are worth its time; all verdicts are flagged.

    A flag changes no number. A story that is too long is not read, and has none.
    """

    def __init__(self, judge: Judge, rubric: Rubric, max_chars: int) -> None:
        self._judge = judge
        self._rubric = rubric
        self._max_chars = max_chars

    @property
    def identity(self) -> TeacherIdentity:
        """The inner judge's: the screen is the same for all."""
        return self._judge.identity

    @property
    def lanes(self) -> int:
        """The inner judge's."""
        return self._judge.lanes

    def prepare(self, story: Story) -> Asked | Verdict:
        """The screen first, then the inner judge's own preparation. `Asked.story` is the story as it was sent."""
        screened = screen(story, self._rubric, self._max_chars)
        if isinstance(screened, Verdict) and screened.status is VerdictStatus.REFUSED:
            return screened
        flags = flag_names(story.text, self._rubric)
        prepared = screened if isinstance(screened, Verdict) else self._judge.prepare(screened)
        if isinstance(prepared, Verdict):
            return _with_flags(prepared, story.text, flags)
        return Asked(story, prepared.tokens, _Flagged(prepared, flags))

    def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        """One verdict a story, in order; see `Judge.judge`."""
        flagged: list[_Flagged] = [item.payload for item in asked]
        verdicts = self._judge.judge([item.asked for item in flagged])
        return [_with_flags(v, item.asked.story.text, item.flags) for v, item in zip(verdicts, flagged, strict=True)]

    def close(self) -> None:
        """Close the inner judge."""
        self._judge.close()


def _with_flags(verdict: Verdict, text: str, flags: Sequence[str]) -> Verdict:
    """The verdict with `flags` beside its own; a judge that calls a long text too short has not understood it."""
    names = {*verdict.flags, *flags}
    if "too_short" in names and count_words(text) >= MIN_WORDS_WITHOUT_MARK:
        names = names - {"too_short"} | {"not_understood"}
    return verdict.model_copy(update={"flags": tuple(sorted(names))})
