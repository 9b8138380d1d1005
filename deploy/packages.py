"""Which packages a file system holds, and under which licences: Python's by their metadata, Debian's by dpkg's records.

Nothing of it is run, so it may be another machine's: an image's root, or a virtual environment.
"""

import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import IO, Literal

_NOT_FILES = ("proc", "sys", "dev")
_STANZA_END = re.compile(r"\n\s*\n")
_COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])")
_WANTED = re.compile(
    r"(\./)?(.*\.dist-info/METADATA|usr/local/include/python3[^/]*/patchlevel\.h|var/lib/dpkg/status(\.d/[^/]+)?"
    r"|usr/share/doc/[^/]+(/copyright)?|(etc|usr/lib)/os-release)"
)


@dataclass(frozen=True, order=True)
class Package:
    """`licences` as the package itself names them; none: it says nothing that could be read."""

    kind: Literal["pypi", "deb", "generic"]
    name: str
    version: str
    licences: tuple[str, ...]
    architecture: str = ""
    distribution: str = ""  # of Debian's kind, such as debian


def packages_of(root: Path) -> list[Package]:
    """All packages below a root, in order, each once."""
    return sorted({*_interpreter(root), *_python(root), *_debian(root)})


def unpack(archive: IO[bytes], to: Path) -> None:
    """Take from a stream of `docker export` only what `packages_of` reads.

    Raises:
        tarfile.TarError: it is no such archive.
    """
    with tarfile.open(fileobj=archive, mode="r|*") as tar:
        for member in tar:
            if (member.isfile() or member.issym()) and _WANTED.fullmatch(member.name):
                try:
                    tar.extract(member, to, filter="data")
                except tarfile.FilterError:
                    continue  # a link out of the archive


def _interpreter(root: Path) -> Iterator[Package]:
    """Python itself where it was built from source, as in the official images: no package manager knows of it."""
    for header in root.glob("usr/local/include/python3*/patchlevel.h"):
        if found := re.search(r'#define PY_VERSION\s+"([^"]+)"', header.read_text(encoding="utf-8")):
            yield Package("generic", "python", found[1], ("Python-2.0.1",))


def _python(root: Path) -> Iterator[Package]:
    for folder, children, _ in os.walk(root):
        if Path(folder) == root:
            children[:] = [child for child in children if child not in _NOT_FILES]
        for child in children:
            metadata = Path(folder, child, "METADATA")
            if child.endswith(".dist-info") and metadata.is_file():
                said = HeaderParser().parsestr(metadata.read_text(encoding="utf-8", errors="replace"))
                yield Package("pypi", str(said["Name"]), str(said["Version"]), _said(said))


def _said(metadata: Message) -> tuple[str, ...]:
    """The SPDX expression (PEP 639), else the classifiers, else the first line of the older free field."""
    if expression := metadata["License-Expression"]:
        return (str(expression),)
    classifiers = [str(line).split(" :: ") for line in metadata.get_all("Classifier", [])]
    if named := [parts[-1] for parts in classifiers if parts[0] == "License" and parts[-1] != "OSI Approved"]:
        return tuple(sorted(named))
    lines = str(metadata["License"] or "").strip().splitlines()
    return (lines[0].strip(),) if lines and lines[0].strip().upper() != "UNKNOWN" and len(lines[0]) <= 80 else ()


def _debian(root: Path) -> Iterator[Package]:
    lists = [root / "var/lib/dpkg/status", *sorted((root / "var/lib/dpkg/status.d").glob("*"))]
    texts = [path.read_text(encoding="utf-8") for path in lists if path.is_file() and path.suffix != ".md5sums"]
    distribution = _distribution(root) if texts else ""
    for text in texts:
        for stanza in filter(str.strip, _STANZA_END.split(text)):
            said = HeaderParser().parsestr(stanza.lstrip())
            if "not-installed" in str(said["Status"]) or "config-files" in str(said["Status"]):
                continue
            name = str(said["Package"])
            licences = _copyright(root / "usr/share/doc" / name / "copyright")
            yield Package("deb", name, str(said["Version"]), licences, str(said["Architecture"]), distribution)


def _copyright(path: Path) -> tuple[str, ...]:
    """Names in Debian's machine-readable form (DEP 5); else the common licences that the text points to."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    named = {line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("License:")}
    return tuple(sorted((named or set(_COMMON.findall(text))) - {""}))


def _distribution(root: Path) -> str:
    for path in (root / "etc/os-release", root / "usr/lib/os-release"):
        if path.is_file():
            found = re.search(r"^ID=\"?([a-z0-9.-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
            return found[1] if found else "debian"
    return "debian"
