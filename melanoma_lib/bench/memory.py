"""Memory of a process, asked of the operating system: what it holds now, and the most it has held.

``getrusage`` alone would not do on Linux: there a process inherits the peak of the one that started it.
"""

from pathlib import Path

STATUS = Path("/proc/self/status")


def resident_memory() -> float:
    """MB that this process holds in memory now; on macOS the most it has held so far."""
    return _megabytes("VmRSS")


def peak_memory() -> float:
    """The most MB that this process has held in memory at once; NaN on Windows, which is not asked."""
    return _megabytes("VmHWM")


def _megabytes(field: str) -> float:
    if STATUS.exists():
        lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="ascii").splitlines())
        return int(lines[field].split()[0]) / 1024
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:
        return float("nan")
    return getrusage(RUSAGE_SELF).ru_maxrss / 1024**2  # macOS counts bytes
