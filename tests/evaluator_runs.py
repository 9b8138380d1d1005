"""Run folders as the trainer leaves them, for the evaluator's tests."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fabula_proto import EvaluationReport, Measure, PretrainMetrics, StepMetrics, SuiteResult


def pretrain_metrics(run: str, step: int) -> PretrainMetrics:
    """One interval of pretraining."""
    return PretrainMetrics(
        run=run,
        step=step,
        words_seen=100 * step,
        tokens_seen=130 * step,
        loss=2.0 + 3.0 / step,
        learning_rate=1e-3,
        tokens_per_s=9.0,
        seconds=1.0,
    )


def step_metrics(run: str, step: int) -> StepMetrics:
    """One update's line, its score rising with the step."""
    return StepMetrics(
        run=run,
        step=step,
        policy_version=step,
        stories=4,
        verdicts_ok=3,
        verdicts_failed=1,
        score_mean=3.0 + 0.5 * step,
        criteria_mean={"readability": 1.0 + 0.1 * step, "coherence": 2.0},
        reward_mean=0.3 + 0.02 * step,
        story_words_mean=40.0,
        story_tokens_mean=55.0,
        ended_share=0.5,
        kl_coefficient=0.2,
        entropy_mean=3.0,
        ratio_first_pass=1.0,
        explained_variance=0.0,
        passes_skipped=0,
        words_prompt=15,
        words_teacher=12 * (step + 1),
        words_student=160 * (step + 1),
        words_spent=15 + 12 * (step + 1),
        write_s=1.0,
        wait_for_teacher_s=0.5,
        learn_s=1.0,
        seconds=3.0,
        kl_mean=0.2 * step,
        policy_loss=0.1,
        value_loss=0.1,
        approx_kl=0.1,
        clip_fraction=0.1,
        value_clip_fraction=0.1,
        gradient_norm=0.1,
    )


def write_stories_step(folder: Path, run: str, step: int, texts: Sequence[str]) -> None:
    """One Parquet part as the trainer writes it; the last story's verdict failed."""
    last = len(texts) - 1
    numbers = [None if i == last else 1.0 for i in range(len(texts))]
    columns = {
        "run": [run] * len(texts),
        "step": [step] * len(texts),
        "index": list(range(len(texts))),
        "story_id": [f"{step}-{i}" for i in range(len(texts))],
        "policy_version": [step] * len(texts),
        "prompt": ["Once upon a time,"] * len(texts),
        "text": list(texts),
        "words": [len(text.split()) for text in texts],
        "tokens": [len(text.split()) + 1 for text in texts],
        "ended": [True] * len(texts),
        "status": ["failed" if i == last else "ok" for i in range(len(texts))],
        "total": [None if n is None else 3.0 + step for n in numbers],
        "teacher_reward": [None if n is None else 0.4 for n in numbers],
        "reward": [None if n is None else 0.45 for n in numbers],
        "kl": [0.1] * len(texts),
        "flags": [["repetition"] if i == 0 else [] for i in range(len(texts))],
        "reason": ["the teacher was away" if i == last else None for i in range(len(texts))],
        "score_readability": numbers,
        "score_coherence": [None if n is None else 2.0 for n in numbers],
        "teacher_model": ["rules"] * len(texts),
        "worker": ["w"] * len(texts),
    }
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"part-{step:05d}.parquet")


def write_report(folder: Path, run: str, checkpoint: str, accuracy: float, *, spent: int = 0) -> None:
    """A report with three suites measured, one skipped and one failed."""
    measure = Measure(value=accuracy, low=accuracy - 0.05, high=accuracy + 0.05, n=480)
    total = Measure(value=3.0 + 5 * accuracy, low=2.9 + 5 * accuracy, high=3.1 + 5 * accuracy, n=40)
    suites = (
        SuiteResult(
            suite="blimp",
            status="ok",
            source="generated",
            headline="accuracy",
            unit="accuracy",
            measures={"accuracy": measure},
        ),
        SuiteResult(suite="blimp_supplement", status="skipped", source="generated", reason="no folder was given"),
        SuiteResult(suite="entity_tracking", status="failed", source="/data/eval", reason="line 3 is no JSON"),
        SuiteResult(
            suite="storytelling",
            status="ok",
            source="stories",
            headline="total",
            unit="points",
            measures={"total": total},
        ),
        SuiteResult(
            suite="reading",
            status="ok",
            source="/data/eval",
            headline="eye_tracking",
            unit="percent",
            measures={"eye_tracking": Measure(value=1.25, low=0.5, high=2.0, n=1726)},
        ),
    )
    report = EvaluationReport(
        run=run,
        checkpoint=checkpoint,
        path=f"/somewhere/{checkpoint}",
        stage="interact" if spent else "pretrain",
        pretraining_words=1_000_000,
        interaction_words=spent,
        suites=suites,
        seconds=1.0,
        worker="w",
    )
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(report.to_json() + "\n", encoding="utf-8")


def write_run(folder: Path, steps: int, stories: int = 4) -> Path:
    """A run folder as the trainer leaves it after `steps` updates."""
    folder.mkdir(parents=True)
    run = folder.name
    (folder / "run.yaml").write_text("preset: smoke\nseed: 42\ninteract: {prompt: 'Once upon a time,'}\n")
    pretrain = [
        PretrainMetrics(
            run=run,
            step=i,
            words_seen=100 * i,
            tokens_seen=130 * i,
            loss=5.0 - i,
            learning_rate=1e-3,
            tokens_per_s=9.0,
            seconds=1.0,
        )
        for i in (1, 2, 3)
    ]
    lines = [m.to_json() for m in (*pretrain, *(step_metrics(run, i) for i in range(steps)))]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    for step in range(steps):
        texts = [f"Story {i} of step {step}: the fox found a lantern." for i in range(stories)]
        write_stories_step(folder / "stories", run, step, texts)
    for name in ("chck_500k", "chck_1M", "chck_1M_rl_100k", ".building-chck_2M"):
        (folder / "checkpoints" / name).mkdir(parents=True)
    for name in ("chck_500k", "chck_1M"):
        (folder / "checkpoints" / name / "manifest.json").write_text("{}")
    write_report(folder / "evaluations" / "chck_1M", run, "chck_1M", 0.6)
    return folder
