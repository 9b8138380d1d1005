"""The evaluator's own items: deterministic, balanced, and right."""

import re
from collections import Counter

from services.evaluator.generated.box_stories import OPTIONS, box_stories
from services.evaluator.generated.minimal_pairs import PARADIGMS, PER_PARADIGM, minimal_pairs


def test_the_same_seed_gives_the_same_items() -> None:
    assert minimal_pairs(7) == minimal_pairs(7)
    assert minimal_pairs(7) != minimal_pairs(8)
    assert box_stories(7) == box_stories(7)
    assert box_stories(7) != box_stories(8)


def test_minimal_pairs_are_distinct_and_complete() -> None:
    items = minimal_pairs(42).items
    assert Counter(item.uid for item in items) == dict.fromkeys(PARADIGMS, PER_PARADIGM)
    texts = [tuple(c.text for c in item.candidates) for item in items]
    assert len(set(texts)) == len(texts)
    assert all(good != bad for good, bad in texts)


def test_preferring_one_form_always_scores_half() -> None:
    """Whatever form a model is fond of, it gains little by it; polarity is the exception that the module names."""
    for uid in set(PARADIGMS) - {"polarity_ever"}:
        pairs = [tuple(c.text for c in item.candidates) for item in minimal_pairs(42).items if item.uid == uid]
        words = {word for good, bad in pairs for word in set(good.split()) ^ set(bad.split())}
        for word in words:
            right = sum(word in good.split() for good, bad in pairs if (word in good.split()) != (word in bad.split()))
            asked = sum((word in good.split()) != (word in bad.split()) for good, bad in pairs)
            if asked >= PER_PARADIGM // 2:
                assert 0.3 <= right / asked <= 0.7, (uid, word)


def replay(story: str) -> dict[str, list[str]]:
    """Read a box story sentence by sentence, knowing nothing of how it was made."""
    boxes: dict[str, list[str]] = {}
    for sentence in story.split(". "):
        things = re.findall(r"the (\w+)(?= and| in| to| from)", sentence.split("held")[0])
        things = [thing for thing in things if f"the {thing} box" not in sentence]
        box = re.findall(r"the (\w+) box", sentence)
        if sentence.startswith("Now"):
            continue
        if " put " in sentence:
            boxes.setdefault(box[0], []).extend(things)
            continue
        for thing in things:
            for held in boxes.values():
                if thing in held:
                    held.remove(thing)
            if " moved " in sentence:
                boxes[box[0]].append(thing)
    return boxes


def test_the_right_option_is_what_an_independent_reader_finds() -> None:
    for item in box_stories(3, 100).items:
        story = item.candidates[0].context
        asked = re.findall(r"Now the (\w+) box held $", story)[0]
        held = replay(story)[asked]
        answers = [re.findall(r"the (\w+)", c.completion) for c in item.candidates]
        assert answers[0] == held, story
        assert len(answers) == OPTIONS
        assert all(sorted(answer) != sorted(held) for answer in answers[1:]), story
        assert {len(answer) for answer in answers} == {len(held)}
        assert len({c.completion for c in item.candidates}) == OPTIONS


def test_operations_count_changes_of_the_asked_box() -> None:
    for item in box_stories(5, 50).items:
        story = item.candidates[0].context
        asked = re.findall(r"Now the (\w+) box held $", story)[0]
        sentences = story.split(". ")
        changes = 0
        for end in range(3, len(sentences)):
            before, after = replay(". ".join(sentences[:end])), replay(". ".join(sentences[: end + 1]))
            changes += before.get(asked) != after.get(asked)
        assert changes == int(dict(item.groups)["ops"]), story
