"""What prompts are made of: how many input tokens are tools, instructions, history, passages, question, and their price."""

import pandas as pd

from perfnb.attribution import GENERATING, HOW_TO_SEE_PROMPTS
from perfnb.attribution.money import prepare_money
from perfnb.errors import NotMeasured
from perfnb.recording import Recording

MOST_CALLS = 20_000
"""Prompts that are taken apart; of more, an evenly spread part stands for all."""

TOOLS, REST = "tool schemas", "not seen"

_COUNTED = f"""
SELECT p.call_id, p.input_tokens, coalesce(p.cache_read_tokens, 0) AS cached,
       coalesce(m.tool_schema_tokens, 0) AS schemas, m.messages,
       (p.input_usd + p.cache_write_usd) / nullif(p.input_tokens - coalesce(p.cache_read_tokens, 0), 0) AS fresh_price,
       p.cache_read_usd / nullif(p.cache_read_tokens, 0) AS cached_price,
       row_number() OVER (ORDER BY p.start_time, p.call_id) AS place
FROM priced_calls p JOIN model_calls m ON m.call_id = p.call_id
WHERE p.operation IN {GENERATING} AND p.input_tokens > 0 AND m.messages IS NOT NULL AND p.answered_by IS NULL
"""

# A prefix cache reads a prompt from its beginning: tool schemas, then message after message. Passages are taken to
# stand after the instructions in a system message, and before the question in any other.
_PARTS = f"""
WITH calls AS (SELECT * EXCLUDE (place) FROM ({_COUNTED}) WHERE place % $every = 0),
unnested AS (
    SELECT call_id, schemas, unnest(CAST(messages AS JSON[])) AS entry,
           generate_subscripts(CAST(messages AS JSON[]), 1) AS place FROM calls
),
entries AS (
    SELECT call_id, schemas, place, json_extract_string(entry, '$.role') AS role,
           coalesce(CAST(json_extract(entry, '$.tokens') AS BIGINT), 0) AS tokens,
           coalesce(CAST(json_extract(entry, '$.passage_tokens') AS BIGINT), 0) AS passages
    FROM unnested
),
placed AS (
    SELECT *, schemas + sum(tokens) OVER (PARTITION BY call_id ORDER BY place) - tokens AS before_tokens,
           max(CASE WHEN role = 'user' THEN place END) OVER (PARTITION BY call_id) AS asked,
           role IN ('system', 'developer') AS is_system, tokens - passages AS own_tokens
    FROM entries
),
parts AS (
    SELECT call_id, '{TOOLS}' AS part, schemas AS tokens, 0 AS before_tokens FROM calls
    UNION ALL
    SELECT call_id, 'passages', passages, before_tokens + CASE WHEN is_system THEN own_tokens ELSE 0 END FROM placed
    UNION ALL
    SELECT call_id, CASE WHEN is_system THEN 'instructions' WHEN place = asked THEN 'question'
                         WHEN asked IS NULL OR place < asked THEN 'history' ELSE 'tool calls and results' END,
           own_tokens, before_tokens + CASE WHEN is_system THEN 0 ELSE passages END FROM placed
),
every_part AS (
    SELECT * FROM parts
    UNION ALL
    SELECT c.call_id, '{REST}', c.input_tokens - s.tokens, s.tokens
    FROM calls c JOIN (SELECT call_id, sum(tokens) AS tokens FROM parts GROUP BY call_id) s ON s.call_id = c.call_id
    WHERE c.input_tokens > s.tokens
),
read AS (
    SELECT p.call_id, p.part, p.tokens, c.fresh_price, c.cached_price,
           least(greatest(c.cached - p.before_tokens, 0), p.tokens) AS cached
    FROM every_part p JOIN calls c ON c.call_id = p.call_id WHERE p.tokens > 0
)
SELECT part, count(DISTINCT call_id) AS calls, sum(tokens) * $every AS tokens, sum(cached) * $every AS cached_tokens,
       sum((tokens - cached) * coalesce(fresh_price, 0) + cached * coalesce(cached_price, 0)) * $every AS cost_usd,
       sum(tokens) / (SELECT count(*) FROM calls) AS tokens_per_call
FROM read GROUP BY part ORDER BY tokens DESC, part
"""


def prompt_parts(recording: Recording, *, most_calls: int = MOST_CALLS) -> pd.DataFrame:
    """Return what the input tokens of answers are spent on, most tokens first.

    Columns: part (tool schemas, instructions: the system message without passages, history: what was said before the
    question, passages: retrieved texts, wherever they stand, question, tool calls and results: what followed the
    question, not seen: images and what the provider added), calls (that have it), tokens, cached_tokens (read from the
    provider's cache), cost_usd (0 for calls without a price), tokens_per_call (over all calls), share (of the tokens).

    Raises NotMeasured where no prompt tells its messages.
    """
    seen = prepare_money(recording).query(f"SELECT count(*) AS calls FROM ({_COUNTED})")
    calls = int(seen["calls"].iloc[0])
    if not calls:
        recording.require("llm_calls")
        raise NotMeasured("no prompt tells its messages", hint=HOW_TO_SEE_PROMPTS)
    frame = recording.query(_PARTS, {"every": -(-calls // most_calls)})
    return frame.assign(share=frame["tokens"] / frame["tokens"].sum())
