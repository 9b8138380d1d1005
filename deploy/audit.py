"""Known vulnerabilities of the pinned dependencies: pip-audit over constraints.txt and deploy/lock, by OSV's data.

    python -m deploy.audit

Exit status 1 where one is found that deploy/policy.toml does not accept, 77 where the data cannot be reached: then
nothing was audited, and the last line says so.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
OSV = "https://api.osv.dev/v1/query"
SKIPPED = 77  # as Automake's tests say it
# A release whose vulnerabilities any copy of the data knows. Some mirrors answer, and know of none.
KNOWN = {"package": {"name": "jinja2", "ecosystem": "PyPI"}, "version": "2.10"}
TIMEOUT_S = 10.0
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")


def pinned(files: Iterable[Path]) -> list[str]:
    """`name==version` of every line that pins one, in all the files, each once."""
    found = (_PINNED.match(line) for file in files for line in file.read_text(encoding="utf-8").splitlines())
    return sorted({f"{match[1].lower().replace('_', '-')}=={match[2]}" for match in found if match})


def out_of_reach(url: str) -> str | None:
    """Why the service at `url` cannot be asked, or none where it knows what it must know."""
    try:
        answer = httpx.post(url, json=KNOWN, timeout=TIMEOUT_S)
        answer.raise_for_status()
        known = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        return f"{url} does not answer as OSV does: {type(error).__name__} {error}"
    if isinstance(known, dict) and known.get("vulns"):
        return None
    return f"{url} knows of no vulnerability of {KNOWN['version']} of jinja2, which has some"


def audit(requirements: Sequence[str], accepted: Sequence[str], url: str) -> int:
    """Ask for each; print what is found; exit status.

    Raises:
        RuntimeError: pip-audit broke off.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pinned.txt"
        file.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        options = ["--requirement", str(file), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        options += ["--vulnerability-service", "osv", "--osv-url", url, "--format", "json"]
        options += [word for one in accepted for word in ("--ignore-vuln", one)]
        done = subprocess.run(  # noqa: S603  # our own Python and words
            [sys.executable, "-m", "pip_audit", *options], check=False, capture_output=True, text=True
        )
    try:
        rows = json.loads(done.stdout)["dependencies"]
    except ValueError as error:
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        if re.search(r"ConnectionError|Timeout|ServiceError", why):
            return _skipped(why)
        raise RuntimeError(f"pip-audit ended with {done.returncode}: {done.stderr.strip()[-500:]}") from error
    asked = [row for row in rows if "vulns" in row]
    found = [(row, vulnerability) for row in asked for vulnerability in row["vulns"]]
    for row, vulnerability in found:
        aliases = ", ".join(vulnerability["aliases"])
        cure = " or ".join(vulnerability["fix_versions"]) or "no release without it yet"
        print(f"{row['name']} {row['version']}: {vulnerability['id']} ({aliases}); take {cure}")
    print(f"audit: {len(found)} known vulnerabilities in {len(asked)} packages, {len(accepted)} accepted")
    if len(asked) < len(requirements):
        print(f"audit: not asked about: {', '.join(row['name'] for row in rows if row not in asked)}")
    if found:
        print('audit: take a newer release, or accept one with a reason in deploy/policy.toml: "ID" = "why"')
    return 1 if found else 0


def _skipped(why: str) -> int:
    print(f"audit: SKIPPED, nothing was audited: {' '.join(why.split())}")
    return SKIPPED


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m deploy.audit", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="left out: constraints.txt and deploy/lock/*.txt")
    parser.add_argument("--osv-url", default=OSV, help="another copy of the data")
    options = parser.parse_args(arguments)
    policy = tomllib.loads((Path(__file__).parent / "policy.toml").read_text(encoding="utf-8"))
    if (why := out_of_reach(options.osv_url)) is not None:
        return _skipped(why)
    files = options.files or [ROOT / "constraints.txt", *sorted((ROOT / "deploy/lock").glob("*.txt"))]
    return audit(pinned(files), tuple(policy["vulnerabilities"]), options.osv_url)


if __name__ == "__main__":
    sys.exit(main())
