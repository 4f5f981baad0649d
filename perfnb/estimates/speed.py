"""How long a model reads and writes a token, fitted to the recording itself, with how sure that is.

Per model and way of answering: time to the first token against fresh input (streams), or the whole duration against
fresh input and output (answers in one piece). The fit is Huber's, which few slow calls can't bend; its uncertainty is
what it gives on resampled calls. Where too few calls, or all of one size, can't carry a fit, nothing is assumed: the
tokens may have taken no time, or their whole part of the call's.

Source: Huber, Robust estimation of a location parameter (1964)
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from perfnb.estimates.traffic import Traffic, fresh_tokens

LEAST_CALLS = 12
MOST_CALLS = 400
DRAWS = 100
SEED = 20260901
LOW, HIGH = 0.05, 0.95
LEAST_SPREAD_TOKENS = 32
LEAST_SPREAD = 0.3
"""Nine tenths of the calls must reach over the first tenth by this part of it, and so many tokens."""

UNKNOWN_SPEED = "the recording can't tell how long {column} tokens take (too few calls, or all of one size): from no time to their whole part of the call"

Key = tuple[str, bool]


@dataclass(frozen=True)
class Fit:
    """Base time and ms per token of one model: as fitted, and on resampled calls (``draws``, a row a draw).

    ``columns`` names what each coefficient stands for; input or output is missing where its spread carries no fit.
    """

    columns: tuple[str, ...]
    draws: np.ndarray
    calls: int

    def slope(self, column: str) -> tuple[float, float]:
        """Return the range of ms per token; from nothing to without bound where the recording can't tell."""
        if column not in self.columns:
            return 0.0, float("inf")
        low, high = np.quantile(self.draws[:, self.columns.index(column)], [LOW, HIGH])
        return max(0.0, float(low)), max(0.0, float(high))

    def times(self, calls: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
        """Return the range of the time that calls of these tokens take, in ms."""
        found = self.draws @ _columns(calls, self.columns).T
        low, high = np.quantile(found, [LOW, HIGH], axis=0)
        return pd.Series(low, calls.index).clip(lower=0), pd.Series(high, calls.index).clip(lower=0)


@dataclass(frozen=True)
class Speeds:
    """The fits of a recording by model and whether the answer was streamed, and the streams' ms per output token."""

    fits: dict[Key, Fit]
    paces: dict[str, tuple[float, float]]

    def reading(self, calls: pd.DataFrame, gone: pd.Series) -> tuple[pd.Series, pd.Series]:
        """Return the least and the most time that ``gone`` fresh input tokens less would have saved each call."""
        streamed = calls["time_to_first_token_ms"].notna()
        time = calls["time_to_first_token_ms"].where(streamed, calls["duration_ms"])
        part = (gone / fresh_tokens(calls).clip(lower=1)).clip(0, 1)
        return self._saved(calls, "input", gone, time * part)

    def writing(self, calls: pd.DataFrame, gone: pd.Series) -> tuple[pd.Series, pd.Series]:
        """Return the least and the most time that ``gone`` output tokens less would have saved each call.

        A stream's own pace tells it; hidden reasoning is before the first token and may take any part of that wait.
        """
        output, thought = calls["output_tokens"], calls["reasoning_tokens"].fillna(0)
        visible = (output - thought).clip(lower=0)
        said = np.minimum(gone, visible)
        first = calls["time_to_first_token_ms"]
        own = (calls["duration_ms"] - first) * (said / (visible - 1).clip(lower=1)).clip(upper=1)
        thinking = first * ((gone - said) / thought.clip(lower=1)).clip(0, 1)
        least, most = self._saved(calls, "output", gone, calls["duration_ms"] * (gone / output.clip(lower=1)))
        return own.fillna(least), (own + thinking).fillna(most)

    def first_token_ms(self, model: str, calls: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
        """Return the latest and the earliest first token of answers in one piece of ``model``, NaN where unknown."""
        fit, pace = self.fits.get((model, False)), self.paces.get(model)
        if pace is not None:
            written = [(calls["output_tokens"] - 1).clip(lower=0) * each for each in pace]
            return calls["duration_ms"] - written[0], (calls["duration_ms"] - written[1]).clip(lower=0)
        if fit is None or "output" not in fit.columns:
            return pd.Series(np.nan, calls.index), pd.Series(np.nan, calls.index)
        early, late = fit.times(calls.assign(output_tokens=1.0))
        return np.minimum(late, calls["duration_ms"]), early

    def _saved(
        self, calls: pd.DataFrame, column: str, gone: pd.Series, bound: pd.Series
    ) -> tuple[pd.Series, pd.Series]:
        slopes = [fit.slope(column) if (fit := self.fits.get(key)) else (0.0, np.inf) for key in _keys(calls)]
        low, high = (np.array([slope[end] for slope in slopes], dtype=float) for end in (0, 1))
        bound = bound.clip(lower=0).fillna(0.0)
        most = np.where(np.isinf(high), bound, np.where(np.isinf(high), 0.0, high) * gone)
        return (low * gone).clip(upper=bound), pd.Series(most, calls.index).clip(upper=bound)

    def told(self, calls: pd.DataFrame, column: str) -> tuple[str, ...]:
        """Return in words what these calls' ``column`` tokens take; nothing where no call is concerned."""
        keys = sorted(set(_keys(calls)))
        fitted = [self.fits[key] for key in keys if key in self.fits and column in self.fits[key].columns]
        if len(fitted) < len(keys):
            return (UNKNOWN_SPEED.format(column=column),)
        ranges = [fit.slope(column) for fit in fitted]
        return tuple(
            f"1,000 {column} tokens of {model or 'the model'} take {low * 1000:,.0f} to {high * 1000:,.0f} ms, fitted to {fit.calls} calls"
            for (model, _), fit, (low, high) in zip(keys, fitted, ranges, strict=True)
        )


def speeds(traffic: Traffic) -> Speeds:
    """Return how fast the models of the recording read and write."""
    found: Speeds = traffic.recording.derived("speeds", lambda: _speeds(traffic))
    return found


def _speeds(traffic: Traffic) -> Speeds:
    calls = traffic.answers
    calls = calls[calls["answered_by"].isna()].dropna(subset=["input_tokens", "output_tokens", "duration_ms"])
    fits = {}
    for key, group in calls.groupby(pd.Series(_keys(calls), calls.index, dtype=object)):
        if len(group) >= LEAST_CALLS:
            fits[key] = _fitted(_spread(group), is_stream=key[1])
    return Speeds(fits, _paces(calls))


def _paces(calls: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return the middle half of each model's ms per visible token, from its streams."""
    streamed = calls.dropna(subset=["time_to_first_token_ms"])
    visible = streamed["output_tokens"] - streamed["reasoning_tokens"].fillna(0)
    streamed, visible = streamed[visible > 1], visible[visible > 1]
    pace = (streamed["duration_ms"] - streamed["time_to_first_token_ms"]) / (visible - 1)
    return {
        str(model): (float(group.quantile(0.25)), float(group.quantile(0.75)))
        for model, group in pace.groupby(streamed["model"])
        if len(group) >= LEAST_CALLS
    }


def _keys(calls: pd.DataFrame) -> list[Key]:
    models = calls["model"].astype(object).where(calls["model"].notna(), "")
    return list(zip(models.astype(str), calls["time_to_first_token_ms"].notna().tolist(), strict=True))


def _spread(calls: pd.DataFrame) -> pd.DataFrame:
    """Return at most MOST_CALLS of ``calls``, evenly over time."""
    return calls.iloc[np.unique(np.linspace(0, len(calls) - 1, MOST_CALLS).astype(int))]


def _fitted(calls: pd.DataFrame, *, is_stream: bool) -> Fit:
    time = calls["time_to_first_token_ms" if is_stream else "duration_ms"].to_numpy(float)
    wanted = ("input", "reasoning") if is_stream else ("input", "output")
    columns = ("base", *(name for name in wanted if _has_spread(_column(calls, name))))
    design = _columns(calls, columns)
    picks = np.random.default_rng(SEED).integers(0, len(calls), (DRAWS, len(calls)))
    return Fit(columns, np.array([_huber(design[pick], time[pick]) for pick in picks]), len(calls))


def _column(calls: pd.DataFrame, name: str) -> np.ndarray:
    if name == "base":
        return np.ones(len(calls))
    if name == "input":
        return np.asarray(fresh_tokens(calls).to_numpy(float))
    return np.asarray(calls[f"{name}_tokens"].fillna(0).to_numpy(float))


def _columns(calls: pd.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    return np.column_stack([_column(calls, name) for name in names])


def _has_spread(tokens: np.ndarray) -> bool:
    low, high = np.quantile(tokens, [0.1, 0.9])
    return bool(high - low >= max(LEAST_SPREAD_TOKENS, LEAST_SPREAD * low))


def _huber(design: np.ndarray, time: np.ndarray, *, rounds: int = 8, bend: float = 1.345) -> np.ndarray:
    """Return coefficients that minimise Huber's loss, by reweighted least squares."""
    weights = np.ones(len(time))
    found = np.zeros(design.shape[1])
    for _ in range(rounds):
        root = np.sqrt(weights)
        found = np.linalg.lstsq(design * root[:, None], time * root, rcond=None)[0]
        left = np.abs(time - design @ found)
        scale = 1.4826 * float(np.median(left))
        if scale <= 1e-9:
            break
        weights = np.minimum(1.0, bend * scale / np.maximum(left, 1e-12))
    return found
