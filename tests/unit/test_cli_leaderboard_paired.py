"""`fabula leaderboard`: changes of what is no share of right answers, on the same items, words or sentences."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from fabula_proto import Measure
from services.evaluator.adapters.reading_data import load_reading
from services.evaluator.regression import IntArray, cluster_counts, cluster_numbers, gain, interactions
from services.evaluator.statistics import FloatArray
from services.evaluator.suites import reading
from services.evaluator.suites.outcome import SuiteOutcome
from services.local.leaderboard import leaderboard
from tests import reading_tables
from tests.evaluated_runs import Suite, new_run, of_outcome, write_evaluation, wugs


def test_correlations_with_people_change_by_the_same_resamples(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r", ("chck_1M",))
    rng = np.random.default_rng(4)
    people = rng.integers(0, 12, 40) / 11
    before, after = rng.normal(0, 1, 40), people * 2 + rng.normal(0, 0.5, 40)
    write_evaluation(run, "chck_1M", (1, 0), [wugs(people.tolist(), before.tolist())])
    write_evaluation(run, "chck_1M_rl_1k", (1, 1), [wugs(people.tolist(), after.tolist())])
    write_evaluation(run, "chck_1M_rl_2k", (1, 2), [wugs(people[::-1].tolist(), after.tolist())])
    same, other = leaderboard([run]).rows[1:]
    delta = same.cells["wug_adj"].delta
    assert delta is not None
    drawn = rng.integers(0, 40, (400, 40))  # both checkpoints answer the same resampled items
    gains = [_rho(after[row], people[row]) - _rho(before[row], people[row]) for row in drawn]
    low, high = np.quantile(gains, [0.025, 0.975])
    assert delta.value == pytest.approx(_rho(after, people) - _rho(before, people))
    assert [delta.low, delta.high] == pytest.approx([low, high], abs=0.15 * (high - low))
    assert other.cells["wug_adj"].delta is None
    assert other.cells["wug_adj"].not_compared == "other items than in chck_1M"


def test_surprisals_are_compared_word_by_word(tmp_path: Path) -> None:
    run = new_run(tmp_path / "r", ("chck_1M",))
    before = {"dog": [5.0, 7.0], "moon": [9.0, math.nan], "never": [math.nan]}
    after = {"dog": [4.0, 4.0], "moon": [7.0, 9.5], "never": [math.nan]}
    write_evaluation(run, "chck_1M", (1, 0), [surprisals(before)])
    write_evaluation(run, "chck_1M_rl_1k", (1, 1), [surprisals(after)])
    write_evaluation(run, "chck_1M_rl_2k", (1, 2), [surprisals({"dog": [4.0]})])
    same, other = leaderboard([run]).rows[1:]
    delta = same.cells["aoa"].delta
    assert delta is not None
    assert (delta.value, delta.low, delta.high) == pytest.approx((-1.375, -2.0, -0.75))  # of dog -2, of moon -0.75
    assert other.cells["aoa"].not_compared == "other words than in chck_1M"


def test_reading_changes_by_the_same_resampled_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "RESAMPLES", 100)
    data = load_reading(reading_tables.write(tmp_path / "reading_data.csv", reading_tables.rows(sentences=60)))
    count = len(data.words)
    before = [10 + 3 * math.cos(1.1 * i) for i in range(count)]
    after = [
        value + 0.05 * word.numbers["RTgopast"] * i
        for i, (value, word) in enumerate(zip(before, data.words, strict=True))
    ]

    def measured(pred: list[float], seed: int = 42, words: reading.ReadingData = data) -> Suite:
        previous = [math.nan if word.prev_item is None else 5 + math.sin(i) for i, word in enumerate(words.words)]
        return of_outcome("reading", reading.evaluate(words, pred, previous, seed), None)

    fewer = reading.ReadingData(data.words[:-1], data.source)
    run = new_run(tmp_path / "r", ("chck_1M",))
    for number, suite in enumerate(
        [measured(before), measured(after), measured(before), measured(after, 7), measured(after[:-1], words=fewer)]
    ):
        write_evaluation(run, f"chck_1M_rl_{number}k" if number else "chck_1M", (1, number), [suite])
    write_evaluation(run, "chck_1M_rl_9k", (1, 9), [Suite(measured(after).result)])
    found = [row.cells["reading"] for row in leaderboard([run]).rows]
    deltas = [cell.delta for cell in found]
    changed, same = deltas[1:3]
    assert changed is not None
    assert same is not None
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    sentences = cluster_numbers([word.sentence for word in data.words])
    drawn = [np.repeat(np.arange(count), n.astype(int)[sentences]) for n in cluster_counts(60, 42, 100)]
    gains = [_eye_tracking(data, after, rows) - _eye_tracking(data, before, rows) for rows in drawn]
    whole = np.arange(count)
    assert changed.value == pytest.approx(_eye_tracking(data, after, whole) - _eye_tracking(data, before, whole))
    assert [changed.low, changed.high] == pytest.approx(np.quantile(gains, [0.025, 0.975]).tolist(), rel=1e-6)
    assert deltas[3:] == [None] * 3
    other = "other words, or another seed of the resampling, than in chck_1M"
    assert [cell.not_compared for cell in found[3:]] == [
        *(other, other),
        "no resamples.json; measure both again with --again",
    ]


def _eye_tracking(data: reading.ReadingData, surprisals: list[float], rows: IntArray) -> float:
    """The headline of these rows, by plain regressions."""
    numbers = {name: np.array([word.numbers[name] for word in data.words])[rows] for name in reading.NUMBERS}
    baseline = interactions(np.column_stack([numbers[name] for name in reading.CONTROLS]))
    fits = [gain(numbers[name], baseline, np.array(surprisals)[rows]) for name in reading.EYE_TRACKING]
    return 100 * sum(fit.partial_r2 for fit in fits) / 4


def surprisals(by_word: dict[str, list[float]]) -> Suite:
    """Of words in contexts, as the suite aoa writes them."""
    found = [{"target_word": word, "surprisal": value} for word, values in by_word.items() for value in values]
    outcome = SuiteOutcome("here", "surprisal", "nats", {"surprisal": Measure(value=1.0, low=1.0, high=1.0, n=2)})
    return Suite(of_outcome("aoa", outcome, None).result, {"surprisal.json": json.dumps({"results": found})})


def _rho(first: FloatArray, second: FloatArray) -> float:
    return float(scipy.stats.spearmanr(first, second).statistic)
