"""The vector stores and caches that can be read, by their setting in the target."""

from collections.abc import Mapping
from typing import Protocol

from perfnb.sources.base import Emit
from perfnb.sources.milvus import Milvus
from perfnb.sources.polled import Polled
from perfnb.sources.qdrant import Qdrant
from perfnb.sources.redis import Redis


class Reader(Protocol):
    """Makes the source that reads the store at an address."""

    def __call__(self, emit: Emit, address: str, /) -> Polled:
        """Return the source, not started."""


STORES: Mapping[str, Reader] = {"qdrant": Qdrant, "milvus": Milvus, "redis": Redis}
