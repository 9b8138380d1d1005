"""What is wrong with a command around the teacher: said before anything is judged where it can be known, with a cure."""

import pytest
from typer.testing import CliRunner, Result

from services.cli import app
from services.local.errors import CommandError


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
