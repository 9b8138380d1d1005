"""Write the protocol for those who do not read Python: `python -m services.schemas [--check]`.

proto/schema/<Message>.json   JSON Schema 2020-12 of every message that fabula_proto exports
proto/openapi/<service>.json  OpenAPI of the services with an HTTP interface

Generated, committed, and compared in the tests: a change of a message shows in review as what it is.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

import fabula_proto
from fabula_proto import Message

ROOT = Path(__file__).resolve().parents[1]
SCHEMA_FOLDER = Path("proto/schema")
OPENAPI_FOLDER = Path("proto/openapi")


def public_messages() -> list[type[Message]]:
    """Every message that fabula_proto exports, by name."""
    exported = (getattr(fabula_proto, name) for name in sorted(fabula_proto.__all__))
    return [kind for kind in exported if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message]


def message_schema(message: type[Message]) -> dict[str, Any]:
    """JSON Schema of a message: what is accepted, and what is written, which for our messages is the same.

    Raises:
        ValueError: the two differ; the one file we write would then be wrong for one side.
    """
    accepted = message.model_json_schema(mode="validation")
    if accepted != message.model_json_schema(mode="serialization"):
        raise ValueError(
            f"{message.__name__} is written in another form than it is read; make its serialisers and validators agree"
        )
    return {"$schema": GenerateJsonSchema.schema_dialect, **accepted}


def teacher_openapi() -> dict[str, Any]:
    """OpenAPI document of the teacher. Builds the app, starts nothing, loads no weights."""
    # Here, not above: the JSON Schemas need no web framework.
    from services.teacher.app import create_app
    from services.teacher.settings import TeacherSettings

    return create_app(TeacherSettings(teacher="rules:", redis_url=None)).openapi()


def evaluator_openapi() -> dict[str, Any]:
    """OpenAPI document of the evaluator, made in the same way."""
    from services.evaluator.app import create_app
    from services.evaluator.settings import EvaluatorSettings

    return create_app(EvaluatorSettings(redis_url=None)).openapi()


SERVICES: dict[str, Callable[[], dict[str, Any]]] = {"evaluator": evaluator_openapi, "teacher": teacher_openapi}


def schema_files() -> dict[Path, str]:
    """Text of each file in proto/schema, by path relative to the repository."""
    return {SCHEMA_FOLDER / f"{kind.__name__}.json": _text(message_schema(kind)) for kind in public_messages()}


def openapi_files() -> dict[Path, str]:
    """Text of each file in proto/openapi, by path relative to the repository."""
    return {OPENAPI_FOLDER / f"{service}.json": _text(document()) for service, document in SERVICES.items()}


def differences(expected: Mapping[Path, str], root: Path = ROOT) -> list[Path]:
    """Files that are missing, differ or should not be there, in the folders that `expected` fills; sorted."""
    folders = {path.parent for path in expected}
    there = {path.relative_to(root) for folder in folders for path in (root / folder).glob("*.json")}
    changed = {path for path in expected.keys() & there if (root / path).read_text(encoding="utf-8") != expected[path]}
    return sorted(changed | (expected.keys() ^ there))


def write(expected: Mapping[Path, str], root: Path = ROOT) -> list[Path]:
    """Make the folders hold exactly `expected`. Returns the files that changed."""
    changed = differences(expected, root)
    for path in changed:
        if path in expected:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(expected[path], encoding="utf-8")
        else:
            (root / path).unlink()
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with --check compare them; 1 where they differ."""
    parser = argparse.ArgumentParser(
        prog="python -m services.schemas", description="Write proto/schema, proto/openapi."
    )
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 where a file differs")
    options = parser.parse_args(arguments)
    expected = schema_files() | openapi_files()
    if not options.check:
        for path in write(expected):
            print(f"{'wrote' if path in expected else 'removed'} {path}")
        return 0
    differing = differences(expected)
    for path in differing:
        print(f"{path} is not what the code says", file=sys.stderr)
    if differing:
        print("run `make schemas`, and commit the result with the change that caused it", file=sys.stderr)
    return 1 if differing else 0


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
