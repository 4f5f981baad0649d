"""What is embedded to be searched for: one text at a time, and in pieces too small or too large."""

import json
import math
from typing import Any

import pandas as pd

from perfnb.attribution import calls_on_path, prepare, share_of_wait
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Estimate, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

BATCH = 32
HOW_TO_SEE_EMBEDDINGS = "embeddings: perfnb record --upstream URL, or traces with GenAI spans"

# Pieces cut at a size are about as long as each other: the longest 5 % are less than this many times the middle one.
# Entries that are short by nature (questions and answers, names) differ more.
CUT_ALIKE = 1.6
LOOP_PAUSE_MS = 250.0


def embedding_runs(recording: Recording, *, pause_ms: float = LOOP_PAUSE_MS) -> pd.DataFrame:
    """Return runs of embeddings calls for one text each that one request, or one process without requests, makes in a row.

    Columns: request_id, calls, sum_ms, on_path_ms, begins and ends (ns). Calls of requests that only stand for themselves
    are a run where they go through one connection, one after another. Calls that overlap are in no run.
    """
    frame = prepare(recording).query(
        """
        SELECT c.call_id, c.request_id, r.source, c.connection_id, c.request_model, c.start_time, c.end_time, c.duration_ms,
               c.inputs FROM model_calls c LEFT JOIN user_requests r USING (request_id)
        WHERE c.operation = 'embeddings' AND c.error_type IS NULL ORDER BY c.start_time
        """
    )
    if frame.empty:
        raise NotMeasured("no embeddings calls", hint=HOW_TO_SEE_EMBEDDINGS)
    frame["one"] = frame["inputs"].fillna(1) <= 1
    alone = frame["source"].isna() | (frame["source"] == "call")
    connection = "connection " + frame["connection_id"].astype("string").fillna("?")
    frame["owner"] = frame["request_id"].astype("object").where(~alone, connection).fillna("?")
    rows = []
    for _, group in frame.groupby("owner"):
        pause = (group["start_time"] - group["end_time"].shift()) / 1e6
        is_new = (
            pause.isna() | (pause > pause_ms) | (pause < -1) | ~group["one"] | ~group["one"].shift(fill_value=False)
        )
        for _, run in group.groupby(is_new.cumsum()):
            own = None if alone[run.index[0]] else run["request_id"].iloc[0]
            rows.append((own, int(run["one"].sum()), run["duration_ms"].sum(), run["start_time"].min(), run["end_time"].max(), tuple(run["call_id"])))  # fmt: skip
    return pd.DataFrame(rows, columns=["request_id", "calls", "sum_ms", "begins", "ends", "call_ids"])


@check("unbatched-embeddings", area="database")
def unbatched_embeddings(
    recording: Recording,
    objectives: Objectives,
    *,
    per_request: int = 8,
    in_a_row: int = 20,
    min_share: float = 0.05,
) -> Finding | Clear:
    """Texts to be stored are embedded one by one, though one request takes dozens (R75).

    Eight or more embeddings of one text in a row for one request, or twenty through one connection where no requests
    are seen. A question is embedded alone, as it should be. A batch of 32 is taken to need as long as two single calls.

    Source: C57, C6
    """
    runs = embedding_runs(recording)
    is_many = (runs["calls"] >= per_request) & (runs["request_id"].notna() | (runs["calls"] >= in_a_row))
    many = runs[is_many]
    waited = _waited(recording, many)
    share = share_of_wait(recording, float(waited["saved_ms"].sum()))
    of_all = float(many["calls"].sum() / runs["calls"].sum()) if runs["calls"].sum() else 0.0
    if many.empty or share < min_share:
        return Clear(
            f"{len(many)} of {len(runs)} runs of embeddings are {per_request} or more texts one by one; a batch would save {share:.0%} of the wait"
        )
    took = float(waited["duration_ms"].median())
    saved = float(waited["saved_ms"].median())
    return Finding(
        title=f"{len(many)} times {many['calls'].median():.0f} texts are embedded one by one",
        severity=severity(max(objectives["ingest_document_ms"].miss(took), 1.5), share),
        share=share,
        symptom="latency",
        evidence=(
            f"{many['calls'].sum():,.0f} embeddings calls of one text each follow each other, {of_all:.0%} of all texts embedded alone",
            f"they take {many['sum_ms'].median():,.0f} ms of a document's {took:,.0f} ms (medians)",
        ),
        remedy=f"Send {BATCH} or more texts in one request (input takes a list), and a few such requests at a time.",
        effort="low",
        estimate=Estimate("request_duration_ms", took, took - saved, took - saved * 0.6, ("of requests that store documents; a batch of 32 takes two to ten times as long as one text",)),
        frame=many.drop(columns="call_ids").head(50),
        exemplars=tuple(many.nlargest(3, "calls")["request_id"].dropna()),
    )  # fmt: skip


def _waited(recording: Recording, many: pd.DataFrame) -> pd.DataFrame:
    """Return for each run saved_ms (of what its request waited for) and duration_ms (of the request, or of the run)."""
    took = prepare(recording).query("SELECT request_id, duration_ms FROM user_requests").set_index("request_id")
    on_path = calls_on_path(recording).set_index("call_id")["on_path_ms"]
    rows = []
    for run in many.to_dict("records"):
        felt = float(on_path.reindex(list(run["call_ids"])).fillna(0.0).sum())
        batched = 2 * math.ceil(run["calls"] / BATCH) / run["calls"]
        own = took["duration_ms"].get(run["request_id"]) if run["request_id"] else None
        rows.append((felt * max(0.0, 1 - batched), (run["ends"] - run["begins"]) / 1e6 if own is None else float(own)))
    return pd.DataFrame(rows, columns=["saved_ms", "duration_ms"])


_PIECES = """
SELECT m.call_id, m.request_id, CAST(json_extract(i.entry, '$.tokens') AS DOUBLE) AS tokens
FROM model_calls m, (
    SELECT call_id, unnest(CAST(messages AS JSON[])) AS entry FROM model_calls
    WHERE operation = 'embeddings' AND messages IS NOT NULL AND error_type IS NULL) i
WHERE i.call_id = m.call_id
"""

_PASSAGES = """
SELECT call_id, request_id, messages, passages, passage_tokens, input_tokens FROM model_calls
WHERE passages >= $fewest AND operation <> 'embeddings' AND error_type IS NULL
"""


def embedded_pieces(recording: Recording) -> pd.DataFrame:
    """Return the texts that were embedded to be stored: request_id, tokens. What a question alone embeds is left out.

    Such are the texts of requests that embed eight or more.
    """
    frame = prepare(recording).query(_PIECES)
    frame = frame[frame["tokens"].notna()]
    texts = frame.groupby("request_id")["tokens"].transform("size")
    return frame[texts >= 8][["request_id", "tokens"]]


def retrieved_pieces(recording: Recording, *, fewest: int = 3) -> pd.DataFrame:
    """Return the passages in prompts that hold ``fewest`` or more: request_id, tokens, input_tokens of the prompt.

    What a request sends again with a later call, as an agent does with what its tools answered, counts once.
    """
    rows: list[tuple[Any, float, float]] = []
    seen: set[tuple[Any, Any]] = set()
    for each in prepare(recording).query(_PASSAGES, {"fewest": fewest}).to_dict("records"):
        told = json.loads(each["messages"]) if isinstance(each["messages"], str) else []
        holding = [entry for entry in told if entry.get("tokens_of_passages")]
        new = [entry for entry in holding if (each["request_id"], entry.get("digest")) not in seen]
        seen |= {(each["request_id"], entry["digest"]) for entry in holding if "digest" in entry}
        sizes = [size for entry in new for size in entry["tokens_of_passages"]]
        if not holding:
            sizes = [each["passage_tokens"] / each["passages"]] * int(each["passages"])
        rows += [(each["request_id"], float(size), float(each["input_tokens"] or 0)) for size in sizes]
    return pd.DataFrame(rows, columns=["request_id", "tokens", "input_tokens"])


@check("chunk-size", area="database")
def chunk_size(
    recording: Recording,
    objectives: Objectives,
    *,
    least: int = 30,
    requests: int = 3,
    min_part: float = 0.5,
    nearly_all: float = 0.8,
) -> Finding | Clear:
    """Documents are cut into pieces too small to say something by themselves, or too large to be about one thing (R76).

    Told by the tokens of texts that are embedded to be stored, and of passages in prompts: half of them below 64 tokens
    and cut at a size (about as long as each other; entries that are short by nature differ), or half above 1,500. Of
    passages in prompts nearly all must be that large: where some are, whole documents were put beside them, which is
    large-context's matter. The guides name 1,024 tokens; small pieces are exact and many, large ones cost context.
    Neither is wrong by itself, so only what lies far outside is named.

    Source: E25
    """
    fine, coarse = (float(each) for each in objectives["chunk_tokens"].value)
    found = {"embedded": embedded_pieces(recording), "retrieved": retrieved_pieces(recording)}
    told = {name: frame for name, frame in found.items() if len(frame) >= least}
    if not told:
        raise NotMeasured(
            "too few pieces of documents were seen",
            hint="prompts with passages, or documents that are embedded: perfnb record --upstream URL",
        )
    for name, frame in told.items():
        if frame["request_id"].nunique() < requests:
            continue
        small, large = float((frame["tokens"] < fine).mean()), float((frame["tokens"] > coarse).mean())
        if name == "retrieved":  # excerpts in a few prompts, beside whole documents in others, are not how they are cut
            small = min(small, float((retrieved_pieces(recording, fewest=1)["tokens"] < fine).mean()))
        if small >= min_part and _is_cut_alike(frame["tokens"]):
            return _cut(name, frame, small, fine / max(1.0, float(frame["tokens"].median())), "small")
        if large >= (nearly_all if name == "retrieved" else min_part):
            return _cut(name, frame, large, float(frame["tokens"].median()) / coarse, "large")
    sizes = ", ".join(f"{len(frame):,} {name} pieces of {frame['tokens'].median():,.0f} tokens" for name, frame in told.items())  # fmt: skip
    return Clear(f"{sizes} (medians); named below {fine:,.0f} and above {coarse:,.0f}")


def _is_cut_alike(tokens: pd.Series) -> bool:
    return bool(tokens.quantile(0.95) <= CUT_ALIKE * tokens.median())


def _cut(name: str, frame: pd.DataFrame, part: float, miss: float, how: str) -> Finding:
    middle = float(frame["tokens"].median())
    per_request = frame.groupby("request_id")["tokens"]
    where = "stored" if name == "embedded" else "put into prompts"
    remedy = (
        "Cut documents at their own joints (headings, paragraphs) into some 200 to 1,000 tokens, with a little overlap, and embed them anew; then compare what is found for questions of your own."
        if how == "small"
        else "Cut documents into pieces of some 200 to 1,000 tokens and embed them anew: a long piece is near to many questions and answers few, and each costs its whole length in the prompt."
    )
    return Finding(
        title=f"Documents are {where} in pieces of {middle:,.0f} tokens, which is {'little to go by' if how == 'small' else 'much at once'}",
        severity=severity(miss, part),
        share=part,
        symptom="pieces of documents",
        evidence=(
            f"{part:.0%} of {len(frame):,} pieces are that {how}; 5 % are longer than {frame['tokens'].quantile(0.95):,.0f} tokens",
            f"a request has {per_request.size().median():,.0f} of them, {per_request.sum().median():,.0f} tokens together (medians)",
        ),
        remedy=remedy,
        effort="medium",
        frame=per_request.agg(pieces="size", median_tokens="median").reset_index().head(20),
    )
