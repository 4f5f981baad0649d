"""Let these tests import the provider and proxy of the policies' tests."""

import sys
from pathlib import Path

for folder in ("sources", "sources/policies"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))
