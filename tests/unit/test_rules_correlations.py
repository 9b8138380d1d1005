"""Rank correlation and its intervals against scipy; the agreement command on a file of its own and on HANNA."""

import json
import math
import random
from pathlib import Path

import pytest
from scipy import stats

from services.teacher.judges.rules import agreement
from services.teacher.judges.rules.correlations import bootstrap, partial_spearman, pearson, ranks, spearman

HANNA = Path(__file__).resolve().parents[3] / "shared" / "data" / "ratings" / "hanna.jsonl"


def draws(seed: int, n: int = 200) -> tuple[list[float], list[float], list[float]]:
    rng = random.Random(seed)
    z = [rng.gauss(0, 1) for _ in range(n)]
    x = [round(a + rng.gauss(0, 1), 1) for a in z]
    y = [round(a + rng.gauss(0, 1), 1) for a in z]
    return x, y, z


def test_correlations_equal_scipys_with_ties() -> None:
    x, y, _ = draws(1)
    assert ranks(x) == pytest.approx(stats.rankdata(x).tolist())
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert pearson([1.0, 1.0], [1.0, 2.0]) == 0.0


def test_partial_correlation_takes_the_common_cause_out() -> None:
    x, y, z = draws(2, 3000)
    assert spearman(x, y) > 0.4
    assert abs(partial_spearman(x, y, z)) < 0.06
    assert partial_spearman(x, x, z) == pytest.approx(1.0)


def test_bootstrap_holds_the_value_and_is_deterministic() -> None:
    x, y, _ = draws(3)
    clusters = [[(a, b)] for a, b in zip(x, y, strict=True)]

    def rho(rows: list[tuple[float, ...]]) -> float:
        return spearman([r[0] for r in rows], [r[1] for r in rows])

    first = bootstrap(clusters, [lambda rows: rho([tuple(r) for r in rows])], rounds=100)
    assert first == bootstrap(clusters, [lambda rows: rho([tuple(r) for r in rows])], rounds=100)
    assert first[0][0] < spearman(x, y) < first[0][1]


def test_the_agreement_command_reads_a_file_and_prints_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    criteria = ("coherence", "surprise", "engagement", "complexity")
    rows = []
    for i in range(60):
        story = " ".join(f"The fox number {k} walked home and sang a song." for k in range(1 + i % 7))
        human = {c: [rng.randint(1, 5) for _ in range(3)] for c in criteria}
        mean = {c: sum(v) / 3 for c, v in human.items()}
        rows.append(
            {
                "prompt": f"p{i % 12}",
                "system": "Human" if i % 3 else "GPT",
                "story": story,
                "human": human,
                "human_mean": mean,
                "llm": {"judge": human},
            }
        )
    path = tmp_path / "ratings.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["agreement", "--ratings", str(path), "--rounds", "20"])
    agreement.main()
    out = capsys.readouterr().out
    assert out.count("| coherence | coherence |") == 3
    assert "judge +1.00" in out
    assert math.isfinite(agreement.one_against_the_rest(agreement.load(path), "coherence"))


@pytest.mark.skipif(
    not HANNA.exists(), reason="needs ../shared/data/ratings/hanna.jsonl beside the checkout (HANNA, MIT)"
)
def test_held_out_human_ratings_agree_beyond_word_count() -> None:
    rated = [r for r in agreement.load(HANNA) if agreement.half(r.prompt) == "test"]
    assert len(rated) == 594
    words = [math.log(max(1, r.words)) for r in rated]
    for ours, theirs in (("coherence", "coherence"), ("creativity", "engagement"), ("creativity", "complexity")):
        partial = partial_spearman([r.rules[ours] for r in rated], [r.human[theirs] for r in rated], words)
        assert partial > 0.12, f"{ours} with {theirs} at equal length: {partial:.2f}"
