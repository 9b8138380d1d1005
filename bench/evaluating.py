"""Our evaluator against the official BabyLM 2025 pipeline: same checkpoint, same data, one suite after the other.

    .venv/bin/python -m bench.evaluating --pipeline DIR --pipeline-python PYTHON --data evaluation_data \
        [--model gpt2-small|llama|masked|FOLDER] [--suites blimp,entity_tracking] [--limit 15] [--bf16]

Both run as a user runs them, each suite in a process of its own, with the same number of CPU threads: there
`python -m evaluation_pipeline.sentence_zero_shot.run` (or `reading.run`, `finetune.run`, `AoA_word.run`), here
`fabula evaluate`. Seconds are whole processes, start and loading of the model included; CPU seconds count all threads
and say more where others use the machine. `--limit` takes each file's first rows (of aoa, words), into a temporary
folder. Two suites run only when they are named: `glue`, a process a task (at least 64 rows to learn from; take a
small model: on RTE, a gpt2-small was killed there on 23 GB), and `aoa`, on two checkpoints (bench/evaluating_aoa.py).

DIR is a checkout of github.com/babylm/evaluation-pipeline-2025, PYTHON one with its requirements and transformers 4.51.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bench.evaluating_aoa import compare_aoa
from bench.evaluating_data import all_strings, reduced
from bench.evaluating_glue import compare_glue
from bench.evaluating_models import KINDS, build, readable_by_both
from bench.evaluating_process import Seconds, fabula, pipeline, print_times
from services.evaluator.adapters.checkpoint import LoadedCheckpoint, load_checkpoint
from services.evaluator.adapters.eval_data.layout import find
from services.evaluator.adapters.run_config import read_run_config
from services.evaluator.bench import Bench, make_engine
from services.evaluator.engine import Engine, ItemsDone
from services.evaluator.items import Item
from services.evaluator.progress import unwatched
from services.evaluator.request import EvaluationRequest
from services.evaluator.runners import RUNNERS
from services.evaluator.settings import EvaluatorSettings

SUITES = ("blimp", "blimp_supplement", "ewok", "entity_tracking", "wug_adj", "wug_past", "comps", "reading")
BY_NAME = ("aoa", "glue")
SURPRISAL_TOLERANCE = 1e-3  # nats
NUMBER = re.compile(r"-?\d+\.\d+|nan")

Predictions = dict[str, dict[str, Any]]  # id -> row


@dataclass(frozen=True)
class Result:
    """What one side made of one suite."""

    seconds: Seconds
    report: str
    predictions: Predictions

    def average(self) -> str:
        """The last number of the report, or both of reading's, as printed."""
        numbers = NUMBER.findall(self.report)
        return " ".join(numbers) if "READING" in self.report else numbers[-1]


def read_result(folder: Path, report: str, seconds: Seconds) -> Result:
    """The files of one side."""
    text = (folder / report).read_text(encoding="utf-8")
    grouped = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    rows = {str(row["id"]): row for group in grouped.values() for row in group["predictions"]}
    return Result(seconds, text, rows)


def report_name(suite: str) -> str:
    """The report's file, on both sides."""
    return "report.txt" if suite == "reading" else "best_temperature_report.txt"


def run_there(options: argparse.Namespace, suite: str, data: Path, model: Path, backend: str, work: Path) -> Result:
    """The official pipeline."""
    task = "blimp" if suite == "blimp_supplement" else suite
    output = work / f"there-{suite}"
    place = output / "model" / "main" / "zero_shot" / backend
    if suite == "reading":
        module, command, place = "reading.run", list[object](), place / "reading"
    else:
        module, command = "sentence_zero_shot.run", ["--task", task, "--save_predictions"]
        place = place / task / data.stem
    command += ["--data_path", data, "--model_path_or_name", model, "--backend", backend, "--output_dir", output]
    return read_result(place, report_name(suite), pipeline(options, module, command))


def run_here(
    options: argparse.Namespace, suite: str, data: Path, model: Path, backend: str, work: Path, dtype: str = "float32"
) -> Result:
    """`fabula evaluate`."""
    output = work / f"here-{suite}-{dtype}"
    root = data.parent if suite != "reading" else data.parent.parent
    seconds = fabula(options, suite, root, model, backend, output, FABULA_EVALUATOR_DTYPE=dtype)
    return read_result(output / suite, report_name(suite), seconds)


def unequal(there: Predictions, here: Predictions) -> list[str]:
    """Ids of rows that differ: by what was chosen, or by surprisals further apart than the tolerance."""
    if there.keys() != here.keys():
        raise SystemExit(f"the two sides have other items: {sorted(there.keys() ^ here.keys())[:5]}")
    return [name for name in there if not _same(there[name], here[name])]


def _same(there: dict[str, Any], here: dict[str, Any]) -> bool:
    if not isinstance(there["pred"], float):
        return bool(there["pred"] == here["pred"])
    values = [(there[key], here[key]) for key in ("pred", "prev_pred")]
    # NaN on both sides: there is no word before the first.
    return all((a != a and b != b) or abs(a - b) <= SURPRISAL_TOLERANCE for a, b in values)


class Recorder:
    """Stands where an engine stands, and notes the items that a suite asks about."""

    context = None

    def __init__(self) -> None:
        self.items: list[Item] = []

    def lengths(self, items: Sequence[Item]) -> list[int]:
        """None is too long."""
        return [1] * len(items)

    def score(self, items: Sequence[Item], _done: ItemsDone) -> list[tuple[float, ...]]:
        """All candidates alike."""
        self.items += items
        return [tuple(0.0 for _ in item.candidates) for item in items]


def explain(suite: str, names: Sequence[str], root: Path, loaded: LoadedCheckpoint, threads: int) -> list[str]:
    """For each prediction that differs, its candidates' scores in fp32, best first: ties show."""
    settings = EvaluatorSettings(eval_data=root, torch_threads=threads)
    recorder = Recorder()
    request = EvaluationRequest.from_folder(root)
    RUNNERS[suite](Bench(settings, request, read_run_config(None), loaded, cast(Engine, recorder), unwatched))
    counts: dict[str, int] = {}
    by_id = {}
    for item in recorder.items:
        by_id[f"{item.uid}_{counts.setdefault(item.uid, 0)}"] = item
        counts[item.uid] += 1
    engine = make_engine(loaded, settings.token_budget)
    lines = []
    for name, scores in zip(names, engine.score([by_id[n] for n in names], lambda *_: None), strict=True):
        ordered = sorted(zip(scores, by_id[name].candidates, strict=True), key=lambda pair: -pair[0])
        gap = ordered[0][0] - ordered[1][0]
        texts = " | ".join(candidate.completion for _, candidate in ordered[:2])
        lines.append(f"    {name}: best two differ by {gap:.1e} nats of {ordered[0][0]:.2f}: {texts}")
    return lines


def compare(options: argparse.Namespace, suite: str, model: Path, loaded: LoadedCheckpoint, work: Path) -> None:
    """Run both sides, `rounds` times in turn, and print what came out."""
    source = find(options.data, suite)
    if source is None:
        print(f"{suite}: no data in {options.data}", flush=True)
        return
    data = reduced(source, work / "fast_eval", options.limit)
    root, backend = work / "fast_eval", loaded.backend
    rounds = []
    for _ in range(options.rounds):
        there = run_there(options, suite, data, model, backend, work)
        rounds.append((there, run_here(options, suite, data, model, backend, work)))
    there, here = rounds[-1]
    wrong = unequal(there.predictions, here.predictions)
    total = len(there.predictions)
    same_report = sorted(there.report.splitlines()) == sorted(here.report.splitlines())
    print(f"{suite}: {total} items; equal predictions {total - len(wrong)}/{total}", end="; ")
    print(f"average {there.average()} there, {here.average()} here", end="; ")
    print(f"all printed numbers {'equal' if same_report else 'NOT equal'}")
    print_times([(first.seconds, second.seconds) for first, second in rounds])
    if wrong and suite != "reading":
        print("\n".join(explain(suite, wrong, root, loaded, options.threads)))
    if options.bf16:
        changed = run_here(options, suite, data, model, backend, work, "bfloat16")
        differing = unequal(here.predictions, changed.predictions)
        print(f"  bfloat16: {len(differing)}/{total} predictions differ from fp32", end="; ")
        print(f"average {changed.average()}; wall {changed.seconds[0]:.1f} s, CPU {changed.seconds[1]:.1f} s")
    sys.stdout.flush()


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", type=Path, required=True, help="checkout of the official pipeline")
    parser.add_argument("--pipeline-python", type=Path, required=True, help="Python with its requirements")
    parser.add_argument("--data", type=Path, required=True, help="folder in the evaluation_data layout")
    parser.add_argument("--model", default="gpt2-small", help=f"a checkpoint, or a random model: {', '.join(KINDS)}")
    parser.add_argument("--vocab", type=int, default=16_000, help="embeddings of a random model")
    parser.add_argument("--backend", default="auto", choices=("auto", "causal", "mlm", "mntp"))
    parser.add_argument("--suites", default=",".join(SUITES), help="with commas between")
    parser.add_argument("--limit", type=int, help="rows of each data file")
    parser.add_argument("--glue-tasks", default="rte,mrpc,wsc", help="with commas between")
    parser.add_argument("--glue-epochs", type=int, help="the pipeline's, 10 and 30 for wsc, where none are given")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of both")
    parser.add_argument("--rounds", type=int, default=1, help="there, here, there, here, ...")
    parser.add_argument("--bf16", action="store_true", help="ours again in bfloat16")
    options = parser.parse_args()
    suites = options.suites.split(",")
    if unknown := sorted(set(suites) - {*SUITES, *BY_NAME}):
        parser.error(f"unknown suites {unknown}; known are {', '.join((*SUITES, *BY_NAME))}")
    with tempfile.TemporaryDirectory() as name:
        work, given = Path(name), Path(options.model)
        if options.model in KINDS:
            given = work / "random"
            build(given, options.model, options.vocab, all_strings(options.data, SUITES))
        model = readable_by_both(given, work / "model")
        loaded = load_checkpoint(model, "cpu", backend=options.backend)
        parameters = sum(p.numel() for p in loaded.model.parameters())
        print(f"{options.model}: {parameters:,} parameters, vocabulary {len(loaded.tokenizer)}", end=", ")
        print(f"backend {loaded.backend}, {options.threads} threads, fp32", flush=True)
        for suite in suites:
            if suite == "glue":
                compare_glue(options, model, loaded.backend, work)
            elif suite == "aoa":
                compare_aoa(options, model, loaded, work)
            else:
                compare(options, suite, model, loaded, work)


if __name__ == "__main__":
    main()
