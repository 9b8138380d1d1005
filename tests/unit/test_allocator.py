"""Memory that is free again stays with the process, where the C library is glibc."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import numpy
from fabula_proto.allocator import keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resident()
block = numpy.ones(25_000_000)  # 200 MB
held = resident() - before
del block
print(held, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told")
@pytest.mark.parametrize("how", ["keep", "leave"])
def test_a_freed_block_is_kept(how: str) -> None:
    said = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True).stdout
    held, after = map(int, said.split())
    assert held > 190_000_000
    assert (after > 190_000_000) is (how == "keep")
