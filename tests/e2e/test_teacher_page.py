"""The playground in a real browser: with the mouse, by keyboard, on a phone's width, with two teachers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.teacher_helpers import WordJudge, teacher, until_ready
from tests.tiny_models import make_tiny_llama

TALE = "Once upon a time, a fox lost his lantern. He asked the owl. They found it at dawn."
TAIL = "Readability: 3 Coherence: 3 Creativity: 3"
HOSTILE = "<img src=x onerror=\"document.title='taken'\"> <script>document.title='taken'</script> said the fox."


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tiny language model as the own teacher, beside the rules judge and an ensemble."""
    folder = make_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny-llama")
    path = Path(folder).parent / "teachers.yaml"
    path.write_text("teachers: {both: {ensemble: [default, rules]}}", encoding="utf-8")
    with teacher(None, teacher=f"transformers:{folder}", teachers_file=str(path)) as client:
        until_ready(client)
        yield str(client.base_url)


@pytest.fixture
def lenient(browser: Browser) -> Iterator[Page]:
    """A tab that may see errors: the browser notes each answer that is a problem."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


def judge(page: Page, text: str, *, second: str = "") -> None:
    page.get_by_label("A story").fill(text)
    page.get_by_label("beside").select_option(second)
    page.get_by_role("button", name="Judge").click()
    expect(page.locator("article")).to_have_count(2 if second else 1)
    expect(page.get_by_role("button", name="Judge")).to_have_text("Judge")


def test_a_story_gets_three_criteria_as_bars_and_shows_its_prompt(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("status")).to_contain_text("Ready: transformers:")
    judge(page, TALE)
    card = page.locator("article")
    expect(card.get_by_role("heading", level=2)).to_contain_text("default: ")
    expect(card.get_by_role("heading", level=2)).to_contain_text(" of 9")
    expect(card.locator("h3")).to_have_count(3)
    expect(card.locator(".level")).to_have_count(12)
    widths = card.locator(".fill").evaluate_all("bars => bars.map(bar => parseFloat(bar.style.width))")
    for criterion in range(3):
        assert sum(widths[4 * criterion : 4 * criterion + 4]) == pytest.approx(100, abs=0.01)
    card.get_by_text("The exact prompt").click()
    prompt = card.locator("pre").first.inner_text()
    assert TALE in prompt
    assert "Correct grammar throughout" in prompt
    expect(card).to_contain_text("halo")
    expect(page.locator("#flagged")).to_be_hidden()


def test_two_teachers_stand_side_by_side_and_an_ensemble_shows_its_members(page: Page, address: str) -> None:
    page.goto(address)
    judge(page, TALE, second="rules")
    cards = page.locator("article")
    boxes = [cards.nth(i).bounding_box() for i in range(2)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] < boxes[1]["x"]
    expect(cards.nth(1)).to_contain_text("No prompt: no model was asked")
    page.get_by_label("Teacher").select_option("both")
    judge(page, TALE, second="rules")
    expect(cards.nth(0)).to_contain_text("members")
    expect(cards.nth(0)).to_contain_text("disagreement")


def test_flags_are_marked_in_the_text(page: Page, address: str) -> None:
    page.goto(address)
    judge(page, f"🦊 {TALE} {TAIL}")
    expect(page.locator("#flagged")).to_be_visible()
    marks = page.locator("mark")
    assert "score_tail" in marks.evaluate_all("all => all.map(m => m.dataset.flag)")
    shown = page.locator("#marked").inner_text()
    assert shown.replace("\n", " ").startswith(f"🦊 {TALE}")
    assert TALE not in "".join(marks.all_inner_texts())


def test_by_keyboard_alone(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("status")).to_contain_text("Ready")
    page.get_by_label("Take an example").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("A story")).not_to_have_value("")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+Enter")
    expect(page.locator("article")).to_have_count(1)


def test_on_a_phone_nothing_is_cut_off(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(address)
    judge(page, f"{TALE} {'x' * 300} {TAIL}", second="rules")
    page.get_by_text("The exact prompt").first.click()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_story_is_text_and_never_markup(page: Page, address: str) -> None:
    page.goto(address)
    judge(page, f"{HOSTILE} {HOSTILE} {TAIL}")
    page.get_by_text("The exact prompt").click()
    expect(page).to_have_title("Fabula teacher: playground")
    assert page.locator("main img").count() == 0


def test_a_story_without_numbers_says_why(page: Page, address: str) -> None:
    page.goto(address)
    judge(page, "far away " * 12_000)
    expect(page.locator("article")).to_contain_text("default: refused")
    expect(page.locator("article")).to_contain_text("at most 100000")


def test_a_problem_is_shown_and_the_other_teacher_too(lenient: Page) -> None:
    with teacher(WordJudge()) as client:
        lenient.goto(str(client.base_url))
        expect(lenient.get_by_role("status")).to_contain_text("Ready")
        lenient.get_by_label("A story").fill(f"AWAY {TALE}")
        lenient.get_by_label("beside").select_option("rules")
        lenient.get_by_role("button", name="Judge").click()
        expect(lenient.get_by_role("alert")).to_contain_text("default: 503 Not ready: the judge is away; wake it up")
        expect(lenient.locator("article")).to_have_count(1)
