"""Constrained decoding: which tokens may come next so that the text can still become one that the grammar knows."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import regex  # type: ignore[import-untyped]

SPACE = r"[ \n]{0,2}"


class BadGrammarError(ValueError):
    """A regular expression, schema or grammar that cannot be read."""


class Constraint:
    """A regular expression that the whole answer must match."""

    def __init__(self, pattern: str) -> None:
        try:
            self._pattern = regex.compile(pattern)
        except regex.error as error:
            raise BadGrammarError(f"{error} in {pattern!r}") from error
        self.pattern = pattern

    def allowed(self, written: str, pieces: Sequence[str | None]) -> list[bool]:
        """For each token's text (None: it is no text of its own) whether it may follow what is `written`."""
        return list(_allowed(self.pattern, written, tuple(pieces)))

    def complete(self, written: str) -> bool:
        """Whether `written` is a whole answer."""
        return self._pattern.fullmatch(written) is not None

    @classmethod
    def choice(cls, texts: Sequence[str]) -> "Constraint":
        """One of `texts`."""
        return cls("|".join(regex.escape(text) for text in texts))

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any]) -> "Constraint":
        """A JSON value of `schema`, of which objects, arrays, enums, constants and plain types are known."""
        return cls(schema_pattern(schema))


@lru_cache(maxsize=512)
def _allowed(pattern: str, written: str, pieces: tuple[str | None, ...]) -> tuple[bool, ...]:
    known = regex.compile(pattern)
    return tuple(bool(piece) and known.fullmatch(written + str(piece), partial=True) is not None for piece in pieces)


def schema_pattern(schema: Mapping[str, Any]) -> str:
    """The regular expression of a JSON schema's values, with little white space, as grammars of servers have it.

    Raises:
        BadGrammarError: the schema uses what is not known here.
    """
    if "enum" in schema:
        return "(?:" + "|".join(regex.escape(json.dumps(value)) for value in schema["enum"]) + ")"
    if "const" in schema:
        return str(regex.escape(json.dumps(schema["const"])))
    if "anyOf" in schema:
        return "(?:" + "|".join(schema_pattern(option) for option in schema["anyOf"]) + ")"
    if "pattern" in schema:
        return '"' + str(schema["pattern"]).removeprefix("^").removesuffix("$") + '"'
    match schema.get("type"):
        case "object":
            fields = [
                f'"{regex.escape(name)}"{SPACE}:{SPACE}{schema_pattern(value)}'
                for name, value in schema.get("properties", {}).items()
            ]
            return rf"\{{{SPACE}" + f"{SPACE},{SPACE}".join(fields) + rf"{SPACE}\}}"
        case "array":
            return _array_pattern(schema)
        case "integer":
            low, high = schema.get("minimum"), schema.get("maximum")
            if low is not None and high is not None:
                return "(?:" + "|".join(str(value) for value in range(low, high + 1)) + ")"
            return r"-?(?:0|[1-9][0-9]{0,15})"
        case "number":
            return r"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]+)?"
        case "boolean":
            return "(?:true|false)"
        case "string":
            return r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*"'
    raise BadGrammarError(f"schema {dict(schema)} is not known here")


def _array_pattern(schema: Mapping[str, Any]) -> str:
    between = f"{SPACE},{SPACE}"
    if "prefixItems" in schema:
        inner = between.join(schema_pattern(item) for item in schema["prefixItems"])
    else:
        item = schema_pattern(schema["items"])
        low, high = schema.get("minItems", 1), schema.get("maxItems", "")
        inner = f"{item}(?:{between}{item}){{{max(0, low - 1)},{high - 1 if high else ''}}}"
    return rf"\[{SPACE}{inner}{SPACE}\]"
