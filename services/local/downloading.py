"""`fabula download`: fill a folder with all that a run reads from the Hugging Face Hub, for a site without network."""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from services.local import carried
from services.local.errors import CommandError, not_installed
from services.local.needed import sources_of
from services.local.plan import Request

try:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from services.local.fetching import Listing, fetch, list_files
except ImportError as error:
    raise not_installed(error) from error


def download(request: Request, to: Path, console: Console, *, dry_run: bool = False) -> None:
    """Fetch what the requested run reads into `to`, an HF_HOME to carry over; `dry_run`: only say what, and how much.

    Raises:
        CommandError: a setting is wrong, the Hub refuses or is away, the disk is too small, or a file came out wrong.
    """
    if constants.HF_HUB_OFFLINE:
        raise CommandError("HF_HUB_OFFLINE is set, and a download needs the network; unset it")
    to = to.expanduser().resolve()
    sources, elsewhere = sources_of(request)
    if not console.is_terminal:
        disable_progress_bars()
    api = HfApi()
    listings = [list_files(api, source) for source in sources]
    _show(listings, elsewhere, console)
    _check_room(listings, to)
    if dry_run or not listings:
        return
    try:
        for listing in listings:
            to.mkdir(parents=True, exist_ok=True)
            # One after the other: what is whole is on record, whatever happens to the next one.
            carried.record(to, [fetch(api, listing, to)])
            console.print(f"{listing.source.name}: whole, as the Hub lists it", highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        raise CommandError("stopped; what is there stays, and the same command goes on", exit_code=130) from None
    except OSError as error:
        raise CommandError(f"{to} cannot be written: {error}; give another folder with --to") from error
    _say_how_to_go_on(request, to, console)


def verify(folder: Path, console: Console) -> None:
    """Compare a folder that was carried over with its SHA256SUMS.

    Raises:
        CommandError: a file is missing or differs; it is named.
    """
    count = carried.check(folder.expanduser().resolve())
    console.print(f"{count} files in {folder} are as they were downloaded", highlight=False, soft_wrap=True)


def _show(listings: Sequence[Listing], elsewhere: Sequence[str], console: Console) -> None:
    if listings:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("what", "repository", "commit"):
            table.add_column(column, overflow="fold")
        for column in ("files", "size"):
            table.add_column(column, justify="right")
        for listing in listings:
            source = listing.source
            size = _megabytes(listing.size)
            table.add_row(source.role, source.name, listing.commit[:9], str(len(listing.files)), size)
        console.print(table)
    else:
        console.print("This run reads nothing from the Hub.")
    for line in elsewhere:
        console.print(
            f"Not on the Hub, to be carried by yourself: {line}", highlight=False, markup=False, soft_wrap=True
        )


def _check_room(listings: Sequence[Listing], to: Path) -> None:
    """Raises:
    CommandError: the disk has less free than is still to come.
    """
    needed = sum(listing.missing_bytes(to) for listing in listings)
    free = shutil.disk_usage(next(path for path in (to, *to.parents) if path.exists())).free
    if needed > free:
        raise CommandError(
            f"{_megabytes(needed)} are to come and {to} has {_megabytes(free)} free; make room, or choose another disk "
            "with --to",
            exit_code=1,
        )


def _say_how_to_go_on(request: Request, to: Path, console: Console) -> None:
    options = {
        "--preset": request.preset,
        "--corpus": request.corpus,
        "--eval-data": request.eval_data,
        "--teacher": request.teacher,
    }
    words = [word for name, value in options.items() if value is not None for word in (name, value)]
    words += [word for override in request.overrides for word in ("--set", override)]
    console.print(
        f"\nCarry {to} over, whole. There, as DIR:\n"
        "  fabula download --verify DIR      or: cd DIR && sha256sum --quiet -c SHA256SUMS\n"
        f"  HF_HOME=DIR HF_HUB_OFFLINE=1 fabula up {shlex.join(words)}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
