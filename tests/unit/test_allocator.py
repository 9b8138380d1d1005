"""Memory that is free again stays with the process, or goes back, where the C library is glibc."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import numpy
from fabula_proto.allocator import keep_freed_memory, return_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

if sys.argv[1] != "leave":
    assert keep_freed_memory()
before = resident()
blocks = [numpy.ones(2_500_000) for _ in range(10)]  # 200 MB
held = resident() - before
blocks.clear()
if sys.argv[1] == "return":
    assert return_freed_memory()
    print(held, resident() - before)
    blocks = [numpy.ones(2_500_000) for _ in range(10)]
    blocks.clear()
print(held, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told")
@pytest.mark.parametrize("how", ["keep", "return", "leave"])
def test_freed_blocks_are_kept_or_returned(how: str) -> None:
    """Where they are to be returned: what is free already, and what comes to be free."""
    said = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True).stdout
    for line in said.splitlines():
        held, after = map(int, line.split())
        assert held > 190_000_000
        assert (after > 190_000_000) is (how == "keep")
