"""The teacher's settings: names, environment, mistakes."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.teacher.settings import LLAMA, TeacherSettings

DOCS = Path(__file__).parents[2] / "docs" / "teacher.md"


@pytest.mark.parametrize(
    ("teacher", "backend", "model"),
    [
        ("rules", "rules", None),
        ("rules:", "rules", None),
        ("transformers", "transformers", LLAMA),
        ("transformers:", "transformers", LLAMA),
        ("transformers:/some/folder", "transformers", "/some/folder"),
        ("transformers:C:/folder", "transformers", "C:/folder"),
        (" transformers:org/name ", "transformers", "org/name"),
    ],
)
def test_teachers_are_named_by_backend_and_model(teacher: str, backend: str, model: str | None) -> None:
    settings = TeacherSettings(teacher=teacher)
    assert (settings.backend, settings.model) == (backend, model)


def test_the_environment_is_read_and_empty_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABULA_TEACHER", "transformers:org/name")
    monkeypatch.setenv("FABULA_REDIS_URL", "")
    monkeypatch.setenv("FABULA_MIN_COVERAGE", "0.25")
    settings = TeacherSettings()
    assert (settings.model, settings.redis_url, settings.min_coverage) == ("org/name", None, 0.25)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"teacher": "gpt:4"}, "unknown backend 'gpt'; known are rules:, transformers:MODEL"),
        ({"teacher": ""}, "unknown backend ''"),
        ({"teacher": "rules:x"}, "takes no model"),
        ({"temperature": 0.0}, "greater than 0"),
        ({"teecher": "rules:"}, "Extra inputs are not permitted"),
    ],
)
def test_mistakes_are_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TeacherSettings.model_validate(values)
    assert says in str(refused.value)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TeacherSettings().teacher = "transformers"


def test_every_setting_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [name for name in TeacherSettings.model_fields if f"| `{name}` |" not in text] == []
