"""Which run a command means: names, settings, and what is refused."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from services.local.errors import CommandError
from services.local.plan import Request, make_plan, read_plan, write_plan
from services.local.precheck import check_fit, check_weights
from services.local.runlock import RunLock
from services.local.up import Options, pretrain, up
from services.student_trainer.folder_lock import FolderLock
from services.teacher import rubric

OTHER_GUARDS = ("interact.guards.kl.threshold=3", "tracking.trackers=[tensorboard]")


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
    assert make_plan(replace(smoke, eval_data=str(data))).run != make_plan(smoke).run


def test_a_run_is_written_and_read_back(smoke: Request, tmp_path: Path) -> None:
    data = evaluation_data(tmp_path / "data")
    request = replace(smoke, eval_data=str(data), teacher=f"transformers:{tmp_path}", overrides=("seed=7",))
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
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    taken, hub = (make_plan(replace(smoke, overrides=(f"student.init={name}",))) for name in ("model", "org/model"))
    assert taken.settings.student.init == str(tmp_path / "model")
    assert hub.settings.student.init == "org/model"


def test_a_named_run_needs_no_other_option_the_second_time(smoke: Request) -> None:
    write_plan(make_plan(replace(smoke, run="mine", overrides=("seed=7",))))
    again = make_plan(Request(smoke.runs_dir, run="mine"))
    assert again.settings.seed == 7
    assert again.settings.preset == "smoke"


def test_a_named_run_goes_on_under_other_guards(smoke: Request) -> None:
    first = make_plan(replace(smoke, run="mine", teacher="vllm:http://gpu:8000", overrides=("seed=7",)))
    write_plan(first)
    again = make_plan(Request(smoke.runs_dir, run="mine", overrides=OTHER_GUARDS))
    assert again.settings.interact.guards.kl.threshold == 3
    assert again.settings.decisive_json == first.settings.decisive_json
    assert again.teacher == first.teacher
    write_plan(again)
    assert read_plan(first.folder) == again
    other = make_plan(Request(smoke.runs_dir, run="mine", teacher="rules:", overrides=("seed=8",)))
    with pytest.raises(CommandError, match=r"other settings: seed is 7, asked for 8; teacher is vllm:[^;]*rules:\."):
        write_plan(other)


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
        ({"preset": "smok"}, "choose one of laptop, paper, smoke; did you mean smoke?"),
        ({"overrides": ("interact.algorithm=grop",)}, "found 'grop'; did you mean grpo?"),
        ({"overrides": ("tracking.trackers=tensorboard",)}, r"is 'tensorboard'; give a list, such as \[tensorboard\]"),
        ({"overrides": ("seed",)}, "not of the form section.key=value"),
        ({"overrides": ("interact.batch=3",)}, "interact.batch"),
        ({"overrides": ("interact.batch_size=30", "interact.ppo.minibatch_size=8")}, "must be divisible by"),
        ({"corpus": "/no/such.txt"}, "the corpus /no/such.txt does not exist"),
        ({"overrides": ("student.init=/no/such",)}, "student.init /no/such: no such folder, and not ORG/NAME"),
        ({"overrides": (f"student.init={Path(__file__).parent}",)}, "no config.json in that folder"),
        ({"eval_data": "/no/such"}, "is not a folder"),
        ({"eval_data": str(Path(__file__).parent)}, "expected fast_eval"),
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
    plan = make_plan(replace(smoke, eval_data=str(data)))
    write_plan(plan)
    written = json.loads((plan.folder / "up.json").read_text(encoding="utf-8"))
    assert written == {"teacher": "rules:", "eval_data": str(data)}


def refused(request: Request, redis_url: str = "http://localhost") -> tuple[str, str]:
    """What `up` prints, and the mistake it ends with; no service is started for either."""
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        up(request, Options(redis_url=redis_url), Console(file=out, width=100))
    assert caught.value.exit_code == 2
    return out.getvalue(), str(caught.value)


def test_a_run_that_is_at_work_keeps_its_own_settings(smoke: Request) -> None:
    plan = make_plan(replace(smoke, run="mine"))
    write_plan(plan)
    other = replace(smoke, run="mine", overrides=OTHER_GUARDS)
    before = (plan.folder / "run.yaml").read_bytes()
    with RunLock(plan.folder, lambda _: None, print):
        assert "in use by process" in refused(other)[1]
    with FolderLock(plan.folder):
        assert "a trainer works in" in refused(other)[1]
    assert (plan.folder / "run.yaml").read_bytes() == before


def test_a_finished_run_keeps_its_own_settings_and_says_so(smoke: Request) -> None:
    plan = make_plan(replace(smoke, run="mine"))
    write_plan(plan)
    (plan.folder / "sessions.jsonl").write_text('{"started": "2026-11-22T00:00:00+00:00", "outcome": "finished"}\n')
    before = (plan.folder / "run.yaml").read_bytes()
    out = io.StringIO()
    assert up(replace(smoke, run="mine", overrides=OTHER_GUARDS), Options(), Console(file=out, width=100)) == 0
    assert (plan.folder / "run.yaml").read_bytes() == before
    assert (
        "Ignored, since run mine has been trained already: interact.guards.kl.threshold is 25.0, asked for 3.0; "
        "tracking.trackers is [], asked for ['tensorboard']."
    ) in out.getvalue()
    out = io.StringIO()
    up(replace(smoke, run="mine"), Options(), Console(file=out, width=100))
    assert "Ignored" not in out.getvalue()


def test_a_run_that_nobody_knows_is_said_to_be_new(smoke: Request) -> None:
    write_plan(make_plan(replace(smoke, run="grimm")))
    mistyped = replace(smoke, run="grim", overrides=("interact.reward.weights={x: 1}",))
    said, _ = refused(mistyped)
    assert f"No run grim in {smoke.runs_dir} yet; a new one begins. There is one named grimm." in said
    assert "No run" not in refused(replace(mistyped, run=None))[0]


def test_what_does_not_fit_the_teacher_is_refused_before_anything_is_read(smoke: Request, redis_url: str) -> None:
    request = replace(smoke, run="mine", overrides=("interact.reward.weights={readabilty: 2}",))
    said, mistake = refused(request, redis_url)
    assert "names readabilty, which is no criterion of the teacher's rubric" in mistake
    assert "did you mean readability? Its criteria are readability, coherence, creativity" in mistake
    assert "Ready" not in said
    assert not (smoke.runs_dir / "mine" / "run.yaml").exists()  # the same name may be given the right setting


def test_pretraining_alone_refuses_a_weight_that_the_teacher_will_not_know(
    smoke: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No teacher is there to be asked: what the run's own one goes by is."""
    request = replace(smoke, run="mine", overrides=("interact.reward.weights={redability: 2}",))
    with pytest.raises(
        CommandError, match=r"redability, which is no criterion of .* did you mean readability\?"
    ) as here:
        pretrain(request, Console(file=io.StringIO()))
    assert here.value.exit_code == 2
    assert not (smoke.runs_dir / "mine" / "run.yaml").exists()
    own = (Path(rubric.__file__).parent / "rubrics" / "paper.yaml").read_text(encoding="utf-8")
    (tmp_path / "own.yaml").write_text(own.replace("readability", "redability"), encoding="utf-8")
    monkeypatch.setenv("FABULA_RUBRIC", str(tmp_path / "own.yaml"))
    check_weights(make_plan(request))


HELD_OUT = "interact.guards.held_out.teacher="


@pytest.mark.parametrize(
    ("setting", "teacher", "judges", "message"),
    [
        ("interact.reward.weights={readability: 0, coherence: 0, creativity: 0}", "rules:", (), "no criterion with a"),
        (f"{HELD_OUT}smal", "rules:", (), r"no teacher has the name 'smal'.*did you mean small\?"),
        (f"{HELD_OUT}rules", "rules:", (), r"rules is the teacher that the student learns from \(rules:\)"),
        (f"{HELD_OUT}small", "small", (), "small is the teacher that the student learns from"),
        (f"{HELD_OUT}default", "small", (), "default is the teacher that the student learns from"),
        (f"{HELD_OUT}small", "rules:", ("small",), "small is the teacher that the student learns from"),
        (f"{HELD_OUT}rules", "small", (), None),
        (f"{HELD_OUT}rules", "rules:", ("small",), None),
        (f"{HELD_OUT}drawn", "small", (), None),
        (f"{HELD_OUT}panel", "small", (), None),
        ("interact.reward.weights={readability: 2}", "small", (), None),
    ],
)
def test_settings_that_fit_the_teacher(
    smoke: Request,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    teacher: str,
    judges: tuple[str, ...],
    message: str | None,
) -> None:
    path = tmp_path / "teachers.yaml"
    path.write_text(
        "teachers: {small: {judge: 'vllm:http://gpu:1'}, drawn: {judge: 'vllm:http://gpu:1', mode: sample}, "
        "panel: {ensemble: [small, rules]}}",
        encoding="utf-8",
    )
    monkeypatch.setenv("FABULA_TEACHERS_FILE", str(path))
    plan = make_plan(replace(smoke, teacher=teacher, overrides=(setting,)))
    if message is None:
        check_fit(plan, judges)
    else:
        with pytest.raises(CommandError, match=message) as caught:
            check_fit(plan, judges)
        assert caught.value.exit_code == 2
