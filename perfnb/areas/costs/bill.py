"""What the provider counted and charged beside what was recorded: does the bill agree?"""

import pandas as pd

from perfnb.attribution import OfTrial
from perfnb.attribution.money import priced_calls, prices_of
from perfnb.recording import Recording

DAY_NS = 86_400_000_000_000

_COUNTS = ("input_tokens", "cache_read_tokens", "output_tokens")

# Exports name the dated model that answered, requests often the undated one.
_DATE = r"-(\d{4}-\d{2}-\d{2}|\d{8})$"

_BILLED = f"""
WITH latest AS (
    SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY line_digest ORDER BY imported DESC) AS place FROM bills)
    WHERE place = 1
)
SELECT CAST(floor(time / {DAY_NS}) AS BIGINT) AS day, coalesce(regexp_replace(model, '{_DATE}', ''), 'all models')
           AS model, sum(requests) AS billed_calls,
       {", ".join(f"sum({name}) AS billed_{name}" for name in _COUNTS)}, sum(charged_usd) AS billed_usd
FROM latest GROUP BY ALL
"""


def reconciliation(recording: Recording) -> pd.DataFrame:
    """Return what was billed beside what was recorded, a row for each model on each day (UTC) that a bill covers.

    Columns: day (YYYY-MM-DD), model (without its date; all models: the export was not grouped), billed_calls,
    recorded_calls, and billed_ and recorded_ input_tokens, cache_read_tokens, output_tokens, usd; missing_usd (billed
    less recorded, null where one is unknown) and recorded_hours (from the first to the last call of that day: what lies
    outside, the recording can't know). Calls that a cache of ours answered are left out, those of trials are in.
    Raises NotMeasured without bills.
    """
    recording.require("bills")
    billed = recording.query(_BILLED)
    recorded = _recorded(recording)
    recorded = recorded[recorded["day"].isin(billed["day"])]
    frame = billed.merge(_totals(recorded, billed), on=["day", "model"], how="outer").sort_values(["day", "model"])
    frame["missing_usd"] = frame["billed_usd"] - frame["recorded_usd"]
    frame["day"] = pd.to_datetime(frame["day"], unit="D").dt.strftime("%Y-%m-%d")
    pairs = [f"{side}_{name}" for name in ("calls", *_COUNTS, "usd") for side in ("billed", "recorded")]
    return frame[["day", "model", *pairs, "missing_usd", "recorded_hours"]].reset_index(drop=True)


def _recorded(recording: Recording) -> pd.DataFrame:
    """Return every call that reached a provider, those made in trials too."""
    prices = prices_of(recording)
    named = "SELECT DISTINCT split_part(arm, '/', 1) AS trial FROM llm_calls WHERE arm IS NOT NULL ORDER BY trial"
    frames = [priced_calls(recording)]
    for trial in recording.query(named)["trial"]:
        with OfTrial.of(recording.path, trial) as of_trial:
            frames.append(priced_calls(of_trial, prices))
    frame = pd.concat([each for each in frames if not each.empty] or frames[:1])
    frame = frame[frame["answered_by"].isna() & (frame["operation"] != "models")]
    model = frame["response_model"].fillna(frame["request_model"]).fillna("all models")
    return frame.assign(day=frame["start_time"] // DAY_NS, model=model.str.replace(_DATE, "", regex=True))


def _totals(recorded: pd.DataFrame, billed: pd.DataFrame) -> pd.DataFrame:
    """Return sums by day and model, and over all models for days whose bill is not told apart by model."""
    together = recorded[recorded["day"].isin(billed.loc[billed["model"] == "all models", "day"])]
    rows = pd.concat([recorded, together.assign(model="all models")])
    return rows.groupby(["day", "model"], as_index=False).agg(
        recorded_calls=("call_id", "count"),
        **{f"recorded_{name}": (name, "sum") for name in _COUNTS},
        recorded_usd=("cost_usd", lambda usd: usd.sum(min_count=1)),
        recorded_hours=("start_time", lambda times: (times.max() - times.min()) / 3.6e12),
    )
