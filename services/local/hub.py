"""A run on the Hugging Face Hub as BabyLM expects it: a branch for each checkpoint, and the final one on main."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from services.local.card_facts import Kept, RunFacts, read_facts
from services.local.errors import CommandError, not_installed
from services.local.model_card import write_card

try:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    # HTTPError is that of the HTTP client which this version of the package uses.
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils._validators import validate_repo_id
    from huggingface_hub.utils.tqdm import disable_progress_bars
except ImportError as error:
    raise not_installed(error) from error

MAIN = "main"
CARD = "README.md"
WEIGHTS = (".safetensors", ".safetensors.index.json")
NOT_PUBLISHED = ("manifest.json", "trainer_state/")


@dataclass(frozen=True)
class Branch:
    """What a branch shall hold: paths in the repository, each a file of the run's or bytes."""

    name: str
    files: Mapping[str, Path | bytes]


@dataclass(frozen=True)
class Pushed:
    """A branch and whether anything of it had to be sent."""

    branch: str
    changed: tuple[str, ...]


def push(
    run_dir: Path,
    repository: str,
    names: Sequence[str],
    console: Console,
    *,
    private: bool = False,
    endpoint: str | None = None,
) -> list[Pushed]:
    """Make the repository hold the run's checkpoints. What is there already is not sent again.

    Args:
        names: checkpoints to push; empty means all. `main` follows when the run's final one is among them.
        private: of a repository that is new; one that is there has to be so already.
        endpoint: of the Hub; left out, HF_ENDPOINT or huggingface.co.

    Raises:
        CommandError: there is no such run or checkpoint, a file of it is damaged, or the Hub refuses or is away.
    """
    facts = read_facts(run_dir)
    chosen = _chosen(facts, names)
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise CommandError(f"--to {repository!r} is no name of a repository; write ORG/NAME. {error}") from error
    if "/" not in repository:
        raise CommandError(f"--to {repository!r} does not say whose; write ORG/NAME")
    if get_token() is None:
        raise CommandError("no token for the Hub: set HF_TOKEN to one that may write, or type: hf auth login")
    if not console.is_terminal:
        disable_progress_bars()
    branches = [_branch(facts, kept, repository, final=False) for kept in chosen]
    if chosen[-1] is facts.kept[-1]:
        branches.append(_branch(facts, chosen[-1], repository, final=True))
    api = HfApi(endpoint=endpoint)
    with _explained(api, repository):
        return list(_pushed(api, repository, branches, private, console))


def _chosen(facts: RunFacts, names: Sequence[str]) -> list[Kept]:
    known = [kept.name for kept in facts.kept]
    if unknown := [name for name in names if name not in known]:
        raise CommandError(f"run {facts.run} has no checkpoint {', '.join(unknown)}; it has {', '.join(known)}")
    return [kept for kept in facts.kept if not names or kept.name in names]


def _branch(facts: RunFacts, kept: Kept, repository: str, *, final: bool) -> Branch:
    """Model, tokenizer and card.

    Raises:
        CommandError: a file is not the one that the checkpoint's manifest lists.
    """
    files: dict[str, Path | bytes] = {}
    for name, expected in json.loads((kept.folder / "manifest.json").read_text(encoding="utf-8"))["sha256"].items():
        if name.startswith(NOT_PUBLISHED):
            continue
        path = kept.folder / name
        if not path.is_file() or _sha256(path) != expected:
            raise CommandError(f"{path} is missing or is not what its manifest lists; it was changed", exit_code=1)
        files[name] = path
    files[CARD] = write_card(facts, kept, repository, final=final).encode()
    return Branch(MAIN if final else kept.name, files)


def _pushed(
    api: HfApi, repository: str, branches: Sequence[Branch], private: bool, console: Console
) -> Iterator[Pushed]:
    api.create_repo(repository, private=private or None, exist_ok=True)
    if private and not api.model_info(repository).private:
        raise CommandError(f"{repository} is there already, and public; make it private first, or leave out --private")
    first = api.list_repo_commits(repository)[-1].commit_id
    there = {branch.name for branch in api.list_repo_refs(repository).branches}
    for branch in branches:
        if branch.name not in there:
            # From the first, empty commit: a push that stops here leaves no other checkpoint's weights in it.
            api.create_branch(repository, branch=branch.name, revision=first, exist_ok=True)
        pushed = _send(api, repository, branch)
        said = f"sent {', '.join(pushed.changed)}" if pushed.changed else "is there already"
        console.print(f"{branch.name}: {said}", highlight=False, markup=False, soft_wrap=True)
        yield pushed


def _send(api: HfApi, repository: str, branch: Branch) -> Pushed:
    """One commit with what differs; weights of other names go, for `from_pretrained` might take them instead."""
    tree = api.list_repo_tree(repository, revision=branch.name, recursive=True)
    remote = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    changed = tuple(name for name, file in branch.files.items() if not _same(remote.get(name), file))
    stale = [name for name in remote if name.endswith(WEIGHTS) and name not in branch.files]
    if changed or stale:
        added = [CommitOperationAdd(name, _source(branch.files[name])) for name in changed]
        deleted = [CommitOperationDelete(name) for name in stale]
        api.create_commit(repository, [*added, *deleted], commit_message=f"Fabula: {branch.name}", revision=branch.name)
    return Pushed(branch.name, (*changed, *stale))


def _same(remote: RepoFile | None, file: Path | bytes) -> bool:
    """By SHA-256 where the Hub keeps it as a large file, by git's own hash where it does not."""
    if remote is None:
        return False
    data = file if isinstance(file, bytes) else None
    if remote.lfs is not None:
        here = hashlib.sha256(data).hexdigest() if data is not None else _sha256(Path(str(file)))
        return bool(remote.lfs.sha256 == here)
    content = data if data is not None else Path(str(file)).read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return bool(remote.blob_id == blob.hexdigest())


def _source(file: Path | bytes) -> str | bytes:
    return file if isinstance(file, bytes) else str(file)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _explained(api: HfApi, repository: str) -> Iterator[None]:
    """What the Hub answers, in a sentence with its cure."""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        cures = {
            401: "the token is not accepted; make a new one and set HF_TOKEN, or type: hf auth login",
            403: f"the token may not write to {repository}; take one with write access to {repository.split('/')[0]}",
            404: "there is no such repository for this token",
            429: "too many requests; the same command goes on later",
        }
        why = cures.get(status, " ".join(str(error.server_message or error).split()))
        raise CommandError(f"{api.endpoint} answered {status}: {why}", exit_code=1) from error
    except OfflineModeIsEnabled as error:
        raise CommandError("HF_HUB_OFFLINE is set, and a push needs the network; unset it", exit_code=1) from error
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        # A client may raise anew with the words of its cause.
        parts = dict.fromkeys(str(one) for one in (error, error.__cause__) if one is not None)
        why = " ".join(" ".join(parts).split())
        if "xet" in why:
            why += " (for a Hub that does not speak Xet set HF_HUB_DISABLE_XET=1)"
        raise CommandError(
            f"the push to {api.endpoint} broke off: {why}. What is there stays, and the same command goes on",
            exit_code=1,
        ) from error
