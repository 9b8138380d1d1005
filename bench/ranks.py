"""What a second trainer process brings: a student 256 wide is pretrained by one process and by two, in turns.

    .venv/bin/python -m bench.ranks [--processes 1,2] [--rounds 3] [--set student.width=384]

Each process has one thread, so two need two quiet cores. The processes are torchrun's, on this machine, over gloo; both
take the same steps on the same batches, and exchange the gradients once a step. Learning from stories is the same work
with other losses. Tokens a second are those of the steps alone, without start, evaluation losses and checkpoints.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from services.student_trainer import config

SETTINGS = (
    "threads=1",
    "student.width=256",
    "pretrain.word_budget=20000",
    "pretrain.batch_size=16",
    "pretrain.log_every=1",
)


def tokens_a_second(folder: Path, processes: int, overrides: list[str]) -> float:
    """Pretrain in `folder` by `processes`; the median step's rate.

    Raises:
        SystemExit: the run failed; its output says why.
    """
    folder.mkdir(parents=True)
    settings = config.resolve("laptop", [*SETTINGS, *overrides])
    (folder / "run.yaml").write_text(config.dump(settings, folder.name), encoding="utf-8")
    program = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(  # noqa: S603 - our own command
        [*program, "-m", "services.student_trainer", "pretrain", str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{processes} processes ended with {done.returncode}:\n{done.stderr[-2000:]}")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return float(median(line["tokens_per_s"] for line in lines if line["phase"] == "pretrain"))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", default="1,2", help="numbers, with commas between; the first is the measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", dest="overrides", nargs="*", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()
    numbers = [int(number) for number in asked.processes.split(",")]
    found: dict[int, list[float]] = {number: [] for number in numbers}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(asked.rounds):
            for number in numbers:
                found[number].append(tokens_a_second(Path(folder) / f"{turn}-{number}", number, asked.overrides))
                print(f"round {turn + 1}: {number} processes, {found[number][-1]:,.0f} tokens/s", flush=True)
    first = median(found[numbers[0]])
    for number, rates in found.items():
        print(f"{number} processes: {median(rates):,.0f} tokens/s, {median(rates) / first:.2f}x of {numbers[0]}")


if __name__ == "__main__":
    main()
