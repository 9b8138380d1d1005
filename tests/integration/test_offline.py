"""What `fabula download` fetched, carried elsewhere and read by a process that may not ask the Hub."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.student_trainer import checkpoints
from tests.download_helpers import BIG, blobs, fabula, published, serving
from tests.hub_server import WRITER, Blob, Hub
from tests.tiny_models import make_tiny_llama
from tests.trainer_helpers import make_run, tiny_settings
from tests.wire.serving import WireServer

PAIR = {"sentence_good": "The foxes were old.", "sentence_bad": "The foxes was old.", "UID": "agreement"}
ROW = json.dumps({**PAIR, "field": "syntax", "linguistics_term": "agreement"}).encode() + b"\n"
TALES = [f"Once upon a time there were {number} foxes." for number in range(8)]
CORPUS = {
    "README.md": b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: a/*.jsonl\n---\n",
    "a/1.jsonl": b"".join(json.dumps({"text": tale}).encode() + b"\n" for tale in TALES[:5]),
    "a/2.jsonl": b"".join(json.dumps({"text": tale}).encode() + b"\n" for tale in TALES[5:]),
    "other.jsonl": b'{"text": "of no configuration"}\n',
}
READ_OFFLINE = """
import json, sys
from pathlib import Path
from services.evaluator.adapters.eval_data import load_blimp, local_folder
from services.student_trainer.corpus import load_documents
from services.student_trainer.settings import CorpusSettings
from services.student_trainer import checkpoints, config
from services.student_trainer.pretrain_start import keep_initial
from services.student_trainer.student import load_initial
from services.teacher.judges.lm.loading import load_model, load_tokenizer
from services.teacher.judges.remote.local_tokenizer import load_tokenizer as template

_, tokenizer = load_initial("me/student")
asked = load_tokenizer("me/teacher", revision=None)
teacher = load_model("me/teacher", asked, revision=None, device="cpu", dtype="auto")
corpus = load_documents(CorpusSettings(source="hf:me/corpus"), seed=1)
settings = config.resolve("smoke", ["student.init=me/student", "interact.prompt=Once", "interact.max_new_tokens=8"])
facts = checkpoints.facts(keep_initial(Path(sys.argv[1]), "run", settings))
print(json.dumps({
    "student": [facts["init_revision"], tokenizer.decode(tokenizer("A fox.").input_ids)],
    "teacher": [teacher.revision, bool(template("me/teacher"))],
    "pairs": len(load_blimp(local_folder("hub:me/data")).items),
    "documents": sorted([*corpus.train, *corpus.validation]),
}))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """Two models with what nobody reads beside them, a corpus and evaluation data."""
    folder, _ = make_run(tmp_path / "tiny", tiny_settings())
    student = blobs(next(path for path in folder.checkpoints.iterdir() if (path / "config.json").is_file()))
    student.pop(checkpoints.MANIFEST, None)
    teacher = blobs(make_tiny_llama(tmp_path / "teacher"))
    unread = {"original/consolidated.00.pth": Blob(BIG, lfs=True), "tf_model.h5": Blob(BIG, lfs=True)}
    return Hub(
        repos={
            "me/student": published(student),
            "me/teacher": published(teacher | unread | {"LICENSE": Blob(b"terms", lfs=False)}),
            "me/corpus": published({name: Blob(content, lfs=False) for name, content in CORPUS.items()}),
            "me/data": published({"fast_eval/blimp_fast/agreement.jsonl": Blob(ROW * 2, lfs=True)} | unread),
        }
    )


RUN = ("--preset", "smoke", "--set", "student.init=me/student", "--teacher", "transformers:me/teacher")
MORE = ("--corpus", "hf:me/corpus", "--eval-data", "hub:me/data")


def test_a_run_reads_all_offline_from_the_folder_that_was_carried_over(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with serving(hub, monkeypatch) as server:
        to = tmp_path / "offline"
        assert fabula(monkeypatch, *RUN, *MORE, "--to", to, "--dry-run") == 0
        assert not to.exists()
        listed = capsys.readouterr().out
        for name in ("me/student", "me/teacher", "me/corpus", "me/data"):
            assert hub.repos[name].branches["main"].id[:9] in listed
        assert fabula(monkeypatch, *RUN, *MORE, "--to", to) == 0
        said = capsys.readouterr().out
        assert f"HF_HUB_OFFLINE=1 fabula up {' '.join(['--preset', 'smoke', '--corpus', 'hf:me/corpus'])}" in said
        fetched = {path.name for path in to.rglob("*")}
        assert "LICENSE" in fetched
        assert not fetched & {"consolidated.00.pth", "tf_model.h5"}
        assert not [path for path in to.rglob("*") if path.is_symlink()]
        assert WRITER.encode() not in b"".join(path.read_bytes() for path in to.rglob("*") if path.is_file())
        sources = {entry["repository"]: entry for entry in json.loads((to / "sources.json").read_text())}
        assert {name: entry["commit"] for name, entry in sources.items()} == {
            name: hub.repos[name].branches["main"].id for name in sources
        }
        server.controls.requests.clear()
        assert fabula(monkeypatch, *RUN, *MORE, "--to", to) == 0
        assert not [r for r in server.controls.requests if r.method == "GET" and "/resolve/" in r.path]  # all is there
        carried = tmp_path / "elsewhere" / "hf"
        shutil.move(to, carried)
        if shutil.which("sha256sum") is not None:
            subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=carried, check=True)
        assert fabula(monkeypatch, "--verify", carried) == 0
        read = offline(server, carried)
        assert read["student"] == [sources["me/student"]["commit"], "A fox."]
        assert read["teacher"] == [sources["me/teacher"]["commit"], True]
        assert read["pairs"] == 2
        assert read["documents"] == sorted(TALES)


def offline(server: WireServer, carried: Path) -> dict[str, object]:
    """What a process reads that may not ask the Hub; it does not."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    before = len(server.controls.requests)
    done = subprocess.run(
        [sys.executable, "-c", READ_OFFLINE, str(carried.parent)],
        env=clean | {"HF_HOME": str(carried), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": server.url},
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert len(server.controls.requests) == before
    read: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return read
