"""The tuner on Milvus Lite: recall by ef and nprobe, no latency, the truth reckoned from all vectors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vector_stores import ASKED, DIMENSIONS, STORED, TENANTS

from perfnb.errors import WrongUse
from perfnb.tuner import MilvusCollection, Setting, tune

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ROWS = 2000


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from pymilvus import MilvusClient

    found = MilvusClient(str(tmp_path_factory.mktemp("milvus") / "lite.db"))
    create(found, "docs", "HNSW", {"M": 8, "efConstruction": 40})
    create(found, "lists", "IVF_FLAT", {"nlist": 32})
    create(found, "flat", "FLAT", {})
    yield found
    found.close()


def create(client: Any, name: str, index: str, params: dict[str, int]) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=DIMENSIONS)
    schema.add_field("tenant", DataType.INT64)
    indexes = client.prepare_index_params()
    indexes.add_index("v", index_type=index, metric_type="COSINE", params=params)
    client.create_collection(name, schema=schema, index_params=indexes)
    rows = [{"id": at, "v": vector.tolist(), "tenant": at % TENANTS} for at, vector in enumerate(STORED[:ROWS])]
    client.insert(name, rows)
    client.flush(name)
    client.load_collection(name)


def test_recall_is_tuned_and_latency_is_refused(client: Any) -> None:
    tuning = tune(
        MilvusCollection(client, "docs"), ASKED[:160], target=0.9, filter_column="tenant", selectivities=(0.1,)
    )
    assert [each.filter for each in tuning.picks] == ["all rows", "tenant on 10 %"]
    assert all(each.is_met for each in tuning.picks)
    assert tuning.frame["p50_ms"].isna().all()
    assert any("gRPC" in each for each in tuning.not_measured)
    assert "exact scan" not in set(tuning.frame["family"])


def test_the_truth_is_reckoned_here(client: Any) -> None:
    unit = STORED[:ROWS] / np.linalg.norm(STORED[:ROWS], axis=1, keepdims=True)
    collection = MilvusCollection(client, "docs")
    assert list(collection.exact(ASKED[0], 5, None).ids) == np.argsort(-unit @ ASKED[0])[:5].tolist()
    some = collection.filtered("tenant in [3, 4]")
    assert some.rows == 2 * ROWS // TENANTS
    assert {int(str(each)) % TENANTS for each in collection.exact(ASKED[0], 5, some).ids} <= {3, 4}


def test_lists_are_tuned_by_nprobe(client: Any) -> None:
    collection = MilvusCollection(client, "lists")
    (family,) = collection.families(10, None)
    assert family.parameter == "nprobe"
    hits = {
        nprobe: len(
            set(collection.search(ASKED[0], 10, Setting("ivf", "nprobe", nprobe), None).ids)
            & set(collection.exact(ASKED[0], 10, None).ids)
        )
        for nprobe in (1, family.values[-1])
    }
    assert hits[1] < 10
    if family.values[-1] >= 32:
        assert hits[family.values[-1]] == 10


def test_an_exact_index_has_nothing_to_set(client: Any) -> None:
    tuning = tune(MilvusCollection(client, "flat"), ASKED[:10])
    assert tuning.pick is None
    assert any("nothing to set" in each for each in tuning.not_measured)


def test_sampled_rows_are_searched_without_themselves(client: Any) -> None:
    tuning = tune(MilvusCollection(client, "docs"), choosing=20, held_back=20, target=0.7)
    assert (tuning.frame["rows"] == 10).all()


def test_collections_too_large_to_read_are_refused(client: Any, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="too many"):
        MilvusCollection(client, "docs", most_bytes=1000)
