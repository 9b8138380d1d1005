"""Evaluation data from a Hub on a real socket, with huggingface_hub's own client in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.evaluator.adapters.eval_data import hub as hub_module
from services.evaluator.adapters.eval_data import load_blimp, require
from services.evaluator.errors import BadDataError
from services.evaluator.settings import EvaluatorSettings
from tests.hub_server import READER, WRITER, Blob, Commit, Hub, Repo, hub_app
from tests.wire.controls import Controls
from tests.wire.serving import WireServer

PAIR = {"sentence_good": "The foxes were old.", "sentence_bad": "The foxes was old.", "UID": "agreement"}
ROW = json.dumps({**PAIR, "field": "syntax", "linguistics_term": "agreement"}).encode() + b"\n"
FIRST = Commit("one pair", None, {"fast_eval/blimp_fast/agreement.jsonl": Blob(ROW, lfs=False)})
SECOND = Commit(
    "two pairs and weights",
    FIRST,
    {
        "fast_eval/blimp_fast/agreement.jsonl": Blob(ROW * 2, lfs=True),
        "model.safetensors": Blob(b"not data", lfs=True),
    },
)
# The module alone: its package would load torch.
FETCH = f"""
import json, runpy, sys
from services.evaluator.errors import EvaluatorError
local_folder = runpy.run_path({str(hub_module.__file__)!r})["local_folder"]
for name in sys.argv[1:]:
    try:
        print(json.dumps(str(local_folder(name))))
    except EvaluatorError as error:
        print(json.dumps(f"{{type(error).__name__}}: {{error}}"))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[WireServer]:
    hub = Hub(repos={"me/data": Repo(private=False, branches={"main": SECOND})})
    hub.repos["me/secret"] = Repo(private=True, branches={"main": SECOND})
    hub.repos["me/gated"] = Repo(private=False, branches={"main": SECOND}, gated=True)
    with WireServer(hub_app(hub), Controls()) as server:
        yield server


def fetch(url: str, cache: Path, *names: str, **environment: str) -> list[str]:
    """What `local_folder` gives or says, name by name."""
    known = {"HF_ENDPOINT": url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, *names],
        env=clean | known | environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_data_are_fetched_by_name_and_revision_and_kept_for_when_there_is_no_network(
    server: WireServer, tmp_path: Path
) -> None:
    newest, older = fetch(server.url, tmp_path, "hub:me/data", f"hub:me/data@{FIRST.id}")
    assert len(load_blimp(Path(newest)).items) == 2
    assert len(load_blimp(Path(older)).items) == 1
    assert SECOND.id in newest
    assert not list(Path(newest).rglob("*.safetensors"))  # only what can be evaluation data is fetched
    again, never = fetch(server.url, tmp_path, "hub:me/data", "hub:me/gated", HF_HUB_OFFLINE="1")
    assert again == newest
    assert "hub:me/gated is not in the cache of this machine" in never
    assert "unset HF_HUB_OFFLINE, try again, or give a folder" in never


def test_what_the_hub_refuses_is_said_with_the_page_and_the_cure(server: WireServer, tmp_path: Path) -> None:
    names = ("hub:me/gated", "hub:me/secret", "hub:me/absent", "hub:me/data@v9", "hub:data")
    gated, secret, absent, revision, malformed = fetch(server.url, tmp_path, *names, HF_TOKEN=READER)
    assert f"gated: agree to its terms at {server.url}/datasets/me/gated and set HF_TOKEN" in gated
    for refused, name in ((secret, "me/secret"), (absent, "me/absent")):
        assert f"there is no dataset at {server.url}/datasets/{name} that this token may see" in refused
    assert "has no revision 'v9'" in revision
    assert malformed.startswith("BadDataError: evaluation data: found hub:data; expected hub:OWNER/NAME")
    (allowed,) = fetch(server.url, tmp_path, "hub:me/gated", HF_TOKEN=WRITER)
    assert Path(allowed).is_dir()


def test_a_hub_that_is_away_is_said(tmp_path: Path) -> None:
    (away,) = fetch("http://127.0.0.1:9", tmp_path, "hub:me/data")
    assert "http://127.0.0.1:9 was not asked or gave no answer" in away


@pytest.mark.parametrize("given", ["hub:me/data@main", Path("hub:me/data@main")])
def test_settings_keep_a_name_a_name_and_a_folder_a_folder(given: str | Path) -> None:
    assert EvaluatorSettings(eval_data=given).eval_data == "hub:me/data@main"
    assert EvaluatorSettings(eval_data="some/folder").eval_data == Path("some/folder")


def test_suites_take_a_name_where_they_take_a_folder() -> None:
    with pytest.raises(BadDataError, match="hub:OWNER/NAME"):
        require("hub:not a name", "blimp")
