"""`fabula replay`: the recorded updates again, without a teacher, to the same bytes."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fabula_proto import CriterionScore, ScoredBatch, Story, Verdict, VerdictStatus
from fabula_proto.streams import Streams
from services.cli import main
from services.local.replays import ReplayReport
from services.student_trainer import config
from services.student_trainer.folder_lock import FolderLock
from services.student_trainer.interaction import StopRequestedError, Watcher, interact
from services.student_trainer.learning_settings import MixedSettings
from services.student_trainer.recorded_verdicts import RecordedVerdicts, ReplayError, recorded_verdict
from services.student_trainer.records import StoryRow, write_stories_part
from services.student_trainer.replaying import SameWeights, replay
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.settings import RunSettings
from services.student_trainer.story_queue import StoryQueue
from tests.trainer_helpers import IDENTITY, make_run, mixed_settings, teacher_thread, tiny_settings, vowel_verdict


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def failing_at_three(story: Story) -> Verdict:
    if story.id.endswith("-3"):
        return Verdict(story_id=story.id, status=VerdictStatus.FAILED, reason="the model was away")
    return vowel_verdict(story)


def recorded(redis_url: str, path: Path, settings: RunSettings, stop_after: int | None = None) -> RunFolder:
    """A run that learned from a teacher, to its end or until it was stopped after some updates."""
    folder, start = make_run(path, settings)
    left = [stop_after]

    def on_step(*_: object) -> None:
        left[0] = None if left[0] is None else left[0] - 1

    watcher = Watcher(on_step, lambda _: None, lambda: left[0] == 0)
    with teacher_thread(redis_url, failing_at_three), Streams(redis_url) as streams:
        queue = StoryQueue(streams, folder.run)
        if stop_after is None:
            interact(folder, settings, start, queue, watcher)
        else:
            with pytest.raises(StopRequestedError):
                interact(folder, settings, start, queue, watcher)
    return folder


def again(folder: RunFolder, to: Path, stop_after: int | None = None) -> Any:
    steps: list[int] = []
    return replay(
        folder, RunFolder(to), lambda line, rows: steps.append(line.step), lambda: len(steps) == (stop_after or 99)
    )


def weights(folder: RunFolder) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.path.glob("*/*_rl_*/model.safetensors")}


def changed(folder: RunFolder, step: int, column: str, index: int, value: object) -> None:
    part = folder.stories / f"part-{step:05d}.parquet"
    table = pq.read_table(part)
    values = table.column(column).to_pylist()
    values[index] = value
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, table.schema.field(column).type)), part)


SHAPED = {
    "algorithm": "grpo",
    "reward": {"weights": {"readability": 2.0}, "repetition_weight": 0.3, "missing_end_weight": 0.05},
}


@pytest.mark.parametrize("options", [{}, SHAPED], ids=["ppo", "grpo-shaped"])
def test_weights_come_out_byte_for_byte(redis_url: str, tmp_path: Path, options: dict[str, object]) -> None:
    run = recorded(redis_url, tmp_path / "run", tiny_settings(max_failed_share=0.5, **options))
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    result = again(run, tmp_path / "again")
    assert (result.updates, result.stories, result.differs_at) == (3, 18, None)
    assert result.weights == tuple(SameWeights(f"chck_1k_rl_{words}", same=True) for words in (20, 40, 58))
    replayed = RunFolder(tmp_path / "again")
    assert weights(replayed) == weights(run)
    assert len(weights(run)) == 3
    assert replayed.ledger.read_bytes() == run.ledger.read_bytes()
    tables = [pq.read_table(f.stories).drop_columns(["run"]) for f in (run, replayed)]
    assert tables[0].equals(tables[1])
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_corpus_batches_in_between_are_read_again(redis_url: str, tmp_path: Path) -> None:
    run = recorded(redis_url, tmp_path / "run", mixed_settings(max_failed_share=0.5))
    result = again(run, tmp_path / "again")
    assert result.differs_at is None
    replayed = RunFolder(tmp_path / "again")
    assert weights(replayed) == weights(run)
    assert len(weights(run)) == len(result.weights) > 1
    assert replayed.ledger.read_bytes() == run.ledger.read_bytes()
    assert json.loads(run.ledger.read_text())["corpus_words"] > 0
    losses = [
        [
            line["next_word_loss"]
            for line in map(json.loads, folder.metrics.read_text().splitlines())
            if "kl_mean" in line
        ]
        for folder in (run, replayed)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == result.updates > 2


def test_a_run_that_was_stopped_is_replayed_as_far_as_it_got(redis_url: str, tmp_path: Path) -> None:
    run = recorded(
        redis_url, tmp_path / "run", tiny_settings(max_failed_share=0.5, checkpoint_every_words=1000), stop_after=2
    )
    with pytest.raises(StopRequestedError):
        again(run, tmp_path / "again", stop_after=1)
    for _ in range(2):  # goes on, and once more changes nothing
        result = again(run, tmp_path / "again")
        assert (result.updates, result.weights) == (2, (SameWeights("2", same=True),))


def test_another_reward_gives_other_weights(redis_url: str, tmp_path: Path) -> None:
    """The recorded verdicts are what is learned from: change one, and the weights change."""
    run = recorded(redis_url, tmp_path / "run", tiny_settings(max_failed_share=0.5))
    shutil.copytree(run.path, tmp_path / "other")
    other = RunFolder(tmp_path / "other")
    # One story of the last update gets full marks; later stories would no longer be the recorded ones.
    words = pq.read_table(other.stories).to_pylist()[13]["words"]
    changed(other, 2, "teacher_reward", 1, 1.0)
    changed(other, 2, "reward", 1, float(np.float32((1.0 + 0.4 * words / 12) / 1.4)))
    result = again(other, tmp_path / "again")
    assert [kept.same for kept in result.weights] == [True, True, False]


def test_a_record_that_this_machine_does_not_repeat_is_refused(redis_url: str, tmp_path: Path) -> None:
    run = recorded(redis_url, tmp_path / "run", tiny_settings(max_failed_share=0.5))
    shutil.copytree(run.path, tmp_path / "kl")
    changed(RunFolder(tmp_path / "kl"), 1, "kl", 2, 0.5)
    assert again(RunFolder(tmp_path / "kl"), tmp_path / "a").differs_at == 1
    shutil.copytree(run.path, tmp_path / "text")
    changed(RunFolder(tmp_path / "text"), 1, "text", 2, "something else")
    with pytest.raises(ReplayError, match="story 1-2 was recorded as 'something else' and comes out as"):
        again(RunFolder(tmp_path / "text"), tmp_path / "b")
    changed(run, 1, "reward", 2, 0.9)
    assert again(run, tmp_path / "c").differs_at == 1
    table = pq.read_table(run.stories / "part-00000.parquet")
    (tmp_path / "old").mkdir()
    pq.write_table(table.drop_columns(["kl", "worker"]), tmp_path / "old" / "part-00000.parquet")
    with pytest.raises(ReplayError, match="has no kl, worker: another version"):
        RecordedVerdicts(tmp_path / "old")
    with pytest.raises(ReplayError, match="holds something else than a replay of run"):
        again(run, tmp_path / "text")
    (run.stories / "part-00001.parquet").unlink()
    with pytest.raises(ReplayError, match=r"part-00001\.parquet is missing"):
        RecordedVerdicts(run.stories)
    with pytest.raises(ReplayError, match="no judged stories"):
        RecordedVerdicts(tmp_path)


@given(st.lists(st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=7), min_size=1, max_size=3), st.floats(0.0, 1.0))
def test_the_record_holds_a_verdict_exactly(
    tmp_path_factory: pytest.TempPathFactory, levels: Any, reward: float
) -> None:
    criteria = {f"c{i}": CriterionScore.from_probabilities(weights) for i, weights in enumerate(levels)}
    total = sum(score.mean for score in criteria.values())
    ok = Verdict(story_id="0-0", status=VerdictStatus.OK, criteria=criteria, total=total, reward=reward, coverage=0.9)
    failed = Verdict(story_id="0-1", status=VerdictStatus.FAILED, reason="away")
    story = Story(id="0-0", text="x")
    batch = ScoredBatch(
        run="r", step=0, chunk=0, digest="d", verdicts=(ok, failed), teacher=IDENTITY, worker="w", seconds=0.0
    )
    rows = [
        StoryRow(story=story, index=i, words=1, tokens=1, ended=True, kl=0.0, reward=0.5, verdict=verdict, batch=batch)
        for i, verdict in enumerate(batch.verdicts)
    ]
    part = write_stories_part(tmp_path_factory.mktemp("stories"), "r", 0, 0, list(criteria), rows)
    kept, none = (recorded_verdict(row) for row in pq.read_table(part).to_pylist())
    assert none == failed.model_copy(update={"story_id": "0-0"})
    assert kept.criteria is not None
    assert [(s.mean, s.probabilities) for s in kept.criteria.values()] == [
        (s.mean, s.probabilities) for s in criteria.values()
    ]
    assert kept.model_copy(update={"criteria": None}) == ok.model_copy(update={"criteria": None})


def test_the_command(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = recorded(redis_url, tmp_path / "runs" / "r", tiny_settings(max_failed_share=0.5, word_budget=30))

    def fabula(*arguments: str) -> object:
        monkeypatch.setattr(sys, "argv", ["fabula", "replay", str(run.path), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    assert fabula() == 0
    assert "chck_1k_rl_30: the same weights, byte for byte" in capsys.readouterr().out
    assert fabula("--json") == 0  # finished already: compared again
    report = ReplayReport.from_json(capsys.readouterr().out)
    assert report.folder == str(tmp_path / "runs" / "r-replay")
    assert report.same_weights == {"chck_1k_rl_20": True, "chck_1k_rl_30": True}
    with FolderLock(tmp_path / "runs" / "r-replay"):
        assert fabula() == 1
    assert f"process {os.getpid()} trains in {tmp_path / 'runs' / 'r-replay'} already" in capsys.readouterr().err
    manifest = run.checkpoints / "chck_1k_rl_30" / "manifest.json"
    facts = json.loads(manifest.read_text())
    facts["sha256"]["model.safetensors"] = "0" * 64
    manifest.write_text(json.dumps(facts))
    assert fabula() == 1
    assert "chck_1k_rl_30: OTHER weights" in capsys.readouterr().out
    assert fabula("--to", str(tmp_path / "runs" / "r")) == 1
    assert "choose another place" in capsys.readouterr().err
    settings = config.load(run.config)
    mixed = settings.interact.model_copy(update={"mixed": MixedSettings(batches_per_update=1)})
    gone = settings.corpus.model_copy(update={"source": str(tmp_path / "gone.txt")})
    run.config.write_text(config.dump(settings.model_copy(update={"interact": mixed, "corpus": gone}), run.run))
    assert fabula("--to", str(tmp_path / "runs" / "mixed")) == 1
    assert "gone.txt" in capsys.readouterr().err
