"""`fabula teacher compare` and `calibrate`, end to end: files, teachers over sockets, the map back in a teacher."""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fabula_proto import ScoreResponse, Story, Verdict
from services.cli import main
from services.local import http
from services.teacher.calibration.agreement import Calibration
from services.teacher.calibration.comparison import Comparison
from services.teacher.calibration.reward_map import RewardMap
from services.teacher.judges.base import Asked
from tests.teacher_helpers import WordJudge, teacher

WORDS = ("fox", "owl", "lantern", "ran", "sang", "found", "the", "moon", "river", "slowly")


class Generous(WordJudge):
    """One level more than WordJudge for the same story; FAIL fails."""

    def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        longer = [Asked(item.story.model_copy(update={"text": item.story.text + " x" * 10}), 1) for item in asked]
        return super().judge(longer)


@dataclass(frozen=True)
class Answer:
    code: object
    out: str
    err: str


class Command:
    """The command as a user runs it, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Answer:
        self._monkeypatch.setattr(sys, "argv", ["fabula", "teacher", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        return Answer(ended.value.code, out, err)


@pytest.fixture
def fabula(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    for name in ("FABULA_TEACHER", "FABULA_TEACHERS_FILE", "FABULA_REDIS_URL", "FABULA_REWARD_MAP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    return Command(monkeypatch, capsys)


def texts(n: int) -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=5 + i % 37)) + "." for i in range(n)]


def written(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    return written(tmp_path / "stories.jsonl", [{"id": f"s{i}", "text": text} for i, text in enumerate(texts(120))])


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    rng = random.Random(1)
    rows = []
    for i, text in enumerate(texts(120)):
        level = min(4.0, 1 + len(text.split()) / 10)
        human = {
            name: [min(5.0, max(1.0, level + rng.gauss(0, 0.7))) for _ in range(3)] for name in ("coherence", "wit")
        }
        llm = {"Reader": {"coherence": [level, -1]}}
        system = "Human" if i % 4 == 0 else "GPT"
        rows.append(
            {"story_id": i, "system": system, "prompt": f"p{i % 24}", "story": text, "human": human, "llm": llm}
        )
    return written(tmp_path / "ratings.jsonl", rows)


def test_a_swap_with_a_fitted_map_keeps_the_scale(fabula: Command, stories: Path, tmp_path: Path) -> None:
    """A strict teacher is replaced by a generous one; with the map, the new one's rewards are the old one's."""
    path = tmp_path / "map.json"
    with teacher(WordJudge()) as strict, teacher(Generous()) as generous:
        answer = fabula(
            "compare", strict.base_url, generous.base_url, "--stories", stories, "--json", "--map-out", path
        )
    assert answer.code == 0, answer.err
    assert f"Map written to {path}" in answer.err
    found = Comparison.from_json(answer.out)
    assert (found.pairs, found.a.ok, found.b.ok) == (120, 120, 120)
    assert {row.name for row in found.agreement} == {"readability", "coherence", "creativity", "total", "reward"}
    assert all(row.bias.value is not None and row.bias.value > 0.2 for row in found.agreement)
    assert found.mapping is not None
    assert found.mapping.reward_map == RewardMap.load(path)
    # Half: what the generous teacher gives the highest level, the strict one tells apart.
    assert found.mapping.after.rmse < found.mapping.before.rmse / 2
    batch = {"stories": texts(40)}
    with teacher(WordJudge()) as old, teacher(Generous(), reward_map=str(path)) as new:
        before = ScoreResponse.from_json(old.post("/score", json=batch).content)
        after = ScoreResponse.from_json(new.post("/score", json=batch).content)
        assert new.get("/info").json()["notes"][0].startswith("rewards are put on the scale of words words")
    assert after.teacher.mode == f"rules+map:{RewardMap.load(path).hash}"
    rewards = [[v.reward or 0.0 for v in response.verdicts] for response in (before, after)]
    assert sum(rewards[1]) / 40 == pytest.approx(sum(rewards[0]) / 40, abs=0.05)


def test_named_teachers_are_compared(
    fabula: Command, stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same judge by three names: of a running service, of the teachers file, and as a judge."""
    roster = tmp_path / "teachers.yaml"
    roster.write_text("teachers:\n  mine: {judge: 'rules:'}\n  panel: {ensemble: [mine, rules]}\n", encoding="utf-8")
    with teacher(WordJudge()) as client:
        url = f"{client.base_url}?teacher=rules"
        by_url = fabula("compare", "rules:", url, "--stories", stories, "--limit", 30, "--json")
        unknown = fabula("compare", "rules:", f"{client.base_url}?teacher=oracle", "--stories", stories)
        nonsense = fabula("compare", "rules:", f"{client.base_url}?mode=joint", "--stories", stories)
    monkeypatch.setenv("FABULA_REWARD_MAP", "of-another-teacher.json")
    bare = fabula("compare", "rules:", "rules:", "--stories", stories, "--limit", 30, "--json")
    monkeypatch.delenv("FABULA_REWARD_MAP")
    monkeypatch.setenv("FABULA_TEACHERS_FILE", str(roster))
    by_name = fabula("compare", "mine", "panel", "--stories", stories, "--limit", 30, "--json")
    for answer in (by_url, bare, by_name):
        assert answer.code == 0, answer.err
        found = Comparison.from_json(answer.out)
        assert found.pairs == 30
        assert all(row.bias.value == pytest.approx(0.0) for row in found.agreement)
    assert Comparison.from_json(by_name.out).b.teacher.backend == "ensemble"
    assert unknown.code == 1
    assert "answered 404: no teacher has the name 'oracle'" in unknown.err
    assert nonsense.code == 2
    assert "mode is no option of a teacher's address" in nonsense.err


def test_a_recording_is_compared_and_its_gaps_are_counted(fabula: Command, stories: Path, tmp_path: Path) -> None:
    known = [json.loads(line) for line in stories.read_text(encoding="utf-8").split("\n")][:100]
    with teacher(WordJudge()) as client:
        body = {"stories": [{"id": row["id"], "text": row["text"]} for row in known]}
        (tmp_path / "answers.jsonl").write_bytes(client.post("/score", json=body).content)
        table = fabula("compare", tmp_path / "answers.jsonl", client.base_url, "--stories", stories)
        markdown = fabula("compare", tmp_path / "answers.jsonl", client.base_url, "--stories", stories, "--markdown")
    assert table.code == markdown.code == 0
    assert "100 of 120 stories have an ok verdict on both sides" in table.out
    assert "coherence: stories by level, A down, B across" in table.out
    row = next(line for line in markdown.out.split("\n") if line.startswith("| coherence"))
    assert row.startswith("| coherence | 1.00 (1.00, 1.00) | 1.00 (1.00, 1.00) | 0.00 (0.00, 0.00) |")
    assert next(line for line in markdown.out.split("\n") if line.startswith("| A |")).endswith("| 100 | 0 | 0 | 20 |")


def test_a_teacher_is_calibrated_against_people(fabula: Command, ratings: Path) -> None:
    with teacher(WordJudge()) as client:
        url = ("--url", client.base_url)
        found = fabula("calibrate", "--ratings", ratings, *url, "--split", "all", "--json")
        machines = fabula("calibrate", "--ratings", ratings, *url, "--split", "all", "--leave-out", "Human", "--json")
        halves = [fabula("calibrate", "--ratings", ratings, *url, "--split", s, "--json") for s in ("tune", "test")]
        markdown = fabula("calibrate", "--ratings", ratings, *url, "--pair", "total=wit", "--markdown")
    assert found.code == 0, found.err
    calibration = Calibration.from_json(found.out)
    assert (calibration.stories, calibration.prompts, calibration.ok) == (120, 24, 120)
    assert [(row.judge, row.human) for row in calibration.agreement] == [
        ("coherence", "coherence"),
        ("readability", "coherence"),
        ("Reader", "coherence"),
    ]
    assert all((row.spearman.value or 0) > 0.5 for row in calibration.agreement)
    assert calibration.ceilings[0].ceiling is not None
    assert Calibration.from_json(machines.out).stories == 90
    assert Calibration.from_json(machines.out).selection == "all stories without Human"
    assert sum(Calibration.from_json(half.out).stories for half in halves) == 120
    assert "test half" in markdown.out
    assert "| our total |" in markdown.out


def test_the_rules_judge_is_calibrated_here(fabula: Command, ratings: Path) -> None:
    answer = fabula("calibrate", "--ratings", ratings, "--teacher", "rules:", "--split", "all", "--pair", "total=wit")
    assert answer.code == 0, answer.err
    for part in ("Judged by rules fabula-rules", "mean human rating of wit", "word count", "our total", "reliability"):
        assert part in answer.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "oracle:", "rules:"), "unknown backend 'oracle'"),
        (("compare", "vllm:http://127.0.0.1:1", "rules:"), "vllm:http://127.0.0.1:1: "),
        (("compare", "none.jsonl", "rules:"), "recording 'none.jsonl' cannot be read"),
        (("compare", "http://127.0.0.1:1", "rules:"), "no teacher answers at http://127.0.0.1:1"),
        (("compare", "rules:", "rules:", "--json", "--markdown"), "--json and --markdown exclude each other"),
        (("calibrate", "--ratings", "none.jsonl"), "ratings 'none.jsonl' cannot be read"),
        (("calibrate", "--teacher", "rules:", "--url", "http://a"), "give one of them"),
        (("calibrate", "--pair", "coherence"), "--pair 'coherence' is no pair"),
        (("calibrate", "--leave-out", "Nobody"), "no story is by Nobody; the file has GPT, Human"),
    ],
)
def test_an_error_is_a_sentence(
    fabula: Command, stories: Path, ratings: Path, arguments: tuple[object, ...], message: str
) -> None:
    needed = ("--stories", stories) if arguments[0] == "compare" else ("--ratings", ratings)
    answer = fabula(*arguments, *(() if needed[0] in arguments else needed))
    assert answer.code in (1, 2)
    assert message in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


@contextmanager
def replying(replies: list[tuple[int, dict[str, str], bytes]]) -> Iterator[str]:
    """A server that gives these answers in turn."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, body = replies.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


def score_answer(count: int, revision: str = "1") -> bytes:
    judge = WordJudge()
    asked = [judge.prepare(Story(id=str(i), text="one two.")) for i in range(count)]
    identity = judge.identity.model_copy(update={"revision": revision})
    return ScoreResponse(verdicts=tuple(judge.judge(asked)), teacher=identity).to_json().encode()


def test_a_busy_teacher_is_waited_for() -> None:
    replies = [(429, {"Retry-After": "0"}, b"{}"), (429, {"Retry-After": "0"}, b"{}"), (200, {}, score_answer(1))]
    with replying(replies) as url:
        assert len(http.score(url, ["one two."], ["rules"]).verdicts) == 1
    assert replies == []


def test_a_teacher_that_changes_on_the_way_is_not_one_side(fabula: Command, stories: Path) -> None:
    with replying([(200, {}, score_answer(64)), (200, {}, score_answer(56, "2"))]) as url:
        answer = fabula("compare", url, "rules:", "--stories", stories)
    assert answer.code == 1
    assert "changed after 64 stories, from words 1 to words 2" in answer.err
