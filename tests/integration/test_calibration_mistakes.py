"""Mistakes in the commands around the teacher: said before anything is judged where they can be known, with a cure."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fabula_proto import Verdict
from services.cli import app
from services.local.errors import CommandError
from services.teacher.calibration.agreement import Calibration
from services.teacher.calibration.comparison import Comparison
from services.teacher.judges.base import Asked
from tests.teacher_helpers import WordJudge, teacher


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FABULA_TEACHER", "FABULA_TEACHERS_FILE", "FABULA_REDIS_URL", "FABULA_REWARD_MAP"):
        monkeypatch.delenv(name, raising=False)


def fabula(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def refused(*arguments: object) -> CommandError:
    """The error that a command ends with before it prints anything."""
    result = fabula(*arguments)
    assert isinstance(result.exception, CommandError), result.output
    assert result.stdout == ""
    return result.exception


def test_a_refused_setting_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABULA_MODE", "foo")
    assert str(refused("score", "A fox ran home.")) == (
        "FABULA_MODE: Input should be 'joint', 'independent' or 'sample', found 'foo'"
    )
    monkeypatch.delenv("FABULA_MODE")
    assert str(refused("score", "A fox ran home.", "--teacher", "gpt:4")).startswith("teacher 'gpt:4' names an unknown")


def written(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    return written(tmp_path / "stories.jsonl", ["a fox ran " * (i + 1) for i in range(60)])


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    rows = [
        {
            "story_id": i,
            "system": "Human",
            "prompt": f"p{i % 6}",
            "text": "a fox ran " * (i + 1),
            "human": {"coherence": [1 + i % 5, 1 + i % 4]},
        }
        for i in range(60)
    ]
    return written(tmp_path / "ratings.jsonl", rows)


def judged(judge: WordJudge) -> int:
    return sum(map(len, judge.calls))


def test_a_map_that_cannot_be_is_refused_before_anything_is_judged(stories: Path, tmp_path: Path) -> None:
    judge = WordJudge()
    (tmp_path / "folder").mkdir()
    with teacher(judge) as client:
        compared = ("teacher", "compare", client.base_url, "rules:", "--stories", stories, "--map-out")
        few = refused(*compared, tmp_path / "map.json", "--limit", 49)
        nowhere = refused(*compared, tmp_path / "none" / "map.json")
        folder = refused(*compared, tmp_path / "folder")
        endless = refused(*compared, tmp_path / ("m" * 300))
    assert "needs at least 50 stories and gets 49" in str(few)
    assert f"there is no folder {tmp_path / 'none'}" in str(nowhere)
    assert f"is a folder; give a file such as {tmp_path / 'folder' / 'map.json'}" in str(folder)
    assert "name too long" in str(endless)
    assert {error.exit_code for error in (few, nowhere, folder, endless)} == {2}
    assert judged(judge) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_map_without_permission_is_refused(stories: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    path = tmp_path / "closed" / "map.json"
    error = refused("teacher", "compare", "rules:", "rules:", "--stories", stories, "--map-out", path)
    assert "may not be written by you" in str(error)


def test_tables_are_printed_where_no_map_can_be_fitted(tmp_path: Path) -> None:
    alike = written(tmp_path / "alike.jsonl", ["a fox ran home. " * 5] * 60)
    path = tmp_path / "map.json"
    with teacher(WordJudge()) as client:
        url = client.base_url
        result = fabula("teacher", "compare", url, url, "--stories", alike, "--json", "--map-out", path)
    assert Comparison.from_json(result.stdout).pairs == 60
    assert isinstance(result.exception, CommandError)
    assert result.exception.exit_code == 1
    assert f"there is no map to write to {path}: B gives most stories the same reward" in str(result.exception)
    assert not path.exists()


class Removes(WordJudge):
    """While it judges, somebody removes the folder that the map is meant for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        if self.folder.is_dir():
            self.folder.rmdir()
        return super().judge(asked)


def test_tables_are_printed_where_the_map_cannot_be_written(stories: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    with teacher(Removes(tmp_path / "maps")) as client:
        compared = ("teacher", "compare", client.base_url, client.base_url, "--stories", stories)
        result = fabula(*compared, "--json", "--map-out", tmp_path / "maps" / "map.json")
    assert Comparison.from_json(result.stdout).mapping is not None
    assert isinstance(result.exception, CommandError)
    assert result.exception.exit_code == 1
    assert "cannot be written" in str(result.exception)


@pytest.mark.parametrize(
    ("b", "says"),
    [
        ("oracle:", "unknown backend 'oracle'"),
        ("RATINGS#Nobody", "has no ratings by 'Nobody'; it has human"),
        ("http://127.0.0.1:1", "no teacher answers at http://127.0.0.1:1"),
        ("URL?teacher=oracle", "no teacher has the name 'oracle'"),
    ],
)
def test_a_wrong_b_is_refused_before_a_judges(b: str, says: str, stories: Path, ratings: Path) -> None:
    judge = WordJudge()
    with teacher(judge) as client:
        named = b.replace("RATINGS", str(ratings)).replace("URL", str(client.base_url).rstrip("/"))
        assert says in str(refused("teacher", "compare", client.base_url, named, "--stories", stories))
    assert judged(judge) == 0


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("foo=coherence", "pair foo=coherence: the teacher judges readability, coherence, creativity and total"),
        ("total=wit", "pair total=wit: people rated coherence, not 'wit'"),
    ],
)
def test_a_wrong_pair_is_refused_before_all_is_judged(pair: str, says: str, ratings: Path) -> None:
    judge = WordJudge()
    calibrated = ("teacher", "calibrate", "--ratings", ratings, "--split", "all", "--pair", pair)
    with teacher(judge) as client:
        there = refused(*calibrated, "--url", client.base_url)
    assert judged(judge) <= 1  # of 60
    for error in (there, refused(*calibrated)):
        assert says in str(error)
        assert error.exit_code == 2


def test_leaving_everybody_out_is_not_cured_by_more_prompts(ratings: Path) -> None:
    calibrated = ("teacher", "calibrate", "--ratings", ratings, "--leave-out", "Human")
    for split in ("all", "test"):
        error = refused(*calibrated, "--split", split)
        assert str(error) == f"--leave-out Human leaves no story of {ratings}; leave fewer systems out"


def test_the_most_frequent_reason_stands_beside_the_counts(tmp_path: Path, ratings: Path) -> None:
    texts = [*["BREAK it."] * 3, *["a fox ran " * (i + 1) for i in range(4)], "word " * 30_000]
    path = written(tmp_path / "stories.jsonl", texts)
    broken = written(tmp_path / "broken.jsonl", texts[:3])
    rated = [json.loads(line) | {"text": "BREAK it."} for line in ratings.read_text(encoding="utf-8").split("\n")]
    with teacher(WordJudge()) as client:
        url = str(client.base_url)
        table = fabula("teacher", "compare", "rules:", url, "--stories", path, "--markdown")
        too_few = refused("teacher", "compare", "rules:", url, "--stories", broken)
        broken_ratings = written(tmp_path / "ratings.jsonl", rated)
        none = refused("teacher", "calibrate", "--ratings", broken_ratings, "--url", url, "--split", "all")
        partly = written(tmp_path / "ratings.jsonl", [*rated[:3], *_with_own_text(rated[3:])])
        some = fabula("teacher", "calibrate", "--ratings", partly, "--url", url, "--split", "all", "--json")
    assert "B: stories failed, most often (3): the judge broke on this story: ValueError" in table.stdout
    assert "A: stories refused, most often (1): " in table.stdout
    assert (
        "0 ok, 3 failed, 0 refused, 0 absent (failed, most often (3): the judge broke on this story: ValueError"
        in str(too_few)
    )
    assert (
        "none of 60 stories has an ok verdict; failed, most often (60): the judge broke on this story: ValueError"
        in str(none)
    )
    (reason,) = Calibration.from_json(some.stdout).reasons
    assert reason.stories == 3


def _with_own_text(rated: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    return [row | {"text": "a fox ran " * (i + 1)} for i, row in enumerate(rated)]


@pytest.mark.parametrize(
    "command",
    [
        ("score", "A fox ran home."),
        ("teacher", "audit"),
        ("teacher", "calibrate", "--ratings", "RATINGS"),
        ("teacher", "compare", "rules:"),
    ],
)
def test_an_address_where_nobody_is_has_a_cure(command: tuple[str, ...], ratings: Path, stories: Path) -> None:
    arguments = [word.replace("RATINGS", str(ratings)) for word in command]
    compares = "compare" in command
    url = () if compares else ("--url",)
    given = ("--stories", stories) if compares else ()
    away = refused(*arguments, *url, "http://127.0.0.1:1", *given)
    assert str(away).startswith("no teacher answers at http://127.0.0.1:1 (")
    assert "start one with `python -m services.teacher --port 8001`" in str(away)
    assert "--url" not in str(away)
    if not compares:
        scheme = refused(*arguments, *url, "localhost:9")
        assert str(scheme) == "the address 'localhost:9' lacks http:// at its start; write http://localhost:9"
