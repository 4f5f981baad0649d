"""Let these tests import the upstream that the tests of sources serve."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "sources"))
