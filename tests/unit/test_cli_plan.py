"""Which run a command means: names, settings, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from services.local.errors import CommandError
from services.local.plan import Request, make_plan, read_plan, write_plan


@pytest.fixture
def smoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    monkeypatch.delenv("FABULA_TEACHER", raising=False)
    return Request(tmp_path / "runs", preset="smoke")


def test_the_same_command_means_the_same_run(smoke: Request) -> None:
    first, second = make_plan(smoke), make_plan(smoke)
    assert first == second
    assert first.run.startswith("smoke-")
    assert len(first.run) == len("smoke-") + 6


@pytest.mark.parametrize(
    "change",
    [
        {"overrides": ("seed=43",)},
        {"preset": "laptop"},
        {"teacher": "transformers:some/model"},
        {"corpus": "hf:some/data"},
    ],
)
def test_whatever_decides_the_result_decides_the_name(smoke: Request, change: dict[str, object]) -> None:
    assert make_plan(replace(smoke, **change)).run != make_plan(smoke).run  # type: ignore[arg-type]


def test_a_server_or_a_name_of_the_teachers_file_is_a_teacher(
    smoke: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_plan(replace(smoke, teacher="vllm:http://gpu:8000/")).teacher == "vllm:http://gpu:8000"
    path = tmp_path / "teachers.yaml"
    path.write_text("teachers: {llama: {judge: 'vllm:http://gpu:8000'}}", encoding="utf-8")
    with pytest.raises(CommandError, match="unknown backend 'llama'"):
        make_plan(replace(smoke, teacher="llama"))
    monkeypatch.setenv("FABULA_TEACHERS_FILE", str(path))
    assert make_plan(replace(smoke, teacher="llama")).teacher == "llama"
    with pytest.raises(CommandError, match=r"unknown backend 'lama'.*names: llama"):
        make_plan(replace(smoke, teacher="lama"))


def test_laptop_and_the_rules_teacher_are_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FABULA_TEACHER", raising=False)
    plan = make_plan(Request(tmp_path))
    assert plan.settings.preset == "laptop"
    assert plan.teacher == "rules:"
    monkeypatch.setenv("FABULA_TEACHER", "transformers:some/model")
    assert make_plan(Request(tmp_path)).teacher == "transformers:some/model"


def evaluation_data(folder: Path) -> Path:
    """A folder that looks like evaluation data; what is in its files is not asked when a run is planned."""
    (folder / "fast_eval" / "blimp_fast").mkdir(parents=True)
    return folder


def test_evaluation_data_decides_the_name(smoke: Request, tmp_path: Path) -> None:
    data = evaluation_data(tmp_path / "data")
    assert make_plan(replace(smoke, eval_data=data)).run != make_plan(smoke).run


def test_a_run_is_written_and_read_back(smoke: Request, tmp_path: Path) -> None:
    data = evaluation_data(tmp_path / "data")
    request = replace(smoke, eval_data=data, teacher=f"transformers:{tmp_path}", overrides=("seed=7",))
    plan = make_plan(request)
    write_plan(plan)
    assert read_plan(plan.folder) == plan
    assert not [p.name for p in plan.folder.iterdir() if "building" in p.name]


def test_paths_are_remembered_whole(smoke: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tales.txt").write_text("Once upon a time.", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    by_option = make_plan(replace(smoke, corpus="tales.txt"))
    by_setting = make_plan(replace(smoke, overrides=("corpus.source=tales.txt",)))
    assert by_option.settings.corpus.source == str(tmp_path / "tales.txt")
    assert by_option == by_setting


def test_a_named_run_needs_no_other_option_the_second_time(smoke: Request) -> None:
    write_plan(make_plan(replace(smoke, run="mine", overrides=("seed=7",))))
    again = make_plan(Request(smoke.runs_dir, run="mine"))
    assert again.settings.seed == 7
    assert again.settings.preset == "smoke"


def test_a_known_run_with_other_settings_names_what_differs(smoke: Request) -> None:
    write_plan(make_plan(replace(smoke, run="mine")))
    other = make_plan(replace(smoke, run="mine", overrides=("seed=7", "interact.ppo.epochs=3")))
    with pytest.raises(CommandError, match="seed is 42, asked for 7") as caught:
        write_plan(other)
    assert "interact.ppo.epochs is 2, asked for 3" in str(caught.value)
    assert "--run NAME" in str(caught.value)
    assert read_plan(other.folder).settings.seed == 42


def test_who_is_told_of_a_run_is_no_part_of_what_it_is(smoke: Request) -> None:
    told = replace(smoke, overrides=(*smoke.overrides, "tracking.trackers=[tensorboard]"))
    plan, silent = make_plan(told), make_plan(smoke)
    assert plan.run == silent.run
    assert plan.settings.hash == silent.settings.hash
    write_plan(silent)
    write_plan(plan)
    assert read_plan(plan.folder).settings.tracking.trackers == ("tensorboard",)
    write_plan(silent)
    assert read_plan(plan.folder).settings == silent.settings


def test_another_teacher_is_another_setting(smoke: Request) -> None:
    write_plan(make_plan(replace(smoke, run="mine")))
    with pytest.raises(CommandError, match="teacher is rules:, asked for transformers:some/model"):
        write_plan(make_plan(replace(smoke, run="mine", teacher="transformers:some/model")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "tiny"}, "preset 'tiny' is unknown; choose one of laptop, paper, smoke"),
        ({"overrides": ("seed",)}, "not of the form section.key=value"),
        ({"overrides": ("interact.batch=3",)}, "interact.batch"),
        ({"overrides": ("interact.batch_size=30", "interact.ppo.minibatch_size=8")}, "must be divisible by"),
        ({"corpus": "/no/such.txt"}, "the corpus /no/such.txt does not exist"),
        ({"eval_data": Path("/no/such")}, "is not a folder"),
        ({"eval_data": Path(__file__).parent}, "expected fast_eval"),
        ({"teacher": "oracle:"}, "unknown backend 'oracle'"),
        ({"run": "../elsewhere"}, "cannot name a folder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    smoke: Request, change: dict[str, object], message: str
) -> None:
    with pytest.raises(CommandError, match=message) as caught:
        make_plan(replace(smoke, **change))  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert not smoke.runs_dir.exists()


def test_a_folder_that_cannot_be_written_is_said(smoke: Request, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CommandError, match="choose another place with --runs-dir"):
        write_plan(make_plan(replace(smoke, runs_dir=tmp_path / "file")))


def test_a_damaged_run_is_said(smoke: Request) -> None:
    plan = make_plan(smoke)
    write_plan(plan)
    (plan.folder / "up.json").write_text("{", encoding="utf-8")
    with pytest.raises(CommandError, match="cannot be read"):
        read_plan(plan.folder)
    (plan.folder / "run.yaml").unlink()
    with pytest.raises(CommandError, match="holds no run"):
        read_plan(plan.folder)


def test_teacher_and_evaluation_data_stand_beside_the_settings(smoke: Request, tmp_path: Path) -> None:
    data = evaluation_data(tmp_path / "data")
    plan = make_plan(replace(smoke, eval_data=data))
    write_plan(plan)
    written = json.loads((plan.folder / "up.json").read_text(encoding="utf-8"))
    assert written == {"teacher": "rules:", "eval_data": str(data)}
