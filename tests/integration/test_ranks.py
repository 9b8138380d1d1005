"""Two processes on one machine (gloo): what they tell each other, and a run that they share."""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from fabula_proto import Story, Verdict, VerdictStatus
from fabula_proto.streams import Streams
from services.redis_server import LocalRedis
from services.student_trainer import checkpoints, config
from services.student_trainer.pretrain_plan import share_of_micro_batches
from services.student_trainer.pretrain_state import resume_folder
from services.student_trainer.ranks import Ranks
from services.student_trainer.run import Trainer
from services.student_trainer.run_folder import RunFolder
from tests.interaction_helpers import Following
from tests.interaction_helpers import go as interact_alone
from tests.ranks_helpers import launched, outputs, processes
from tests.ranks_settings import FAILING_PROMPT, go, interact_settings, pretrain_settings, whole_run_settings
from tests.trainer_helpers import make_run, teacher_thread, vowel_verdict

RUNS = ("failing", "grpo", "mixed", "one_chunk", "ppo", "stopped")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, redis_server: LocalRedis) -> Path:
    """What two processes left behind that talked, pretrained and interacted."""
    folder = tmp_path_factory.mktemp("two")
    for name in RUNS:
        make_run(folder / "runs" / name, interact_settings(name))
    go(folder / "sharded_on", pretrain_settings("plain"), Ranks(), stop_after=5)
    with (
        teacher_thread(redis_server.url, judge),
        processes(2, "tests.ranks_worker", "talk,train,interact,die", str(folder), redis_server.url) as started,
    ):
        results = outputs(started)
    (folder / "status.json").write_text(json.dumps(results))
    return folder


def judge(story: Story) -> Verdict:
    """The share of vowels; nothing for some stories of the run `failing`."""
    if story.prompt == FAILING_PROMPT and story.id.startswith("1-"):
        return Verdict(story_id=story.id, status=VerdictStatus.FAILED, reason="out of memory")
    return vowel_verdict(story)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs by one process."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("alone")
    for name in ("plain", "dropout"):
        go(folder / name, pretrain_settings(name), Ranks())
    return folder


@pytest.fixture(scope="module")
def alone_interacting(tmp_path_factory: pytest.TempPathFactory, redis_server: LocalRedis) -> Path:
    """The interactions by one process."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("alone_interacting")
    with teacher_thread(redis_server.url):
        for name in ("ppo", "grpo", "mixed"):
            settings = interact_settings(name)
            run, start = make_run(folder / name, settings)
            interact_alone(redis_server.url, run, start, settings, Following())
    return folder


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "chck_1500" / "model.safetensors")


def check_equal(one: Path, other: Path) -> None:
    assert losses(one) == pytest.approx(losses(other), abs=1e-5)
    assert len(losses(one)) > 8
    ours, theirs = weights(one), weights(other)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in theirs)
    for name in ("chck_800", "chck_1500"):
        checkpoints.verify(one / "checkpoints" / name)


def test_processes_talk(two: Path) -> None:
    told: list[dict[str, Any]] = [json.loads((two / f"talk-{rank}.json").read_text()) for rank in range(2)]
    assert [t.pop("share") for t in told] == [[0, 1], [2, 3, 4]]
    errors = [t.pop("errors") for t in told]
    assert errors[0][:2] == errors[1][:2] == ["KeyError('k')", "ValueError('v')"]
    assert errors[0][2] == "RankFailedError('process 1 failed: UnpicklableError: 3 is more than 2')"
    assert errors[1][2] == "UnpicklableError('3 is more than 2')"
    assert errors[0][3] == errors[1][3]
    assert "ZeroDivisionError" in errors[0][3]
    assert told[0] == told[1]
    assert told[0] == {
        "everywhere": ["rank 0", "rank 1"],
        "sum": [2.0, 1.0],
        "any": [True, False],
        "rows": [[1.0, 1.0]],
        "on_main": 7,
        "gradients": [[[3.0, 3.0], [3.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]], None],
    }


def test_one_process_alone_talks_to_itself() -> None:
    ranks = Ranks()
    assert ranks.main
    assert list(ranks.share(3)) == [0, 1, 2]
    assert ranks.everywhere(lambda: 7) == [7]
    assert ranks.on_main(lambda _: 7) == 7
    assert ranks.any(True)
    assert not ranks.any(False)


def test_two_processes_pretrain_as_one(two: Path, alone: Path) -> None:
    check_equal(two / "plain", alone / "plain")


def test_two_processes_with_one_micro_batch_each_give_the_bits_of_one_with_both(two: Path, alone: Path) -> None:
    ours, theirs = (folder / "dropout" / "checkpoints" / "chck_1500" / "model.safetensors" for folder in (two, alone))
    assert ours.read_bytes() == theirs.read_bytes()


def test_one_process_goes_on_where_two_were_stopped(two: Path, alone: Path) -> None:
    folder = two / "stopped"
    (point,) = resume_folder(folder).iterdir()
    assert point.name == "00000005"
    go(folder, pretrain_settings("plain"), Ranks())
    check_equal(folder, alone / "plain")


def test_a_student_divided_among_two_processes_learns_as_a_whole_one(two: Path, alone: Path) -> None:
    check_equal(two / "sharded", alone / "plain")
    facts = [checkpoints.facts(folder / "checkpoints" / "chck_1500") for folder in (two / "sharded", alone / "plain")]
    assert facts[0].pop("validation_loss") == pytest.approx(facts[1].pop("validation_loss"), abs=1e-4)
    assert facts[0] == facts[1]
    configurations = [
        (folder / "checkpoints" / "chck_1500" / "config.json").read_text()
        for folder in (two / "sharded", alone / "plain")
    ]
    assert configurations[0] == configurations[1]


@pytest.mark.parametrize("name", ["sharded_stopped", "sharded_on"])
def test_a_run_goes_on_divided_or_whole(two: Path, alone: Path, name: str) -> None:
    """Divided and stopped, one process goes on; begun by one process, two go on with the parts."""
    if name == "sharded_stopped":
        assert [path.name for path in resume_folder(two / name).iterdir()] == ["00000005"]
        go(two / name, pretrain_settings("plain"), Ranks())
    check_equal(two / name, alone / "plain")


def test_parts_that_cannot_be_even_are_refused(tmp_path: Path) -> None:
    settings = pretrain_settings("sharded")
    uneven = settings.model_copy(update={"pretrain": settings.pretrain.model_copy(update={"micro_batch_size": 2})})
    with pytest.raises(config.ConfigError, match="2 processes cannot share 3 micro-batches of 2 blocks evenly"):
        share_of_micro_batches(uneven.pretrain, Ranks(rank=0, world=2), sharded=True)


def check_same_interaction(ours: RunFolder, theirs: RunFolder) -> None:
    """Stories and verdicts to the letter, losses to 1e-5, weights to 1e-4 at the end."""
    columns = ["step", "index", "story_id", "text", "total", "reward", "worker", "policy_version"]
    tables = [pq.read_table(run.stories).select(columns) for run in (ours, theirs)]
    assert tables[0].equals(tables[1])
    assert tables[0].num_rows >= 18
    lines = [[json.loads(line) for line in run.metrics.read_text().splitlines()] for run in (ours, theirs)]
    for mine, other in zip(*lines, strict=True):
        for name in ("policy_loss", "value_loss", "kl_mean", "entropy_mean", "approx_kl", "gradient_norm"):
            assert mine[name] == pytest.approx(other[name], abs=1e-5), name
        assert mine["next_word_loss"] == pytest.approx(other["next_word_loss"], abs=1e-5)
        if not mine.get("importance_mean"):
            assert mine["ratio_first_pass"] == 1.0
    assert ours.ledger.read_bytes() == theirs.ledger.read_bytes()
    names = {path.name for path in theirs.checkpoints.iterdir()}
    assert {path.name for path in ours.checkpoints.iterdir()} == names
    for checkpoint in names:
        mine, other = (load_file(run.checkpoints / checkpoint / "model.safetensors") for run in (ours, theirs))
        assert all(torch.allclose(mine[name], other[name], atol=1e-4) for name in other)


def notes(two: Path, name: str) -> set[str]:
    """What the run came to, in each process."""
    return {(two / f"{name}-{rank}.txt").read_text() for rank in range(2)}


@pytest.mark.parametrize("name", ["ppo", "grpo", "mixed"])
def test_two_processes_interact_as_one(two: Path, alone_interacting: Path, name: str) -> None:
    """PPO; GRPO a step behind, in minibatches; PPO with corpus batches in between."""
    assert notes(two, name) == {"done"}
    check_same_interaction(RunFolder(two / "runs" / name), RunFolder(alone_interacting / name))


def test_one_process_goes_on_with_an_interaction_of_two(
    two: Path, alone_interacting: Path, redis_server: LocalRedis
) -> None:
    """The second process alone was asked to stop; both did, with the state saved."""
    assert notes(two, "stopped") == {"StopRequestedError: "}
    run = RunFolder(two / "runs" / "stopped")
    assert [path.name for path in run.interact_resume.iterdir()] == ["1"]
    with teacher_thread(redis_server.url):
        interact_alone(redis_server.url, run, run.checkpoints / "chck_1k", interact_settings("ppo"), Following())
    check_same_interaction(run, RunFolder(alone_interacting / "ppo"))


def test_a_failing_teacher_stops_both_with_the_state_saved(two: Path) -> None:
    (note,) = notes(two, "failing")
    assert note.startswith("TeacherFailedError: 6 of 6 stories of step 1 have no verdict")
    (point,) = RunFolder(two / "runs" / "failing").interact_resume.iterdir()
    assert point.name == "1"
    checkpoints.verify(point)


def test_more_processes_than_chunks_are_refused(two: Path) -> None:
    (note,) = notes(two, "one_chunk")
    assert note.startswith("ConfigError: 2 processes cannot share 1 chunks of stories; start fewer")
    assert note.endswith("interact.chunk_size to at most 3")


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


def test_a_process_that_dies_is_noticed_at_once_and_the_state_saved(two: Path, alone: Path) -> None:
    (status, _, error), (lost, _, _) = json.loads((two / "status.json").read_text())
    assert (status, lost) == (1, 9), error
    assert "process 0 lost touch with the others: one died or hangs" in error
    assert [path.name for path in resume_folder(two / "died").iterdir()] == ["00000005"]
    go(two / "died", pretrain_settings("plain"), Ranks())
    check_equal(two / "died", alone / "plain")


def test_a_process_that_hangs_is_given_up(tmp_path: Path) -> None:
    with processes(2, "tests.ranks_worker", "hang", str(tmp_path), "-", "15") as started:
        status, _, error = outputs(started[:1])[0]
        assert started[1].poll() is None
    assert status == 1
    assert "process 0 lost touch with the others: one died or hangs" in error
