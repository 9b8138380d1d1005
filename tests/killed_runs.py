"""`python -m tests.killed_runs RUN_DIR REDIS_URL KILLS SEED LINES`: a trainer, killed again and again, then left alone.

The trainer runs as its command does, in a fork of a process that has loaded everything: a start costs nothing, and
there is time for many kills. Kills spread over the run: the k-th comes a random moment after metrics.jsonl has grown to
k / (KILLS + 1) of the LINES that an untouched run writes. With KILLS 0 nothing is killed.

Prints JSON: how many kills met a trainer that was still at work, and the exit status of the last one.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path


def forked(run_dir: Path, redis_url: str) -> int:
    """Start the trainer in a fork; its process id."""
    pid = os.fork()
    if pid:
        return pid
    log = os.open(run_dir.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 99
    try:
        from services.student_trainer.__main__ import app

        app(["run", str(run_dir), "--redis-url", redis_url, "--progress", "plain"])
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        os._exit(status)


def finished(pid: int) -> bool:
    """Whether the process has ended by itself; it is then gone for good."""
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def killed_at(pid: int, metrics: Path, lines: float, delay_s: float) -> bool:
    """Kill the process once metrics.jsonl has so many lines and the delay is over; whether it was still there."""
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < lines:
        if finished(pid):
            return False
        if lines == 0:
            break
        time.sleep(0.002)
    time.sleep(delay_s)
    if finished(pid):
        return False
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def main() -> None:
    """See the module."""
    run_dir, redis_url, kills, seed, lines = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
    # Everything that a trainer loads, before the first fork; threads of torch do not survive a fork, so there is one.
    import accelerate  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    import services.student_trainer.run
    import services.student_trainer.trackers  # noqa: F401

    rng = random.Random(seed)
    hits = 0
    for kill in range(kills):
        pid = forked(run_dir, redis_url)
        hits += killed_at(pid, run_dir / "metrics.jsonl", kill * lines / (kills + 1), rng.uniform(0.0, 0.25))
    status = os.waitstatus_to_exitcode(os.waitpid(forked(run_dir, redis_url), 0)[1])
    print(json.dumps({"hits": hits, "status": status}))


if __name__ == "__main__":
    main()
