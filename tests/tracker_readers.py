"""What a tracker holds of a run, read from its own files: numbers by name in the order of their steps.

`examples` counts the samples of stories and `config` is the student's width in the configuration it was given.
"""

import json
import os
import sqlite3
import struct
from pathlib import Path
from typing import Any

import yaml

BLOCK, HEADER = 32_768, 7


def tensorboard_values(folder: Path) -> dict[str, Any]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    found: dict[str, Any] = {"examples": 0}
    for phase in ("pretrain", "interact", "alarm"):
        events = EventAccumulator(str(folder / "tracking" / "tensorboard" / phase), size_guidance={"tensors": 0})
        events.Reload()
        for tag in events.Tags()["tensors"]:
            values = [tensor_util.make_ndarray(event.tensor_proto).item() for event in events.Tensors(tag)]
            if tag == "configuration":
                [text] = values
                found["config"] = yaml.safe_load(text.decode().strip("`"))["student"]["width"]
            elif tag.endswith("/examples"):
                found["examples"] += len(values)
            elif tag.endswith("/text"):
                found[tag] = [text.decode() for text in values]
            else:
                found[tag] = values
    return found


def trackio_values(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"examples": 0}
    with sqlite3.connect(Path(os.environ["TRACKIO_DIR"]) / "fabula.db") as database:
        for (text,) in database.execute("SELECT metrics FROM metrics ORDER BY step, id"):
            _add(found, json.loads(text))
        configs = [json.loads(text) for (text,) in database.execute("SELECT config FROM configs")]
    found["config"] = configs[0]["student"]["width"]
    return found


def wandb_values(folder: Path) -> dict[str, Any]:
    from wandb.proto import wandb_internal_pb2

    [path] = (folder / "tracking" / "wandb").glob("offline-run-*/run-*.wandb")
    found: dict[str, Any] = {"examples": 0}
    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            _add(found, items)
        if record.HasField("run"):
            config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            found["config"] = config["student"]["width"]
    return found


def _add(found: dict[str, Any], items: dict[str, Any]) -> None:
    for key, value in items.items():
        if key.endswith(("/examples", "/examples/_type")):
            found["examples"] += 1
        elif not key.startswith("_"):
            found.setdefault(key, []).append(value)


def _records(data: bytes) -> list[bytes]:
    """LevelDB's log format, as W&B writes it: blocks of 32 KiB, the first after a header of the file's own."""
    records, whole, place = [], b"", HEADER
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:  # no room for a record's header: padding
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        whole += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            records.append(whole)
            whole = b""
    return records
