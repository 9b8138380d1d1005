"""When guards raise an alarm: once while something stays bad, again when it came back, the same after a restart."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula_proto import Alarm, CanaryCheck, HeldOutCheck, TeacherIdentity, Watch
from services.student_trainer import config
from services.student_trainer.guard_settings import GuardsSettings
from services.student_trainer.guards.guards import read_history
from services.student_trainer.guards.readings import Seen
from services.student_trainer.guards.rules import raised
from tests.evaluator_runs import step_metrics

RULES = TeacherIdentity(
    backend="rules", model="paper", revision="1", rubric="paper", rubric_version="1", rubric_hash="0" * 12, mode="rules"
)
LLAMA = RULES.model_copy(update={"backend": "transformers", "model": "llama"})


def update(
    step: int,
    *,
    repetition: float = 0.0,
    distinct: float = 0.7,
    length: float | None = 0.0,
    spread: float = 0.5,
    kl: float = 1.0,
    failed: int = 0,
    teachers: tuple[TeacherIdentity, ...] = (LLAMA,),
    held_out: HeldOutCheck | None = None,
    canaries: CanaryCheck | None = None,
) -> Seen:
    watch = Watch(
        repetition=repetition,
        distinct_bigrams=distinct,
        length_slope=0.01,
        length_correlation=length,
        criteria_spread={"readability": spread, "creativity": 0.5},
        teachers=teachers,
        held_out=held_out,
        canaries=canaries,
    )
    return Seen(step=step, stories=100, verdicts_failed=failed, kl_mean=kl, watch=watch)


def checked(training: float, held_out: float, teacher: TeacherIdentity = RULES, variance: float = 0.0) -> HeldOutCheck:
    return HeldOutCheck(
        teacher=teacher,
        stories=10,
        failed=0,
        training_mean=training,
        held_out_mean=held_out,
        gap_mean=training - held_out,
        gap_variance=variance,
    )


def sung(reward: float | None, teacher: TeacherIdentity = LLAMA) -> CanaryCheck:
    return CanaryCheck(teacher=teacher, rewards={"good": reward, "empty": 0.0})


def guards(**blocks: dict[str, object]) -> GuardsSettings:
    return GuardsSettings.model_validate(blocks)


def alarms(history: Sequence[Seen], options: GuardsSettings) -> list[Alarm]:
    """All that a run with this history raised, update by update."""
    return [alarm for end in range(1, len(history) + 1) for alarm in raised("r", history[:end], options)]


def names(history: Sequence[Seen], options: GuardsSettings) -> list[tuple[int, str]]:
    return [(alarm.step, alarm.guard) for alarm in alarms(history, options)]


def test_a_mean_over_the_window_must_pass_and_stays_one_alarm() -> None:
    shares = [0.0, 0.4, 0.4, 0.4, 0.4, 0.0, 0.0, 0.0, 0.0, 0.4, 0.4]
    history = [update(i, repetition=share) for i, share in enumerate(shares)]
    options = guards(repetition={"window": 2, "threshold": 0.3, "action": "stop"})
    # Means of two: 0.2 0.4 0.4 0.4 0.2 0 0 0 0.2 0.4. The second alarm comes after two quiet looks.
    found = alarms(history, options)
    assert [(alarm.step, alarm.guard, alarm.action) for alarm in found] == [
        (2, "repetition", "stop"),
        (10, "repetition", "stop"),
    ]
    assert found[0].value == pytest.approx(0.4)
    assert found[0].threshold == 0.3
    assert "40% of word trigrams" in found[0].message


def test_what_is_far_past_its_limit_does_not_wait_for_the_window() -> None:
    """Updates that the window lacks count as 0: 594 nats are 119 over five, past 25; 100 are 20 at first, then 40."""
    assert names([update(i, kl=594.0) for i in range(4)], guards()) == [(0, "kl")]
    found = alarms([update(i, kl=100.0) for i in range(4)], guards())
    assert [(alarm.step, alarm.value) for alarm in found] == [(1, 40.0)]
    assert found[0].message == (
        "the student is 40 nats a story from its reference, mean of 5 updates, of which 3 are still to come and count "
        "as 0; the limit is 25"
    )
    whole = alarms([update(i, kl=26.0) for i in range(9)], guards())
    assert [alarm.message.partition(", ")[2] for alarm in whole] == ["mean of 5 updates; the limit is 25"]


def test_what_flickers_is_one_alarm() -> None:
    history = [update(i, repetition=0.0 if i % 4 else 0.9) for i in range(1, 14)]
    # Means of three: 0.3 for three updates, then 0 for one.
    assert names(history, guards(repetition={"window": 3, "threshold": 0.2})) == [(4, "repetition")]


@pytest.mark.parametrize(
    ("guard", "bad", "good"),
    [
        ("kl", {"kl": 30.0}, {"kl": 24.0}),
        ("length", {"length": 0.9}, {"length": 0.8}),
        ("length", {"length": 0.9}, {"length": None}),
        ("failed", {"failed": 3}, {"failed": 1}),
        ("repetition", {"repetition": 0.3}, {"repetition": 0.2}),
        ("zero_variance", {"spread": 0.001}, {"spread": 0.01}),
    ],
)
def test_each_guard_at_its_default(guard: str, bad: dict[str, float], good: dict[str, float]) -> None:
    ((step, raised_by),) = names([update(i, **bad) for i in range(9)], guards())  # type: ignore[arg-type]
    assert (step, raised_by) == (3 if guard == "failed" else 4, guard)  # 12 of 500 stories are past 2 %
    assert names([update(i, **good) for i in range(9)], guards()) == []  # type: ignore[arg-type]


def test_distinct_bigrams_are_compared_with_the_first_updates() -> None:
    shares = [0.8, 0.6, 0.5, 0.4, 0.2, 0.2]
    found = alarms([update(i, distinct=s) for i, s in enumerate(shares)], guards(distinct={"window": 2}))
    assert [(alarm.step, alarm.guard) for alarm in found] == [(4, "distinct")]
    assert found[0].value == pytest.approx(0.3 / 0.7)


def test_flat_criteria_are_named_each_with_its_value() -> None:
    (alarm,) = alarms([update(i, spread=0.0) for i in range(5)], guards())
    assert alarm.message.startswith("readability varies by 0 levels within a batch")
    assert alarm.value == 0.0
    (alarm,) = alarms([update(i, spread=0.25) for i in range(5)], guards(zero_variance={"threshold": 0.6}))
    assert alarm.message == (
        "creativity varies by 0.5 levels, readability varies by 0.25 levels within a batch (standard deviation, mean "
        "of 5 updates; the limit is 0.6): the less a criterion varies, the less is learned from it"
    )
    assert alarm.value == 0.25


def test_teachers_that_part() -> None:
    options = guards(held_out={"teacher": "rules", "window": 2, "threshold": 0.1, "action": "pause"})
    scores = [(0.2, 0.2), (0.2, 0.2), (0.3, 0.3), (0.5, 0.35), (0.6, 0.35), (0.7, 0.3)]
    history = [update(i, held_out=checked(*pair)) for i, pair in enumerate(scores)]
    # Gaps: 0 0 0 .15 .25 .4. Means of the last two against the first: .075 at 3, .2 at 4.
    (alarm,) = alarms(history, options)
    assert (alarm.step, alarm.guard, alarm.action) == (4, "held_out", "pause")
    assert alarm.value == pytest.approx(0.2)
    assert "changed by +0.350, and that of rules" in alarm.message
    noisy = [update(i, held_out=checked(*pair, variance=0.1)) for i, pair in enumerate(scores)]
    assert names(noisy, options) == [
        (5, "held_out")
    ]  # 1.96 * sqrt(0.1 / 10 * 1.5) is 0.24: more than 0.2, not than 0.325
    both = [update(i, held_out=checked(i / 10, i / 10)) for i in range(8)]
    assert names(both, options) == []


def test_the_training_teacher_is_no_held_out_teacher() -> None:
    """It could never part from itself, and would look on in silence."""
    (alarm,) = alarms(
        [update(i, held_out=checked(0.5, 0.5, teacher=LLAMA)) for i in range(3)], guards(held_out={"teacher": "x"})
    )
    assert (alarm.step, alarm.guard, alarm.value) == (0, "held_out", None)
    assert "is the one that the student learns from" in alarm.message


def test_another_held_out_teacher_is_a_new_beginning() -> None:
    options = guards(held_out={"teacher": "x", "window": 1, "threshold": 0.1})
    other = RULES.model_copy(update={"model": "other"})
    history = [update(0, held_out=checked(0.5, 0.5)), update(1, held_out=checked(0.5, 0.1, teacher=other))]
    assert names(history, options) == []
    history.append(update(2, held_out=checked(0.5, 0.1)))
    assert names(history, options) == [], "nor does it go on where it was before"
    history.append(update(3, held_out=checked(0.9, 0.1)))
    assert names(history, options) == [(3, "held_out")]


def test_a_check_that_compares_nothing_is_an_alarm() -> None:
    nothing = HeldOutCheck(teacher=RULES, stories=0, failed=10, reason="no teacher has the name 'nobody'")
    history = [update(i, held_out=nothing if i >= 2 else checked(0.5, 0.5)) for i in range(6)]
    (alarm,) = alarms(history, guards(held_out={"teacher": "nobody"}))
    assert (alarm.step, alarm.value) == (2, None)
    assert alarm.message.endswith("compares nothing: no teacher has the name 'nobody'")


def test_a_teacher_that_drifts_and_one_that_changes() -> None:
    history = [update(0, canaries=sung(0.8)), update(1), update(2, canaries=sung(0.72)), update(3, canaries=sung(0.6))]
    (alarm,) = alarms(history, guards())
    # |0.6 - 0.8| and 0 of the empty one: 0.1 on average, past 0.05; |0.72 - 0.8| / 2 is not.
    assert (alarm.step, alarm.guard) == (3, "canaries")
    assert alarm.value == pytest.approx(0.1)
    assert "those of update 0" in alarm.message
    history += [
        update(4, teachers=(RULES,), canaries=sung(0.2, RULES)),
        update(5, teachers=(RULES,), canaries=sung(0.2, RULES)),
        update(6, teachers=(RULES,), canaries=sung(0.5, RULES)),
    ]
    assert names(history, guards()) == [(3, "canaries"), (4, "teacher"), (6, "canaries")]
    changed = alarms(history, guards())[1]
    assert "judged by rules:paper" in changed.message
    assert "the one before by transformers:llama" in changed.message


def test_canaries_without_any_verdict_are_no_reference() -> None:
    mute = CanaryCheck(teacher=LLAMA, rewards={"good": None, "empty": None})
    history = [update(0, canaries=mute), update(1, canaries=sung(0.8)), update(2, canaries=mute)]
    assert names([*history, update(3, canaries=sung(0.8))], guards()) == []


def test_settings_are_partial_closed_and_no_part_of_the_result() -> None:
    plain = config.resolve("smoke")
    stopping = config.resolve("smoke", ["interact.guards.kl.action=stop", "interact.guards.held_out.teacher=rules"])
    assert stopping.interact.guards.kl.threshold == plain.interact.guards.kl.threshold
    assert stopping.hash == plain.hash
    with pytest.raises(config.ConfigError, match=r"interact\.guards\.kl\.limit is no setting"):
        config.resolve("smoke", ["interact.guards.kl.limit=3"])
    replayed = stopping.interact.guards.for_replay()
    assert (replayed.held_out.teacher, replayed.canaries.every) == (None, None)
    assert {getattr(replayed, name).action for name in type(replayed).model_fields} == {"note"}


numbers = st.floats(0.0, 1.0)
history_of = st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=12)


@settings(deadline=None, max_examples=30)
@given(history_of)
def test_a_run_that_was_killed_raises_the_same_alarms(
    tmp_path_factory: pytest.TempPathFactory, looks: list[tuple[float, ...]]
) -> None:
    """What is read back from metrics.jsonl is what was seen, to the last bit."""
    options = guards(held_out={"teacher": "rules", "window": 1, "threshold": 0.0}, distinct={"window": 1})
    history = [
        update(i, repetition=a, distinct=b, length=c, held_out=checked(c, d), canaries=sung(d))
        for i, (a, b, c, d) in enumerate(looks)
    ]
    lines = [
        step_metrics("r", seen.step).model_copy(
            update={"watch": seen.watch, "kl_mean": 1.0, "stories": 100, "verdicts_failed": 0}
        )
        for seen in history
    ]
    path = Path(tmp_path_factory.mktemp("run")) / "metrics.jsonl"
    written = [line.to_json() for line in lines] + [alarm.to_json() for alarm in alarms(history, options)]
    path.write_text("".join(f"{line}\n" for line in [step_metrics("r", 0).to_json(), *written]))
    assert read_history(path) == history
    assert alarms(read_history(path), options) == alarms(history, options)
