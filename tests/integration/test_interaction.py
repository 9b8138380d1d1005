"""The interaction loop over a real Redis: learning, accounts, records, and stopping anywhere."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fabula_proto import Story, Verdict, VerdictStatus
from services.student_trainer import checkpoints
from services.student_trainer.config import ConfigError
from services.student_trainer.interaction import StopRequestedError, TeacherFailedError
from services.student_trainer.sampling import StoryStream, story_uniforms
from services.student_trainer.story_queue import NoVerdictsError
from tests.interaction_helpers import Following, go
from tests.trainer_helpers import make_run, teacher_thread, tiny_settings, vowel_verdict


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_run_learns_records_and_pays(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings()
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    following = Following()
    with teacher_thread(redis_url) as judged:
        final = go(redis_url, folder, start, settings, following)

    # 4 prompt words once, 3 teacher words a story, 6 stories an update: three updates use up the 58 words exactly.
    assert final.name == "chck_1k_rl_58"
    assert [line.words_spent for line in following.lines] == [22, 40, 58]
    assert [line.words_prompt for line in following.lines] == [4, 4, 4]
    assert all(line.ratio_first_pass == 1.0 for line in following.lines)
    assert following.kept == ["chck_1k_rl_20", "chck_1k_rl_40", "chck_1k_rl_58"]
    sizes = sorted((batch.step, batch.chunk, len(batch.stories)) for batch in judged)
    assert sizes == [(step, chunk, size) for step in range(3) for chunk, size in ((0, 4), (1, 2))]
    assert json.loads(folder.ledger.read_text())["spent"] == 58

    stories = pq.read_table(folder.stories).to_pylist()
    assert [(row["step"], row["index"]) for row in stories] == [(s, i) for s in range(3) for i in range(6)]
    row = stories[7]
    verdict = vowel_verdict(Story(id=row["story_id"], text=row["text"]))
    assert verdict.total is not None
    assert row["total"] == pytest.approx(verdict.total, abs=1e-6)
    assert row["reward"] == pytest.approx((verdict.total / 9 + 0.4 * row["words"] / 12) / 1.4, abs=1e-6)
    assert row["teacher_model"] == "vowels"
    before, after = (AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (start, final))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_critic_that_starts_at_the_mean_explains_from_the_first_update_on(redis_url: str, tmp_path: Path) -> None:
    """A random head errs by about 1 where rewards differ by hundredths; the mean reward errs by their spread."""
    losses = {}
    for init in ("default", "mean"):
        settings = tiny_settings(word_budget=30, ppo={"learning_rate": 1e-6, "value_init": init})
        folder, start = make_run(tmp_path / "runs" / init, settings)
        following = Following()
        with teacher_thread(redis_url):
            go(redis_url, folder, start, settings, following)
        losses[init] = following.lines[0].value_loss or 0.0
    assert 0 < losses["mean"] < 0.1 * losses["default"]


def test_generate_repeats_the_recorded_stories(redis_url: str, tmp_path: Path) -> None:
    """Plain transformers, given the run's random streams, writes what the run recorded; every key fits."""
    settings = tiny_settings()
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    with teacher_thread(redis_url):
        go(redis_url, folder, start, settings, Following())
    stories = pq.read_table(folder.stories).to_pylist()
    for step, checkpoint in ((0, start), (1, folder.checkpoints / "chck_1k_rl_20")):
        loaded: Any = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
        model, loading = loaded
        assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        prompts = tokenizer([settings.interact.prompt] * 6, return_tensors="pt")
        length = prompts["input_ids"].shape[1]
        stream = StoryStream(story_uniforms(settings.seed, step, range(6), 12), length)
        output = model.generate(
            input_ids=prompts["input_ids"],
            attention_mask=prompts["attention_mask"],
            do_sample=False,
            max_new_tokens=12,
            logits_processor=[stream],
        )
        texts = [str(tokenizer.decode(ids[length:], skip_special_tokens=True)).strip() for ids in output]
        assert texts == [row["text"] for row in stories if row["step"] == step]


@pytest.mark.parametrize("question", [0, 1, 2])
def test_a_stopped_run_ends_bit_identical(redis_url: str, tmp_path: Path, question: int) -> None:
    settings = tiny_settings(checkpoint_every_words=1000)
    folder, start = make_run(tmp_path / "runs" / "whole", settings)
    stopped, stopped_start = make_run(tmp_path / "runs" / "stopped", settings)
    with teacher_thread(redis_url):
        whole = go(redis_url, folder, start, settings, Following())
        with pytest.raises(StopRequestedError):
            go(redis_url, stopped, stopped_start, settings, Following(stop_at_question=question))
        (point,) = stopped.interact_resume.iterdir()
        checkpoints.verify(point)
        final = go(redis_url, stopped, stopped_start, settings, Following())
    assert (final / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert stopped.ledger.read_bytes() == folder.ledger.read_bytes()
    assert not list(stopped.interact_resume.iterdir())
    tables = [pq.read_table(f.stories).drop_columns(["run"]) for f in (folder, stopped)]
    assert tables[0].equals(tables[1])
    steps = [json.loads(line)["step"] for line in stopped.metrics.read_text().splitlines()]
    assert steps == [0, 1, 2]


def test_a_crash_after_a_checkpoint_repeats_what_was_lost(redis_url: str, tmp_path: Path) -> None:
    """The process dies with records newer than its last save: they are taken back and made again."""
    settings = tiny_settings()
    folder, start = make_run(tmp_path / "runs" / "whole", settings)
    with teacher_thread(redis_url):
        final = go(redis_url, folder, start, settings, Following())
        weights, metrics_lines = (final / "model.safetensors").read_bytes(), folder.metrics.read_text().count("\n")
        shutil.rmtree(final)
        shutil.rmtree(folder.checkpoints / "chck_1k_rl_40")
        with folder.metrics.open("a") as file:
            file.write('{"phase": "interact", "step": 9')  # cut off in mid-line
        again = go(redis_url, folder, start, settings, Following())
    assert (again / "model.safetensors").read_bytes() == weights
    assert folder.metrics.read_text().count("\n") == metrics_lines
    assert pq.read_table(folder.stories).num_rows == 18


def test_stories_are_the_same_with_the_steps_of_a_cuda_graph(redis_url: str, tmp_path: Path) -> None:
    """Without a GPU the graph's own cache and slots are used, kernel by kernel."""
    texts = []
    for cuda_graph in (False, True):
        settings = tiny_settings(word_budget=30, cuda_graph=cuda_graph)
        folder, start = make_run(tmp_path / "runs" / str(cuda_graph), settings)
        with teacher_thread(redis_url):
            go(redis_url, folder, start, settings, Following())
        texts.append(pq.read_table(folder.stories)["text"].to_pylist())
    assert texts[0] == texts[1]


def test_a_budget_that_pays_for_no_update_is_refused(redis_url: str, tmp_path: Path) -> None:
    """A run without an update would pass for one that gained nothing."""
    settings = tiny_settings(word_budget=21)
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    with pytest.raises(ConfigError, match="word_budget 21 pays for no update: one costs 22 words"):
        go(redis_url, folder, start, settings, Following())
    assert not list(folder.checkpoints.glob("*_rl_*"))


def test_a_finished_run_does_nothing(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings()
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    with teacher_thread(redis_url):
        final = go(redis_url, folder, start, settings, Following())
    following = Following()
    assert go(redis_url, folder, start, settings, following) == final
    assert following.lines == []


def test_failed_verdicts_are_masked_out(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings(max_failed_share=0.5)
    folder, start = make_run(tmp_path / "runs" / "a", settings)

    def judge(story: Story) -> Verdict:
        if story.id.endswith("-3"):
            return Verdict(story_id=story.id, status=VerdictStatus.FAILED, reason="the model was away")
        return vowel_verdict(story)

    following = Following()
    with teacher_thread(redis_url, judge):
        go(redis_url, folder, start, settings, following)
    assert [line.verdicts_failed for line in following.lines] == [1, 1, 1]
    rows = pq.read_table(folder.stories).to_pylist()
    assert [row["index"] for row in rows if row["total"] is None] == [3, 3, 3]
    assert {row["reason"] for row in rows if row["index"] == 3} == {"the model was away"}


def test_a_failing_teacher_stops_the_run_with_its_state_saved(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings()
    folder, start = make_run(tmp_path / "runs" / "a", settings)

    def judge(story: Story) -> Verdict:
        if story.id.startswith("1-"):
            return Verdict(story_id=story.id, status=VerdictStatus.FAILED, reason="out of memory")
        return vowel_verdict(story)

    with teacher_thread(redis_url, judge), pytest.raises(TeacherFailedError, match=r"6 of 6.*step 1.*out of memory"):
        go(redis_url, folder, start, settings, Following())
    assert json.loads(folder.ledger.read_text())["spent"] == 22
    with teacher_thread(redis_url):  # mended: it is asked for step 1 anew
        final = go(redis_url, folder, start, settings, Following())
    assert final.name == "chck_1k_rl_58"


def test_no_teacher_is_said_plainly(redis_url: str, tmp_path: Path) -> None:
    settings = tiny_settings(verdict_timeout_s=1.0)
    folder, start = make_run(tmp_path / "runs" / "a", settings)
    with pytest.raises(NoVerdictsError, match="is a teacher reading fabula:stories"):
        go(redis_url, folder, start, settings, Following())
    assert checkpoints.is_complete(folder.interact_resume / "0")
