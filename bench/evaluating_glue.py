"""GLUE side by side: the pipeline's fine-tuning as its eval_finetuning.sh calls it, and `fabula evaluate`.

The same seed and settings, so the same order of the data and the same dropout. A random model that learns for minutes
often gives every row one class; how often each was predicted is printed, for such rows show little.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from bench.evaluating_process import Seconds, fabula, pipeline, print_times
from services.evaluator.adapters.eval_data.layout import find
from services.evaluator.suites.glue import TASKS, f1

TRAIN_ROWS = 64  # two batches; fewer teach nothing
SEED = "42"

Side = tuple[Seconds, list[int], list[str]]  # predictions by row, printed metrics by line


def compare_glue(options: argparse.Namespace, model: Path, backend: str, work: Path) -> None:
    """Run both sides on each of `options.glue_tasks`, and print what came out."""
    source = find(options.data, "glue")
    for task in options.glue_tasks.split(","):
        if source is None or not (source / f"{task}.train.jsonl").is_file():
            print(f"glue {task}: no data in {options.data}", flush=True)
            continue
        data = _reduced(source, task, work / f"glue-{task}" / "full_eval" / "glue_filtered", options.limit)
        rounds = []
        for _ in range(options.rounds):
            there = _there(options, task, data, model, work)
            rounds.append((there, _here(options, task, data, model, backend, work)))
        (_, there_rows, there_lines), (_, here_rows, here_lines) = rounds[-1]
        equal = sum(a == b for a, b in zip(there_rows, here_rows, strict=True))
        lines = " ".join(here_lines)
        print(f"glue {task}: {len(here_rows)} items; equal predictions {equal}/{len(here_rows)}", end="; ")
        print(f"each class {sorted(Counter(there_rows).items())} times there", end="; ")
        print(f"all printed numbers {'equal' if there_lines == here_lines else 'NOT equal'}: {lines}")
        if there_lines != here_lines:
            print(f"  there: {' '.join(there_lines)}")
        print_times([(theirs[0], ours[0]) for theirs, ours in rounds])


def _reduced(source: Path, task: str, target: Path, limit: int | None) -> Path:
    """The task's two files with their first rows, in the folder `target`."""
    target.mkdir(parents=True)
    for split, least in (("train", TRAIN_ROWS), ("valid", 1)):
        lines = (source / f"{task}.{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        kept = lines if limit is None else lines[: max(limit, least)]
        (target / f"{task}.{split}.jsonl").write_text("".join(kept), encoding="utf-8")
    return target


def _there(options: argparse.Namespace, task: str, data: Path, model: Path, work: Path) -> Side:
    plan, output = TASKS[task], work / f"there-{task}"
    train, valid = (data / f"{task}.{split}.jsonl" for split in ("train", "valid"))
    arguments: list[object] = ["--model_name_or_path", model, "--task", task, "--num_labels", plan.labels]
    arguments += ["--train_data", train, "--valid_data", valid, "--predict_data", valid]
    arguments += ["--batch_size", plan.batch_size, "--num_epochs", options.glue_epochs or plan.epochs]
    arguments += ["--learning_rate", "3e-5", "--sequence_length", 512, "--seed", SEED, "--verbose"]
    arguments += ["--metrics", *plan.measures, "--metric_for_valid", "f1" if plan.metric is f1 else "accuracy"]
    arguments += ["--results_dir", output, "--save", "--save_dir", output / "models"]
    seconds = pipeline(options, "finetune.run", arguments)
    return _side(output / model.stem / "main" / "finetune" / task, task, seconds)


def _here(options: argparse.Namespace, task: str, data: Path, model: Path, backend: str, work: Path) -> Side:
    output = work / f"here-{task}"
    more = {"FABULA_EVALUATOR_GLUE_TASKS": json.dumps([task]), "FABULA_EVALUATOR_SEED": SEED}
    if options.glue_epochs:
        more["FABULA_EVALUATOR_GLUE_EPOCHS"] = str(options.glue_epochs)
    seconds = fabula(options, "glue", data.parent.parent, model, backend, output, **more)
    return _side(output / "glue" / task, task, seconds)


def _side(folder: Path, task: str, seconds: Seconds) -> Side:
    rows = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))[task]["predictions"]
    return seconds, [row["pred"] for row in rows], (folder / "results.txt").read_text(encoding="utf-8").splitlines()
