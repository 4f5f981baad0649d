"""Make the bundled sample recording anew: ``python data/remake.py`` (about two minutes, from a checkout).

It is the demo stack with a few faults, recorded; the outputs that the notebooks are compared with are renewed with it.
"""

import shutil
import tempfile
from pathlib import Path

from perfnb import notebooks
from perfnb.staging import SHOWCASE, record_demo

SAMPLE = Path(__file__).parent / "sample.perfnb"
LIMIT_BYTES = 5 * 2**20


def main() -> None:
    """Record, replace the sample, and run the notebooks on it."""
    with tempfile.TemporaryDirectory(prefix="perfnb-sample-") as folder:
        path = record_demo(Path(folder) / "sample.perfnb", SHOWCASE, seconds=25, logs=Path(folder), tell=print)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if size > LIMIT_BYTES:
            raise SystemExit(f"the sample would take {size / 2**20:.1f} MB; record for a shorter time")
        shutil.rmtree(SAMPLE, ignore_errors=True)
        shutil.copytree(path, SAMPLE, ignore=shutil.ignore_patterns("digest.key"))  # nothing is recorded into it
    notebooks.refresh()
    print(f"made {SAMPLE.name}, {size / 2**20:.2f} MB")


if __name__ == "__main__":
    main()
