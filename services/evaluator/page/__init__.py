"""The page: one HTML document with its style and scripts inside, and a policy that lets it load nothing else."""

import base64
import hashlib
from dataclasses import dataclass
from importlib import resources

STYLES = ("page.css",)
SCRIPTS = ("dom.js", "charts.js", "page.js", "stories.js")


@dataclass(frozen=True, slots=True)
class Page:
    """The document, and the Content-Security-Policy that belongs to it."""

    html: str
    policy: str


def load_page() -> Page:
    """Put style and scripts into the document. Their hashes are in the policy, so nothing else ever runs."""
    folder = resources.files(__name__)
    style = "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in STYLES)
    script = "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS)
    document = folder.joinpath("index.html").read_text(encoding="utf-8")
    html = document.replace("/*style*/", style).replace("/*script*/", script)
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(html, policy)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
