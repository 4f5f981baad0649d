"""Metrics an app shows at ``/metrics``, in Prometheus' or OpenMetrics' text form, read from time to time."""

import base64
import math
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from perfnb.errors import NotPermitted, NotReachable, WrongUse
from perfnb.sources.base import Emit, Readiness
from perfnb.sources.otlp.dialects import read
from perfnb.sources.otlp.secrets import scrub
from perfnb.sources.polled import Polled, Rows, event, host_and_port

TIMEOUT_S = 5.0
MOST_BYTES = 8 * 2**20
MOST_SERIES = 5000
ACCEPTED = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4"
CHUNK = 2**16
STARTING_LOOKS = 15

Open = Callable[[Request, float], Any]


class Prometheus(Polled):
    """Writes every series of the pages ``urls`` into ``samples``: source ``prometheus``, entity ``host:port/path``.

    Names and values are as shown, labels are attributes. A page is read within ``timeout_s`` and up to ``most_bytes``;
    of a page with more than ``most_series`` the first are kept, which is told once. Redirects are refused, no proxy is used.
    Labels whose name or value looks like a secret are left out; user and password in a URL are sent and never written.
    With ``waits`` it starts although nothing answers yet, as for an app that is being started.
    """

    name = "metrics"

    def __init__(
        self,
        emit: Emit,
        urls: tuple[str, ...],
        *,
        interval_s: float = 2.0,
        timeout_s: float = TIMEOUT_S,
        most_bytes: int = MOST_BYTES,
        most_series: int = MOST_SERIES,
        waits: bool = False,
        now: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(emit, interval_s=interval_s, clock=clock)
        self._pages = tuple(_page(url) for url in urls)
        self._timeout_s = timeout_s
        self._most_bytes = most_bytes
        self._most_series = most_series
        self._waits = waits
        self._has_answered = False
        self._now = now
        self._opener = _opener()
        self._away: set[str] = set()
        self._cut: set[str] = set()

    def probe(self) -> Readiness:
        """Tell whether a page answers; nothing is written."""
        if self._waits:
            return Readiness(self.name, True, f"{len(self._pages)} pages, read once they answer")
        return super().probe()

    def look(self) -> Rows:
        """Return the series of every page; one that fails is told once, and raises only where none answers."""
        rows: list[Any] = []
        failed: list[NotReachable | NotPermitted] = []
        for entity, request in self._pages:
            try:
                rows += self._page_rows(entity, request)
                self._away.discard(entity)
            except (NotReachable, NotPermitted) as error:
                failed.append(error)
                rows += self._told(entity, error)
        self._has_answered |= len(failed) < len(self._pages)
        if len(failed) == len(self._pages) and not self._is_starting:
            raise failed[0]
        return rows

    @property
    def _is_starting(self) -> bool:
        return self._waits and not self._has_answered and self._counters["looks"] < STARTING_LOOKS

    def found(self, rows: Rows) -> str:
        """Return how many series a look saw."""
        return (
            f"{sum(table == 'samples' for table, _ in rows)} series at {', '.join(entity for entity, _ in self._pages)}"
        )

    def _told(self, entity: str, error: NotReachable | NotPermitted) -> list[Any]:
        self._counters["errors"] += 1
        if entity in self._away or len(self._pages) == 1 or self._is_starting:
            return []
        self._away.add(entity)
        return [("events", event(f"{entity} could not be read", error.message))]

    def _page_rows(self, entity: str, request: Request) -> list[Any]:
        text, is_openmetrics = self._read(entity, request)
        taken, left = self._now(), 0
        rows: list[Any] = []
        try:
            for name, labels, value, unit in _series(text, is_openmetrics):
                if len(rows) == self._most_series:
                    left += 1
                    continue
                rows.append(("samples", _row(taken, entity, name, labels, value, unit)))
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            IndexError,
        ) as error:  # what the parser raises of a bad page
            if not rows:
                raise NotReachable(
                    f"{entity} shows no metrics: {str(error)[:80]}",
                    hint="give the address of a page in Prometheus' text form",
                ) from None
        return rows + self._cut_short(entity, left)

    def _cut_short(self, entity: str, left: int) -> list[Any]:
        if not left or entity in self._cut:
            return []
        self._cut.add(entity)
        return [("events", event(f"{entity} shows more than {self._most_series} series", f"{left} are left out"))]

    def _read(self, entity: str, request: Request) -> tuple[str, bool]:
        until = self._clock() + self._timeout_s
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                kind = answer.headers.get("Content-Type", "")
                return self._body(answer, until).decode("utf-8", "replace"), "openmetrics" in kind
        except HTTPError as error:
            error.close()
            raise _refused(entity, error) from None
        except (URLError, OSError, HTTPException, TimeoutError) as error:
            reason = getattr(error, "reason", error)
            raise NotReachable(
                f"{entity} can't be read: {reason}", hint="check the address given with --metrics"
            ) from None

    def _body(self, answer: Any, until: float) -> bytes:
        body = bytearray()
        while chunk := answer.read1(CHUNK):
            body += chunk
            if len(body) > self._most_bytes:
                raise OSError(f"its page is larger than {self._most_bytes} bytes")
            if self._clock() > until:
                raise TimeoutError(f"its page took longer than {self._timeout_s:g} s")
        return bytes(body)


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        return None  # the redirect itself is then raised as an HTTPError


def _opener() -> OpenerDirector:
    return build_opener(ProxyHandler({}), _NoRedirect())


def _page(url: str) -> tuple[str, Request]:
    """Return how rows name a page, and the request for it, with user and password as a header."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WrongUse("an address of metrics makes no sense", hint="give a URL: --metrics http://HOST:PORT/metrics")
    server = host_and_port(url, 443 if parts.scheme == "https" else 80)
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path or "/metrics", parts.query, ""))
    headers = {"Accept": ACCEPTED, "User-Agent": "perfnb"}
    if parts.username is not None:
        given = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(given.encode()).decode()}"
    return f"{server}{parts.path or '/metrics'}", Request(bare, headers=headers)


def _refused(entity: str, error: HTTPError) -> NotReachable | NotPermitted:
    if error.code in (401, 403):
        return NotPermitted(
            f"{entity} answers {error.code}",
            hint="give user and password in the URL: http://USER:PASSWORD@HOST/metrics",
        )
    if 300 <= error.code < 400:
        return NotReachable(f"{entity} sends elsewhere ({error.code})", hint="give the address it sends to")
    return NotReachable(f"{entity} answers {error.code}", hint="check the address given with --metrics")


def _series(text: str, is_openmetrics: bool) -> Iterator[tuple[str, Mapping[str, str], float, str]]:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
    from prometheus_client.parser import text_string_to_metric_families as plain

    for family in (openmetrics if is_openmetrics else plain)(text):
        for each in family.samples:
            if not each.name.endswith("_created") and math.isfinite(each.value):
                yield each.name, each.labels, each.value, family.unit


def _row(taken: int, entity: str, name: str, labels: Mapping[str, str], value: float, unit: str) -> dict[str, Any]:
    kept = {key: text for key, text in read(labels).kept.items() if scrub(f"{key}={text}") == f"{key}={text}"}
    return {
        "time": taken,
        "source": "prometheus",
        "entity": entity,
        "metric": name,
        "value": float(value),
        "unit": unit,
        "attributes": kept,
    }
