"""The audit of the pinned dependencies against a service that speaks OSV's wire format, and against what does not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request

from tests.wire.controls import Controls
from tests.wire.serving import WireServer

pytest.importorskip("pip_audit", reason="pip-audit is not installed; make brings it with the extra dev")

from deploy.audit import KNOWN, SKIPPED, audit, main, pinned

HOLE = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "aliases": ["CVE-2026-1"],
    "summary": "A fox gets in.",
    "affected": [
        {
            "package": {"name": "hen-house", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}


def osv(known: dict[tuple[str, str], list[dict[str, Any]]]) -> FastAPI:
    """Fields and the empty answer as https://google.github.io/osv.dev/post-v1-query/ has them."""
    app = FastAPI(openapi_url=None)

    @app.post("/v1/query")
    async def query(request: Request) -> dict[str, Any]:
        asked = json.loads(await request.body())
        assert asked["package"]["ecosystem"] == "PyPI"
        found = known.get((asked["package"]["name"], asked["version"]))
        return {"vulns": found} if found else {}

    return app


@pytest.fixture(scope="module")
def server() -> Iterator[WireServer]:
    known = {("jinja2", str(KNOWN["version"])): [HOLE], ("hen-house", "1.0"): [HOLE]}
    with WireServer(osv(known), Controls()) as server:
        yield server


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "lock.txt"
    path.write_text("# ours\nhen_house==1.0 \\\n    --hash=sha256:00\nfox==2 ; python_version < '3'\n")
    return path


def test_a_known_vulnerability_is_named_with_its_cure_and_fails(
    server: WireServer, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(lock), "--osv-url", f"{server.url}/v1/query"]) == 1
    said = capsys.readouterr().out
    assert "hen-house 1.0: CVE-2026-1 (GHSA-aaaa-bbbb-cccc); take 1.1" in said
    assert "1 known vulnerabilities in 2 packages, 0 accepted" in said


def test_an_accepted_one_passes(server: WireServer, lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(pinned([lock]), (str(HOLE["id"]),), f"{server.url}/v1/query") == 0
    assert "0 known vulnerabilities in 2 packages, 1 accepted" in capsys.readouterr().out


def test_without_the_data_it_says_that_nothing_was_audited(
    server: WireServer, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def skipped(url: str) -> str:
        assert main([str(lock), "--osv-url", url]) == SKIPPED
        said = capsys.readouterr().out
        assert said.count("\n") == 1
        return said

    assert "SKIPPED, nothing was audited: http://127.0.0.1:9/v1/query" in skipped("http://127.0.0.1:9/v1/query")
    assert "404" in skipped(f"{server.url}/elsewhere")
    with WireServer(osv({}), Controls()) as ignorant:
        assert "knows of no vulnerability" in skipped(f"{ignorant.url}/v1/query")
    # It answers first, and goes away in the middle.
    assert audit(["fox==2"], (), "http://127.0.0.1:9/v1/query") == SKIPPED


def test_every_pin_of_the_project_counts_once() -> None:
    root = Path(__file__).parents[2]
    names = [line.partition("==")[0] for line in pinned([root / "constraints.txt", *root.glob("deploy/lock/*.txt")])]
    assert {"torch", "transformers", "redis", "fastapi"} <= set(names)
    assert len(names) == len(set(names)), "an image's lock file pins another version than constraints.txt"
