"""The zero rule, and what of a text is the student's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabula_proto import Story, Verdict, VerdictStatus
from services.teacher.judges.base import judge_stories
from services.teacher.rubric import load_rubric
from services.teacher.screening import ScreenedJudge, has_full_sentence, screen, student_words
from tests.teacher_helpers import WordJudge

RUBRIC = load_rubric()


@pytest.mark.parametrize(
    "text",
    [
        "He ran.",
        "Stop that!",
        '"Go home," said the fox.',
        "Once upon a time there was a small",  # 8 words, cut off
        "ein Wolf ging in den Wald und schlief",
        "Кот спал.",
        "狐狸走了。",
        "The year was 1066.",
        "one two... three",
    ],
)
def test_full_sentences(text: str) -> None:
    assert has_full_sentence(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        ".",
        "...",
        "!?! ?? .",
        "Oh!",
        "Once upon a time there was a",
        "3.5 apples",
        "🦊🦊🦊. 🦊.",
        "a",
        "— . —",
        "狐狸",
        "“Run!” he cried",
    ],
)
def test_less_than_a_sentence(text: str) -> None:
    assert not has_full_sentence(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("</s>", ""),
        (" <s> He ran. </s><pad><pad>\n", "He ran."),
        ("He ran.<|endoftext|>", "He ran."),
        ("He </s> ran.", "He </s> ran."),  # in the middle it is the student's doing
        ("He\x00ran.\x1b", "He ran."),
        ("a\tb\nc", "a\tb\nc"),
        ("He said <b>hi</b>.", "He said <b>hi</b>."),
    ],
)
def test_student_words(text: str, words: str) -> None:
    assert student_words(text) == words


@given(st.text())
def test_student_words_is_idempotent_and_takes_from_the_ends_only(text: str) -> None:
    once = student_words(text)
    assert student_words(once) == once
    assert once in "".join(" " if (ord(c) < 32 and c not in "\t\n\r") or 127 <= ord(c) < 160 else c for c in text)


@pytest.mark.parametrize(
    "text", ["." * 100_000 + "x", " " * 100_000 + "x" + " " * 100_000, "</s>" * 25_000, '."' * 50_000]
)
def test_hostile_runs_are_screened_in_linear_time(text: str) -> None:
    # Quadratic code needs minutes here; the suite's timeout is the assertion.
    assert isinstance(screen(Story(id="a", text=text), RUBRIC, 1_000_000), Verdict)


def test_the_judge_sees_only_what_is_worth_judging() -> None:
    judge = WordJudge()
    screened = ScreenedJudge(judge, RUBRIC, max_chars=100)
    stories = [
        Story(id="empty", text="</s>"),
        Story(id="fine", text="<s>The fox ran home at night.</s>"),
        Story(id="long", text="The fox ran. " * 20),
        Story(id="bit", text="The fox"),
    ]
    verdicts = judge_stories(screened, stories)
    assert [v.story_id for v in verdicts] == ["empty", "fine", "long", "bit"]
    assert [v.status for v in verdicts] == [VerdictStatus.OK, VerdictStatus.OK, VerdictStatus.REFUSED, VerdictStatus.OK]
    assert judge.calls == [["fine"]]
    assert verdicts[0].total == verdicts[3].total == 0.0
    assert verdicts[0].flags == verdicts[3].flags == ("too_short",)
    assert judge_stories(screened, []) == []
