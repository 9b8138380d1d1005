"""The evaluator's page in a real browser: what a person sees, with the mouse, the keyboard and on a phone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from fabula_proto import Alarm, EvaluationOrder
from services.evaluator.adapters.job_store import JobStore
from services.evaluator.app import create_app
from services.evaluator.orders import JOBS
from services.evaluator.settings import EvaluatorSettings
from tests.evaluator_runs import step_metrics, write_report, write_run, write_stories_step
from tests.teacher_helpers import serving

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script> said the fox."


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "tale", steps=5, stories=9)
    write_report(folder / "evaluations" / "chck_1M_rl_100k", "tale", "chck_1M_rl_100k", 0.7, spent=100_000)
    write_run(tmp_path / "other", steps=1)
    return tmp_path


@pytest.fixture
def address(runs: Path) -> Iterator[str]:
    """The page's server. It comes before `page` in a test: it ends after the tab that asks it again and again."""
    with serving(create_app(EvaluatorSettings(runs_dir=runs))) as client:
        yield str(client.base_url)


def test_a_run_is_shown_with_curves_scores_and_stories(address: str, page: Page) -> None:
    page.goto(f"{address}/#tale")
    expect(page.get_by_role("heading", name="tale")).to_be_visible()
    for title in ("Story score", "Criteria", "Reward", "KL from", "Words", "Pretraining loss"):
        expect(page.locator("figcaption", has_text=title)).to_be_visible()
    expect(page.locator("figure", has_text="Criteria").locator("polyline")).to_have_count(2)
    row = page.get_by_role("row", name="chck_1M_rl_100k")
    expect(row).to_contain_text("70.0 %")
    expect(row).to_contain_text("65.0 to 75.0")
    expect(row).to_contain_text("generated")
    expect(row).to_contain_text("failed: line 3 is no JSON")
    expect(page.get_by_role("row", name="chck_500k")).to_contain_text("not measured")
    expect(page.locator("#early article").first).to_contain_text("Story 0 of step 0")
    expect(page.locator("#late article").first).to_contain_text("Story 0 of step 4")
    expect(page.locator("#late article").first).to_contain_text("7 points")
    expect(page.locator("#late article").first).to_contain_text("repetition")


def test_columns_are_the_suites_that_were_measured(address: str, page: Page) -> None:
    page.goto(f"{address}/#tale")
    row = page.get_by_role("row", name="chck_1M_rl_100k")
    expect(row).to_contain_text("1.25 %")
    expect(page.get_by_role("columnheader", name="Reading")).to_be_visible()
    expect(page.get_by_role("columnheader", name="Supplement")).to_have_count(0)  # skipped in every report


def test_an_evaluation_that_was_asked_for_is_shown(address: str, page: Page, runs: Path) -> None:
    store = JobStore(runs / JOBS)
    job = store.submit(EvaluationOrder(checkpoint="tale/chck_500k"))
    with store.claimed(job.id):  # as another process would hold it
        store.save(job.model_copy(update={"state": "running", "starts": 1}))
        page.goto(f"{address}/#tale")
        expect(page.locator("#work")).to_contain_text("Measuring tale/chck_500k, as was asked for", timeout=15_000)
        store.save(job.model_copy(update={"state": "cancelled"}))
    expect(page.locator("#work")).to_contain_text("no queue is served", timeout=15_000)


def test_stories_are_browsed_by_step_and_page(address: str, page: Page) -> None:
    page.goto(f"{address}/#tale")
    page.locator("#late").get_by_role("button", name="Update before").click()
    expect(page.locator("#late article").first).to_contain_text("Story 0 of step 3")
    page.locator("#late").get_by_role("button", name="More stories").click()
    expect(page.locator("#late article").first).to_contain_text("Story 6 of step 3")
    expect(page.locator("#late article").last).to_contain_text("no verdict (failed): the teacher was away")
    page.locator("#early select").select_option("2")
    expect(page.locator("#early article").first).to_contain_text("Story 0 of step 2")


def test_a_story_can_bring_no_markup(address: str, page: Page, runs: Path) -> None:
    write_stories_step(runs / "tale" / "stories", "tale", 5, [HOSTILE, "The end."])
    page.goto(f"{address}/#tale")
    expect(page.locator("#late article").first).to_contain_text("<script>document.title='taken'</script>")
    assert page.locator("article img").count() == 0
    assert page.title() == "Fabula: tale"


def test_the_page_follows_a_run_that_goes_on(address: str, page: Page, runs: Path) -> None:
    page.goto(f"{address}/#tale")
    figure = page.locator("figure", has_text="Story score")
    expect(figure.locator(".read")).to_contain_text("update 4: score 5")
    with (runs / "tale" / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(step_metrics("tale", 5).to_json() + "\n")
    write_stories_step(runs / "tale" / "stories", "tale", 5, ["A tale newly told.", "Another."])
    expect(figure.locator(".read")).to_contain_text("update 5: score 5.5", timeout=15_000)
    expect(page.locator("#late article").first).to_contain_text("A tale newly told.")
    expect(page.locator("#early article").first).to_contain_text("Story 0 of step 0")


def raise_alarm(run: Path, step: int, message: str) -> None:
    alarm = Alarm(
        run=run.name, step=step, guard="repetition", value=0.4, threshold=0.25, action="pause", message=message
    )
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(alarm.to_json() + "\n")


def test_alarms_are_listed_and_lead_to_their_stories(address: str, page: Page, runs: Path) -> None:
    page.goto(f"{address}/#tale")
    expect(page.locator("#late article").first).to_contain_text("Story 0 of step 4")
    expect(page.locator("#alarms")).to_be_hidden()
    raise_alarm(runs / "tale", 1, "40% of word trigrams repeat earlier ones")
    raise_alarm(runs / "tale", 3, HOSTILE)
    (runs / "tale" / "PAUSED").write_text("")
    items = page.locator("#alarm-list li")
    expect(items).to_have_count(2, timeout=15_000)
    expect(items.first).to_contain_text("repetition: <img src=x")
    expect(items.last).to_contain_text("repetition: 40% of word trigrams repeat earlier ones (pause)")
    expect(page.locator("#paused")).to_be_visible()
    expect(page.locator("figure", has_text="Story score").locator("line.alarm")).to_have_count(2)
    items.last.get_by_role("button", name="update 1").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#late article").first).to_contain_text("Story 0 of step 1")
    assert page.title() == "Fabula: tale"
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    (runs / "tale" / "PAUSED").unlink()
    expect(page.locator("#paused")).to_be_hidden(timeout=15_000)


def test_the_keyboard_reaches_runs_and_reads_curves(address: str, page: Page) -> None:
    page.goto(f"{address}/#tale")
    expect(page.get_by_role("heading", name="tale")).to_be_visible()
    page.locator("button[data-run=other]").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="other")).to_be_visible()
    page.locator("button[data-run=tale]").focus()
    page.keyboard.press("Enter")
    figure = page.locator("figure", has_text="Story score")
    expect(figure.locator(".read")).to_contain_text("update 4: score 5")
    figure.locator("svg").first.focus()
    page.keyboard.press("Home")
    expect(figure.locator(".read")).to_contain_text("update 0: score 3")
    page.keyboard.press("ArrowRight")
    expect(figure.locator(".read")).to_contain_text("update 1: score 3.5")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_both_colour_schemes(browser: Browser, address: str, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, color_scheme="dark" if scheme == "dark" else "light"
    )
    tab = context.new_page()
    tab.goto(f"{address}/#tale")
    expect(tab.locator("#late article").first).to_be_visible()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    channels = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(channels) < 80) == (scheme == "dark")
    context.close()


def test_without_runs_it_says_so(page: Page, tmp_path: Path) -> None:
    with serving(create_app(EvaluatorSettings(runs_dir=tmp_path / "none"))) as client:
        page.goto(str(client.base_url))
        expect(page.get_by_text("No runs yet")).to_be_visible()
        expect(page.locator("#run")).to_be_hidden()
        page.goto("about:blank")
