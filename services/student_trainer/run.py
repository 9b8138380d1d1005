"""A whole run: pretrain, announce, interact, announce; each part goes on where it was."""

import threading
from pathlib import Path

import torch

from fabula_proto import CHECKPOINTS_STREAM
from fabula_proto.allocator import keep_freed_memory
from fabula_proto.streams import Streams
from services.student_trainer import checkpoints, config
from services.student_trainer.corpus import load_documents
from services.student_trainer.interaction import StopRequestedError, Watcher, interact
from services.student_trainer.pretrain_start import check_start, check_student, keep_initial
from services.student_trainer.pretraining import pretrain
from services.student_trainer.progress import Progress
from services.student_trainer.ranks import Ranks
from services.student_trainer.run_folder import RunFolder, announcement
from services.student_trainer.story_queue import StoryQueue


class Trainer:
    """One run folder, its settings and whoever watches. `streams` may be absent: then nothing is announced.

    Of several processes (`ranks`) the main one speaks and announces.
    """

    def __init__(
        self,
        folder: RunFolder,
        stop: threading.Event,
        progress_tty: bool,
        streams: Streams | None,
        ranks: Ranks | None = None,
    ) -> None:
        keep_freed_memory()
        self.ranks = ranks or Ranks()
        self.folder = folder
        self.settings = config.load(folder.config)
        self.stop = stop
        self.progress = Progress(self.settings, tty=progress_tty)
        self.streams = streams
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)

    def pretrain(self) -> Path:
        """Next-word prediction up to the word budget; the final checkpoint.

        Raises:
            StopRequestedError: the state is saved.
            CorpusError: the corpus cannot be read.
            StudentError: the student cannot be built, or not be taught.
        """
        settings, ranks = self.settings, self.ranks
        final = self.folder.checkpoints / checkpoints.pretrain_name(settings.pretrain.word_budget)
        if ranks.on_main(lambda _: checkpoints.is_complete(final)):
            self.say(f"Pretraining is done already: {final}")
            return final
        check_student(settings)
        if settings.pretrain.word_budget == 0:
            ranks.on_main(lambda _: self._kept(keep_initial(self.folder.path, self.folder.run, settings)))
            return final
        corpus = load_documents(settings.corpus, settings.seed)
        self.say(f"Pretraining on {corpus.description}")
        pretrain(
            self.folder.path,
            self.folder.run,
            settings,
            corpus,
            on_progress=self.progress.pretraining,
            stop=self.stop.is_set,
            on_checkpoint=lambda path, _: self._kept(path),
            ranks=ranks,
        )
        if not ranks.on_main(lambda _: checkpoints.is_complete(final)):
            raise StopRequestedError
        return final

    def interact(self) -> Path:
        """Learn from the teacher up to the word budget; the final checkpoint.

        Raises:
            StopRequestedError: the state is saved.
            CheckpointError: there is no pretrained checkpoint to start from.
            StudentError: prompt and story do not fit it.
        """
        if self.streams is None:
            raise ValueError("interaction needs a queue; give --redis-url")
        if self.settings.pretrain.word_budget == 0:
            self.pretrain()
        start = self._start()
        check_start(self.settings, start)
        self.say(f"Interaction starts from {start.name}; the student writes, the teacher judges")
        watcher = Watcher(
            on_step=self.progress.update,
            on_checkpoint=self._kept,
            should_stop=self.stop.is_set,
            say=self.say,
        )
        return interact(
            self.folder, self.settings, start, StoryQueue(self.streams, self.folder.run), watcher, self.ranks
        )

    def announce_unmeasured(self) -> None:
        """Announce finished checkpoints again that have no report: the last process may have died in between."""
        if self.streams is None or not self.ranks.main:
            return
        for path in sorted(self.folder.checkpoints.glob("chck_*")):
            if checkpoints.is_complete(path) and not self.folder.report(path.name).exists():
                self._announce(path)

    def say(self, text: str) -> None:
        """One line of progress, once."""
        if self.ranks.main:
            self.progress.say(text)

    def _start(self) -> Path:
        """The checkpoint that interaction starts from: the last of pretraining, unless the settings name another."""
        name = self._start_setting()
        for path in (self.folder.checkpoints / name, Path(name)):
            if checkpoints.is_complete(path):
                return path
        raise checkpoints.CheckpointError(
            f"there is no finished checkpoint {name!r} in {self.folder.checkpoints}; pretrain first, "
            "or set interact.start to a checkpoint's name or folder"
        )

    def _kept(self, path: Path) -> None:
        self.say(f"  saved {path}")
        self._announce(path)

    def _announce(self, path: Path) -> None:
        """Tell the evaluators of a checkpoint, unless the settings say that only the ends are measured."""
        ends = (self._start_name(), checkpoints.interact_name(self._start_name(), self.settings.interact.word_budget))
        if self.streams is not None and (self.settings.evaluation.checkpoints == "all" or path.name in ends):
            self.streams.publish(CHECKPOINTS_STREAM, announcement(self.folder, path))

    def _start_setting(self) -> str:
        return self.settings.interact.start or checkpoints.pretrain_name(self.settings.pretrain.word_budget)

    def _start_name(self) -> str:
        return Path(self._start_setting()).name
