"""The queries this source asks: one file each in ``queries``, and another where a newer server needs another text.

``name.pg14.sql`` is for version 14 and newer, ``name.sql`` for all older ones. Each carries a mark behind its first
word, so that what perfnb itself asks is told apart in pg_stat_statements (newer servers cut off what stands before it).
"""

import functools
import re
from pathlib import Path

QUERIES = Path(__file__).parent / "queries"
MARK = "/* perfnb */"
APPLICATION = "perfnb"

_FILE = re.compile(r"(?P<name>\w+)(?:\.pg(?P<major>\d+))?\.sql")


@functools.cache
def query(name: str, version_num: int) -> str:
    """Return the text of query ``name`` for a server of ``version_num``, or an empty one where it has no such thing."""
    fitting = {major: path for major, path in _files(name).items() if major <= version_num // 10000}
    return fitting[max(fitting)].read_text() if fitting else ""


def _files(name: str) -> dict[int, Path]:
    """Return the files of query ``name`` by the version they begin at."""
    found = ((_FILE.fullmatch(path.name), path) for path in QUERIES.glob(f"{name}.*"))
    return {int(match["major"] or 0): path for match, path in found if match and match["name"] == name}
