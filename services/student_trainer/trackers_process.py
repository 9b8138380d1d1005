"""`python -m services.student_trainer.trackers_process RUN_DIR TRACKER CLOSE_S`: tells one tracker of one run.

It reads the run's folder and follows it until standard input ends, which the trainer's death brings about as well.
Then it sends the rest, and an alarm ends it when that takes longer than CLOSE_S seconds.
"""

import fcntl
import os
import signal
import sys
import threading
from pathlib import Path

import yaml

from services.student_trainer.trackers_backends import open_tracker, tracking_folder
from services.student_trainer.trackers_lines import Follower, sampled_stories

LOOK_EVERY_S = 1.0


def follow(folder: Path, name: str, ended: threading.Event) -> None:
    """Tell the tracker every line it has not had, until the run has ended. Raises whatever the tracker raises."""
    config = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))
    tracker = open_tracker(name, folder, config.get("tracking", {}).get("project", "fabula"), config)
    follower = Follower(folder / "metrics.jsonl", read_before=tracker.have)
    while True:
        last_look = ended.wait(LOOK_EVERY_S)
        for line in follower.unread():
            tracker.log(line, sampled_stories(folder, line))
        if last_look:
            break
    tracker.finish()


def main(run_dir: str, name: str, close_s: str) -> int:
    """Follow the run; the exit status is 1 where the tracker cannot go on, and the reason is the last line written."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which ends us by our standard input
    ended = threading.Event()

    def wait_for_the_end() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        signal.setitimer(signal.ITIMER_REAL, float(close_s))
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    folder = Path(run_dir)
    try:
        with (tracking_folder(folder) / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the tracker of a trainer that was killed may still be ending
            follow(folder, name, ended)
    except ModuleNotFoundError as error:
        return _failed(f"{error}; install it with: .venv/bin/pip install -c constraints.txt -e '.[tracking]'")
    except Exception as error:  # noqa: BLE001 - the outermost edge, and a tracker may raise anything
        return _failed(f"{type(error).__name__}: {error}")
    return 0


def _failed(why: str) -> int:
    print(" ".join(why.split()), file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stdout.flush()
    # Not sys.exit: what a broken tracker does at exit is no concern of ours, and everything is sent.
    os._exit(status)
