"""Fetch repositories of the Hugging Face Hub into a cache folder: resumed, compared with the Hub's own hashes."""

import errno
import glob
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of its HTTP client, whichever it is
    GatedRepoError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # not named in its list of exports

from services.local.carried import Carried
from services.local.errors import CommandError
from services.local.needed import Source
from services.student_trainer.folder_lock import try_lock

HUB = "hub"  # where HF_HOME keeps repositories
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Listing:
    """The files of a source that are wanted, as the Hub lists them at one commit."""

    source: Source
    commit: str
    files: tuple[RepoFile, ...]

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(file.size for file in self.files)

    def folder(self, to: Path) -> Path:
        """Of the repository, in the Hub's own layout of a cache."""
        name: str = repo_folder_name(repo_id=self.source.repository, repo_type=self.source.repo_type)
        return to / HUB / name

    def place(self, to: Path, file: RepoFile) -> Path:
        """Where a file comes to lie."""
        return self.folder(to) / "snapshots" / self.commit / file.path

    def partial(self, to: Path, file: RepoFile) -> Path:
        """Where a large file waits for its rest; named by its contents, so that a newer commit may go on with it."""
        return self.folder(to) / "blobs" / f"{file.lfs.sha256 if file.lfs else file.blob_id}.partial"

    def missing_bytes(self, to: Path) -> int:
        """What is still to come."""
        return sum(
            file.size - _size(self.partial(to, file)) for file in self.files if not self.place(to, file).exists()
        )


def list_files(api: HfApi, source: Source) -> Listing:
    """Ask the Hub what there is, and whether it may be read.

    Raises:
        CommandError: it is absent, gated or empty, or the Hub does not answer.
    """
    with _explained(source, api.endpoint):
        commit = api.repo_info(source.repository, repo_type=source.repo_type, revision=source.revision).sha or ""
        tree = api.list_repo_tree(source.repository, repo_type=source.repo_type, revision=commit, recursive=True)
        files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        chosen = tuple(files[name] for name in source.chosen(list(files)))
        get_hf_file_metadata(_url(api, source, commit, chosen[0]))  # a gated repository lists what it does not give
    return Listing(source, commit, chosen)


def fetch(api: HfApi, listing: Listing, to: Path) -> Carried:
    """Fetch what is not there yet, and compare all of it with the Hub's hashes.

    Raises:
        CommandError: it broke off, or a file is not what the Hub lists.
    """
    source = listing.source
    # Plain files: links would not survive every way of carrying a folder, and could point outside of it.
    constants.HF_HUB_DISABLE_SYMLINKS = True
    with _explained(source, api.endpoint):
        for file in listing.files:
            if file.lfs is not None and file.size <= constants.MAX_HTTP_DOWNLOAD_SIZE:
                _fetch_large(api, listing, to, file)
        snapshot = snapshot_download(
            source.repository,
            repo_type=source.repo_type,
            revision=source.revision,
            cache_dir=to / HUB,
            allow_patterns=[glob.escape(file.path) for file in listing.files],
            endpoint=api.endpoint,
        )
        if Path(snapshot).name != listing.commit:
            raise CommandError(f"{source.name} changed meanwhile; the same command fetches what is new", exit_code=1)
        files = _compared(listing, to)
    # Without these two a name is not found offline, nor a whole copy told from a part.
    beside = [listing.folder(to) / "refs" / (source.revision or "main")]
    beside.append(listing.folder(to) / "trees" / f"{listing.commit}.json")
    files |= {str(path.relative_to(to)): _hashes(path)[0] for path in beside if path.is_file()}
    return Carried(
        role=source.role,
        repository=source.repository,
        repo_type=source.repo_type,
        revision=source.revision,
        commit=listing.commit,
        files=files,
    )


def _fetch_large(api: HfApi, listing: Listing, to: Path, file: RepoFile) -> None:
    """One file of Git LFS, from where an earlier process left off.

    huggingface_hub 2.4 goes on within a file when a connection breaks, but a new process begins it anew (its issue
    4196); its `http_get` can go on. Files beyond 50 GB come by Xet alone and are left to it.
    """
    place, partial = listing.place(to, file), listing.partial(to, file)
    if place.exists():
        return
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("ab") as opened:
        if not try_lock(opened.fileno()):
            raise CommandError(f"another process fetches {partial}; wait for it or stop it", exit_code=1)
        if opened.tell() > file.size:
            opened.truncate(0)
        http_get(
            _url(api, listing.source, listing.commit, file),
            opened,
            resume_size=opened.seek(0, os.SEEK_END),
            headers=build_hf_headers(),
            expected_size=file.size,
            displayed_filename=file.path,
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(place)


def _compared(listing: Listing, to: Path) -> dict[str, str]:
    """Path -> SHA-256 of every file. What differs is removed, so that the next download fetches it.

    Raises:
        CommandError: names what differed.
    """
    sums, wrong = {}, []
    for file in listing.files:
        path = listing.place(to, file)
        sha256, blob = _hashes(path)
        sums[str(path.relative_to(to))] = sha256
        if (sha256 != file.lfs.sha256) if file.lfs is not None else (blob != file.blob_id):
            path.unlink()
            wrong.append(file.path)
    if wrong:
        raise CommandError(
            f"{listing.source.name}: {', '.join(wrong)} had other contents than the Hub lists at {listing.commit[:9]}, "
            "and was removed; the same command fetches it again",
            exit_code=1,
        )
    return sums


def _hashes(path: Path) -> tuple[str, str]:
    """SHA-256, as the Hub names large files by, and git's of a blob, as it names the others by."""
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            sha256.update(block)
            blob.update(block)
    return sha256.hexdigest(), blob.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _url(api: HfApi, source: Source, commit: str, file: RepoFile) -> str:
    return hf_hub_url(source.repository, file.path, repo_type=source.repo_type, revision=commit, endpoint=api.endpoint)


@contextmanager
def _explained(source: Source, endpoint: str) -> Iterator[None]:
    """What the Hub or the disk answers, in a sentence with its cure."""
    page = f"{endpoint}/{'datasets/' if source.repo_type == 'dataset' else ''}{source.repository}"
    try:
        yield
    except GatedRepoError as error:
        raise CommandError(
            f"{source.role} {source.name} is gated: agree to its terms at {page} and set HF_TOKEN to a token of that "
            "account, or type: hf auth login",
            exit_code=1,
        ) from error
    except RepositoryNotFoundError as error:
        raise CommandError(
            f"{source.role} {source.name}: there is no {source.repo_type} at {page} that this token may see; check the "
            "name, or set HF_TOKEN",
            exit_code=1,
        ) from error
    except RevisionNotFoundError as error:
        raise CommandError(
            f"{source.role} {source.name}: {page} has no such revision; see {page}/commits/main", exit_code=1
        ) from error
    except HFValidationError as error:
        raise CommandError(f"{source.role} {source.name!r} is no name of a repository: {error}") from error
    except (HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CommandError(
                f"the disk is full ({error}); make room, and the same command goes on", exit_code=1
            ) from error
        why = " ".join(str(error).split())
        raise CommandError(
            f"{source.role} {source.name} could not be fetched from {page}: {why}. What is there stays, and the same "
            "command goes on",
            exit_code=1,
        ) from error
