"""What an image or an environment holds: a CycloneDX list of its packages, and a table of their licences.

    python -m deploy.sbom .venv --to sbom/venv
    docker export CONTAINER | python -m deploy.sbom - --name fabula-teacher --to sbom/teacher

Writes `bom.json` (CycloneDX 1.6, checked against its schema) and `licences.tsv`. Exit status 1 where a licence is one
that deploy/policy.toml refuses; a package without a known licence is named.
"""

import argparse
import re
import sys
import tarfile
import tempfile
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from deploy.packages import Package, packages_of, unpack

POLICY = Path(__file__).parent / "policy.toml"
VERSION = SchemaVersion.V1_6
UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Policy:
    """Words of refused licences, and packages that are let pass with a reason."""

    refused: tuple[str, ...]
    accepted: dict[str, str]

    @classmethod
    def read(cls, path: Path = POLICY) -> "Policy":
        """From deploy/policy.toml."""
        licences = tomllib.loads(path.read_text(encoding="utf-8"))["licences"]
        return cls(tuple(licences["refused"]), dict(licences["accepted"]))

    def refuses(self, package: Package) -> bool:
        """Whether one of its licences, in all of its alternatives, is a refused one."""
        return package.name not in self.accepted and any(
            all(self._is_refused(part) for part in re.split(r"\bor\b", licence, flags=re.IGNORECASE))
            for licence in package.licences
        )

    def _is_refused(self, licence: str) -> bool:
        return any(word.lower() in licence.lower() for word in self.refused)


def bill(name: str, packages: Sequence[Package]) -> str:
    """The packages as CycloneDX JSON.

    Raises:
        ValueError: the schema has a word against it, which would be a fault of ours.
    """
    bom = Bom(components=[_component(package) for package in packages])
    bom.metadata.component = Component(name=name, type=ComponentType.APPLICATION, bom_ref=name)
    bom.register_dependency(bom.metadata.component, bom.components)
    text = make_outputter(bom, OutputFormat.JSON, VERSION).output_as_string(indent=2)
    if (wrong := JsonStrictValidator(VERSION).validate_str(text)) is not None:
        raise ValueError(f"not CycloneDX {VERSION.to_version()}: {str(wrong).splitlines()[0]}")
    return text


def table(packages: Sequence[Package]) -> str:
    """A row a package, in tabs: kind, name, version, licences."""
    rows = [(p.kind, p.name, p.version, "; ".join(p.licences) or UNKNOWN) for p in packages]
    return "".join("\t".join(row) + "\n" for row in (("kind", "package", "version", "licence"), *rows))


def _component(package: Package) -> Component:
    qualifiers = {"arch": package.architecture} if package.architecture else None
    name = package.name.lower().replace("_", "-") if package.kind == "pypi" else package.name
    url = PackageURL(package.kind, package.distribution or None, name, package.version, qualifiers)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=url.to_string(),
        purl=url,
        licenses=_licences(package.licences),
    )


def _licences(names: Sequence[str]) -> list[License]:
    """An expression stands alone in CycloneDX; of several licences each is an SPDX id or a name."""
    factory = LicenseFactory()
    if len(names) == 1:
        return [factory.make_from_string(names[0])]
    made = [factory.make_from_string(name) for name in names]
    return [factory.make_with_name(one.value) if isinstance(one, LicenseExpression) else one for one in made]


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m deploy.sbom", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "source", help="a folder (an environment, a root file system), or - for a tar on standard input"
    )
    parser.add_argument("--name", help="what it is a list of; left out, the folder's name")
    parser.add_argument("--to", type=Path, default=Path("sbom"), help="folder for bom.json and licences.tsv")
    options = parser.parse_args(arguments)
    if options.source == "-":
        with tempfile.TemporaryDirectory() as root:
            try:
                unpack(sys.stdin.buffer, Path(root))
            except tarfile.TarError as error:
                parser.error(f"standard input is no tar archive ({error}); pipe `docker export CONTAINER` into it")
            packages = packages_of(Path(root))
    else:
        packages = packages_of(Path(options.source).resolve())
    if not packages:
        parser.error(f"{options.source} holds neither Python packages nor Debian's; give a root folder or a venv")
    name = options.name or Path(options.source).resolve().name
    options.to.mkdir(parents=True, exist_ok=True)
    (options.to / "bom.json").write_text(bill(name, packages) + "\n", encoding="utf-8")
    (options.to / "licences.tsv").write_text(table(packages), encoding="utf-8")
    return _say(name, packages, Policy.read(), options.to)


def _say(name: str, packages: Sequence[Package], policy: Policy, to: Path) -> int:
    counts = Counter(package.kind for package in packages)
    unknown = [f"{p.name} {p.version}" for p in packages if not p.licences]
    refused = [f"{p.name} {p.version} ({'; '.join(p.licences)})" for p in packages if policy.refuses(p)]
    print(f"{name}: {counts['pypi']} Python and {counts['deb']} Debian packages in {to}/bom.json and licences.tsv")
    print(f"licence unknown: {', '.join(unknown) or 'none'}")
    print(f"licence refused: {', '.join(refused) or 'none'}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
