"""What a word is."""

from hypothesis import given
from hypothesis import strategies as st

from services.student_trainer.words import count_words


def test_words_are_what_stands_between_whitespace() -> None:
    assert count_words("Let me tell you a long, magical tale. Once upon a time, in a faraway land,") == 16
    assert count_words("  one\n\ttwo — three  ") == 4
    assert count_words(" \n ") == 0


@given(st.text(), st.text())
def test_words_of_two_texts_add_up(first: str, second: str) -> None:
    assert count_words(f"{first} {second}") == count_words(first) + count_words(second)
