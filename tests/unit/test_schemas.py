"""The committed JSON Schemas and OpenAPI documents are what the code says, and say what the code does."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from fabula_proto import CriterionScore, Message, Story, StoryBatch, Verdict, VerdictStatus
from services.schemas import differences, message_schema, openapi_files, public_messages, schema_files, write

CURE = "; run `make schemas` and commit the result with the change that caused it"


def test_the_committed_schemas_are_what_the_messages_say() -> None:
    differing = differences(schema_files())
    assert not differing, f"{[str(path) for path in differing]} differ from the messages{CURE}"


def test_the_committed_openapi_is_what_the_services_serve() -> None:
    differing = differences(openapi_files())
    assert not differing, f"{[str(path) for path in differing]} differ from the services{CURE}"


@pytest.mark.parametrize("kind", public_messages(), ids=lambda kind: kind.__name__)
def test_every_schema_is_one_and_is_closed(kind: type[Message]) -> None:
    schema = message_schema(kind)
    Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert list(schema["properties"]) == list(kind.model_fields)


def test_the_schemas_accept_what_is_sent_and_refuse_what_is_not() -> None:
    batch = StoryBatch(run="r", step=0, chunk=0, chunks=1, policy_version=0, stories=(Story(id="0", text="A fox."),))
    score = CriterionScore.from_probabilities([0.1, 0.2, 0.3, 0.4])
    ok = Verdict(
        story_id="0", status=VerdictStatus.OK, criteria={"readability": score}, total=2.0, reward=0.6, coverage=1.0
    )
    for message in (batch, ok):
        validator = Draft202012Validator(message_schema(type(message)))
        sent = json.loads(message.to_json())
        validator.validate(sent)
        assert not validator.is_valid({**sent, "extra": 1})
    assert not Draft202012Validator(message_schema(Verdict)).is_valid({"story_id": "0", "status": "perhaps"})


def test_writing_makes_the_folder_hold_exactly_what_is_expected(tmp_path: Path) -> None:
    new, changed, same, gone = (Path("out") / f"{name}.json" for name in ("new", "changed", "same", "gone"))
    expected = {new: "1\n", changed: "2\n", same: "3\n"}
    (tmp_path / "out").mkdir()
    for path, text in ((changed, "old"), (same, "3\n"), (gone, "4\n")):
        (tmp_path / path).write_text(text, encoding="utf-8")
    assert differences(expected, tmp_path) == [changed, gone, new]
    assert write(expected, tmp_path) == [changed, gone, new]
    assert differences(expected, tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["changed.json", "new.json", "same.json"]
