"""Run folders as they are found: complete, half-written, damaged, or not ours to read."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fabula_proto import Alarm, EvaluationReport, SuiteResult, Watch
from services.evaluator.adapters.run_config import read_run_config
from services.evaluator.adapters.run_folder import RunFolders, evenly
from services.evaluator.adapters.run_stories import StoryReader
from services.evaluator.errors import EvaluatorError, RunNotFoundError
from services.evaluator.request import EvaluationRequest, words_in_name
from tests.evaluator_runs import pretrain_metrics, step_metrics, write_run


def line(step: int) -> str:
    return pretrain_metrics("r", step).to_json()


@pytest.fixture
def runs(tmp_path: Path) -> RunFolders:
    write_run(tmp_path / "first", steps=3)
    return RunFolders(tmp_path)


def test_a_run_is_summed_up(runs: RunFolders) -> None:
    detail = runs.detail("first")
    assert detail.config["interact"]["prompt"] == "Once upon a time,"
    assert [c.checkpoint for c in detail.checkpoints] == ["chck_500k", "chck_1M", "chck_1M_rl_100k"]
    assert [c.complete for c in detail.checkpoints] == [True, True, False]
    assert detail.latest_step is not None
    assert detail.latest_step.step == 2
    assert [r.checkpoint for r in detail.reports] == ["chck_1M"]
    (summary,) = runs.summaries()
    assert (summary.run, summary.preset, summary.checkpoints, summary.evaluations) == ("first", "smoke", 2, 1)


@pytest.mark.parametrize(
    "name", ["..", "../first", "first/../first", ".hidden", "", "a\x00b", "absent", "first/stories"]
)
def test_names_that_are_no_run_are_refused(runs: RunFolders, name: str) -> None:
    with pytest.raises(RunNotFoundError, match="no run"):
        runs.folder(name)


def test_a_link_out_of_the_runs_folder_is_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "runs", tmp_path / "elsewhere"
    write_run(outside, steps=1)
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    with pytest.raises(RunNotFoundError):
        RunFolders(inside).folder("link")


def test_a_line_on_its_way_is_left_for_later_and_a_bad_one_counted(runs: RunFolders, tmp_path: Path) -> None:
    path = tmp_path / "first" / "metrics.jsonl"
    before = runs.metrics("first", 100)
    path.write_text(path.read_text() + "{bad}\n[1]\n" + line(9)[:40], encoding="utf-8")
    after = runs.metrics("first", 100)
    assert after.unreadable_lines == 2
    assert (after.pretrain, after.interact) == (before.pretrain, before.interact)


def test_alarms_and_what_guards_saw_are_read(runs: RunFolders, tmp_path: Path) -> None:
    alarm = Alarm(run="first", step=1, guard="kl", value=30.0, threshold=25.0, action="note", message="far away")
    watch = Watch(
        repetition=0.1, distinct_bigrams=0.5, length_slope=None, criteria_spread={"readability": 0.3}, teachers=()
    )
    path = tmp_path / "first" / "metrics.jsonl"
    seen = step_metrics("first", 3).model_copy(update={"watch": watch})
    path.write_text(path.read_text() + alarm.to_json() + "\n" + seen.to_json() + "\n", encoding="utf-8")
    metrics = runs.metrics("first", 100)
    assert metrics.alarms == (alarm,)
    assert [line.watch for line in metrics.interact] == [None, None, None, watch]
    assert (metrics.unreadable_lines, metrics.paused) == (0, False)


def test_curves_are_thinned_with_both_ends(tmp_path: Path) -> None:
    (tmp_path / "long").mkdir()
    (tmp_path / "long" / "metrics.jsonl").write_text("".join(line(i) + "\n" for i in range(1, 1001)))
    metrics = RunFolders(tmp_path).metrics("long", 50)
    assert (len(metrics.pretrain), metrics.pretrain_lines) == (50, 1000)
    assert (metrics.pretrain[0].step, metrics.pretrain[-1].step) == (1, 1000)
    assert evenly(3, 5) == [0, 1, 2]


def test_a_run_without_metrics_or_with_a_broken_yaml_is_shown_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.yaml").write_text("a: [1, 2", encoding="utf-8")
    runs = RunFolders(tmp_path)
    detail = runs.detail("new")
    assert detail.config == {}
    assert "run.yaml cannot be read" in detail.unreadable[0]
    assert runs.summaries()[0].run == "new"
    assert runs.metrics("new", 10).pretrain == ()


def test_a_damaged_report_is_named_and_the_others_shown(runs: RunFolders, tmp_path: Path) -> None:
    folder = tmp_path / "first" / "evaluations" / "chck_500k"
    folder.mkdir()
    (folder / "report.json").write_text('{"run": "first"', encoding="utf-8")
    detail = runs.detail("first")
    assert [r.checkpoint for r in detail.reports] == ["chck_1M"]
    assert detail.unreadable[0].startswith("evaluations/chck_500k/report.json: ")


def test_stories_are_read_by_step_and_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", steps=3)
    reader = StoryReader()
    latest = reader.page("r", folder, None, 0, 2)
    assert (latest.steps, latest.step, latest.total) == ((0, 1, 2), 2, 4)
    assert [s.index for s in latest.stories] == [0, 1]
    assert latest.stories[0].criteria == {"readability": 1.0, "coherence": 2.0}
    rest = reader.page("r", folder, 2, 2, 10)
    assert [s.index for s in rest.stories] == [2, 3]
    failed = rest.stories[-1]
    assert (failed.status, failed.total, failed.criteria, failed.reason) == ("failed", None, {}, "the teacher was away")
    with pytest.raises(RunNotFoundError, match="no stories of step 7; its steps: 0 to 2"):
        reader.page("r", folder, 7, 0, 10)


def test_a_part_being_written_is_counted_and_read_once_it_is_whole(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", steps=1)
    part = folder / "stories" / "part-00001.parquet"
    part.write_bytes(b"PAR1 half")
    reader = StoryReader()
    assert reader.page("r", folder, None, 0, 5).unreadable_parts == 1
    whole = pq.read_table(folder / "stories" / "part-00000.parquet")
    pq.write_table(whole.set_column(whole.schema.get_field_index("step"), "step", pa.array([1] * len(whole))), part)
    page = reader.page("r", folder, None, 0, 5)
    assert (page.steps, page.step, page.unreadable_parts) == ((0, 1), 1, 0)


def test_a_run_without_stories_has_an_empty_page(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    page = StoryReader().page("r", tmp_path / "r", None, 0, 5)
    assert (page.steps, page.step, page.stories) == ((), None, ())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("chck_90M", (90_000_000, 0)),
        ("chck_90M_rl_100k", (90_000_000, 100_000)),
        ("chck_950_rl_3", (950, 3)),
        ("my-model", (0, 0)),
    ],
)
def test_names_say_words(name: str, words: tuple[int, int]) -> None:
    assert words_in_name(name) == words


def test_a_folder_by_hand_belongs_to_its_run_where_it_lies_in_one(tmp_path: Path) -> None:
    (tmp_path / "r" / "checkpoints" / "chck_1M_rl_2k").mkdir(parents=True)
    (tmp_path / "r" / "run.yaml").write_text("preset: smoke\n")
    inside = EvaluationRequest.from_folder(tmp_path / "r" / "checkpoints" / "chck_1M_rl_2k")
    assert (inside.run, inside.stage, inside.interaction_words) == ("r", "interact", 2000)
    assert inside.output == tmp_path / "r" / "evaluations" / "chck_1M_rl_2k"
    alone = EvaluationRequest.from_folder(tmp_path, tmp_path / "out")
    assert (alone.run, alone.stage, alone.output) == ("", "pretrain", tmp_path / "out")


def test_run_yaml_says_prompt_and_stories_and_bad_values_are_named(tmp_path: Path) -> None:
    assert read_run_config(None).prompt is None
    (tmp_path / "run.yaml").write_text("interact: {prompt: Hark, max_new_tokens: 60}\nevaluation: {stories: 40}\n")
    config = read_run_config(tmp_path)
    assert (config.prompt, config.max_new_tokens, config.stories) == ("Hark", 60, 40)
    (tmp_path / "run.yaml").write_text("interact: {max_new_tokens: many}\n")
    with pytest.raises(EvaluatorError, match=r"run\.yaml has a value that cannot be used"):
        read_run_config(tmp_path)


def test_reports_survive_the_journey(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", steps=1)
    report = EvaluationReport.from_json((folder / "evaluations" / "chck_1M" / "report.json").read_bytes())
    assert json.loads(report.to_json())["suites"][0]["measures"]["accuracy"]["value"] == 0.6
    assert isinstance(report.suites[0], SuiteResult)
