"""A Hugging Face Hub on this machine, as far as pushing and loading a model, and loading a dataset, go.

Paths and fields are those that huggingface_hub 2.4 asks for and reads (hf_api.py, _commit_api.py, lfs.py,
file_download.py) and that https://huggingface.co/docs/hub/api documents; Xet is not spoken.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

WRITER, READER, OWNER = "hf_writer", "hf_reader", "me"
RANGE = re.compile(r"bytes=(\d+)-")
LFS_FROM = 10_000  # bytes; the Hub goes by .gitattributes and size


@dataclass(frozen=True)
class Blob:
    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """git's: of the content, or of the pointer that stands for it."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        stored = pointer.encode() if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored, usedforsecurity=False).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        """A row of the tree."""
        row: dict[str, Any] = {"type": "file", "path": path, "oid": self.oid, "size": len(self.content)}
        if self.lfs:
            row["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 130}
        return row


@dataclass(frozen=True)
class Commit:
    title: str
    parent: "Commit | None"
    files: dict[str, Blob]

    @property
    def id(self) -> str:
        said = [self.title, self.parent.id if self.parent else "", *(f"{p} {b.oid}" for p, b in self.files.items())]
        return hashlib.sha1("\n".join(said).encode(), usedforsecurity=False).hexdigest()

    def history(self) -> list["Commit"]:
        """Newest first."""
        return [self, *(self.parent.history() if self.parent else [])]


@dataclass
class Repo:
    private: bool
    branches: dict[str, Commit]
    gated: bool = False

    def at(self, revision: str) -> Commit:
        known = [commit for head in self.branches.values() for commit in head.history() if commit.id == revision]
        if revision not in self.branches and not known:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.branches.get(revision) or known[0]


class HubError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message


@dataclass
class Hub:
    """What it holds and saw. `refusals`: the next commits are answered with these status codes instead.

    `cuts`: the next answers with a file of Git LFS break off after so many bytes; below 0, they hang after as many.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)

    def repo(self, name: str, token: str | None) -> Repo:
        if name not in self.repos or (self.repos[name].private and token != WRITER):
            raise HubError(401 if token is None else 404, "RepoNotFound", "Repository not found")
        return self.repos[name]


def _token(request: Request, *, write: bool = False) -> str | None:
    token = request.headers.get("authorization", "").removeprefix("Bearer ") or None
    if token not in (None, WRITER, READER) or (write and token is None):
        raise HubError(401, "", "Invalid username or password.")
    if write and token != WRITER:
        raise HubError(403, "", "You don't have the rights to create a model under this namespace")
    return token


def hub_app(hub: Hub) -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.exception_handler(HubError)
    async def problem(_: Request, error: HubError) -> JSONResponse:
        headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
        return JSONResponse({"error": error.message}, error.status, headers)

    @app.post("/api/repos/create")
    async def create(request: Request) -> JSONResponse:
        body = await request.json()
        name = f"{body.get('organization') or OWNER}/{body['name']}"
        _token(request, write=True)
        if not name.startswith(f"{OWNER}/"):
            raise HubError(403, "", "You don't have the rights to create a model under this namespace")
        url = f"{request.base_url}{name}"
        if name in hub.repos:
            return JSONResponse({"error": "You already created this model repo", "url": url}, 409)
        first = Commit("initial commit", None, {".gitattributes": Blob(b"*.safetensors filter=lfs\n", lfs=False)})
        hub.repos[name] = Repo(body.get("visibility") == "private", {"main": first})
        return JSONResponse({"url": url, "name": name})

    @app.post("/api/validate-yaml")
    async def validate(request: Request) -> Response:
        content = (await request.json())["content"]
        try:
            metadata = yaml.safe_load(content.split("---\n")[1])
        except (IndexError, yaml.YAMLError) as error:
            return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
        assert isinstance(metadata, dict)
        return JSONResponse({"errors": [], "warnings": []})

    _add_reading(app, hub)
    _add_writing(app, hub)
    return app


def _add_reading(app: FastAPI, hub: Hub) -> None:
    @app.get("/api/models/{owner}/{name}")
    @app.get("/api/datasets/{owner}/{name}")
    @app.get("/api/models/{owner}/{name}/revision/{revision}")
    @app.get("/api/datasets/{owner}/{name}/revision/{revision}")
    async def info(request: Request, owner: str, name: str, revision: str = "main") -> dict[str, Any]:
        repo = hub.repo(f"{owner}/{name}", _token(request))
        commit = repo.at(revision)
        siblings = [{"rfilename": path} for path in commit.files]
        model = f"{owner}/{name}"
        return {
            "id": model,
            "modelId": model,
            "private": repo.private,
            "sha": commit.id,
            "siblings": siblings,
            "tags": [],
        }

    @app.get("/api/models/{owner}/{name}/refs")
    async def refs(request: Request, owner: str, name: str) -> dict[str, Any]:
        branches = hub.repo(f"{owner}/{name}", _token(request)).branches
        rows = [{"name": b, "ref": f"refs/heads/{b}", "targetCommit": c.id} for b, c in branches.items()]
        return {"branches": rows, "converts": [], "tags": []}

    @app.get("/api/models/{owner}/{name}/commits/{revision}")
    async def commits(request: Request, owner: str, name: str, revision: str) -> list[dict[str, Any]]:
        history = hub.repo(f"{owner}/{name}", _token(request)).at(revision).history()
        when = "2026-01-01T00:00:00.000Z"
        return [
            {"id": c.id, "title": c.title, "message": "", "date": when, "authors": [{"user": OWNER}]} for c in history
        ]

    @app.get("/api/models/{owner}/{name}/tree/{revision}")
    @app.get("/api/datasets/{owner}/{name}/tree/{revision}")
    @app.get("/api/models/{owner}/{name}/tree/{revision}/{folder:path}")
    async def tree(request: Request, owner: str, name: str, revision: str, folder: str = "") -> list[dict[str, Any]]:
        files = hub.repo(f"{owner}/{name}", _token(request)).at(revision).files
        rows = [blob.entry(path) for path, blob in files.items() if path.startswith(folder)]
        if folder and not rows:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        return rows

    @app.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    @app.api_route("/datasets/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    async def resolve(request: Request, owner: str, name: str, revision: str, path: str) -> Response:
        repo = hub.repo(f"{owner}/{name}", _token(request))
        if repo.gated and _token(request) != WRITER:
            raise HubError(403, "GatedRepo", f"Access to dataset {owner}/{name} is restricted")
        commit = repo.at(revision)
        if path not in commit.files:
            raise HubError(404, "EntryNotFound", f"Entry not found: {path}")
        blob = commit.files[path]
        etag = f'"{blob.sha256 if blob.lfs else blob.oid}"'
        headers = {"ETag": etag, "X-Repo-Commit": commit.id, "Accept-Ranges": "bytes"}
        status, start = 200, 0
        if (asked := RANGE.fullmatch(request.headers.get("range", ""))) is not None:
            status, start = 206, int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(blob.content) - 1}/{len(blob.content)}"
        if blob.lfs and request.method == "GET" and hub.cuts:
            return CutResponse(hub.cuts.pop(0), blob.content[start:], status, headers)
        return Response(blob.content[start:], status, headers)


class CutResponse(Response):
    """Fewer bytes than it promises; then the HTTP server closes the connection, or nothing more comes."""

    def __init__(self, cut: int, content: bytes, status: int, headers: dict[str, str]) -> None:
        super().__init__(content, status, headers)
        self._cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        part = bytes(self.body[: abs(self._cut)])
        await send({"type": "http.response.body", "body": part, "more_body": self._cut < 0})
        while self._cut < 0 and (await receive())["type"] != "http.disconnect":
            pass


def _add_writing(app: FastAPI, hub: Hub) -> None:
    @app.post("/api/models/{owner}/{name}/branch/{branch}")
    async def branch(request: Request, owner: str, name: str, branch: str) -> Response:
        _token(request, write=True)
        repo = hub.repo(f"{owner}/{name}", WRITER)
        if branch in repo.branches:
            raise HubError(409, "", "Reference already exists")
        repo.branches[branch] = repo.at((await request.json()).get("startingPoint", "main"))
        return Response()

    @app.post("/api/models/{owner}/{name}/preupload/{revision}")
    async def preupload(request: Request, owner: str, name: str, revision: str) -> dict[str, Any]:
        _token(request, write=True)
        files = hub.repo(f"{owner}/{name}", WRITER).at(revision).files
        rows = []
        for file in (await request.json())["files"]:
            path, known = file["path"], files.get(file["path"])
            mode = "lfs" if path.endswith(".safetensors") or file["size"] >= LFS_FROM else "regular"
            oid = None if known is None else known.sha256 if known.lfs else known.oid
            rows.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": rows}

    @app.post("/{owner}/{name}.git/info/lfs/objects/batch")
    async def batch(request: Request, owner: str, name: str) -> dict[str, Any]:
        _token(request, write=True)
        objects = (await request.json())["objects"]
        for one in objects:
            if one["oid"] not in hub.objects:
                one["actions"] = {"upload": {"href": f"{request.base_url}lfs/{one['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    @app.put("/lfs/{oid}")
    async def upload(request: Request, oid: str) -> Response:
        content = await request.body()
        assert hashlib.sha256(content).hexdigest() == oid
        hub.objects[oid] = content
        hub.uploads.append(oid)
        return Response()

    @app.post("/api/models/{owner}/{name}/commit/{revision}")
    async def commit(request: Request, owner: str, name: str, revision: str) -> dict[str, str]:
        _token(request, write=True)
        if hub.refusals:
            raise HubError(hub.refusals.pop(0), "", "We have to rest")
        repo = hub.repo(f"{owner}/{name}", WRITER)
        head = repo.at(revision)
        files, title = dict(head.files), ""
        for line in (await request.body()).splitlines():
            key, value = (operation := json.loads(line))["key"], operation["value"]
            if key == "header":
                title = value["summary"]
            elif key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
            elif key == "lfsFile":
                files[value["path"]] = Blob(hub.objects[value["oid"]], lfs=True)
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                raise AssertionError(f"an operation that this Hub does not know: {key}")
        repo.branches[revision] = done = Commit(title, head, files)
        hub.commits.append(revision)
        return {"commitUrl": f"{request.base_url}{owner}/{name}/commit/{done.id}", "commitOid": done.id}
