"""What each algorithm makes of the same student at the same words: the `laptop` preset over several seeds.

For each seed one student is pretrained; every algorithm starts from it, learns from the rules judge, and is measured by
that judge on stories written afterwards with random numbers that no run draws: before and after with the same ones.
Gains are averaged over seeds; intervals are 95 % bootstraps over seeds and, within a seed, over pairs of stories.

    python -m bench.algorithms runs/algorithms --seeds 1 2 3
    python -m bench.algorithms runs/rates --seeds 42 --algorithms rloo --set interact.rloo.learning_rate=8e-4

Everything made stays in the folder, and a second call goes on from there. The judge works in the process: the times are
those of writing, judging and learning, without a queue.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from fabula_proto import PretrainMetrics, ScoredBatch, Story, StoryBatch
from services.student_trainer import checkpoints, config
from services.student_trainer.corpus import load_documents
from services.student_trainer.interaction import Watcher, interact
from services.student_trainer.pretraining import pretrain
from services.student_trainer.ranks import Ranks
from services.student_trainer.rollout import write_stories
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.settings import RunSettings
from services.student_trainer.story_queue import Collected
from services.teacher.judges.base import Judge, judge_stories
from services.teacher.judges.build import build_judge
from services.teacher.rubric import load_rubric
from services.teacher.spec import TeacherSpec

ALGORITHMS = ("ppo", "rloo", "grpo", "reinforce++", "bon")
HELD_OUT_STEP = 1 << 20  # no run has so many updates: its random numbers are drawn by no training story
STORIES = 200
RESAMPLES = 4000


class JudgedHere:
    """Verdicts from a judge in this process."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def send(self, batch: StoryBatch) -> None:
        """It is judged when it is collected."""

    def collect(self, batches: Sequence[StoryBatch], timeout_s: float, keep_waiting: Callable[[], None]) -> Collected:
        """See `Verdicts`."""
        return Collected([self._scored(batch) for batch in batches], wait_for_student_s=0.0)

    def forget(self, step: int) -> None:
        """Nothing is kept."""

    def discard(self) -> None:
        """Nothing is kept."""

    def paused(self, since_s: float, until_s: float) -> None:
        """No teacher waits."""

    def _scored(self, batch: StoryBatch) -> ScoredBatch:
        return ScoredBatch(
            run=batch.run,
            step=batch.step,
            chunk=batch.chunk,
            digest=batch.digest,
            verdicts=tuple(judge_stories(self._judge, batch.stories)),
            teacher=self._judge.identity,
            worker="bench",
            seconds=0.0,
        )


def quiet() -> Watcher:
    """Nobody watches."""
    return Watcher(lambda *_: None, lambda _: None, lambda: False)


def settings_of(seed: int, overrides: Sequence[str]) -> RunSettings:
    """The preset under a seed."""
    return config.resolve("laptop", [f"seed={seed}", *overrides])


def pretrained(
    folder: Path,
    settings: RunSettings,
    ranks: Ranks | None = None,
    on_progress: Callable[[PretrainMetrics], None] = lambda _: None,
) -> Path:
    """The student that every algorithm starts from."""
    pretrain(
        folder,
        folder.name,
        settings,
        load_documents(settings.corpus, settings.seed),
        on_progress=on_progress,
        stop=lambda: False,
        on_checkpoint=lambda *_: None,
        ranks=ranks,
    )
    return folder / "checkpoints" / checkpoints.pretrain_name(settings.pretrain.word_budget)


def held_out_scores(checkpoint: Path, settings: RunSettings, judge: Judge) -> list[float]:
    """Total of each of `STORIES` stories; 0 for one that the judge will not score."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, attn_implementation="eager")
    options = settings.interact
    rollout = write_stories(
        model,
        AutoTokenizer.from_pretrained(checkpoint),
        options.prompt,
        seed=settings.seed,
        step=HELD_OUT_STEP,
        indices=range(STORIES),
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
    )
    verdicts = judge_stories(judge, [Story(id=str(i), text=text) for i, text in enumerate(rollout.texts)])
    return [verdict.total or 0.0 for verdict in verdicts]


def taught(folder: Path, start: Path, settings: RunSettings, judge: Judge, before: list[float]) -> dict[str, Any]:
    """One run of one algorithm, or what is kept of it."""
    kept = folder / "result.json"
    if kept.exists():
        result: dict[str, Any] = json.loads(kept.read_text())
        return result
    run = RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run.config.write_text(config.dump(settings, run.run), encoding="utf-8")
    began = time.perf_counter()
    final = interact(run, settings, start, JudgedHere(judge), quiet())
    seconds = time.perf_counter() - began
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    last = [line for line in lines if line["phase"] == "interact"][-1]
    result = {
        "before": before,
        "after": held_out_scores(final, settings, judge),
        "seconds": seconds,
        "words_spent": last["words_spent"],
        "words_student": last["words_student"],
        "kl": last["kl_mean"],
    }
    kept.write_text(json.dumps(result))
    return result


def gain_interval(runs: Sequence[dict[str, Any]]) -> tuple[float, float, float]:
    """Mean gain over seeds, and its interval: seeds are resampled, then pairs of stories within each."""
    rng = np.random.default_rng(0)
    gains = [np.subtract(run["after"], run["before"]) for run in runs]
    drawn = [
        np.mean([rng.choice(gains[seed], len(gains[seed])).mean() for seed in rng.integers(0, len(gains), len(gains))])
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean([gain.mean() for gain in gains])), float(low), float(high)


def row(algorithm: str, runs: Sequence[dict[str, Any]]) -> str:
    """One line of the table."""
    before, after = (np.mean([np.mean(run[name]) for run in runs]) for name in ("before", "after"))
    gain, low, high = gain_interval(runs)
    each = " ".join(f"{np.mean(run['after']) - np.mean(run['before']):+.2f}" for run in runs)
    mean = {name: np.mean([run[name] for run in runs]) for name in ("kl", "words_spent", "words_student", "seconds")}
    cells = [
        *(
            algorithm,
            f"{before:.2f}",
            f"{after:.2f}",
            f"{gain:+.2f} [{low:.2f}, {high:.2f}]",
            each,
            f"{mean['kl']:.1f}",
        ),
        *(f"{mean[name]:,.0f}" for name in ("words_spent", "words_student", "seconds")),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), choices=ALGORITHMS)
    parser.add_argument("--set", dest="overrides", nargs="*", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    judge = build_judge(TeacherSpec.model_validate({"judge": "rules:"}), load_rubric())
    suffix = "".join(f"_{override.replace('/', '-')}" for override in asked.overrides)
    found: dict[str, list[dict[str, Any]]] = {algorithm: [] for algorithm in asked.algorithms}
    for seed in asked.seeds:
        start = pretrained(asked.folder / f"pretrained-{seed}", settings_of(seed, []))
        before = held_out_scores(start, settings_of(seed, []), judge)
        for algorithm in asked.algorithms:
            settings = settings_of(seed, [f"interact.algorithm={algorithm}", *asked.overrides])
            run = taught(asked.folder / f"{algorithm}-{seed}{suffix}", start, settings, judge, before)
            found[algorithm].append(run)
            print(f"seed {seed}: {row(algorithm, [run])}", flush=True)
    print("| algorithm | before | after | gain | each seed | KL | words of input | words written | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for algorithm, runs in found.items():
        print(row(algorithm, runs))


if __name__ == "__main__":
    main()
