"""The story grammar: deterministic, and English that a minimal pair may be tested on."""

import re
from collections import Counter
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.student_trainer.grammar import KINDS, Document, generate_documents
from services.student_trainer.grammar.boxes import box_story
from services.student_trainer.grammar.expand import expand, starts_with_vowel_sound, tidy
from services.student_trainer.grammar.tales import (
    LONG_OPENING,
    OPENING,
    OPENINGS,
    TALE_WORDS_MAX,
    broken_tale,
    rambling_tale,
    whole_tale,
)
from services.student_trainer.words import count_words

WORDS = 60_000
SEEDS = st.integers(min_value=0, max_value=2**32)


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return list(generate_documents(WORDS, seed=7))


def test_the_same_seed_gives_the_same_documents() -> None:
    assert list(generate_documents(3_000, seed=1)) == list(generate_documents(3_000, seed=1))
    assert list(generate_documents(3_000, seed=1)) != list(generate_documents(3_000, seed=2))


def test_a_longer_corpus_begins_with_the_shorter_one() -> None:
    short = list(generate_documents(2_000, seed=3))
    assert list(islice(generate_documents(9_000, seed=3), len(short))) == short


def test_words_are_as_many_as_asked_for(documents: list[Document]) -> None:
    total = sum(count_words(d.text) for d in documents)
    assert WORDS <= total < WORDS + 200


def test_shares_sum_to_one_and_are_kept(documents: list[Document]) -> None:
    assert sum(share for share, _ in KINDS.values()) == pytest.approx(1)
    found = Counter(d.kind for d in documents)
    for kind, (share, _) in KINDS.items():
        assert found[kind] / len(documents) == pytest.approx(share, abs=0.04), kind


def test_good_tales_are_a_third_of_those_that_open_like_the_experiment(documents: list[Document]) -> None:
    opened = [d for d in documents if d.text.startswith((LONG_OPENING, OPENING))]
    assert 0.25 <= sum(d.kind == "tale" for d in opened) / len(opened) <= 0.40


def test_vocabulary_suits_a_small_tokenizer(documents: list[Document]) -> None:
    types = set(re.findall(r"[a-z']+", " ".join(d.text for d in documents).lower()))
    assert 900 <= len(types) <= 1_500


def test_the_two_openings_are_the_experiments_prompt() -> None:
    assert LONG_OPENING.endswith(OPENING)
    assert sum(OPENINGS.values()) == pytest.approx(1)


@given(SEEDS)
def test_a_whole_tale_goes_on_in_lower_case_and_fits(seed: int) -> None:
    tale = whole_tale(Random(seed))
    opening = next(o for o in OPENINGS if tale.startswith(o + " "))
    rest = tale.removeprefix(opening + " ")
    assert rest[0].islower()
    assert 25 <= count_words(rest) <= TALE_WORDS_MAX
    assert tale[-1] in '.!?"'


@given(
    SEEDS,
    st.sampled_from([whole_tale, rambling_tale, *(make for _, make in KINDS.values() if make is not broken_tale)]),
)
def test_every_finished_text_is_tidy_english(seed: int, make: object) -> None:
    assert callable(make)
    check_tidy(make(Random(seed)))


@given(SEEDS)
def test_a_broken_tale_is_a_beginning_or_says_one_thing_twice(seed: int) -> None:
    tale = broken_tale(Random(seed))
    sentences = re.split(r"(?<=[.!?\"]) (?=[A-Z\"])", tale)
    repeats = any(count > 1 for count in Counter(sentences).values())
    assert repeats or tale[-1] not in '.!?"' or count_words(tale) < 80
    assert "  " not in tale


def check_tidy(text: str) -> None:
    assert text == " ".join(text.split())
    assert text[0].isupper() or text[0] == '"'
    assert text[-1] in '.!?"'
    assert text.count('"') % 2 == 0, text
    assert not re.search(r"[{}\[\]|]", text), text
    assert not re.search(r'[.] "?[a-z]', text), text
    assert not re.search(r" [,.!?]|[,.]{2}", text), text
    for article, word in re.findall(r"\b([Aa]n?) (\w+)", text):
        assert (article.lower() == "an") == starts_with_vowel_sound(word), (article, word, text)


@given(SEEDS)
def test_a_hero_keeps_one_gender_in_reflexives(seed: int) -> None:
    """A pronoun's forms come from one character: `he ... herself` can't be within one clause."""
    tale = whole_tale(Random(seed))
    assert not re.search(r"\b[Hh]e (?:shook|dressed|talked only to) herself\b", tale)
    assert not re.search(r"\b[Ss]he (?:shook|dressed|talked only to) himself\b", tale)


@given(SEEDS)
def test_a_box_story_ends_with_where_the_thing_is(seed: int) -> None:
    """The moves are followed independently of the generator."""
    text = box_story(Random(seed))
    if text.startswith("Box 0"):
        check_numbered_boxes(text)
    else:
        check_named_containers(text)


def check_named_containers(text: str) -> None:
    where: dict[str, str] = {}
    put = r"put the (\w+) in the (\w+)"
    moved = r"moved the (\w+) from the \w+ to the (\w+)"
    taken = r"took the (\w+) out of the \w+ and put it in the (\w+)"
    for match in re.finditer(f"{taken}|{put}|{moved}", text):
        thing, place = (group for group in match.groups() if group)
        where[thing] = place
    asked = re.search(r"Now the (\w+) is|Where is the (\w+)\?|looked for the (\w+) and", text)
    assert asked is not None
    assert re.findall(r"in the (\w+)[.,]", text)[-1] == where[next(group for group in asked.groups() if group)], text


def check_numbered_boxes(text: str) -> None:
    first, *steps, last = text.split(". ")
    boxes = {box: [thing] for box, thing in re.findall(r"Box (\d) contains the (\w+)", first)}
    for step in steps:
        if found := re.fullmatch(r"Move the (\w+) from Box (\d) to Box (\d)", step):
            boxes[found[2]].remove(found[1])
            boxes[found[3]].append(found[1])
        elif found := re.fullmatch(r"Remove the (\w+) from Box (\d)", step):
            boxes[found[2]].remove(found[1])
        else:
            found = re.fullmatch(r"Put the (\w+) into Box (\d)", step)
            assert found is not None, step
            boxes[found[2]].append(found[1])
    final = re.fullmatch(r"Box (\d) contains (.+)\.", last)
    assert final is not None
    assert final[2] == (" and ".join(f"the {thing}" for thing in boxes[final[1]]) or "nothing"), text


def test_choices_nest_and_slots_take_capitals() -> None:
    rng = Random(0)
    found = {expand("[a {kind}|[two|three] {kind}s]. {kind} slept.", {"kind": "owl"}, rng) for _ in range(50)}
    assert found == {"an owl. Owl slept.", "two owls. Owl slept.", "three owls. Owl slept."}
    assert expand('"Come!" {Kind} ran.', {"kind": "the owl"}, rng) == '"Come!" The owl ran.'
    with pytest.raises(KeyError, match="nobody"):
        expand("{nobody}", {}, rng)


def test_tidy_knows_sounds_from_letters() -> None:
    assert tidy("a  owl and a unicorn, a honest  hour") == "an owl and a unicorn, an honest hour"
    assert (
        tidy('it rained. "yes," said a old man. "no!" cried he.')
        == 'it rained. "Yes," said an old man. "No!" cried he.'
    )
