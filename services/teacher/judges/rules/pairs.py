"""Which pairs of common words English puts side by side: a Bloom filter (Bloom 1970) over those seen often.

Word classes alone let nonsense pass whose classes fit ("the tree sang clearly wise"). A pair that no story in millions
of words has used is a weak sign by itself; many of them are a strong one.
"""

import zlib
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib import resources

from services.teacher.judges.rules.classes import PACKAGE

COMMON_ZIPF = 4.1  # log10 per billion words: pairs are judged where both words are at least as frequent
HASHES = 3
BITS_PER_PAIR = 6.4  # with three hashes, 5 % of unseen pairs pass as seen


def _places(first: str, second: str, bits: int) -> Iterable[int]:
    key = f"{first} {second}".encode()
    one = zlib.crc32(key)
    two = zlib.crc32(key, 0x9E3779B9) | 1
    return ((one + i * two) % bits for i in range(HASHES))


def encode(pairs: Iterable[tuple[str, str]]) -> bytes:
    """The filter over `pairs`."""
    members = sorted(set(pairs))
    filter_ = bytearray(int(len(members) * BITS_PER_PAIR / 8) + 1)
    for first, second in members:
        for place in _places(first, second, 8 * len(filter_)):
            filter_[place >> 3] |= 1 << (place & 7)
    return bytes(filter_)


@cache
def _filter() -> bytes:
    return resources.files(PACKAGE).joinpath("data", "pairs.bloom").read_bytes()


@lru_cache(maxsize=100_000)
def is_familiar(first: str, second: str) -> bool:
    """Whether the pair (lower case) was seen often; wrongly true for about 5 % of those that were not."""
    table = _filter()
    return all(table[place >> 3] >> (place & 7) & 1 for place in _places(first, second, 8 * len(table)))
