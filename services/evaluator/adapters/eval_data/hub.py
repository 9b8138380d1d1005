"""Evaluation data from the Hugging Face Hub: a dataset repository in the BabyLM 2025 `evaluation_data` layout."""

import re
from functools import cache
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of its HTTP client, whichever it is
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from services.evaluator.errors import BadDataError, EvaluatorError

PREFIX = "hub:"
_NAME = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]+))?")
FILES = ("*.jsonl", "*.json", "*.csv", "*.zip")


def local_folder(data: Path | str) -> Path:
    """Where the data are on this disk; `hub:OWNER/NAME[@REVISION]` is fetched once a process, a folder is itself.

    HF_TOKEN, HF_HOME and HF_HUB_OFFLINE are honoured. A revision that is not said is the newest one.

    Raises:
        EvaluatorError: the Hub does not give it; says why and what to do.
    """
    return _fetched(str(data)) if is_hub(data) else Path(data)


def is_hub(data: Path | str) -> bool:
    """Whether `data` names a repository rather than a folder."""
    return str(data).startswith(PREFIX)


def parse(name: str) -> tuple[str, str | None]:
    """Repository and revision of `hub:OWNER/NAME[@REVISION]`.

    Raises:
        BadDataError: it is not of this form.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise BadDataError("evaluation data", None, name, "hub:OWNER/NAME or hub:OWNER/NAME@REVISION", "mend the name")
    return match["repository"], match["revision"]


@cache
def _fetched(name: str) -> Path:
    repository, revision = parse(name)
    page = f"{constants.ENDPOINT}/datasets/{repository}"
    disable_progress_bars()  # a service has no terminal
    try:
        return Path(snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=list(FILES)))
    except GatedRepoError as error:
        raise EvaluatorError(
            f"{name} is gated: agree to its terms at {page} and set HF_TOKEN to a token of that account"
        ) from error
    except RepositoryNotFoundError as error:
        raise EvaluatorError(
            f"{name}: there is no dataset at {page} that this token may see; check the name, or set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise EvaluatorError(f"{name}: {page} has no revision {revision!r}; see {page}/commits/main") from error
    except LocalEntryNotFoundError as error:
        raise EvaluatorError(
            f"{name} is not in the cache of this machine, and {constants.ENDPOINT} was not asked or gave no answer "
            f"({str(error).splitlines()[0]}); unset HF_HUB_OFFLINE, try again, or give a folder"
        ) from error
    except (HFValidationError, HTTPError, OSError) as error:
        raise EvaluatorError(f"{name} cannot be fetched from {page}: {error}; try again, or give a folder") from error
