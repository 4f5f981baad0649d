from datetime import UTC, datetime
from pathlib import Path

import pytest

from perfnb.recorder import default_path


def test_two_recordings_of_one_second_have_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    now = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    for expected in ("perfnb-20300102-030405", "perfnb-20300102-030405-2", "perfnb-20300102-030405-3"):
        path = default_path(now)
        assert path == Path(f"{expected}.perfnb")
        path.mkdir()
