"""The tuner's panel: on a real server it finds what is enough, can be stopped, and says why it can't begin."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from builders import START, recording
from desk import recorded
from servers import postgres_18

from perfnb.areas.database.vector_tuner import NO_FILTER, OTHERS, VectorTuner, _Controls
from perfnb.errors import PerfnbError
from perfnb.incident import Incident
from perfnb.objectives import Objectives
from perfnb.recording import Recording
from perfnb.target import Target
from perfnb.tuner.recorded import tunings

DIMENSIONS, ROWS = 24, 3000
TABLE = f"""
CREATE EXTENSION vector;
CREATE TABLE pieces (id bigint PRIMARY KEY, tenant int NOT NULL, about jsonb, embedding vector({DIMENSIONS}));
INSERT INTO pieces SELECT n, n % 10, '{{}}',
    (SELECT array_agg(random()) FROM generate_series(1, {DIMENSIONS}) WHERE n > 0)::vector FROM generate_series(1, {ROWS}) n;
CREATE INDEX pieces_embedding ON pieces USING hnsw (embedding vector_cosine_ops);
CREATE TABLE others (id bigint PRIMARY KEY, embedding halfvec({DIMENSIONS}))
"""


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with postgres_18() as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for statement in TABLE.split(";\n"):
                connection.execute(statement)
        with psycopg.connect(dsn, autocommit=True) as connection:  # the loader has told its rows when it left
            connection.execute("VACUUM ANALYZE pieces")
        yield dsn


@pytest.fixture(scope="module")
def made(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return recorded(tmp_path_factory.mktemp("tuner"), dsn, lambda: None)


@pytest.fixture
def panel(made: Recording, dsn: str) -> VectorTuner:
    return VectorTuner(Incident(made, Target(dsn=dsn), Objectives.load(Path(__file__).parent)))


def test_what_can_be_tuned_and_filtered_is_listed(panel: VectorTuner) -> None:
    assert set(panel.places) == {"pieces.embedding", "others.embedding"}
    panel.choose("pieces.embedding")
    choices = {each.name: each.choices for each in panel.parameters}
    assert choices["filter_column"] == (NO_FILTER, "id", "tenant")
    assert panel.why_not() == ""
    assert "3,000 rows" in panel.cost()
    assert "temporary copy" not in panel.cost()
    panel.given["candidates"] = OTHERS
    assert "temporary copy" in panel.cost()


def test_it_finds_what_is_enough_and_puts_it_on_the_timeline(panel: VectorTuner, tmp_path: Path) -> None:
    panel.choose("pieces.embedding")
    asked = tmp_path / "questions.npy"
    np.save(asked, np.random.default_rng(3).random((60, DIMENSIONS), dtype=np.float32))
    panel.given |= {"queries": str(asked), "filter_column": "tenant", "target": 0.9}
    found = panel.run(lambda told: None)
    assert found.target == 0.9
    assert "tenant on 10 %" in {point.filter for point in found.points}
    assert tunings(panel.incident.recording)[-1].headline == found.headline
    assert found.headline in panel.result().text
    assert "settings were measured" in str(panel.chart())


def test_its_controls_tune_and_show_the_result_in_place(panel: VectorTuner) -> None:
    panel.choose("pieces.embedding")
    controls = _Controls(panel)
    shown: list[Any] = []
    handle = type("Handle", (), {"update": lambda self, piece: shown.append(piece)})()
    controls.show(handle, handle)
    assert "only reads" in controls.said.value
    controls.tune.click()
    wait_until(lambda: not controls.tune.disabled)
    assert "role='status'" in controls.said.value
    assert tunings(panel.incident.recording)[-1].headline in controls.said.value.replace("&#39;", "'")
    assert [type(each).__name__ for each in shown] == ["Piece", "Chart"]


def test_stop_keeps_what_was_measured(panel: VectorTuner) -> None:
    panel.choose("pieces.embedding")
    panel.given["candidates"] = OTHERS
    controls = _Controls(panel)
    controls.tune.click()
    wait_until(lambda: not controls.stop.disabled)
    time.sleep(0.5)
    controls.stop.click()
    wait_until(lambda: not controls.tune.disabled)
    assert tunings(panel.incident.recording)[-1].ended == "stopped on request"


def test_another_column_brings_its_own_choices(panel: VectorTuner) -> None:
    controls = _Controls(panel)
    place = controls.values.children[0]
    place.value = "pieces.embedding"
    assert controls.values.children[3].options == (NO_FILTER, "id", "tenant")
    controls.values.children[0].value = "others.embedding"
    assert controls.values.children[3].options == (NO_FILTER, "id")
    controls.tune.click()  # it has no rows
    wait_until(lambda: not controls.tune.disabled)
    assert "Not tuned: " in controls.said.value


def test_a_file_that_is_not_there_is_one_clear_line(panel: VectorTuner) -> None:
    panel.choose("pieces.embedding")
    panel.given["queries"] = "nowhere.npy"
    with pytest.raises(PerfnbError, match=r"nowhere\.npy"):
        panel.run()


def test_without_a_dsn_or_a_column_it_says_so(made: Recording, tmp_path: Path) -> None:
    objectives = Objectives.load(tmp_path)
    blind = VectorTuner(Incident(made, Target(), objectives))
    assert "PERFNB_DSN" in blind.why_not()
    assert _Controls(blind).tune.disabled
    empty = VectorTuner(Incident(recording(tmp_path), Target(dsn="postgresql://nowhere/none"), objectives))
    assert "No column of vectors" in empty.why_not()
    assert "not known yet" in empty.result().text
    assert "is drawn here" in str(empty.chart())
    assert "Vectors that can be tuned: none" in empty.bundle(_Controls(empty).box)["text/plain"]
    with pytest.raises(PerfnbError, match="no column of vectors"):
        empty.run()


def test_collections_of_stores_are_named_with_how_to_tune_them(tmp_path: Path) -> None:
    store = {"time": START, "server": "store:6333", "kind": "collection", "name": "docs", "properties": {"engine": "qdrant"}}  # fmt: skip
    panel = VectorTuner(Incident(recording(tmp_path, catalog=[store]), Target(), Objectives.load(tmp_path)))
    assert "(docs) are tuned by perfnb.tuner.tune" in panel.bundle(_Controls(panel).box)["text/plain"]


def wait_until(holds: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.05)
