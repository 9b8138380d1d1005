"""One process of those that `bench.ranks` has torchrun start: pretrains or interacts; the main one says its memory.

python -m bench.ranks_worker FOLDER pretrain|interact [START]
"""

import resource
import sys
from pathlib import Path

from bench.algorithms import JudgedHere, pretrained
from fabula_proto.allocator import keep_freed_memory
from services.student_trainer import config
from services.student_trainer.interaction import Watcher, interact
from services.student_trainer.ranks import Ranks
from services.student_trainer.run_folder import RunFolder
from services.teacher.judges.build import build_judge
from services.teacher.rubric import load_rubric
from services.teacher.spec import TeacherSpec

PEAK = "peak.txt"
"""Name of the file with the main process's largest resident size up to the last update, in bytes."""


def main() -> None:
    """See the module."""
    run, phase = RunFolder(Path(sys.argv[1])), sys.argv[2]
    settings = config.load(run.config)
    keep_freed_memory()
    ranks = Ranks.from_environment()

    def note_peak(*_: object) -> None:
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (run.path / PEAK).write_text(str(kilobytes * 1024), encoding="utf-8")

    if phase == "pretrain":
        pretrained(run.path, settings, ranks, note_peak)
    else:
        judge = build_judge(TeacherSpec(judge="rules:"), load_rubric())
        start = Path(sys.argv[3])
        watcher = Watcher(note_peak, lambda _: None, lambda: False)
        interact(run, settings, start, JudgedHere(judge), watcher, ranks)
    ranks.close()


if __name__ == "__main__":
    main()
