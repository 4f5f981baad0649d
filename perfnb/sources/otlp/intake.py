"""One export request after the other: decoded, turned into rows, written, and only then answered."""

from collections import Counter
from collections.abc import Callable, Iterable

from perfnb.prompts.digest import Digester
from perfnb.recording.recording import Content
from perfnb.sources.base import Emit
from perfnb.sources.otlp import decode, tolerant
from perfnb.sources.otlp.cleaner import Cleaner
from perfnb.sources.otlp.logs import Waiting, records
from perfnb.sources.otlp.metrics import samples
from perfnb.sources.otlp.protocol import Outcome, Signal
from perfnb.sources.otlp.rows import RowMaker
from perfnb.sources.otlp.spans import Traces
from perfnb.sources.otlp.tolerant import Object

REMEMBERED_SPANS = 100_000


class Intake:
    """Takes export requests of one recording; not for use from several threads at once."""

    def __init__(self, emit: Emit, digester: Digester, content: Content = "digest") -> None:
        self._emit = emit
        self._rows = RowMaker(digester, content)
        self._clean = None if content == "full" else Cleaner(digester.digest)
        self._waiting = Waiting()
        self._seen = _Seen(REMEMBERED_SPANS)
        self.counters: Counter[str] = Counter()
        self._handlers: dict[Signal, Callable[[bytes, bool], Outcome]] = {
            "traces": self._traces,
            "metrics": self._metrics,
            "logs": self._logs,
        }

    def take(self, signal: Signal, body: bytes, *, is_json: bool) -> Outcome:
        """Write what ``body`` holds and return the outcome; raises Malformed, or NotWritable and nothing is acknowledged."""
        outcome = self._handlers[signal](body, is_json)
        self.counters["requests"] += 1
        self.counters["dropped"] += outcome.rejected
        return outcome

    def add_traces(self, traces: Traces) -> Outcome:
        """Write decoded traces and return the outcome; a span that was exported before is not written again."""
        for group in traces.groups:
            fresh = [span for span in group.spans if (span.trace_id, span.span_id) not in self._seen]
            self.counters["duplicates"] += len(group.spans) - len(fresh)
            group.spans = fresh
        self.counters["messages_from_logs"] += self._waiting.give_to(traces.groups)
        made = self._rows.rows(traces.groups)
        for table in ("llm_calls", "http_requests", "spans"):
            if made[table]:
                self.counters[table] += self._emit(table, made[table])
        for group in traces.groups:
            self._seen.add((span.trace_id, span.span_id) for span in group.spans)
        self.counters["repaired"] += sum(traces.repairs.values())
        return Outcome(sum(len(group.spans) for group in traces.groups), traces.rejected, traces.reason)

    def add_metrics(self, document: Object) -> Outcome:
        """Write the metrics in ``document`` and return the outcome."""
        found = samples(document, self._clean)
        if found.rows:
            self.counters["samples"] += self._emit("samples", found.rows)
        return Outcome(found.points - found.rejected, found.rejected, found.reason)

    def add_logs(self, document: Object) -> Outcome:
        """Keep those log records for their spans that carry messages; return how many records there were."""
        number = 0
        for record in records(document):
            number += 1
            self.counters["logs_with_messages"] += self._waiting.add(record)
        self.counters["logs"] += number
        return Outcome(number)

    def _traces(self, body: bytes, is_json: bool) -> Outcome:
        if is_json:
            return self.add_traces(tolerant.traces_from_document(tolerant.document(body)))
        return self.add_traces(decode.traces_from_protobuf(body))

    def _metrics(self, body: bytes, is_json: bool) -> Outcome:
        return self.add_metrics(tolerant.document(body) if is_json else decode.metrics_from_protobuf(body))

    def _logs(self, body: bytes, is_json: bool) -> Outcome:
        return self.add_logs(tolerant.document(body) if is_json else decode.logs_from_protobuf(body))


class _Seen:
    """The last ids: an exporter that got no answer in time sends its batch again."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._new: set[tuple[str, str]] = set()
        self._old: set[tuple[str, str]] = set()

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._new or key in self._old

    def add(self, keys: Iterable[tuple[str, str]]) -> None:
        self._new.update(keys)
        if len(self._new) > self._limit:
            self._old, self._new = self._new, set()
