"""Ends the children of a parent that died without a word (SIGKILL, out of memory).

Run as a script with the parent's pipe as standard input. Lines are `+ <pid>` (a process group was started) and
`- <pid>` (it is gone). When the pipe ends, the groups still listed are asked to stop, the youngest first, and killed
when they take too long. Standard library only, and in a session of its own, so that it starts at once and outlives
what it guards. It also inherits the run's lock, which is therefore free only when everything has ended.
"""

import os
import signal
import sys
import time

GRACE_S = 15.0
POLL_S = 0.05


def is_running(pid: int) -> bool:
    """Whether the process leading group `pid` exists and is no zombie."""
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        # No /proc (macOS): killpg is all there is to ask. With /proc, the leader is gone but its group is not.
        return True


def end_group(pid: int, grace_s: float) -> None:
    """SIGTERM, then SIGKILL after `grace_s` seconds, to process group `pid`."""
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(pid, number)
        except (ProcessLookupError, PermissionError):
            return
        deadline = time.monotonic() + wait_s
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if not is_running(pid):
            return


def main() -> None:
    """Follow the pipe to its end, then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: list[int] = []
    for line in sys.stdin:
        sign, _, pid = line.strip().partition(" ")
        if sign == "+":
            groups.append(int(pid))
        elif int(pid) in groups:
            groups.remove(int(pid))
    for group in reversed(groups):
        end_group(group, GRACE_S)


if __name__ == "__main__":
    main()
