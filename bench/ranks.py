"""What a second trainer process brings, in speed and in memory: one process and two, in turns.

    .venv/bin/python -m bench.ranks [--phase interact] [--processes 1,2,2d] [--rounds 3] [--set student.width=384]

`2d` are two that divide weights, gradients and optimiser state between them (FSDP: `pretrain.shard`, `interact.shard`).
Each process has one thread, so two need two quiet cores. They are torchrun's, on this machine, over gloo, and take the
same steps on the same batches. Pretraining: tokens a second, of the steps alone, without start, evaluation losses and
checkpoints. Interaction: stories a second written and learned from by PPO, with the rules judge in the process and its
time left out. Memory: the main process's largest resident size up to the last update, Python and torch included; where
they divide it gathers 12 bytes a parameter more when it saves.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.ranks_worker import PEAK
from services.student_trainer import checkpoints, config
from services.student_trainer.corpus import load_documents
from services.student_trainer.settings import RunSettings
from services.student_trainer.student import build_student
from services.student_trainer.tokenizer import train_tokenizer

SETTINGS = (
    "threads=1",
    "student.width=256",
    "pretrain.word_budget=20000",
    "pretrain.batch_size=16",
    "pretrain.log_every=1",
    "interact.batch_size=32",
    "interact.chunk_size=16",
    "interact.word_budget=700",
    "interact.checkpoint_every_words=1000000",
)


@dataclass(frozen=True)
class Kind:
    """How many processes, and whether they divide the student."""

    processes: int
    divided: bool

    @classmethod
    def parse(cls, text: str) -> "Kind":
        """`2`, or `2d`."""
        return cls(int(text.removesuffix("d")), text.endswith("d"))

    def __str__(self) -> str:
        return f"{self.processes} process{'es' if self.processes > 1 else ''}{', divided' if self.divided else ''}"


@dataclass(frozen=True)
class Found:
    """Tokens or stories a second at the median step, and the main process's bytes."""

    rate: float
    peak: int


def random_start(folder: Path, settings: RunSettings) -> Path:
    """A student that has read nothing, as a checkpoint to interact from."""
    corpus = load_documents(settings.corpus, settings.seed)
    tokenizer = train_tokenizer(corpus.train, settings.tokenizer)
    return checkpoints.save(
        folder / checkpoints.pretrain_name(settings.pretrain.word_budget),
        build_student(settings.student, tokenizer, settings.seed),
        tokenizer,
        state={},
        facts={"stage": "pretrain", "pretraining_words": 0, "interaction_words": 0, "step": 0},
    )


def measure(folder: Path, kind: Kind, phase: str, start: Path | None, overrides: list[str]) -> Found:
    """Train in `folder`; interact from `start`.

    Raises:
        SystemExit: the run failed; its output says why.
    """
    folder.mkdir(parents=True)
    settings = config.resolve("laptop", [*SETTINGS, f"{phase}.shard={str(kind.divided).lower()}", *overrides])
    (folder / "run.yaml").write_text(config.dump(settings, folder.name), encoding="utf-8")
    program = [str(Path(sys.executable).with_name("torchrun")), "--standalone", f"--nproc-per-node={kind.processes}"]
    done = subprocess.run(  # noqa: S603 - our own command
        [*program, "-m", "bench.ranks_worker", str(folder), phase, *([] if start is None else [str(start)])],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{kind} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if line["phase"] == phase]
    if phase == "pretrain":
        rates = [line["tokens_per_s"] for line in steps]
    else:
        rates = [settings.interact.batch_size / (line["write_s"] + line["learn_s"]) for line in steps]
    return Found(float(median(rates)), int((folder / PEAK).read_text(encoding="utf-8")))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phase", choices=("pretrain", "interact"), default="pretrain")
    parser.add_argument("--processes", default="1,2", help="with commas between; the first is the measure; 2d: divided")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", dest="overrides", nargs="*", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()
    unit = "tokens/s" if asked.phase == "pretrain" else "stories/s"
    found: dict[Kind, list[Found]] = {Kind.parse(text): [] for text in asked.processes.split(",")}
    with tempfile.TemporaryDirectory() as folder:
        start = None
        if asked.phase == "interact":
            start = random_start(Path(folder), config.resolve("laptop", [*SETTINGS, *asked.overrides]))
        for turn in range(asked.rounds):
            for kind, results in found.items():
                results.append(measure(Path(folder) / f"{turn}-{kind}", kind, asked.phase, start, asked.overrides))
                print(f"round {turn + 1}: {kind}, {results[-1].rate:,.2f} {unit}", flush=True)
    first = median(result.rate for result in next(iter(found.values())))
    for kind, results in found.items():
        rate, peak = median(r.rate for r in results), median(r.peak for r in results)
        print(f"{kind}: {rate:,.2f} {unit}, {rate / first:.2f}x; {peak / 1e6:,.0f} MB at most")


if __name__ == "__main__":
    main()
