"""Lists of what a root file system holds, by a made one and by this machine's own Debian packages."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed; make brings it with the extra dev")

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy.packages import Package, packages_of
from deploy.sbom import Policy, bill, main

SITE = "opt/dependencies"
METADATA = {
    "expressed": "License-Expression: MIT OR Apache-2.0\nClassifier: License :: OSI Approved :: BSD License\n",
    "classified": "Classifier: License :: OSI Approved :: MIT License\nClassifier: Topic :: Text\nLicense: MIT\n",
    "free": "License: BSD\n        and so on, for a page\n",
    "silent": "License: UNKNOWN\n",
}
STATUS = """\
Package: libfox1
Status: install ok installed
Architecture: amd64
Version: 2:1.0-3+deb12u1

Package: den
Status: install ok installed
Architecture: all
Version: 4

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: mute
Status: hold ok installed
Architecture: all
Version: 0.1
"""
DEP5 = "Format: https://www.debian.org/\n\nFiles: *\nLicense: LGPL-2.1+\n text\n\nFiles: debian/*\nLicense: Expat\n"
EXPECTED = {
    "pkg:pypi/expressed@1.0": ["MIT OR Apache-2.0"],
    "pkg:pypi/classified@1.0": ["MIT License"],
    "pkg:pypi/free@1.0": ["BSD"],
    "pkg:pypi/silent@1.0": [],
    "pkg:deb/debian/libfox1@2:1.0-3%2Bdeb12u1?arch=amd64": ["Expat", "LGPL-2.1+"],
    "pkg:deb/debian/den@4?arch=all": ["GPL-3"],
    "pkg:deb/debian/mute@0.1?arch=all": [],
    "pkg:generic/python@3.11.9": ["Python-2.0.1"],
}


def make_root(root: Path, extra: dict[str, str] | None = None) -> Path:
    files = {
        "etc/os-release": 'NAME="Debian"\nID=debian\n',
        "usr/local/include/python3.11/patchlevel.h": '#define PY_VERSION              "3.11.9"\n',
        "var/lib/dpkg/status": STATUS,
        "usr/share/doc/libfox1/copyright": DEP5,
        "usr/share/doc/den/copyright": "On Debian it is in `/usr/share/common-licenses/GPL-3'.\n",
        "usr/lib/den": "not a record",
    }
    for name, said in (METADATA | (extra or {})).items():
        head = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n"
        files[f"{SITE}/{name}-1.0.dist-info/METADATA"] = head + said
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def archive(root: Path) -> bytes:
    """As `docker export` writes it, with a link that leads out of the archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            tar.add(path, str(path.relative_to(root)))
        link = tarfile.TarInfo("usr/share/doc/mute")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
    return stream.getvalue()


def test_an_image_is_listed_whole_with_its_licences(tmp_path: Path) -> None:
    exported = archive(make_root(tmp_path / "root"))
    done = subprocess.run(
        [sys.executable, "-m", "deploy.sbom", "-", "--name", "fox", "--to", str(tmp_path / "to")],
        input=exported,
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    text = (tmp_path / "to" / "bom.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    assert (bom["specVersion"], bom["metadata"]["component"]["name"]) == ("1.6", "fox")
    listed = {
        component["purl"]: sorted(
            said.get("expression") or said["license"].get("id") or said["license"]["name"]
            for said in component.get("licenses", [])
        )
        for component in bom["components"]
    }
    assert listed == EXPECTED
    rows = [line.split("\t") for line in (tmp_path / "to" / "licences.tsv").read_text().splitlines()]
    assert ["deb", "libfox1", "2:1.0-3+deb12u1", "Expat; LGPL-2.1+"] in rows
    assert ["pypi", "silent", "1.0", "UNKNOWN"] in rows
    assert len(rows) == len(EXPECTED) + 1
    said = done.stdout.decode()
    assert "fox: 4 Python and 3 Debian packages" in said
    assert "licence unknown: mute 0.1, silent 1.0" in said
    assert "licence refused: none" in said


def test_a_refused_licence_is_named_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = {"vixen": "License-Expression: AGPL-3.0-only\n", "cub": "License-Expression: MIT OR AGPL-3.0-only\n"}
    root = make_root(tmp_path / "root", extra)
    assert main([str(root), "--to", str(tmp_path / "to")]) == 1
    assert "licence refused: vixen 1.0 (AGPL-3.0-only)\n" in capsys.readouterr().out


def test_the_policy_weighs_alternatives_and_exceptions() -> None:
    policy = Policy(("AGPL", "Affero"), {"known": "runs beside us only"})

    def refused(*licences: str, name: str = "fox") -> bool:
        return policy.refuses(Package("pypi", name, "1", licences))

    assert refused("GNU Affero General Public License v3")
    assert refused("AGPL-3.0 or Affero GPL")
    assert refused("MIT", "AGPL-3.0")
    assert not refused("GPL-3.0 or AGPL-3.0")
    assert not refused("MIT")
    assert not refused()
    assert not refused("AGPL-3.0", name="known")
    assert Policy.read().refused


def test_what_holds_no_packages_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "holds neither Python packages nor Debian's" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="no dpkg here: this is not Debian")
def test_this_machines_debian_packages(tmp_path: Path) -> None:
    for name in ("var/lib/dpkg/status", "etc/os-release"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(Path("/") / name, tmp_path / name)
    found = packages_of(tmp_path)
    asked = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n"],
        check=True,
        capture_output=True,
        text=True,
    )
    rows = [line.split("\t") for line in asked.stdout.splitlines()]
    there = {tuple(row[1:]) for row in rows if row[0][1] not in "nc"}
    assert {(package.name, package.version, package.architecture) for package in found} == there
    assert json.loads(bill("machine", found[:50]))["components"]
