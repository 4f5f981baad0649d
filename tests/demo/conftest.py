from collections.abc import Iterator
from pathlib import Path

import pytest
from running_provider import RunningProvider, running_provider


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProvider]:
    folder: Path = tmp_path_factory.mktemp("provider")
    with running_provider(folder, "--time-scale", "20", "--seed", "7") as running:
        yield running
