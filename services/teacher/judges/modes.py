"""What the name of a mode says, and the seeded number behind a draw."""

import hashlib

from services.teacher.spec import Mode


def mode_name(mode: Mode, temperature: float, sample_seed: int) -> str:
    """The mode as an identity names it, with whatever else changes its numbers: `joint`, `sample-t0.2-seed42`."""
    tempered = "" if temperature == 1.0 else f"-t{temperature:g}"
    seeded = f"-seed{sample_seed}" if mode == "sample" else ""
    return f"{mode}{tempered}{seeded}"


def uniform(seed: int, text: str) -> float:
    """A number in [0, 1), uniform over seeds and over texts: a pure function of both, whatever else was drawn before.

    The first 53 bits of a SHA-256, a double's precision.
    """
    digest = hashlib.sha256(f"fabula sample {seed}\n".encode() + text.encode("utf-8", errors="surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
