"""The teacher's settings: names, environment, mistakes."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.teacher.settings import TeacherSettings, explain_settings
from services.teacher.spec import LLAMA, parse_judge

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
    target = parse_judge(teacher)
    assert (target.backend, target.model, target.url) == (backend, model, None)


@pytest.mark.parametrize(
    ("teacher", "url", "model"),
    [
        ("tgi:http://gpu:8080/", "http://gpu:8080", None),
        ("vllm:https://gpu/base#org/name", "https://gpu/base", "org/name"),
        ("ollama:llama3.1:8b", "http://127.0.0.1:11434", "llama3.1:8b"),
        ("openai:gpt-4o-mini", "https://api.openai.com/v1", "gpt-4o-mini"),
        ("openai:http://localhost:1234/v1#qwen", "http://localhost:1234/v1", "qwen"),
    ],
)
def test_servers_are_named_by_address_and_model(teacher: str, url: str, model: str | None) -> None:
    target = parse_judge(teacher)
    assert (target.url, target.model) == (url, model)
    assert parse_judge(str(target)) == target


def test_the_environment_is_read_and_empty_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABULA_TEACHER", "transformers:org/name")
    monkeypatch.setenv("FABULA_REDIS_URL", "")
    monkeypatch.setenv("FABULA_MIN_COVERAGE", "0.25")
    settings = TeacherSettings()
    assert (settings.spec.target.model, settings.redis_url, settings.min_coverage) == ("org/name", None, 0.25)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"teacher": "gpt:4"}, "unknown backend 'gpt'; known are rules:, transformers:MODEL"),
        ({"teacher": ""}, "unknown backend ''"),
        ({"teacher": "rules:x"}, "takes no model"),
        ({"teacher": "vllm:"}, "with a URL such as http://localhost:8000"),
        ({"teacher": "vllm:http://"}, "names no host"),
        ({"teacher": "openai:http://localhost:1234/v1"}, "names no model; write openai:MODEL"),
        ({"teacher": "ollama:llama3.1:8b", "mode": "joint"}, "it has: independent, sample"),
        ({"teacher": "rules:", "mode": "joint"}, "one way only"),
        ({"temperature": 0.0}, "greater than 0"),
        ({"teecher": "rules:"}, "Extra inputs are not permitted"),
    ],
)
def test_mistakes_are_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TeacherSettings.model_validate(values)
    assert says in str(refused.value)


def test_each_refused_setting_is_explained_on_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABULA_MODE", "foo")
    monkeypatch.setenv("FABULA_BATCH_STORIES", "0")
    with pytest.raises(ValidationError) as refused:
        TeacherSettings()
    assert [line.strip() for line in explain_settings(refused.value).split("\n")] == [
        "FABULA_MODE: Input should be 'joint', 'independent' or 'sample', found 'foo'",
        "FABULA_BATCH_STORIES: Input should be greater than or equal to 1, found '0'",
    ]
    with pytest.raises(ValidationError) as unknown:
        TeacherSettings(teacher="gpt:4", mode=None, batch_stories=1)
    assert explain_settings(unknown.value).startswith("FABULA_TEACHER: teacher 'gpt:4' names an unknown backend 'gpt'")
    assert "found" not in explain_settings(unknown.value)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TeacherSettings().teacher = "transformers"


def test_every_setting_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [name for name in TeacherSettings.model_fields if f"| `{name}` " not in text] == []
