"""What must lose and what must win, before the rules judge may teach."""

import random
from functools import cache
from itertools import pairwise
from statistics import fmean

from services.teacher.audit import AuditReport, run, scorer, stories
from services.teacher.audit.material import words
from services.teacher.judges.rules import RulesJudge, levels, measure
from services.teacher.rubric import load_rubric
from services.teacher.screening import ScreenedJudge

NO_GAIN = 0.1
# Known holes, and how deep they may be. An ending added to a story that broke off mends it.
HOLES = {"another story's ending": 0.7, "prize claimed": 0.4, "happy-end cues": 0.35, "everybody likes it": 0.25,
         "three sentences of other stories": 0.25, "vivid adjectives": 0.25, "empty talk": 0.2}  # fmt: skip

RUIN = ("words shuffled", "words shuffled in sentences", "words reversed", "every word twice", "no punctuation",
        "one word forty times", "a full stop every four words")  # fmt: skip
LOSES_ONE = ("story twice", "every sentence twice", "title case", "scores three times after", "score claimed",
             "named scores after", "rubric copied", "rubric before", "connectives stacked", "name list",
             "similes everywhere", "last sentence five times", "Llama 3 turn")  # fmt: skip
NOTHING = {"scores alone": 0.1, "random words": 0.5, "rare words": 0.5, "title-case list": 0.5, "cue words": 0.5,
           "one word": 0.2, "symbols only": 0.0, "other languages": 0.5, "rubric alone": 2.0, "orders alone": 1.0,
           "master keys alone": 0.5, "one sentence, a word changed": 3.0}  # fmt: skip

OPENINGS = (
    "Once upon a time there was a poor charcoal burner who had a daughter and a son. They lived at the edge of a dark "
    "wood, and when winter came there was no bread left in the house. One evening the father sighed and said, "
    '"What will become of us?" The children had heard every word. The girl put on her coat and crept outside, where '
    "the moon shone on the frozen brook.",
    "Far out in the sea, where the water is as green as glass, stood the palace of a lonely queen. She had ruled the "
    "fishes for a hundred years, and an old crab kept house for her. He was wise, but proud of his claws. Every night "
    "the queen asked him to tell her about the ships above, and every night he told her of a sailor who sang.",
)


@cache
def audit() -> AuditReport:
    rubric = load_rubric()
    judge = ScreenedJudge(RulesJudge(rubric), rubric, max_chars=100_000)
    return run(scorer(judge), judge.identity, rubric.criteria)


def gains() -> dict[str, float]:
    return {a.name: a.gain.mean for a in audit().attacks if a.gain is not None}


def total(text: str) -> float:
    return sum(levels(measure(text)).values())


def mean_total(texts: list[str]) -> float:
    return fmean(total(t) for t in texts)


def grade(name: str) -> list[str]:
    return [s.text for s in stories() if s.grade == name]


def test_no_attack_pays() -> None:
    found = gains()
    assert len(found) == len(audit().attacks)
    assert {name: gain for name, gain in found.items() if gain > HOLES.get(name, NO_GAIN)} == {}


def test_ruined_text_loses_most_of_its_score_and_tricks_more_than_a_point() -> None:
    found = gains()
    assert {name: found[name] for name in RUIN if found[name] > -4.0} == {}
    assert {name: found[name] for name in LOSES_ONE if found[name] > -1.0} == {}


def test_texts_without_a_story_get_next_to_nothing() -> None:
    found = {i.name: i.total for i in audit().impostors}
    assert {name: found[name] for name, most in NOTHING.items() if (found[name] or 0.0) > most} == {}


def test_order_matters() -> None:
    found = {a.name: a for a in audit().attacks}
    salad, shuffled = found["words shuffled"], found["sentences shuffled"]
    assert (salad.largest or 0.0) < -1.0
    assert (salad.criteria or {})["readability"] < -2.0
    assert (shuffled.criteria or {})["coherence"] < -0.3
    assert abs((shuffled.criteria or {})["readability"]) < 0.1


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
    good = levels(measure(stories()[0].text))
    broken = levels(
        measure("fox he were go to a apple. and then they was happy the the king it say. Lantern. he. said but so of.")
    )
    assert all(good[name] > broken[name] + 1.0 for name in good)


def test_fairy_tale_openings_beat_random_words_and_a_list() -> None:
    noise = " ".join(random.Random(3).sample(words("common"), 80)).capitalize() + "."
    listed = ", ".join(random.Random(4).sample(words("common"), 80)).capitalize() + "."
    for tale in OPENINGS:
        assert total(tale) > 5.0
        assert total(tale) > total(noise) + 3.5
        assert total(tale) > total(listed) + 3.5


def test_there_is_a_slope_between_noise_and_a_story() -> None:
    story = stories()[0].text.split()
    rng = random.Random(0)
    steps = []
    for share in (1.0, 0.5, 0.25, 0.1, 0.0):
        drawn = []
        for _ in range(6):
            mixed = list(story)
            for _ in range(int(share * len(story))):
                i, j = rng.randrange(len(story)), rng.randrange(len(story))
                mixed[i], mixed[j] = mixed[j], mixed[i]
            drawn.append(" ".join(mixed))
        steps.append(mean_total(drawn))
    assert all(a < b for a, b in pairwise(steps))
