"""Let every test import the builders beside this file; how fast a machine is decides no test; no check fails unseen."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


class _Failed(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(logging.Formatter().format(record))


@pytest.fixture(autouse=True)
def no_check_fails_unseen(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which a check failed with a defect: the checklist answers all the same, and logs it.

    Tests marked ``failing_check`` stage one.
    """
    log, failed = logging.getLogger("perfnb.checklist"), _Failed()
    log.addHandler(failed)
    yield
    log.removeHandler(failed)
    if not request.node.get_closest_marker("failing_check"):
        assert failed.said == []
