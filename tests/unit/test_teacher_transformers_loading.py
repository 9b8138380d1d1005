"""From a folder to a judge: modes, identity, and folders that are no judge."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, BloomConfig, BloomForCausalLM

from services.teacher.judges.base import JudgeUnavailableError
from services.teacher.judges.build import build_judge
from services.teacher.judges.lm.loading import folder_hash
from services.teacher.judges.transformers_judge import TransformersJudge
from services.teacher.spec import TeacherSpec
from tests.teacher_models import SHORT
from tests.tiny_models import load_tiny, make_tiny_llama


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "llama")


def test_identity_follows_the_weights(llama: Path, tmp_path: Path) -> None:
    other = make_tiny_llama(tmp_path / "llama", seed=1)
    same = make_tiny_llama(tmp_path / "again" / "llama", seed=0)
    identities = [TransformersJudge(load_tiny(path), SHORT).identity for path in (llama, other, same)]
    assert identities[0] == identities[2]
    assert identities[0].revision != identities[1].revision
    assert identities[0].revision.startswith(f"sha256:{folder_hash(llama)}+float32")


def test_models_are_built_one_after_the_other(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The local teachers of a teachers file load in a thread each; where transformers builds a GPT-2 and a larger Llama
    # at the same time, about half of the loads end in "Cannot copy out of meta tensor".
    build, inside, most = AutoModelForCausalLM.from_pretrained, 0, 0

    def watched(*args: Any, **options: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.1)
        try:
            return build(*args, **options)
        finally:
            inside -= 1

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", watched)
    with ThreadPoolExecutor(3) as pool:
        assert len(list(pool.map(load_tiny, [llama] * 3))) == 3
    assert most == 1


def spec_for(folder: Path, **settings: object) -> TeacherSpec:
    return TeacherSpec.model_validate({"judge": f"transformers:{folder}", "device": "cpu", **settings})


def test_the_spec_chooses_mode_temperature_and_seed(llama: Path) -> None:
    settings: dict[str, dict[str, object]] = {
        "joint": {},
        "independent-t0.5": {"mode": "independent", "temperature": 0.5},
        "sample-t0.2-seed42": {"mode": "sample"},
        "sample-seed7": {"mode": "sample", "temperature": 1, "sample_seed": 7},
    }
    for name, chosen in settings.items():
        assert build_judge(spec_for(llama, **chosen), SHORT).identity.mode == name


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "tokenizer.json").unlink(), "write the folder again"),
        (lambda f: (f / "chat_template.jinja").unlink(), "no chat template"),
        (lambda f: (f / "chat_template.jinja").write_text("{% for %}"), "chat template"),
        (lambda f: (f / "chat_template.jinja").write_text("{{ messages[0]['content'] }}"), "shows the story 0 times"),
    ],
)
def test_a_folder_that_cannot_be_asked_says_why_before_its_weights_load(
    tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    folder = make_tiny_llama(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    spoil(folder)
    with pytest.raises(JudgeUnavailableError, match=says):
        build_judge(spec_for(folder), SHORT)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: (f / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0nonsense"),
        lambda f: (f / "model.safetensors").unlink(),
        lambda f: (f / "config.json").write_text('{"model_type": "unheard"}'),
    ],
)
def test_a_folder_without_good_weights_says_why(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    folder = make_tiny_llama(tmp_path / "m")
    spoil(folder)
    with pytest.raises(JudgeUnavailableError, match="cannot be loaded"):
        build_judge(spec_for(folder), SHORT)


def test_an_architecture_that_cannot_carry_the_tree_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "alibi")
    vocabulary = load_tiny(folder).model.config.vocab_size
    config = BloomConfig(
        vocab_size=vocabulary, hidden_size=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=3, pad_token_id=0
    )
    BloomForCausalLM(config).save_pretrained(folder)
    with pytest.raises(JudgeUnavailableError, match="take a decoder with ordinary attention"):
        TransformersJudge(load_tiny(folder), SHORT)


def test_absent_models_and_devices_are_named(llama: Path) -> None:
    with pytest.raises(JudgeUnavailableError, match=r"no config\.json"):
        build_judge(spec_for(Path("/no/such/folder")), SHORT)
    with pytest.raises(JudgeUnavailableError, match="FABULA_DEVICE=auto"):
        build_judge(spec_for(llama, device="cuda:99"), SHORT)
