"""Students of other kinds through a whole run: pretraining, interaction, resume, and the evaluator's measures."""

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from fabula_proto.streams import Streams
from services.evaluator.evaluation import evaluate_checkpoint
from services.evaluator.request import EvaluationRequest
from services.evaluator.settings import EvaluatorSettings
from services.student_trainer import checkpoints, config
from services.student_trainer.interaction import StopRequestedError
from services.student_trainer.pretrain_state import resume_folder
from services.student_trainer.run import Trainer
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.settings import RunSettings
from services.student_trainer.student import StudentError
from tests.trainer_helpers import make_run, teacher_thread, tiny_settings, tiny_tokenizer


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def settings(student: dict[str, object], word_budget: int = 600) -> RunSettings:
    """Pretraining of a few steps, then three updates of six stories."""
    return config.parse(
        tiny_settings().model_dump(mode="json")
        | {
            "corpus": {"source": "grammar", "grammar_words": 2_000},
            "tokenizer": {"vocab_size": 320},
            "student": {"layers": 2, "heads": 2, "width": 16, "context": 256, "dropout": 0.1} | student,
            "pretrain": {"word_budget": word_budget, "block_tokens": 32, "batch_size": 4, "learning_rate": 1e-3},
        }
    )


def make(path: Path, given: RunSettings) -> RunFolder:
    path.mkdir(parents=True)
    folder = RunFolder(path)
    folder.config.write_text(config.dump(given, folder.run), encoding="utf-8")
    return folder


class StopAt(threading.Event):
    """Set at the n-th question."""

    def __init__(self, question: int) -> None:
        super().__init__()
        self._left = question

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


def run(folder: RunFolder, redis_url: str, stop: threading.Event | None = None) -> Path:
    with Streams(redis_url) as streams:
        trainer = Trainer(folder, stop or threading.Event(), progress_tty=False, streams=streams)
        trainer.pretrain()
        return trainer.interact()


@pytest.mark.parametrize(("model", "fields"), [("llama", {"num_key_value_heads": 1}), ("qwen3", {"head_dim": 4})])
def test_a_whole_run_stopped_twice_ends_bit_identical(
    redis_url: str, tmp_path: Path, model: str, fields: dict[str, object]
) -> None:
    given = settings({"model": model, "config": fields})
    whole, stopped = (make(tmp_path / name, given) for name in ("whole", "stopped"))
    with teacher_thread(redis_url):
        final = run(whole, redis_url)
        with pytest.raises(StopRequestedError):
            run(stopped, redis_url, StopAt(3))
        assert [path.name for path in resume_folder(stopped.path).iterdir()] == ["00000003"]
        Trainer(stopped, threading.Event(), progress_tty=False, streams=None).pretrain()
        with pytest.raises(StopRequestedError):
            run(stopped, redis_url, StopAt(3))
        assert [path.name for path in stopped.interact_resume.iterdir()] == ["1"]
        again = run(stopped, redis_url)
    assert final.name == again.name == "chck_600_rl_58"
    assert (final / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    assert AutoModelForCausalLM.from_pretrained(final).config.model_type == model
    tables = [pq.read_table(f.stories).drop_columns(["run"]) for f in (whole, stopped)]
    assert tables[0].equals(tables[1])
    lines = [json.loads(line) for line in whole.metrics.read_text().splitlines()]
    assert all(line["ratio_first_pass"] == 1.0 for line in lines if line["phase"] == "interact")
    assert all(line["value_loss"] is not None for line in lines if line["phase"] == "interact")


def test_the_evaluator_measures_a_llama(redis_url: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "r", settings({"model": "llama"}))
    with teacher_thread(redis_url):
        final = run(folder, redis_url)
    chosen = EvaluatorSettings.model_validate(
        {"torch_threads": 1, "worker": "test", "suites": ["blimp", "entity_tracking"]}
    )
    report = evaluate_checkpoint(EvaluationRequest.from_folder(final, tmp_path / "out"), chosen, lambda _: None)
    assert {suite.suite: suite.status for suite in report.suites} == {"blimp": "ok", "entity_tracking": "ok"}
    assert report.interaction_words == 58


def foreign_llama(folder: Path) -> Path:
    """A Llama of elsewhere with its own tokenizer, in bfloat16."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    shape = LlamaConfig(
        vocab_size=len(tokenizer) + 3,  # more rows than tokens, as many published models have
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(shape).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_interaction_starts_from_a_model_of_elsewhere_as_it_is(redis_url: str, tmp_path: Path) -> None:
    init = foreign_llama(tmp_path / "elsewhere")
    folder = make(tmp_path / "r", settings({"init": str(init)}, word_budget=0))
    with teacher_thread(redis_url):
        final = run(folder, redis_url)
    assert final.name == "chck_0_rl_58"
    start = folder.checkpoints / "chck_0"
    facts = checkpoints.facts(start)
    assert (facts["init"], facts["pretraining_words"], facts["step"]) == (str(init), 0, 0)
    was, taken = (AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32).state_dict() for p in (init, start))
    assert all(torch.equal(was[name], taken[name]) for name in was)
    learned = AutoModelForCausalLM.from_pretrained(final).state_dict()
    assert any(not torch.equal(was[name], learned[name]) for name in was)
    own = AutoTokenizer.from_pretrained(init).get_vocab()
    assert AutoTokenizer.from_pretrained(final).get_vocab() == own
    assert not (folder.path / "tokens").exists()


def test_a_model_of_elsewhere_is_pretrained_further(tmp_path: Path) -> None:
    init = foreign_llama(tmp_path / "elsewhere")
    folder = make(tmp_path / "r", settings({"init": str(init)}))
    final = Trainer(folder, threading.Event(), progress_tty=False, streams=None).pretrain()
    assert final.name == "chck_600"
    model = AutoModelForCausalLM.from_pretrained(final)
    assert (model.config.model_type, model.config.num_hidden_layers) == ("llama", 1)
    was = AutoModelForCausalLM.from_pretrained(init, dtype=torch.float32)
    moved = [(a - b).abs().max().item() for a, b in zip(model.parameters(), was.parameters(), strict=True)]
    assert 0 < max(moved) < 0.1  # a few steps of AdamW at 1e-3 from those weights, not random ones


def test_blocks_longer_than_the_models_positions_are_refused(tmp_path: Path) -> None:
    given = settings({"init": str(foreign_llama(tmp_path / "elsewhere"))})
    longer = given.model_copy(update={"pretrain": given.pretrain.model_copy(update={"block_tokens": 128})})
    with pytest.raises(StudentError, match="block_tokens 128 exceeds the 64 positions"):
        Trainer(make(tmp_path / "r", longer), threading.Event(), progress_tty=False, streams=None).pretrain()


@pytest.mark.parametrize("own", [True, False])
def test_stories_that_do_not_fit_are_refused_before_pretraining(own: bool, tmp_path: Path) -> None:
    given = settings({"context": 64} if own else {"init": str(foreign_llama(tmp_path / "elsewhere"))})
    longer = given.model_copy(
        update={"interact": given.interact.model_copy(update={"max_new_tokens": 63, "prompt": "A fox and an owl"})}
    )
    folder = make(tmp_path / "r", longer)
    with pytest.raises(StudentError, match="max_new_tokens 63 they do not fit the student's context of 64"):
        Trainer(folder, threading.Event(), progress_tty=False, streams=None).pretrain()
    assert not folder.metrics.exists()


def test_stories_that_do_not_fit_another_start_are_refused(redis_url: str, tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path / "r", tiny_settings(max_new_tokens=63))
    with Streams(redis_url) as streams, pytest.raises(StudentError, match="do not fit the student's context of 64"):
        Trainer(folder, threading.Event(), progress_tty=False, streams=streams).interact()


@pytest.mark.parametrize("budget", [0, 600])
def test_a_path_that_is_no_model_is_said_before_anything_is_read(budget: int, tmp_path: Path) -> None:
    for init, message in (("/no/such", "no such folder, and not ORG/NAME"), (str(tmp_path), "no config.json in that")):
        given = settings({"init": init}, word_budget=budget).model_copy(
            update={"corpus": config.parse({"corpus": {"source": "no.txt"}}).corpus}
        )
        folder = make(tmp_path / str(len(init)), given)
        with pytest.raises(StudentError, match=message):
            Trainer(folder, threading.Event(), progress_tty=False, streams=None).pretrain()


def test_a_queue_that_is_away_is_said_once_and_before_pretraining(tmp_path: Path) -> None:
    folder = make(tmp_path / "r", settings({}))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "services.student_trainer", "run", str(folder.path)]
    done = subprocess.run(
        [*command, "--redis-url", f"redis://127.0.0.1:{port}/0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert f"no Redis server answers at redis://127.0.0.1:{port}/0" in done.stderr
    assert list(folder.path.iterdir()) == [folder.config]


def test_no_words_of_pretraining_and_no_model_are_refused() -> None:
    with pytest.raises(config.ConfigError, match=r"word_budget 0 leaves a random student; set it, or student\.init"):
        settings({}, word_budget=0)


def test_a_wrong_name_is_said_before_anything_is_read(tmp_path: Path) -> None:
    given = settings({"model": "lama"}).model_copy(
        update={"corpus": config.parse({"corpus": {"source": "no.txt"}}).corpus}
    )
    with pytest.raises(StudentError, match="did you mean llama"):
        Trainer(make(tmp_path / "r", given), threading.Event(), progress_tty=False, streams=None).pretrain()
