"""What must lose and what must win, before the rules judge may teach."""

import random
from itertools import pairwise
from statistics import fmean

import pytest

from services.teacher.judges.rules import levels, measure
from services.teacher.judges.rules.attacks import ATTACKS, attack_gains, interval, stories, total
from services.teacher.judges.rules.lexicon import model

# An ending added to a story that had none does better it: these two may gain a little, the others next to nothing.
MENDS = {"happy-end cues": 0.35, "empty talk": 0.2}
NO_GAIN = 0.02

RUIN = ("words shuffled", "words shuffled in sentences", "words reversed", "every word twice", "random words",
        "rare words alone", "title-case list", "cue words alone", "no punctuation", "rubric alone")  # fmt: skip
LOSES_ONE = ("story twice", "every sentence twice", "one sentence, a word changed", "title case", "3 3 3 tail",
             "score claimed", "rubric copied", "connectives stacked", "name list", "similes everywhere",
             "last sentence five times", "rare words listed", "a full stop every four words")  # fmt: skip

OPENINGS = (
    "Once upon a time there was a poor charcoal burner who had a daughter and a son. They lived at the edge of a dark "
    "wood, and when winter came there was no bread left in the house. One evening the father sighed and said, "
    '"What will become of us?" The children had heard every word. The girl put on her coat and crept outside, where '
    "the moon shone on the frozen brook.",
    "Far out in the sea, where the water is as green as glass, stood the palace of a lonely queen. She had ruled the "
    "fishes for a hundred years, and an old crab kept house for her. He was wise, but proud of his claws. Every night "
    "the queen asked him to tell her about the ships above, and every night he told her of a sailor who sang.",
)


def mean_total(texts: list[str]) -> float:
    return fmean(total(t) for t in texts)


def grade(name: str) -> list[str]:
    return [text for g, text in stories() if g == name]


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_pays(name: str) -> None:
    gain = fmean(g["total"] for g in attack_gains(ATTACKS[name]))
    assert gain <= MENDS.get(name, NO_GAIN)


@pytest.mark.parametrize("name", RUIN)
def test_ruined_text_loses_most_of_its_score(name: str) -> None:
    assert fmean(g["total"] for g in attack_gains(ATTACKS[name])) < -4.0


@pytest.mark.parametrize("name", LOSES_ONE)
def test_tricks_lose_more_than_a_point(name: str) -> None:
    assert fmean(g["total"] for g in attack_gains(ATTACKS[name])) < -1.0


def test_order_matters() -> None:
    words = attack_gains(ATTACKS["words shuffled"])
    assert all(g["total"] < -1.0 for g in words)
    assert fmean(g["readability"] for g in words) < -2.0
    sentences = attack_gains(ATTACKS["sentences shuffled"])
    assert fmean(g["coherence"] for g in sentences) < -0.4
    assert abs(fmean(g["readability"] for g in sentences)) < 0.1


def test_a_story_cut_in_mid_sentence_loses_some_coherence_not_all() -> None:
    finished = [text for text in grade("good") + grade("plain") if text[-1] in '.!?"']
    cut = [" ".join(text.split()[:-4]) for text in finished]
    loss = fmean(
        levels(measure(a))["coherence"] - levels(measure(b))["coherence"] for a, b in zip(finished, cut, strict=True)
    )
    assert 0.1 < loss < 1.2


def test_good_stories_beat_plain_ones_and_plain_ones_weak_ones() -> None:
    good, plain, weak = (mean_total(grade(g)) for g in ("good", "plain", "weak"))
    assert good > plain + 0.3
    assert plain > weak + 1.0
    assert 6.5 < good < 8.5
    assert 2.5 < weak < 5.5


def test_a_good_story_beats_a_broken_one_in_every_criterion() -> None:
    good = levels(measure(stories()[0][1]))
    broken = levels(
        measure("fox he were go to a apple. and then they was happy the the king it say. Lantern. he. said but so of.")
    )
    assert all(good[name] > broken[name] + 1.0 for name in good)


def test_fairy_tale_openings_beat_random_words_and_a_list() -> None:
    pool = sorted(w for w, e in model().entries.items() if e.zipf > 5.0)
    noise = " ".join(random.Random(3).sample(pool, 80)).capitalize() + "."
    listed = ", ".join(random.Random(4).sample(pool, 80)).capitalize() + "."
    for tale in OPENINGS:
        assert total(tale) > 5.0
        assert total(tale) > total(noise) + 3.5
        assert total(tale) > total(listed) + 3.5


def test_there_is_a_slope_between_noise_and_a_story() -> None:
    words = stories()[0][1].split()
    rng = random.Random(0)
    steps = []
    for share in (1.0, 0.5, 0.25, 0.1, 0.0):
        drawn = []
        for _ in range(6):
            mixed = list(words)
            for _ in range(int(share * len(words))):
                i, j = rng.randrange(len(words)), rng.randrange(len(words))
                mixed[i], mixed[j] = mixed[j], mixed[i]
            drawn.append(" ".join(mixed))
        steps.append(mean_total(drawn))
    assert all(a < b for a, b in pairwise(steps))


def test_the_interval_holds_the_mean() -> None:
    values = [0.1 * i for i in range(20)]
    low, high = interval(values, rounds=400)
    assert low < fmean(values) < high
