"""Are embeddings missing, or were they only not seen?"""

from perfnb.attribution import observed, prepare
from perfnb.attribution.statements import statements
from perfnb.errors import NotMeasured
from perfnb.finding import Clear
from perfnb.recording import Recording

HOW_TO_SEE_EMBEDDINGS = "embeddings: perfnb record --upstream URL, or instrument the embedding client (GenAI spans)"

# pgvector's distance operators. <-> is also a distance of other types, <=> an equality in MySQL.
_DISTANCE = r"<=>|<#>|<\+>|(?:vec|embed).*<->|<->.*(?:vec|embed)"

_TRACED = """
SELECT 1 FROM observed_spans WHERE operation = 'retrieval' OR (
    statement IS NOT NULL AND regexp_matches(statement, $distance, 'is')
    AND lower(coalesce(attributes ->> '$."db.system.name"', attributes ->> '$."db.system"', '')) NOT IN ('mysql', 'mariadb'))
LIMIT 1
"""


def unless_unseen(recording: Recording, clear: Clear) -> Clear:
    """Return ``clear``; raises NotMeasured where vectors are searched and only what the app traces of its calls is seen."""
    if not _sees_all_calls(recording) and searches_vectors(recording):
        raise NotMeasured("vectors are searched, and what embeds the queries is not seen", hint=HOW_TO_SEE_EMBEDDINGS)
    return clear


def _sees_all_calls(recording: Recording) -> bool:
    return not prepare(recording).query("SELECT 1 FROM model_calls WHERE source = 'proxy' LIMIT 1").empty


def searches_vectors(recording: Recording) -> bool:
    """Tell whether the app was seen to search vectors: retrieval spans, or statements with a distance operator."""
    if not observed(recording).query(_TRACED, {"distance": _DISTANCE}).empty:
        return True
    try:
        texts = statements(recording)["query"].dropna().astype(str)
    except NotMeasured:
        return False
    return bool(texts.str.contains(f"(?is){_DISTANCE}", regex=True).any())
