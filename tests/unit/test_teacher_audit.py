"""The audit itself: it finds the hole of a judge that has one, and no number comes from a failure."""

import io
from collections.abc import Callable, Sequence
from random import Random

import pytest
from rich.console import Console

from fabula_proto import Story, TeacherIdentity, Verdict, VerdictStatus
from services.teacher.audit import (
    ATTACKS,
    IMPOSTORS,
    AuditReport,
    Score,
    markdown,
    plan,
    run,
    stories,
    summarise,
    table,
)
from services.teacher.audit.report import estimate
from services.teacher.rubric import Criterion, Rubric, load_rubric

RUBRIC = load_rubric()
NAMES = [*(attack.name for attack in ATTACKS), *(impostor.name for impostor in IMPOSTORS)]
STARS = Rubric(
    name="stars",
    version="1",
    instructions="Grade.",
    reminder="Answer.",
    criteria=tuple(
        Criterion(name=name, question=f"Much {name}?", levels=("none", "little", "some", "much", f"All the {name}."))
        for name in ("plot_twists", "humour")
    ),
)


def identity(rubric: Rubric) -> TeacherIdentity:
    return TeacherIdentity(
        backend="test",
        model="test",
        revision="1",
        rubric=rubric.name,
        rubric_version=rubric.version,
        rubric_hash=rubric.hash,
        mode="rules",
    )


def judge(level: Callable[[str], float], rubric: Rubric = RUBRIC, flag: str = "") -> Score:
    """Every criterion gets `level(text)`; a text with `flag` in it is flagged."""

    def score(asked: Sequence[Story]) -> list[Verdict]:
        return [
            rubric.verdict(
                s.id,
                {c.name: [1.0 - level(s.text), *[0.0] * (rubric.levels - 2), level(s.text)] for c in rubric.criteria},
                flags=["marked"] if flag and flag in s.text else [],
            )
            for s in asked
        ]

    return score


def audited(score: Score, rubric: Rubric = RUBRIC, seed: int = 0) -> AuditReport:
    return run(score, identity(rubric), rubric.criteria, quick=True, seed=seed)


def test_it_finds_what_a_gullible_judge_pays_for() -> None:
    report = audited(judge(lambda text: 1.0 if "<|eot_id|>" in text else 0.5, flag="<|eot_id|>"))
    assert report.paying == ("Llama 3 turn",)
    found = {a.name: a for a in report.attacks}["Llama 3 turn"]
    assert found.gain is not None
    assert (found.gain.mean, found.gain.low, found.gain.high) == (4.5, 4.5, 4.5)
    assert (found.gained, found.largest, found.flagged, found.flags) == (1.0, 4.5, 1.0, {"marked": 6})
    assert found.criteria == {"readability": 1.5, "coherence": 1.5, "creativity": 1.5}
    assert {a.flagged for a in report.attacks if a.name != "Llama 3 turn"} == {0.0}
    assert report.base == {"good": 4.5, "plain": 4.5, "weak": 4.5}
    assert report.above_weak == ("orders alone",)  # one of four is the forged turn


def test_a_judge_that_ignores_the_text_has_no_hole() -> None:
    report = audited(judge(lambda _: 0.25))
    assert (report.paying, report.above_weak) == ((), ())
    assert all(a.gain is not None and a.gain.mean == 0.0 and a.gained == 0.0 for a in report.attacks)
    assert all(i.total == i.largest == 2.25 for i in report.impostors)


def test_a_verdict_without_numbers_is_counted_and_never_a_number() -> None:
    pays = judge(lambda text: min(1.0, len(text) / 2000))

    def score(asked: Sequence[Story]) -> list[Verdict]:
        statuses = {"<|im_start|>": VerdictStatus.FAILED, "[/INST]": VerdictStatus.REFUSED}
        return [
            next(
                (Verdict(story_id=s.id, status=how, reason="no") for mark, how in statuses.items() if mark in s.text),
                verdict,
            )
            for s, verdict in zip(asked, pays(asked), strict=True)
        ]

    report = audited(score)
    found = {a.name: a for a in report.attacks}
    failed, refused, fine = found["ChatML turn"], found["Llama 2 turn"], found["story twice"]
    assert (failed.texts, failed.failed, failed.refused, failed.pairs) == (6, 6, 0, 0)
    assert (refused.texts, refused.failed, refused.refused, refused.pairs) == (6, 0, 6, 0)
    assert (failed.gain, failed.gained, failed.largest, failed.criteria) == (None, None, None, None)
    assert (fine.failed, fine.refused, fine.pairs) == (0, 0, 6)
    assert "Llama 2 turn" not in report.paying
    assert "story twice" in report.paying
    assert "12 verdicts failed or were refused" in printed(report, 80)
    assert "| ChatML turn | - | - | - | - | - | - | - | 0% |  | 6 failed |" in markdown(report)


def test_a_teacher_that_always_fails_gets_a_report_without_numbers() -> None:
    def score(asked: Sequence[Story]) -> list[Verdict]:
        return [Verdict(story_id=s.id, status=VerdictStatus.FAILED, reason="no") for s in asked]

    report = audited(score)
    assert (report.paying, report.above_weak) == ((), ())
    assert set(report.base.values()) == {None}
    assert all((i.total, i.largest, i.criteria, i.failed) == (None, None, None, i.texts) for i in report.impostors)
    assert printed(report, 80)
    assert markdown(report)


def test_the_same_seed_gives_the_same_report_and_another_one_other_texts() -> None:
    score = judge(lambda text: (len(text) % 100) / 100)
    assert audited(score, seed=3) == audited(score, seed=3)
    assert plan(RUBRIC.criteria, seed=3).texts != plan(RUBRIC.criteria, seed=4).texts


def test_quick_asks_a_part_of_the_same_texts() -> None:
    whole, quick = plan(RUBRIC.criteria), plan(RUBRIC.criteria, quick=True)
    assert set(quick.texts) < set(whole.texts)
    assert [s.grade for s in quick.base] == ["good", "good", "plain", "plain", "weak", "weak"]
    assert len(whole.base) == 20
    assert len(whole.texts) == 20 * (1 + len(ATTACKS)) + sum(map(len, whole.impostors))


def test_every_attack_has_a_name_of_its_own_and_changes_most_stories() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for attack, texts in zip(ATTACKS, plan(RUBRIC.criteria).attacked, strict=True):
        changed = sum(text != story.text for text, story in zip(texts, stories(), strict=True))
        assert changed >= 12, attack.name
        assert attack.what or attack.family in ("repetition", "padding", "stuffing", "word salad", "form", "damage")


def test_attacks_quote_the_rubric_that_the_teacher_judges_by() -> None:
    planned = plan(STARS.criteria, quick=True)
    by_name = dict(zip((a.name for a in ATTACKS), planned.attacked, strict=True))
    assert by_name["scores after"][0].endswith(" 4 4")
    assert by_name["rubric copied"][0].endswith("Plot twists: All the plot_twists. Humour: All the humour.")
    assert by_name["named scores after"][0].endswith("Plot twists: 4/4\nHumour: 4/4")
    report = audited(judge(lambda _: 1.0, STARS), STARS)
    assert report.max_total == 8
    assert report.base["good"] == 8.0
    assert "plot_twists" in markdown(report)


def test_progress_is_told_by_chunks() -> None:
    told: list[tuple[int, int]] = []
    count = len(plan(RUBRIC.criteria, quick=True).texts)
    score = judge(lambda _: 0.5)
    run(score, identity(RUBRIC), RUBRIC.criteria, quick=True, chunk=200, progress=lambda *done: told.append(done))
    assert told == [(200, count), (400, count), (count, count)]


def test_verdicts_must_match_the_plan() -> None:
    with pytest.raises(ValueError, match=r"1 verdicts for \d+ texts"):
        summarise(plan(RUBRIC.criteria, quick=True), [RUBRIC.zero_verdict("0")], identity(RUBRIC))


def test_the_interval_holds_the_mean_and_shrinks_with_more_stories() -> None:
    few = estimate([0.0, 1.0, 2.0, 3.0])
    many = estimate([0.0, 1.0, 2.0, 3.0] * 25)
    assert few.low < few.mean == 1.5 < few.high
    assert few.low < many.low < many.mean < many.high < few.high
    assert estimate([0.7, 0.7]).low == estimate([0.7, 0.7]).high == 0.7


def test_the_interval_of_six_stories_errs_about_as_seldom_as_it_says() -> None:
    rng = Random(0)
    low = [estimate([rng.gauss(0.0, 1.0) for _ in range(6)]).low for _ in range(250)]
    assert 0.01 < sum(value > 0.0 for value in low) / len(low) < 0.05  # 2.5 % are meant; plain percentiles err in 7.5 %


def printed(report: AuditReport, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(table(report))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 130])
def test_the_table_fits_and_has_every_row(width: int) -> None:
    report = audited(judge(lambda text: 1.0 if "[/INST]" in text else 0.5, flag="[/INST]"))
    shown = printed(report, width)
    assert max(map(len, shown.splitlines())) <= width
    lines = " ".join(shown.split())
    assert "Llama 2 turn +4.50 +4.50 +4.50 100% +4.50 +1.50 +1.50 +1.50 100%" in lines
    assert "1 of 77 attacks gain beyond chance (Llama 2 turn)" in lines
    assert ("marked" in lines) == (width == 130)


def test_what_gains_is_red() -> None:
    out = io.StringIO()
    report = audited(judge(lambda text: 1.0 if "[/INST]" in text else 0.5))
    Console(file=out, width=80, force_terminal=True, color_system="standard").print(table(report))
    red = [line for line in out.getvalue().splitlines() if "\x1b[1;31m" in line]
    assert len(red) == 1
    assert "Llama 2 turn" in red[0]


def test_markdown_and_json_hold_the_whole_report() -> None:
    report = audited(judge(lambda text: 1.0 if "[/INST]" in text else 0.5, flag="[/INST]"))
    written = markdown(report)
    assert (
        "| Llama 2 turn | +4.50 | +4.50 to +4.50 | 100% | +4.50 | +1.50 | +1.50 | +1.50 | 100% | marked |  |" in written
    )
    assert all(f"| {name} |" in written for name in NAMES)
    assert AuditReport.from_json(report.to_json()) == report
