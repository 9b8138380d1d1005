"""A run from a preset and settings alone, as a container or a cluster's job names it: found where it is, else begun."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from services.student_trainer import config
from services.student_trainer.files import write_atomically
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.settings import RunSettings


def open_run(runs_dir: Path, run: str | None, settings: RunSettings, judge: str) -> RunFolder:
    """The run's folder, its run.yaml written where it is new. Processes of one run may do so at once.

    Args:
        run: The run's name. None: the preset and 6 hexadecimal digits over what decides the result, so that the same
            settings find their run again and others begin one of their own.
        judge: What is known of the teacher here, such as `rules:`; a part of such a name and nothing else.

    Raises:
        config.ConfigError: the run exists with other settings.
        OSError: the folder cannot be written.
    """
    digest = hashlib.sha256(f"{settings.decisive_json}\n{judge}".encode()).hexdigest()[:6]
    folder = RunFolder((runs_dir / (run or f"{settings.preset}-{digest}")).resolve())
    if folder.config.exists():
        known = config.load(folder.config)
        if known.decisive_json != settings.decisive_json:
            raise config.ConfigError(
                f"run {folder.run} exists with other settings than these ({folder.config}); repeat the settings it "
                "was started with, or give this one another name (FABULA_RUN, --run)"
            )
        if known == settings:
            return folder
    write_atomically(folder.config, config.dump(settings, folder.run))
    return folder


def settings_for(preset: str, overrides: Sequence[str], corpus: str | None) -> RunSettings:
    """A preset with overrides such as `seed=7`, and a corpus where one is given.

    Raises:
        config.ConfigError: names each setting that is wrong.
    """
    sources = [] if corpus is None else [f"corpus.source={corpus}"]
    return config.resolve(preset, [*overrides, *sources])
