"""A whole run by two processes, as torchrun and accelerate start them."""

import json
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from fabula_proto.streams import Streams
from services.redis_server import LocalRedis
from services.student_trainer import config
from services.student_trainer.run import Trainer
from services.student_trainer.run_folder import RunFolder
from tests.ranks_helpers import launched
from tests.ranks_settings import whole_run_settings
from tests.trainer_helpers import teacher_thread


@pytest.fixture(scope="module")
def by_torchrun(tmp_path_factory: pytest.TempPathFactory, redis_server: LocalRedis) -> tuple[RunFolder, str]:
    """The command itself, from the corpus to the last checkpoint, by two processes; and what it printed."""
    folder = whole_run(tmp_path_factory.mktemp("by_torchrun") / "two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*torchrun, "-m", "services.student_trainer", "run", str(folder.path), "--progress", "plain"]
    with teacher_thread(redis_server.url):
        status, out, err = launched(command, {"OMP_NUM_THREADS": "1", "FABULA_REDIS_URL": redis_server.url})
    assert status == 0, err
    return folder, out


@pytest.fixture(scope="module")
def whole_run_alone(tmp_path_factory: pytest.TempPathFactory, redis_server: LocalRedis) -> RunFolder:
    """The same by one process."""
    torch.set_num_threads(1)
    folder = whole_run(tmp_path_factory.mktemp("whole_run_alone") / "one")
    with teacher_thread(redis_server.url), Streams(redis_server.url) as streams:
        Trainer(folder, threading.Event(), progress_tty=False, streams=streams).pretrain()
        Trainer(folder, threading.Event(), progress_tty=False, streams=streams).interact()
    return folder


def whole_run(path: Path) -> RunFolder:
    """A run folder that nothing has been done in."""
    folder = RunFolder(path)
    path.mkdir()
    folder.config.write_text(config.dump(whole_run_settings(), folder.run), encoding="utf-8")
    return folder


def test_torchrun_does_a_whole_run_as_one_process_does(
    by_torchrun: tuple[RunFolder, str], whole_run_alone: RunFolder
) -> None:
    folder, out = by_torchrun
    assert out.count("Pretraining on the story grammar") == 1, "the main process alone speaks"
    folders = [folder, whole_run_alone]
    lines = [[json.loads(line) for line in folder.metrics.read_text().splitlines()] for folder in folders]
    assert len(lines[0]) == len(lines[1]) > 8
    for ours, theirs in zip(*lines, strict=True):
        name = "loss" if ours["phase"] == "pretrain" else "policy_loss"
        assert ours[name] == pytest.approx(theirs[name], abs=1e-5)
    tables = [pq.read_table(folder.stories).column("text") for folder in folders]
    assert tables[0].equals(tables[1])
    assert (folder.checkpoints / "chck_600_rl_58" / "manifest.json").is_file()


def test_accelerate_launch_gives_the_bits_of_torchrun(
    by_torchrun: tuple[RunFolder, str], whole_run_alone: RunFolder, tmp_path: Path
) -> None:
    folder = whole_run(tmp_path / "two")
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    own_port = ["--main_process_port", "0"]
    command = [*accelerate, *own_port, "-m", "services.student_trainer", "pretrain", str(folder.path)]
    status, _, err = launched(command, {"OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "no_settings")})
    assert status == 0, err
    model = Path("checkpoints", "chck_600", "model.safetensors")
    ours, theirs, alone = ((run.path / model).read_bytes() for run in (folder, by_torchrun[0], whole_run_alone))
    assert ours == theirs
    assert ours != alone, "there were two processes: sums are rounded in another order"
