"""Guards of a run over a real Redis, with a real teacher: what they raise, and what a stop, pause or kill leaves."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fabula_proto import Alarm, StepMetrics, Verdict
from fabula_proto.streams import Streams
from services.local.run_list import list_runs
from services.student_trainer import checkpoints
from services.student_trainer.folder_lock import FolderLock
from services.student_trainer.guards.guards import GuardStopError
from services.student_trainer.interaction import StopRequestedError, Watcher, interact
from services.student_trainer.records import StoryRow
from services.student_trainer.replaying import replay
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.story_queue import StoryQueue
from services.teacher.judges.base import Asked
from tests.interaction_helpers import Following, go
from tests.teacher_helpers import WordJudge, teacher, until_ready
from tests.trainer_helpers import make_run, teacher_thread, tiny_settings

SURE = {"window": 2, "threshold": 2.0}  # levels 0..3 never deviate by 2: an alarm after update 1, and no other
EVERYTHING = {
    "held_out": {"teacher": "rules", "every": 2, "stories": 4, "window": 1},
    "canaries": {"every": 1},
    "zero_variance": SURE,
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class ByTheWord(WordJudge):
    """Pays for words and for nothing else, up to twelve of them."""

    pays = 1.0

    def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        return [self._paid(item) for item in asked]

    def _paid(self, item: Asked) -> Verdict:
        share = self.pays * min(1.0, len(item.story.text.split()) / 12)
        return self.rubric.verdict(item.story.id, {c.name: [1 - share, 0, 0, share] for c in self.rubric.criteria})


def lines(folder: RunFolder, phase: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [line for line in found if line["phase"] == phase]


def alarms(folder: RunFolder, *guards: str) -> list[Alarm]:
    found = [Alarm.model_validate(line) for line in lines(folder, "alarm")]
    return [alarm for alarm in found if not guards or alarm.guard in guards]


def watched(folder: RunFolder) -> list[Any]:
    return [line["watch"] for line in lines(folder, "interact")]


def test_a_student_that_pleases_its_teacher_alone(redis_url: str, tmp_path: Path) -> None:
    """The student learns to write many words, which is what it is paid for; the rules judge is not taken in."""
    settings = tiny_settings(
        word_budget=4 + 3 * 16 * 12,
        batch_size=16,
        chunk_size=16,
        checkpoint_every_words=10_000,
        algorithm="grpo",
        grpo={"learning_rate": 0.1, "epochs": 4},
        kl={"coefficient": 0.0},
        guards={"held_out": {"teacher": "rules", "every": 1, "stories": 8}, "canaries": {"every": None}},
    )
    folder, start = make_run(tmp_path / "runs" / "long", settings)
    following = Following()
    with teacher(ByTheWord(), redis_url=redis_url) as client:
        until_ready(client)
        go(redis_url, folder, start, settings, following)
    assert following.lines[-1].score_mean > following.lines[0].score_mean + 3
    (alarm,) = alarms(folder, "held_out")
    assert 5 <= alarm.step <= 11
    assert alarm.value is not None
    assert alarm.value > 0.1
    checks = [watch["held_out"] for watch in watched(folder)]
    assert [check["teacher"]["backend"] for check in checks] == ["rules"] * 12
    assert checks[-1]["training_mean"] > 0.5 > 0.1 > checks[-1]["held_out_mean"]
    assert [check["stories"] for check in checks] == [16] + [8] * 11
    # What other teachers are asked on the side is no input of the student: 16 stories of three words each are paid.
    assert lines(folder, "interact")[-1]["words_spent"] == 4 + 3 * 16 * 12


def test_a_teacher_that_changes_behind_its_name(redis_url: str, tmp_path: Path) -> None:
    """Its identity says nothing, and the verdicts that it remembers would not either."""
    settings = tiny_settings(guards={"canaries": {"every": 1}})
    folder, start = make_run(tmp_path / "runs" / "drift", settings)
    judge = ByTheWord()
    with teacher(judge, redis_url=redis_url, cache_ttl_s=600) as client, Streams(redis_url) as streams:
        until_ready(client)

        def stricter_from_now_on(line: StepMetrics, _: list[StoryRow]) -> None:
            judge.pays = 0.5

        watcher = Watcher(stricter_from_now_on, lambda _: None, lambda: False)
        interact(folder, settings, start, StoryQueue(streams, folder.run), watcher)
    (alarm,) = alarms(folder, "canaries", "teacher")
    assert (alarm.step, alarm.guard, alarm.action) == (1, "canaries", "note")
    rewards = [watch["canaries"]["rewards"] for watch in watched(folder)]
    assert [seen["good"] for seen in rewards] == [1.0, 0.5, 0.5]
    assert [seen["empty"] for seen in rewards] == [0.0, 0.0, 0.0]


def test_a_run_that_is_put_on_another_teacher(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings(guards={"canaries": {"every": 1}})
    folder, start = make_run(tmp_path / "runs" / "swapped", settings)
    with teacher(ByTheWord(), redis_url=redis_url) as client, Streams(redis_url) as streams:
        until_ready(client)

        def swap(line: StepMetrics, _: list[StoryRow]) -> None:
            if line.step == 0:
                client.put(f"/runs/{folder.run}/teachers", json={"teachers": ["rules"]}).raise_for_status()

        interact(folder, settings, start, StoryQueue(streams, folder.run), Watcher(swap, lambda _: None, lambda: False))
    assert [(alarm.step, alarm.guard) for alarm in alarms(folder, "canaries", "teacher")] == [(1, "teacher")]


def test_a_held_out_teacher_that_nobody_knows(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings(guards={"held_out": {"teacher": "nobody", "every": 1}, "canaries": {"every": None}})
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    with teacher(ByTheWord(), redis_url=redis_url) as client:
        until_ready(client)
        go(redis_url, folder, start, settings, Following())
    (alarm,) = alarms(folder, "held_out")
    assert alarm.step == 0
    assert "no teacher has the name 'nobody'; there are default, rules" in alarm.message


@pytest.mark.parametrize("lag", [0, 1])
def test_stops_and_kills_leave_the_same_run(redis_url: str, tmp_path: Path, lag: int) -> None:
    """Weights, alarms and everything watched, whether a guard stopped the run, somebody did, or its process died."""
    noted = tiny_settings(guards=EVERYTHING, lag=lag)
    stopping = tiny_settings(lag=lag, guards=EVERYTHING | {"zero_variance": {**SURE, "action": "stop"}})
    whole, start = make_run(tmp_path / "runs" / "whole", noted)
    stopped, stopped_start = make_run(tmp_path / "runs" / "stopped", stopping)
    killed, killed_start = make_run(tmp_path / "runs" / "killed", noted)
    with teacher(ByTheWord(), redis_url=redis_url) as client:
        until_ready(client)
        final = go(redis_url, whole, start, noted, Following())
        with pytest.raises(
            GuardStopError, match="after update 1, guard zero_variance: coherence varies by 0 levels, creativity varies"
        ):
            go(redis_url, stopped, stopped_start, stopping, Following())
        assert checkpoints.is_complete(stopped.interact_resume / "2")
        again = go(redis_url, stopped, stopped_start, stopping, Following())
        with pytest.raises(StopRequestedError):
            go(redis_url, killed, killed_start, noted, Following(stop_after_updates=1))
        with pytest.raises(StopRequestedError):
            go(redis_url, killed, killed_start, noted, Following(stop_after_updates=1))
        assert alarms(killed)
        shutil.rmtree(killed.interact_resume)  # as if it had died with records newer than its last checkpoint
        shutil.rmtree(killed.checkpoints / "chck_1k_rl_40")
        third = go(redis_url, killed, killed_start, noted, Following())
    for folder, end in ((stopped, again), (killed, third)):
        assert (end / "model.safetensors").read_bytes() == (final / "model.safetensors").read_bytes()
        assert watched(folder) == watched(whole)
        unnamed = [[a.model_copy(update={"run": "", "action": "note"}) for a in alarms(f)] for f in (folder, whole)]
        assert unnamed[0] == unnamed[1]
        assert [(a.step, a.guard) for a in unnamed[0]] == [(1, "zero_variance")]


def test_the_command_ends_with_a_status_of_its_own(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings(guards={"zero_variance": {**SURE, "action": "stop"}, "canaries": {"every": None}})
    folder, _ = make_run(tmp_path / "runs" / "a", settings)
    command = [sys.executable, "-m", "services.student_trainer", "interact", str(folder.path), "--redis-url", redis_url]
    with teacher_thread(redis_url):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "ALARM zero_variance: coherence" in done.stdout
    assert "error: stopped after update 1, guard zero_variance" in done.stderr


def test_a_pause_waits_for_somebody(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings(guards={"zero_variance": {**SURE, "action": "pause"}})
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    said: list[str] = []
    looks: list[int] = []

    def looks_twice_and_leaves() -> bool:
        looks.extend([1] * folder.paused.exists())
        return len(looks) == 2

    def looks_once_and_goes_on() -> bool:
        if folder.paused.exists():
            looks.append(1)
            folder.paused.unlink()
        return False

    with teacher_thread(redis_url), Streams(redis_url) as streams:
        queue = StoryQueue(streams, folder.run)
        seen = Following()
        watcher = Watcher(seen.watcher.on_step, lambda _: None, looks_twice_and_leaves, said.append)
        with pytest.raises(StopRequestedError):
            interact(folder, settings, start, queue, watcher)
        (alarm,) = alarms(folder)
        assert (alarm.action, alarm.step, len(seen.lines)) == ("pause", 1, 2)
        assert checkpoints.is_complete(folder.interact_resume / "2")
        assert alarm.message in folder.paused.read_text()
        assert [line for line in said if "remove" in line] == [
            f"  paused, the state is saved; remove {folder.paused} to go on"
        ]
        # It was killed while it waited: the next start waits as well, and the alarm does not come again.
        looks.clear()
        final = interact(
            folder,
            settings,
            start,
            queue,
            Watcher(lambda *_: None, lambda _: None, looks_once_and_goes_on, said.append),
        )
    assert looks == [1]
    assert final.name == "chck_1k_rl_58"
    assert alarms(folder) == [alarm]


def test_a_run_may_be_paused_before_its_first_update(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings(word_budget=4 + 18)
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    folder.paused.touch()
    states: list[str] = []

    def look(said: str) -> None:
        if "remove" in said:
            states.extend(line.state for line in list_runs(tmp_path / "runs"))
            folder.paused.unlink()

    watcher = Watcher(lambda *_: None, lambda _: None, lambda: False, look)
    with teacher_thread(redis_url), Streams(redis_url) as streams, FolderLock(folder.path):
        interact(folder, settings, start, StoryQueue(streams, folder.run), watcher)
    assert states == ["paused"]


def test_a_pause_is_not_the_time_of_the_student(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings(guards={"zero_variance": {**SURE, "action": "pause"}})
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    pauses: list[float] = []

    class Wider(StoryQueue):
        """Takes learning and writing around the pause for a part of it: nothing is left to wait for."""

        def paused(self, since_s: float, until_s: float) -> None:
            pauses.append(until_s - since_s)
            super().paused(since_s - 60, until_s + 60)

    def goes_on(said: str) -> None:
        if "remove" in said:
            folder.paused.unlink()

    seen = Following()
    watcher = Watcher(seen.watcher.on_step, lambda _: None, lambda: False, goes_on)
    with teacher_thread(redis_url), Streams(redis_url) as streams:
        interact(folder, settings, start, Wider(streams, folder.run), watcher)
    assert len(pauses) == 1
    assert pauses[0] > 0
    waited = [line.wait_for_student_s for line in seen.lines]
    assert waited[1] > waited[2] == 0.0


def test_a_replay_asks_nobody_and_stops_for_nothing(redis_url: str, tmp_path: Path) -> None:
    stopping = tiny_settings(guards=EVERYTHING | {"zero_variance": {**SURE, "action": "stop"}})
    folder, start = make_run(tmp_path / "runs" / "a", stopping)
    with teacher(ByTheWord(), redis_url=redis_url) as client:
        until_ready(client)
        with pytest.raises(GuardStopError):
            go(redis_url, folder, start, stopping, Following())
        go(redis_url, folder, start, stopping, Following())
    again = RunFolder(tmp_path / "runs" / "again")
    done = replay(folder, again, lambda *_: None, lambda: False)
    assert (done.updates, done.differs_at) == (3, None)
    assert all(pair.same for pair in done.weights)
    assert [(alarm.step, alarm.guard, alarm.action) for alarm in alarms(again)] == [(1, "zero_variance", "note")]
