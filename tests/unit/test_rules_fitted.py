"""What was learned: topic vectors, the thread model, coherence's weights, and the commands that make them."""

import hashlib
import json
import math
import random
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from scipy import optimize

from services.teacher.audit import stories
from services.teacher.judges.rules import build_thread, climb, fit, measure
from services.teacher.judges.rules.build_topics import examples, padded
from services.teacher.judges.rules.curves import Curve, fitted, parse, render
from services.teacher.judges.rules.judge import RULE_SET
from services.teacher.judges.rules.scoring import levels, unbroken
from services.teacher.judges.rules.solve import logistic, ridge, without
from services.teacher.judges.rules.topics import MEMORY

RULES = Path(fit.__file__).parent
HANNA = Path(__file__).resolve().parents[3] / "shared" / "data" / "ratings" / "hanna.jsonl"
SEA = "The sailor pulled a rope. The ship rocked on the waves. The storm tore a sail, and the boat sank near the coast."
MIXED = "The sailor pulled a rope. The teacher baked a pie. The queen read a letter, and the frog slept near the oven."


def values(text: str) -> dict[str, float]:
    return measure(text).flat()


def sentences() -> list[list[str]]:
    return [text.split(". ") for text in (s.text for s in stories())]


def salads(count: int) -> list[str]:
    rng = random.Random(1)
    told = [[s.strip().rstrip(".") + "." for s in story] for story in sentences()]
    return [build_thread.salad(told, 8, rng) for _ in range(count)]


def test_words_of_one_story_belong_together() -> None:
    assert values(SEA)["topics.related"] > values(MIXED)["topics.related"] + 0.1


def test_saying_a_word_again_proves_nothing() -> None:
    once = values(SEA)
    again = values(f"{SEA} {SEA}")
    assert again["topics.related"] == pytest.approx(once["topics.related"])
    assert again["topics.fresh"] == pytest.approx(0.5 * once["topics.fresh"])


def test_ties_by_pronoun_alone_name_nobody() -> None:
    named = values("The fox ran home. The fox slept. The owl saw the fox.")
    unnamed = values("The fox ran home. He slept. The owl saw him.")
    assert named["continuity.named"] > 0.5
    assert unnamed["continuity.named"] == 0.0
    assert unnamed["continuity.linked"] > 0.5


def test_a_narrator_names_himself_but_a_speaker_does_not() -> None:
    assert values("I ran home. I slept. I woke at dawn.")["continuity.named"] > 0.5
    assert values('"I ran home," said he. "I slept."')["continuity.named"] == 0.0


def test_things_that_come_as_known_are_unprepared() -> None:
    known = values("A girl sat down. She found a lantern and a map.")
    unknown = values("A girl sat down. She found the lantern and the map.")
    assert known["continuity.unprepared"] == 0.0 < unknown["continuity.unprepared"]


def test_the_thread_tells_stories_from_their_salads() -> None:
    thread = fitted("thread")
    told = [thread.score(values(s.text)) for s in stories() if s.grade != "weak"]
    mixed = [thread.score(values(text)) for text in salads(14)]
    assert fmean(told) > fmean(mixed) + 2.0
    assert sum(a > b for a in told for b in mixed) > 0.85 * len(told) * len(mixed)


def test_a_broken_thread_counts_less_in_a_long_text() -> None:
    broken = values(salads(1)[0])
    whole = {**broken, "topics.related": 0.4, "continuity.named": 1.0}
    left = [unbroken({**broken, "words": words}) / unbroken({**whole, "words": words}) for words in (70.0, 80.0, 400.0)]
    assert left[0] == pytest.approx(left[1])
    assert left[1] < 0.7
    assert left[2] == pytest.approx(left[1] ** 0.2)


def test_ridge_is_the_best_fit_without_negative_weights() -> None:
    rng = np.random.default_rng(0)
    design = rng.normal(size=(60, 5))
    target = design @ np.array([1.0, -1.0, 0.5, 0.0, 2.0]) + rng.normal(size=60)
    stacked = np.vstack([design, math.sqrt(3.0) * np.eye(5)])
    expected, _ = optimize.nnls(stacked, np.r_[target, np.zeros(5)])
    assert ridge(design, target, 3.0) == pytest.approx(expected, abs=1e-6)
    assert without(np.ones((60, 1)), target) == pytest.approx(target - target.mean())


def test_logistic_regression_is_the_best_fit_without_negative_weights() -> None:
    rng = np.random.default_rng(1)
    design = rng.uniform(size=(200, 3))
    label = (design @ np.array([3.0, -2.0, 1.0]) + rng.normal(size=200) > 1.0).astype(float)
    share = np.full(200, 1 / 200)

    def loss(w: np.ndarray) -> float:
        logit = w[0] + design @ w[1:]
        return float(share @ (np.logaddexp(0.0, logit) - label * logit) + 0.005 * w[1:] @ w[1:])

    best = optimize.minimize(loss, np.zeros(4), bounds=[(None, None), *[(0, None)] * 3], method="L-BFGS-B", tol=1e-12)
    bias, weights = logistic(design, label, share, 0.01)
    assert np.r_[bias, weights] == pytest.approx(best.x, abs=1e-3)


def test_a_model_survives_its_file() -> None:
    text = render(-1.5, {"a": Curve(0.0, 1.0, 0.25), "b": Curve(2.0, -1.0, 0.75), "c": Curve(0.0, 1.0, 0.0)})
    model = parse(text)
    assert list(model.curves) == ["b", "a"]
    assert model.score({"a": 1.0, "b": -1.0}) == pytest.approx(-1.5 + 0.97)


@pytest.mark.parametrize("name", ["thread", "coherence"])
def test_no_shipped_weight_is_negative_and_coherence_weighs_one(name: str) -> None:
    weights = [c.weight for c in fitted(name).curves.values()]
    assert min(weights) > 0.0
    if name == "coherence":
        assert sum(weights) == pytest.approx(1.0, abs=1e-3)
        assert fitted(name).bias == 0.0


def test_the_revision_covers_every_data_file() -> None:
    shipped = {f"data/{path.name}" for path in (RULES / "data").iterdir() if path.is_file()}
    assert shipped == {name for name in RULE_SET if name.startswith("data/")}
    assert all((RULES / name).exists() for name in RULE_SET)


def _is_tune(prompt: str) -> bool:
    return hashlib.sha256(prompt.encode()).digest()[-1] % 2 == 0


def ratings(path: Path, test_rating: float) -> Path:
    """Forty prompts of three stories; what is rated of the test half is `test_rating` throughout."""
    rng = random.Random(0)
    pool = [s.text for s in stories()]
    rows = []
    for i in range(120):
        prompt = f"p{i // 3}"
        story = rng.choice(pool) if i % 2 else salads(8)[i % 8]
        grade = (3.0 + rng.random() if i % 2 else 1.0 + rng.random()) if _is_tune(prompt) else test_rating
        rated = {"coherence": grade}
        row = {"prompt": prompt, "system": "x", "story": story, "human_mean": rated}
        rows.append(json.dumps(row | {"llm": {"judge": {"coherence": [grade]}}}))
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def test_fit_is_reproducible_and_blind_to_the_test_half(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "DATA", tmp_path)
    written = []
    for name, test_rating in (("a", 1.0), ("b", 5.0)):
        path = ratings(tmp_path / f"{name}.jsonl", test_rating)
        monkeypatch.setattr("sys.argv", ["fit", "--ratings", str(path)])
        fit.main()
        written.append((tmp_path / "coherence.json").read_bytes())
    assert written[0] == written[1]
    assert "target both" in capsys.readouterr().out
    model = parse(written[0].decode())
    assert sum(c.weight for c in model.curves.values()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.skipif(
    not HANNA.exists(), reason="needs ../shared/data/ratings/hanna.jsonl beside the checkout (HANNA, MIT)"
)
def test_the_shipped_weights_come_from_hanna() -> None:
    rated = fit.load(HANNA)
    assert len(rated) == 462
    curves = fit.curves_of(rated)
    weights = fit.weigh(rated, curves)
    shares = dict(zip(curves, weights / weights.sum(), strict=True))
    shipped = {name: c.weight for name, c in fitted("coherence").curves.items()}
    assert {name: share for name, share in shares.items() if share > 0.0} == pytest.approx(shipped, abs=1e-3)


def test_an_example_holds_the_words_before_and_only_new_ones_after() -> None:
    index = {w: i for i, w in enumerate(("fox", "ran", "home", "owl", "slept"), 1)}
    found = list(examples([["fox", "ran", "home"], ["owl", "fox", "unknown"], ["fox"], ["slept"]], index))
    assert found == [([3, 2, 1], [4]), ([1, 1, 4, 3, 2, 1], [5])]
    assert padded([[1, 2], [3]], 3).tolist() == [[1, 2, 0], [3, 0, 0]]
    far = [["fox", "ran", "home"], *[["owl"] * MEMORY], ["fox"]]
    assert list(examples(far, index))[-1][1] == [1]


def test_a_search_only_climbs_and_takes_one_sentence_a_story(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(climb, "STOPS", (0, 10, 40))
    pool = [[f"{x.strip().rstrip('.')}." for x in story] for story in sentences()]
    seen, text = climb.climb(pool, seed=0)
    totals = [sum(found.values()) for found in seen]
    assert totals == sorted(totals)
    assert totals[-1] > totals[0] + 0.5
    assert totals[-1] == pytest.approx(sum(levels(measure(text)).values()))
    assert all(sum(s in text for s in story) <= 1 for story in pool)
