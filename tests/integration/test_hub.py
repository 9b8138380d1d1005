"""`fabula push` and `fabula card` against a Hub on a real socket, with huggingface_hub's own client."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml

from fabula_proto import EvaluationReport, Measure, SuiteResult
from services.cli import main
from services.local.card_facts import read_facts
from services.local.model_card import write_card
from services.local.run_command import run_command
from services.student_trainer import checkpoints, config
from services.student_trainer.ledger import Ledger
from services.student_trainer.pretrain_start import keep_initial
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.student import build_student, load_student
from tests.hub_server import READER, WRITER, Hub, hub_app
from tests.story_rows import write_judged_stories
from tests.trainer_helpers import IDENTITY, make_run, tiny_settings, tiny_tokenizer
from tests.wire.controls import Controls
from tests.wire.serving import WireServer

# Of huggingface_hub 2.4: it hands its HTTP client an LFS file by a name that the client will give up.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

START, HALF, FINAL = "chck_1k", "chck_1k_rl_20", "chck_1k_rl_58"
MODEL = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder, _ = make_run(tmp_path / "tiny", tiny_settings())
    tokenizer = tiny_tokenizer()
    for step, (name, words) in enumerate(((HALF, 40), (FINAL, 58)), start=1):
        model = build_student(tiny_settings().student, tokenizer, seed=step)
        facts = {"stage": "interact", "pretraining_words": 1000, "interaction_words": words, "step": step}
        checkpoints.save(folder.checkpoints / name, model, tokenizer, {"big": "state"}, facts)
    write_judged_stories(folder.stories, steps=2, stories=3)
    lines = [{"phase": "interact", "step": i, "verdicts_ok": 3, "verdicts_failed": i, **PAID} for i in range(2)]
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    Ledger(budget=58, prompt_words=4, teacher_words=54, student_words=77, stories=18).write(folder.ledger)
    (folder.path / "up.json").write_text(
        '{"teacher": "transformers:/home/me/models/judge", "eval_data": "/home/me/eval"}'
    )
    for name, score in ((START, 1.25), (FINAL, 2.5)):
        folder.report(name).parent.mkdir(parents=True)
        folder.report(name).write_text(report(name, score).to_json())
    return folder


PAID = {"score_mean": 1.0, "words_prompt": 4, "words_teacher": 54, "words_student": 77}


def report(name: str, score: float) -> EvaluationReport:
    total = Measure(value=score, low=score - 0.25, high=score + 0.5, n=40)
    suites = (
        SuiteResult(
            suite="storytelling",
            status="ok",
            source="stories of seed 42",
            headline="total",
            unit="points",
            measures={"total": total, "criterion/coherence": total, "words": total},
            teacher=IDENTITY,
        ),
        SuiteResult(suite="blimp", status="skipped", source="/home/me/eval", reason="no folder /home/me/eval/blimp"),
    )
    stage: Any = "interact" if "_rl_" in name else "pretrain"
    return EvaluationReport(
        run="tiny",
        checkpoint=name,
        path="/home/me/runs/tiny",
        stage=stage,
        pretraining_words=1000,
        interaction_words=0,
        suites=suites,
        seconds=1.0,
        worker="w",
    )


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def server(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # as the environment's would
    monkeypatch.setenv("HF_TOKEN", WRITER)
    with WireServer(hub_app(hub), Controls()) as server:
        yield server


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    monkeypatch.setattr(sys, "argv", ["fabula", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def held(hub: Hub, branch: str) -> dict[str, bytes]:
    return {path: blob.content for path, blob in hub.repos["me/tiny"].branches[branch].files.items()}


def test_each_checkpoint_is_a_branch_that_loads(
    run: RunFolder, hub: Hub, server: WireServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert command(monkeypatch, "push", run.path, "--to", "me/tiny", "--endpoint", server.url) == 0
    assert set(hub.repos["me/tiny"].branches) == {"main", START, HALF, FINAL}
    for branch, name in (("main", FINAL), (START, START), (HALF, HALF), (FINAL, FINAL)):
        files = held(hub, branch)
        assert set(files) == MODEL | {"README.md", ".gitattributes"}
        for file in MODEL:
            assert files[file] == (run.checkpoints / name / file).read_bytes()
        assert f'revision="{branch}"' in files["README.md"].decode()
    assert not hub.repos["me/tiny"].private
    assert len(hub.uploads) == len(set(hub.uploads))  # the final weights and the tokenizer went once, not per branch
    script = (
        "import sys\n"
        "from safetensors.torch import load_file\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "for revision, folder in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    model = AutoModelForCausalLM.from_pretrained('me/tiny', revision=revision).state_dict()\n"
        "    assert AutoTokenizer.from_pretrained('me/tiny', revision=revision)('fox').input_ids\n"
        "    for name, weights in load_file(folder + '/model.safetensors').items():\n"
        "        assert model[name].numpy().tobytes() == weights.numpy().tobytes(), (revision, name)\n"
        "    print(revision)\n"
    )
    pairs = [str(part) for name in (START, HALF, FINAL) for part in (name, run.checkpoints / name)]
    done = subprocess.run(
        [sys.executable, "-c", script, *pairs, "main", str(run.checkpoints / FINAL)],
        env={**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": READER},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [START, HALF, FINAL, "main"]


def test_a_push_goes_on_and_sends_only_what_differs(
    run: RunFolder, hub: Hub, server: WireServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    push = ("push", run.path, "--to", "me/tiny", "--private", "--endpoint", server.url)
    assert command(monkeypatch, *push, "--checkpoint", HALF) == 0
    assert hub.repos["me/tiny"].private
    assert hub.commits == [HALF]  # main is for the final one
    assert command(monkeypatch, *push, "--checkpoint", FINAL) == 0
    assert hub.commits == [HALF, FINAL, "main"]
    hub.refusals = [503]
    assert command(monkeypatch, *push) == 1
    error = capsys.readouterr().err
    assert "answered 503: We have to rest" in error
    # The branch that was being made is empty: it does not hold main's weights under another name.
    assert set(held(hub, START)) == {".gitattributes"}
    assert command(monkeypatch, *push) == 0
    assert hub.commits == [HALF, FINAL, "main", START]
    assert f"{HALF}: is there already" in capsys.readouterr().out
    sent = len(hub.uploads)
    assert command(monkeypatch, *push) == 0
    assert (len(hub.commits), len(hub.uploads)) == (4, sent)
    # A new report changes the cards of its checkpoint, and nothing else of it.
    run.report(FINAL).write_text(report(FINAL, 2.75).to_json())
    assert command(monkeypatch, *push) == 0
    assert hub.commits[4:] == [FINAL, "main"]
    assert len(hub.uploads) == sent
    assert f"{FINAL}: sent README.md" in capsys.readouterr().out


def test_weights_of_another_name_go_and_other_files_stay(
    run: RunFolder, hub: Hub, server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = ("push", run.path, "--to", "me/tiny", "--endpoint", server.url, "--checkpoint", FINAL)
    assert command(monkeypatch, *push) == 0
    api = huggingface_hub.HfApi(server.url)
    for name in ("model-00001-of-00002.safetensors", "LICENSE"):
        api.upload_file(path_or_fileobj=b"old", path_in_repo=name, repo_id="me/tiny")
    assert command(monkeypatch, *push) == 0
    assert set(held(hub, "main")) == MODEL | {"README.md", ".gitattributes", "LICENSE"}


def test_mistakes_are_said(
    run: RunFolder,
    hub: Hub,
    server: WireServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def error(*options: object, to: str = "me/tiny", path: Path = run.path) -> str:
        assert command(monkeypatch, "push", path, "--to", to, "--endpoint", server.url, *options) in (1, 2)
        return capsys.readouterr().err

    assert "holds no run" in error(path=tmp_path)
    assert f"no checkpoint chck_9M; it has {START}, {HALF}, {FINAL}" in error("--checkpoint", "chck_9M")
    assert "write ORG/NAME" in error(to="tiny")
    assert "write ORG/NAME" in error(to="a/b/c")
    assert "may not write to you/tiny; take one with write access to you" in error(to="you/tiny")
    monkeypatch.setenv("HF_TOKEN", READER)
    assert "answered 403" in error()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "answered 401: the token is not accepted" in error()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "set HF_TOKEN" in error()
    monkeypatch.setenv("HF_TOKEN", WRITER)
    assert command(monkeypatch, "push", run.path, "--to", "me/tiny", "--endpoint", server.url) == 0
    assert "there already, and public" in error("--private")
    weights = run.checkpoints / HALF / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert f"{weights} is missing or is not what its manifest lists" in error()
    server.stop()
    away = error("--checkpoint", FINAL)
    assert f"the push to {server.url} broke off" in away
    assert away.count("Connection refused") == 1


def test_a_card_says_what_the_folder_holds(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(monkeypatch, "card", run.path, "--to", "me/tiny") == 0
    text = capsys.readouterr().out
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata["library_name"] == "transformers"
    assert metadata["pipeline_tag"] == "text-generation"
    assert {"babylm", "gpt2", "ppo"} <= set(metadata["tags"])
    [result] = metadata["model-index"][0]["results"]
    assert result["metrics"] == [
        {"type": "points", "name": "total", "value": 2.5, "args": {"low_95": 2.25, "high_95": 3.0, "items": 40}}
    ]
    parameters = sum(p.numel() for p in build_student(tiny_settings().student, tiny_tokenizer(), seed=1).parameters())
    assert f"{parameters:,} parameters after 1,000 words of next-word prediction and 58 words" in text
    assert "| storytelling, points (stories of seed 42) | 1.25 [1.00, 1.75] (40) | 2.50 [2.25, 3.00] (40) |" in text
    assert "| storytelling, coherence | 1.25" in text
    assert "| test | vowels | 1 | paper | 1 | 000000000000 | rules | 6 |" in text
    assert "6 verdicts were ok; 1 stories had none" in text
    assert "| 4 | 54 | 58 | 58 | 77 |" in text
    assert "blimp (skipped): no folder blimp" in text
    assert f"Checkpoints without a report: `{HALF}`." in text
    assert "--set interact.ppo.learning_rate=0.001" in text
    assert "--teacher transformers:judge --eval-data eval" in text
    assert "/home/me" not in text
    assert command(monkeypatch, "card", run.path, "--checkpoint", START, "--output", tmp_path / "card.md") == 0
    early = (tmp_path / "card.md").read_text()
    assert f'revision="{START}"' in early
    assert "interaction with a teacher" not in early.split("## Use")[0]
    assert "1.25 [1.00, 1.75] (40) |\n" in early
    assert command(monkeypatch, "card", run.path, "--checkpoint", "chck_2k") == 2


def test_where_the_initial_model_lay_is_not_published(
    run: RunFolder, hub: Hub, server: WireServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parent = tmp_path / "mine" / "parent"
    shutil.copytree(run.checkpoints / START, parent, ignore=shutil.ignore_patterns("manifest.json", "trainer_state"))
    settings = tiny_settings()
    settings = settings.model_copy(
        update={
            "student": settings.student.model_copy(update={"init": str(parent)}),
            "pretrain": settings.pretrain.model_copy(update={"word_budget": 0}),
        }
    )
    run.config.write_text(config.dump(settings, run.run), encoding="utf-8")
    kept = keep_initial(run.path, run.run, settings)
    learned = run.checkpoints / "chck_0_rl_58"
    facts = {"stage": "interact", "pretraining_words": 0, "interaction_words": 58, "step": 3}
    checkpoints.save(learned, load_student(kept), tiny_tokenizer(), {}, facts)
    assert checkpoints.facts(kept)["init"] == str(parent)  # for whoever has the run
    assert command(monkeypatch, "push", run.path, "--to", "me/tiny", "--endpoint", server.url) == 0
    assert {"chck_0", "chck_0_rl_58"} < set(hub.repos["me/tiny"].branches)
    for branch in hub.repos["me/tiny"].branches:
        for file, content in held(hub, branch).items():
            assert str(tmp_path).encode() not in content, f"{branch}: {file}"


@pytest.mark.parametrize("init", ["/home/me/models/parent", "org/parent"])
def test_a_card_of_a_model_of_elsewhere_has_that_models_shape(run: RunFolder, init: str) -> None:
    own = tiny_settings().model_dump(mode="json")
    own["student"] |= {"init": init, "layers": 77}
    own["pretrain"]["word_budget"] = 0
    own["corpus"]["source"] = "hf:some/words"
    run.config.write_text(config.dump(config.parse(own), run.run))
    facts = read_facts(run.path)
    text = write_card(facts, facts.kept[-1])
    name = "parent" if init.startswith("/") else init
    assert "| student | layers 2, heads 2, width 16, context 64 |" in text
    assert f"| initial model | {name}; words that the initial model had read are not counted here |" in text
    assert f"begun from {name}; words that the initial model had read are not counted here" in text
    assert f"--set student.init={name} " in text
    for wrong in ("77", "some/words", "| corpus |", "| pretraining |", "/home/me"):
        assert wrong not in text.replace("| 77 |", "")  # the student's words


@pytest.mark.parametrize("prompt", ["Once upon a time,", "Once: upon: a time,", "7"])
def test_the_command_of_a_card_makes_the_settings_again(run: RunFolder, prompt: str) -> None:
    own = tiny_settings(prompt=prompt)
    run.config.write_text(config.dump(own, run.run))
    parts = shlex.split(run_command(read_facts(run.path)))
    made = config.resolve("smoke", [value for option, value in pairwise(parts) if option == "--set"])
    others = {"rloo", "grpo", "reinforce_plus_plus", "bon"}
    assert made.model_dump(exclude={"interact": others}) == own.model_dump(exclude={"interact": others})
