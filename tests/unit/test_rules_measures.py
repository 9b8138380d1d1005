"""Single features of the rules judge, each on a text where a reader knows the answer."""

import pytest

from services.teacher.audit import stories
from services.teacher.judges.rules import measure
from services.teacher.judges.rules.grammar import slips
from services.teacher.judges.rules.lexicon import model
from services.teacher.judges.rules.measures import Measures
from services.teacher.judges.rules.pairs import encode, is_familiar
from services.teacher.judges.rules.repetition import moving_ttr
from services.teacher.judges.rules.text import read

FOX = stories()[0][1]


def flat(text: str) -> dict[str, float]:
    found = measure(text)
    assert found.tells
    return found.flat()


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ('"Stop!" he said. The fox stopped.', 2),
        ("Mr. Fox ran home. Mrs. Fox slept.", 2),
        ("He waited... and waited. Then he slept.", 2),
        ('"Why?" "Because I can," she said.', 2),
        ("One line without an end\n\nAnother line.", 1),
        ("It didn ’t rain. ``Good,'' he said.", 2),
    ],
)
def test_sentences_are_cut_where_a_reader_cuts(text: str, sentences: int) -> None:
    assert len(read(text).sentences) == sentences


def test_an_open_quotation_is_counted_once() -> None:
    assert read('"Come here, said the fox. He ran.').unbalanced_quotes == 1
    assert read('"Come here," said the fox.').unbalanced_quotes == 0


def test_a_word_gets_its_class_from_its_place() -> None:
    tagged = model().tag(read("The old king walked into his eyes and lost the walk.").sentences[0])
    labels = {w.token.lower: w.label for w in tagged}
    assert labels["walked"] == "VBD"
    assert labels["eyes"] == "NNS"
    assert labels["walk"] == "NN"
    assert labels["old"] == "JJ"


@pytest.mark.parametrize(
    "wrong",
    [
        "He were happy in the garden.",
        "They was happy in the garden.",
        "She found a apple in the garden.",
        "She found an fox in the garden.",
        "He wanted to went home.",
        "The foxes was happy in the garden.",
        "The fox were happy in the garden.",
        "He saw the a lantern.",
        "He looked at the.",
        "So he dressed herself as a cook.",
        "She walked into castle.",
        "A boy came and he king.",
    ],
)
def test_slips_are_found(wrong: str) -> None:
    assert slips(model().tag(read(wrong).sentences[0])) > 0.0


@pytest.mark.parametrize(
    "right",
    [
        "If it were true, he would be glad.",
        "He could have eaten an apple, and she saw it fall.",
        "The king and the queen were happy in the garden.",
        "An honest man found a unicorn at the end of the road.",
        "Did they see what was there?",
        "The owl of the woods was awake.",
        "She dressed herself, and he dressed himself.",
        "His eyes were bright with tears.",
    ],
)
def test_right_sentences_have_no_slips(right: str) -> None:
    assert slips(model().tag(read(right).sentences[0])) == 0.0


def test_pronouns_need_a_fitting_antecedent() -> None:
    fits = flat("The girl lost her lantern. She looked for it. She found it under the bed.")
    clash = flat("The girl lost her lantern. He looked for it. He found it under the bed.")
    assert fits["continuity.clashes"] == 0.0 < clash["continuity.clashes"]
    assert fits["continuity.resolved"] > clash["continuity.resolved"]
    assert fits["continuity.linked"] > clash["continuity.linked"]


def test_a_being_of_unknown_gender_keeps_the_one_it_was_given() -> None:
    same = flat("The fox lost a lantern. He looked for it. He found it under the bed.")
    mixed = flat("The fox lost a lantern. He looked for it. Then she found it under the bed.")
    assert same["continuity.clashes"] == 0.0 < mixed["continuity.clashes"]


def test_strangers_that_come_and_go_are_counted() -> None:
    one = flat("The fox sang. The fox danced. The fox slept. The fox woke.")
    many = flat("The fox sang. The king danced. A witch slept. Some owl woke.")
    assert one["continuity.lone_beings"] == 0.0 < many["continuity.lone_beings"]
    assert one["continuity.chained"] > many["continuity.chained"]


def test_another_noun_for_the_same_being_is_a_bridge() -> None:
    bridged = flat("A miller had a daughter. The girl sang all day.")
    loose = flat("A miller had a daughter. The owl sang all day.")
    assert bridged["continuity.linked"] > loose["continuity.linked"]
    assert bridged["continuity.lone_beings"] < loose["continuity.lone_beings"]


def test_an_indefinite_noun_after_its_definite_one_is_out_of_order() -> None:
    right = flat("A fox lived in the woods. The fox was old. It slept all day.")
    wrong = flat("The fox was old. It slept all day. A fox lived in the woods.")
    assert right["continuity.misordered"] < wrong["continuity.misordered"]


def test_tenses_arc_and_ending() -> None:
    assert flat("He was old. He is tired. He was glad. He has a hat.")["discourse.tense"] < 0.9
    assert flat(FOX)["discourse.arc"] > 0.7
    assert flat(FOX)["discourse.ended"] == 1.0
    assert flat(FOX.removesuffix("."))["discourse.ended"] == 0.0


def test_connectives_that_connect_nothing_are_excess() -> None:
    stuffed = " ".join(f"Then because so finally {s.strip()}." for s in FOX.split(".") if s.strip())
    assert flat(FOX)["discourse.connective_excess"] < 0.2 < flat(stuffed)["discourse.connective_excess"]


def test_repetition_is_seen_whatever_comes_between() -> None:
    again = flat(f"{FOX} {FOX}")
    assert again["repetition.stale_sentences"] > 0.4 > flat(FOX)["repetition.stale_sentences"]
    assert again["repetition.repeated_trigrams"] > 0.4
    things = (("fox", "hat"), ("owl", "cup"), ("cat", "key"))
    frames = " ".join(f"The {noun} found a {thing}." for noun, thing in things)
    assert flat(frames)["repetition.repeated_frames"] > 0.8


def test_moving_ttr_hardly_depends_on_length() -> None:
    words = [f"w{i % 60}" for i in range(4000)]
    assert moving_ttr(words) == pytest.approx(moving_ttr(words[:400]), abs=0.01)
    assert moving_ttr(["a"] * 100) == pytest.approx(1 / 40)
    assert moving_ttr([]) == 0.0


def test_pairs_that_were_seen_are_always_familiar() -> None:
    assert all(is_familiar(a, b) for a, b in (("once", "upon"), ("the", "old"), ("he", "said"), ("into", "the")))
    strange = [
        ("wise", "the"),
        ("sang", "of"),
        ("because", "upon"),
        ("clearly", "wise"),
        ("the", "and"),
        ("of", "were"),
    ]
    assert sum(is_familiar(a, b) for a, b in strange) <= 2
    assert len(encode([("a", "b")] * 5 + [("c", "d")])) == len(encode([("a", "b"), ("c", "d")]))


def test_talk_counts_only_where_somebody_speaks() -> None:
    told = flat('The fox looked up. "I have lost my lantern again," he said. The owl laughed.')
    untold = flat('"The fox looked up. I have lost my lantern again." The owl sat there.')
    assert told["style.dialogue"] > 0.2 > told["style.unattributed"]
    assert untold["style.unattributed"] > 0.2 > untold["style.dialogue"]


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        (f"{FOX} 3 3 3 3", "score_tail"),
        (f"{FOX} Readability: well written. Creativity: highly original.", "rubric_echo"),
        (" ".join([FOX] * 4), "repetition"),
        ("", "too_short"),
    ],
)
def test_tricks_are_flagged(text: str, flag: str) -> None:
    assert flag in measure(text).flags


def test_a_plain_story_has_no_flags() -> None:
    assert measure(FOX).flags == ()


def test_measures_of_no_story_say_so() -> None:
    assert measure("fox") == Measures(words=1, sentences=1, tells=False)
    assert measure("fox").flat() == {"words": 1, "sentences": 1}
