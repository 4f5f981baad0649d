"""Which price holds for a call: the user's before the recording's before the list's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from perfnb.prices import listed
from perfnb.prices.entries import Entry, read_entries
from perfnb.prices.rates import Rates
from perfnb.target import SETTINGS, read_settings

RECORDED = "prices the recording brought along"


@dataclass(frozen=True)
class Prices:
    """Prices by order of authority: ``[[price]]`` in perfnb.toml, the recording's own, the list of genai-prices."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def load(cls, folder: Path | None = None, recorded: Sequence[Mapping[str, Any]] = ()) -> Self:
        """Return the prices of ``perfnb.toml`` in ``folder`` (or the current one), then ``recorded``, then the list.

        Raises WrongUse where an entry makes no sense.
        """
        own = read_settings((folder or Path.cwd()) / SETTINGS).get("price", [])
        return cls(read_entries(own, f"{SETTINGS} [[price]]") + read_entries(recorded, RECORDED))

    @property
    def version(self) -> str:
        """Return which list is used and how old it is, and how many prices go before it."""
        before = f", after {len(self.entries)} prices given by hand" if self.entries else ""
        return listed.version() + before

    def rates(
        self,
        provider: str | None,
        model: str | None,
        *,
        at_ns: int,
        tier: str | None = None,
        operation: str | None = None,
        asked_for: str | None = None,
    ) -> tuple[Rates, ...]:
        """Return the rates of ``model``, one for each band of input tokens, lowest first; empty where it has no price.

        ``model`` is the one that answered and ``asked_for`` the one in the request, which is tried second: a cloud's
        deployment name says nothing, and some providers don't tell what answered. Of entries that fit, the first
        counts. ``at_ns`` is the time of the call, since prices change. ``operation`` changes nothing here: no list
        prices embeddings and answers of one model apart.
        """
        models = [name for name in dict.fromkeys((model, asked_for)) if name]
        discount: Entry | None = None
        for entry in self.entries:
            if not any(entry.fits(provider, name) for name in models):
                continue
            if entry.discount is None:
                return _less((entry.rates(tier),), discount)
            discount = discount or entry
        found = next(filter(None, (listed.find(provider, name) for name in models)), None)
        return _less(listed.rates(found, listed.moment(at_ns), tier), discount) if found else ()


def _less(rates: tuple[Rates, ...], entry: Entry | None) -> tuple[Rates, ...]:
    if entry is None or entry.discount is None:
        return rates
    return tuple(each.times(1 - entry.discount, f"less {entry.discount:.3g} ({entry.origin})") for each in rates)
