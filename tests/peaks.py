"""The most memory that this process has taken.

Not `ru_maxrss`: a process inherits that of its parent, so that a child of a large one
seems to be large.
"""

from pathlib import Path


def peak_kb() -> int:
    """Peak of the resident memory in KiB, as Linux tells it; 0 elsewhere."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(status.split("VmHWM:")[1].split()[0])
