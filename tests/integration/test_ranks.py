"""Two processes on one machine (gloo): what they tell each other, and a run that they share."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from fabula_proto import Story, Verdict, VerdictStatus
from services.redis_server import LocalRedis
from services.student_trainer import checkpoints, config, ranks
from services.student_trainer.interaction import StopRequestedError
from services.student_trainer.pretrain_plan import share_of_micro_batches
from services.student_trainer.pretrain_state import resume_folder
from services.student_trainer.ranks import RankLostError, Ranks
from services.student_trainer.run_folder import RunFolder
from tests.interaction_helpers import Following
from tests.interaction_helpers import go as interact_alone
from tests.ranks_helpers import outputs, processes
from tests.ranks_settings import FAILING_PROMPT, go, interact_settings, pretrain_settings
from tests.trainer_helpers import make_run, teacher_thread, vowel_verdict

WHOLE = ("failing", "grpo", "mixed", "one_chunk", "ppo", "stopped")
SHARDED = tuple(f"{name}_sharded" for name in ("failing", "grpo", "mixed", "on", "ppo", "stopped", "unstarted"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, redis_server: LocalRedis) -> Path:
    """What two processes left behind that talked, pretrained and interacted."""
    folder = tmp_path_factory.mktemp("two")
    for name in WHOLE + SHARDED:
        make_run(folder / "runs" / name, interact_settings(name))
    go(folder / "sharded_on", pretrain_settings("plain"), Ranks(), stop_after=5)
    run = RunFolder(folder / "runs" / "on_sharded")
    start = run.checkpoints / "chck_1k"
    with teacher_thread(redis_server.url), pytest.raises(StopRequestedError):
        interact_alone(redis_server.url, run, start, interact_settings("ppo"), Following(stop_after_updates=1))
    with (
        teacher_thread(redis_server.url, judge),
        processes(2, "tests.ranks_worker", "talk,train,divide,interact,die", str(folder), redis_server.url) as started,
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


def test_gradients_are_summed_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "BUCKET", 10)
    sizes = (4, 4, 4, 12, 3)
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in sizes]
    parameters.insert(1, torch.nn.Parameter(torch.zeros(9, dtype=torch.float64)))
    found = [[(len(p), p.dtype) for p in bucket] for bucket in ranks._buckets(parameters)]
    single, double = torch.float32, torch.float64
    assert found == [[(4, single), (4, single)], [(9, double)], [(4, single)], [(12, single)], [(3, single)]]


def test_what_a_backend_says_of_a_process_that_is_gone_is_told_from_other_errors() -> None:
    def raises(error: RuntimeError) -> None:
        with Ranks().exchanging():
            raise error

    with pytest.raises(RankLostError, match="process 0 lost touch"):
        raises(RuntimeError("[/b/third_party/gloo/gloo/transport/tcp/pair.cc:537] Connection closed by peer"))
    with pytest.raises(RankLostError, match="process 0 lost touch"):
        raises(torch.distributed.DistBackendError("NCCL error"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        raises(RuntimeError("size mismatch"))
    with pytest.raises(checkpoints.CheckpointError, match="/gloo/chck_1k"):
        raises(checkpoints.CheckpointError("runs/gloo/chck_1k has no manifest.json"))


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


@pytest.mark.parametrize("how", ["", "_sharded"])
@pytest.mark.parametrize("name", ["ppo", "grpo", "mixed"])
def test_two_processes_interact_as_one(two: Path, alone_interacting: Path, name: str, how: str) -> None:
    """PPO; GRPO a step behind, in minibatches; PPO with corpus batches in between. With whole weights, or divided."""
    assert notes(two, name + how) == {"done"}
    check_same_interaction(RunFolder(two / "runs" / (name + how)), RunFolder(alone_interacting / name))


def test_each_of_two_processes_holds_half_of_a_divided_policy(two: Path) -> None:
    told = [json.loads((two / f"divide-{rank}.json").read_text()) for rank in range(2)]
    assert sum(t["held"] for t in told) == told[0]["numbers"]
    for t in told:
        assert 0.45 < t["held"] / t["numbers"] < 0.55
        assert 0.45 < t["reference"] / t["numbers"] < 0.55
        assert t["same"]
        assert t["left"] == 0


def test_two_processes_go_on_divided_with_an_interaction_of_one(two: Path, alone_interacting: Path) -> None:
    assert notes(two, "on_sharded") == {"done"}
    run = RunFolder(two / "runs" / "on_sharded")
    check_same_interaction(run, RunFolder(alone_interacting / "ppo"))
    processes_of = [checkpoints.facts(path)["processes"] for path in run.checkpoints.glob("*_rl_*")]
    assert set(processes_of) == {1, 2}


@pytest.mark.parametrize(("name", "update"), [("stopped", "1"), ("stopped_sharded", "1"), ("unstarted_sharded", "0")])
def test_one_process_goes_on_with_an_interaction_of_two(
    two: Path, alone_interacting: Path, redis_server: LocalRedis, name: str, update: str
) -> None:
    """The second process alone was asked to stop; both did, with the state saved."""
    assert notes(two, name) == {"StopRequestedError: "}
    run = RunFolder(two / "runs" / name)
    assert [path.name for path in run.interact_resume.iterdir()] == [update]
    with teacher_thread(redis_server.url):
        interact_alone(redis_server.url, run, run.checkpoints / "chck_1k", interact_settings("ppo"), Following())
    check_same_interaction(run, RunFolder(alone_interacting / "ppo"))


@pytest.mark.parametrize("name", ["failing", "failing_sharded"])
def test_a_failing_teacher_stops_both_with_the_state_saved(two: Path, name: str) -> None:
    (note,) = notes(two, name)
    assert note.startswith("TeacherFailedError: 6 of 6 stories of step 1 have no verdict")
    (point,) = RunFolder(two / "runs" / name).interact_resume.iterdir()
    assert point.name == "1"
    checkpoints.verify(point)


def test_more_processes_than_chunks_are_refused(two: Path) -> None:
    (note,) = notes(two, "one_chunk")
    assert note.startswith("ConfigError: 2 processes cannot share 1 chunks of stories; start fewer")
    assert note.endswith("interact.chunk_size to at most 3")


def test_a_process_that_dies_is_noticed_at_once_and_the_state_saved(two: Path, alone: Path) -> None:
    (status, _, error), (lost, _, _) = json.loads((two / "status.json").read_text())
    assert (status, lost) == (1, 9), error
    assert "process 0 lost touch with the others: one died or hangs" in error
    assert [path.name for path in resume_folder(two / "died").iterdir()] == ["00000005"]
    go(two / "died", pretrain_settings("plain"), Ranks())
    check_equal(two / "died", alone / "plain")


def test_a_process_that_dies_in_the_midst_of_divided_work_is_noticed(tmp_path: Path, alone: Path) -> None:
    with processes(2, "tests.ranks_worker", "die_sharded", str(tmp_path), "-") as started:
        (status, _, error), (lost, _, _) = outputs(started)
    assert (status, lost) == (1, 9), error
    assert "RankLostError: process 0 lost touch with the others: one died or hangs" in error
    go(tmp_path / "died_sharded", pretrain_settings("plain"), Ranks())
    check_equal(tmp_path / "died_sharded", alone / "plain")


def test_a_divided_interaction_goes_on_to_the_same_bits_after_a_process_died(
    two: Path, tmp_path: Path, redis_server: LocalRedis
) -> None:
    run, _ = make_run(tmp_path / "runs" / "ppo_sharded", interact_settings("ppo_sharded"))
    with teacher_thread(redis_server.url):
        for scenario, ends in (("die_interacting", (1, 9)), ("interact", (0, 0))):
            with processes(2, "tests.ranks_worker", scenario, str(tmp_path), redis_server.url) as started:
                (status, _, error), (other, _, _) = outputs(started)
            assert (status, other) == ends, error
            assert ("RankLostError: process 0 lost touch" in error) == (scenario == "die_interacting")
    untouched = RunFolder(two / "runs" / "ppo_sharded")
    for path in untouched.checkpoints.glob("*/model.safetensors"):
        assert path.read_bytes() == (run.checkpoints / path.parent.name / path.name).read_bytes()
    assert run.ledger.read_bytes() == untouched.ledger.read_bytes()
    assert pq.read_table(run.stories).drop(["run"]).equals(pq.read_table(untouched.stories).drop(["run"]))


def test_a_process_that_hangs_is_given_up(tmp_path: Path) -> None:
    with processes(2, "tests.ranks_worker", "hang", str(tmp_path), "-", "15") as started:
        status, _, error = outputs(started[:1])[0]
        assert started[1].poll() is None
    assert status == 1
    assert "process 0 lost touch with the others: one died or hangs" in error
