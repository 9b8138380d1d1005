"""Word classes: the closed ones by word, the open ones by part of speech, and the tables over them."""

import base64
import zlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import yaml

OPEN = ("NN", "NNS", "VB", "VBD", "VBG", "VBN", "VBZ", "JJ", "RB", "NAME", "NUM")
MARKS = (",", ";", ".")
START = "^"
UNIT = 0.05  # nats a step of an encoded table
PACKAGE = "services.teacher.judges.rules"


@cache
def groups() -> dict[str, Any]:
    """data/groups.yaml: lists of words by name; `own_class` holds lists by name again."""
    text = resources.files(PACKAGE).joinpath("data", "groups.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@cache
def group(name: str) -> frozenset[str]:
    """One list of data/groups.yaml as a set."""
    return frozenset(groups()[name])


@cache
def closed_group(name: str) -> frozenset[str]:
    """One list under `own_class`."""
    return frozenset(groups()["own_class"][name])


@cache
def fine_classes() -> list[str]:
    """All K classes: sentence start, marks, open classes, then each closed-class word."""
    words = sorted({w for members in groups()["own_class"].values() for w in members})
    return [START, *MARKS, *OPEN, *words]


def _coarse() -> dict[str, int]:
    own: dict[str, list[str]] = groups()["own_class"]
    names = [START, *MARKS, *OPEN]
    table = {name: i for i, name in enumerate(names)}
    table["NUM"] = table["NN"]
    buckets: dict[str, int] = {}
    special = {
        **dict.fromkeys(("i", "he", "she", "we", "they"), "subject"),
        **dict.fromkeys(("me", "him", "us", "them"), "object"),
        **dict.fromkeys(
            ("my", "your", "his", "her", "its", "our", "their", "the", "a", "an", "no", "every"), "article"
        ),
        "to": "to",
        "of": "of",
    }
    for family, words in own.items():
        for word in words:
            bucket = special.get(word, family)
            table.setdefault(word, buckets.setdefault(bucket, len(names) + len(buckets)))
    return table


@cache
def coarse_classes() -> dict[str, int]:
    """Fine class -> one of about 35 coarse classes."""
    return _coarse()


def encode_table(values: Sequence[float]) -> str:
    """Values in nats as signed bytes of UNIT, zlib, base64."""
    steps = bytes(max(-128, min(127, round(v / UNIT))) + 128 for v in values)
    return base64.b64encode(zlib.compress(steps, 9)).decode()


def decode_table(text: str) -> tuple[float, ...]:
    """The inverse of `encode_table`."""
    return tuple(round((b - 128) * UNIT, 2) for b in zlib.decompress(base64.b64decode(text)))
