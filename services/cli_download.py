"""`fabula download`: what a run reads from the Hugging Face Hub, for a site without network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

download_app = typer.Typer()


@download_app.command()
def download(
    preset: Annotated[str | None, typer.Option(help="As for fabula up, like the four options below.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Fetched when it is hf:<dataset id>.")] = None,
    eval_data: Annotated[
        str | None, typer.Option("--eval-data", "--data", help="Fetched when it is hub:OWNER/NAME[@REVISION].")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Fetched when it is transformers:<hub name>; transformers: alone is LLaMA 3.1 8B, which is gated and "
            "needs HF_TOKEN. With FABULA_TEACHERS_FILE, all models that it names."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of student.init, a Hub id is fetched; may be repeated."),
    ] = None,
    to: Annotated[Path, typer.Option(help="Folder to fill and to carry over: HF_HOME of the other side.")] = Path(
        "offline"
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be fetched, and its size.")] = False,
    verify: Annotated[
        Path | None, typer.Option(help="Only compare this folder, after it was carried, with its SHA256SUMS.")
    ] = None,
) -> None:
    """Fetch what a run reads from the Hugging Face Hub: models, corpus, evaluation data. See docs/offline.md.

    There, HF_HOME=DIR HF_HUB_OFFLINE=1 before the same `fabula up` is all. Whatever breaks the download off, the same
    command goes on with it. Each file is compared with the Hub's hash, and DIR/SHA256SUMS goes along.
    """
    from services.local import downloading
    from services.local.plan import Request

    if verify is not None:
        downloading.verify(verify, _console())
        return
    request = Request(Path("runs"), preset, None, corpus, eval_data, teacher, tuple(overrides or ()))
    downloading.download(request, to, _console(), dry_run=dry_run)


def _console() -> "Console":
    from rich.console import Console

    return Console()
