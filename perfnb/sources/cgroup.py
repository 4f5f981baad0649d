"""What a process may use at most, where a container or a service sets a limit."""

from dataclasses import dataclass
from pathlib import Path

UNLIMITED_BYTES = 2**60  # version 1 writes a huge number where there is no limit


@dataclass(frozen=True)
class Limits:
    """Cores and bytes of memory a cgroup allows; None where it sets no limit."""

    cores: float | None = None
    memory_bytes: int | None = None


def limits_of(pid: int, *, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> Limits:
    """Return the tightest limits of the groups ``pid`` is in; no limits where there are no cgroups."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return Limits()
    cores, memory = [], []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for folder in _upwards(root, controllers, path):
            cores += [limit for limit in (_cores_v2(folder), _cores_v1(folder)) if limit]
            memory += [limit for limit in (_number(folder / name) for name in _MEMORY_FILES) if limit]
    return Limits(min(cores, default=None), min((int(m) for m in memory if m < UNLIMITED_BYTES), default=None))


_MEMORY_FILES = ("memory.max", "memory.limit_in_bytes")


def _upwards(root: Path, controllers: str, path: str) -> list[Path]:
    """Return the group's folder and those above it: each may set a limit."""
    top = root / controllers if controllers else root
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _cores_v2(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _cores_v1(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _number(path: Path) -> float | None:
    text = _text(path)
    return float(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
