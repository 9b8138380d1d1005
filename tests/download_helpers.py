"""A Hub on a real socket for the tests of `fabula download`, and the command itself."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from huggingface_hub import constants

from services.cli import main
from tests.hub_server import WRITER, Blob, Commit, Hub, Repo, hub_app
from tests.wire.controls import Controls
from tests.wire.serving import WireServer

CHUNK = 1 << 16  # huggingface_hub writes in such pieces; 10 MB by itself
BIG = Random(0).randbytes(5 * CHUNK)


def blobs(folder: Path) -> dict[str, Blob]:
    """The files of a folder, weights as the Hub keeps large ones."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: Blob(path.read_bytes(), lfs=path.suffix == ".safetensors") for path in files}


def published(files: dict[str, Blob], *, gated: bool = False) -> Repo:
    """A public repository with one commit."""
    return Repo(private=False, branches={"main": Commit("all", None, files)}, gated=gated)


@contextmanager
def serving(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    """The Hub where this process looks for it, as the environment's HF_ENDPOINT and HF_HUB_DISABLE_XET would do."""
    with WireServer(hub_app(hub), Controls()) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", False)  # put back what a command sets
        monkeypatch.setenv("HF_TOKEN", WRITER)
        monkeypatch.delenv("FABULA_TEACHERS_FILE", raising=False)
        yield server


def fabula(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    """Exit status of `fabula download`."""
    monkeypatch.setattr(sys, "argv", ["fabula", "download", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code
