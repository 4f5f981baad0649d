"""What pairs of blocks say: the mean of the logs of their ratios, how sure it is, and what may be called of it.

Each pair gives d = log(B / A). Their mean is judged by a paired t interval, cross-checked by a sign-flip test: with the
order of each pair drawn at random, their signs are symmetric where nothing changed, however the machine drifts.

Source: R. A. Fisher, The design of experiments (1935), on sign flips; D. J. Schuirmann (1987), two one-sided tests;
S. Holm (1979)
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Verdict = Literal["better", "worse", "no practical change", "undecided"]

EXACT_UP_TO = 12
FLIPS = 4000
MOST_PAIRS = 10_000
POWER = 0.8

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """B against A in one metric, of which less is better.

    Attributes:
        pairs: How many pairs have this metric.
        ratio: B / A, typically; ``low`` to ``high`` is its interval.
        sd: Standard deviation of the pairs' log ratios.
        p: Of the paired t test that nothing changed …
        p_sign_flip: … and of the sign-flip test.
        more_pairs: Undecided: about how many more it takes; None beyond 10,000.
    """

    pairs: int
    ratio: float
    low: float
    high: float
    sd: float
    p: float
    p_sign_flip: float
    verdict: Verdict
    more_pairs: int | None = None

    @property
    def has_moved(self) -> bool:
        """Tell whether the interval leaves "no change" out."""
        return not self.low <= 1 <= self.high


def log_ratios(pairs: Sequence[tuple[float | None, float | None]]) -> list[float]:
    """Return log(B / A) of each pair (A, B) that has both, and both above zero."""
    return [math.log(b / a) for a, b in pairs if a is not None and b is not None and a > 0 and b > 0]


def smoothed_rate(failed: int, of: int) -> float:
    """Return an error rate that has a logarithm: half a failure is added."""
    return (failed + 0.5) / of


def compare(d: Sequence[float], *, alpha: float, margin: float, p_allowed: float | None = None) -> Comparison:
    """Return what the log ratios ``d`` of at least two pairs say.

    ``p_allowed`` is what both tests' p must keep to for better or worse, where it isn't ``alpha`` (Holm).
    """
    values = np.asarray(d, float)
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    low, high = interval(values, alpha)
    p, flipped = p_of_t(values), sign_flip(values)
    verdict = _verdict(values, low, high, alpha, math.log1p(margin), flipped)
    if verdict in ("better", "worse") and p_allowed is not None and p > p_allowed:
        verdict = "undecided"
    more = _more_pairs(len(values), mean, sd, alpha, math.log1p(margin)) if verdict == "undecided" else None
    return Comparison(len(values), math.exp(mean), math.exp(low), math.exp(high), sd, p, flipped, verdict, more)


def interval(d: Sequence[float] | Floats, alpha: float) -> tuple[float, float]:
    """Return the paired t interval of the mean of ``d``, at confidence 1 - ``alpha``."""
    values = np.asarray(d, float)
    half = _t_quantile(1 - alpha / 2, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def p_of_t(d: Sequence[float] | Floats) -> float:
    """Return the two-sided p of the paired t test that the mean of ``d`` is zero."""
    from scipy.special import stdtr

    values = np.asarray(d, float)
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    if error < 1e-15:
        return 1.0 if abs(float(values.mean())) < 1e-15 else 0.0
    return float(2 * stdtr(len(values) - 1, -abs(float(values.mean())) / error))


def sign_flip(d: Sequence[float] | Floats, *, flips: int = FLIPS, seed: int = 0) -> float:
    """Return the part of sign patterns whose mean is as far from zero: exact to 12 pairs, ``flips`` random ones above."""
    values = np.asarray(d, float)
    if len(values) <= EXACT_UP_TO:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(values))))
    else:
        drawn = np.random.default_rng(seed).choice((1.0, -1.0), size=(flips, len(values)))
        signs = np.vstack([np.ones(len(values)), drawn])
    sums = np.abs(signs @ values)
    return float((sums >= abs(values.sum()) - 1e-12).mean())


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return the p values corrected for being several: the smallest of m times m, the next times m - 1 …"""
    corrected: dict[str, float] = {}
    largest = 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda each: each[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - place)))
        corrected[name] = largest
    return corrected


def pairs_needed(
    effect: float, sd: float, *, alpha: float = 0.01, margin: float = 0.0, power: float = POWER
) -> int | None:
    """Return how many pairs find a decrease by the part ``effect`` (0.1 is 10 %) where log ratios vary by ``sd``.

    None where it takes more than 10,000, or where the effect lies within the margin.
    """
    return _pairs(-math.log1p(-effect), sd, alpha, power) if effect > margin else None


def _pairs(distance: float, sd: float, alpha: float, power: float = POWER) -> int | None:
    if distance <= 0 or _power(MOST_PAIRS, distance, sd, alpha) < power:
        return None
    low, high = 2, MOST_PAIRS
    while low < high:
        middle = (low + high) // 2
        if _power(middle, distance, sd, alpha) >= power:
            high = middle
        else:
            low = middle + 1
    return low


def _power(pairs: int, distance: float, sd: float, alpha: float) -> float:
    from scipy.special import nctdtr

    if sd <= 0:
        return 1.0
    shift = distance / sd * math.sqrt(pairs)
    if shift > 30:  # certain; the distribution function loses its digits out there
        return 1.0
    return float(1 - nctdtr(pairs - 1, shift, _t_quantile(1 - alpha / 2, pairs - 1)))


def _t_quantile(p: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, p))


def _verdict(values: Floats, low: float, high: float, alpha: float, margin: float, flipped: float) -> Verdict:
    """Return what may be said.

    Better or worse: the interval leaves "no change" out, signs agree, and the mean lies beyond the margin. (To ask for
    the whole interval beyond it would take twice the pairs for a change by a tenth.) No practical change: the interval
    lies within the margin (TOST).
    """
    agrees = flipped <= max(alpha, 2.0 ** (1 - len(values))) + 1e-12
    mean = float(values.mean())
    if high < 0 and mean < -margin and agrees:
        return "better"
    if low > 0 and mean > margin and agrees:
        return "worse"
    inner_low, inner_high = interval(values, 2 * alpha)
    return "no practical change" if -margin < inner_low and inner_high < margin else "undecided"


def _more_pairs(pairs: int, mean: float, sd: float, alpha: float, margin: float) -> int | None:
    """Return how many pairs are missing if what was seen so far is the truth."""
    needed = _pairs(abs(mean) if abs(mean) > margin else margin - abs(mean), sd, alpha)
    return None if needed is None else max(1, needed - pairs)
