"""OTLP metrics to rows of ``samples``; histograms as Prometheus names them: ``_bucket`` with ``le``, ``_sum``, ``_count``."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from perfnb.sources.otlp import tolerant
from perfnb.sources.otlp.dialects import Clean, read

Row = dict[str, Any]
Object = dict[str, Any]

_TEMPORALITY = {
    1: "delta", 2: "cumulative", "AGGREGATION_TEMPORALITY_DELTA": "delta", "AGGREGATION_TEMPORALITY_CUMULATIVE": "cumulative",
}  # fmt: skip
_NO_VALUE = 1  # data point flag: the series ended


@dataclass
class Samples:
    """Rows for ``samples``, and data points that could not be used."""

    rows: list[Row] = field(default_factory=list)
    points: int = 0
    rejected: int = 0
    reason: str = ""


def samples(document: Object, clean: Clean | None = None) -> Samples:
    """Return the samples in an ExportMetricsServiceRequest or MetricsData document, their labels without texts of people."""
    found = Samples()
    for resource_metrics in tolerant.objects(document, "resourceMetrics", "resource_metrics"):
        resource = tolerant.attributes(tolerant.an_object(resource_metrics, "resource", "resource"))
        entity = resource.get("service.name")
        for scope_metrics in tolerant.objects(resource_metrics, "scopeMetrics", "scope_metrics"):
            for metric in tolerant.objects(scope_metrics, "metrics", "metrics"):
                _add(metric, entity, found, clean)
    return found


def _add(metric: Object, entity: Any, found: Samples, clean: Clean | None) -> None:
    for kind, camel, points_of in _KINDS:
        data = tolerant.field(metric, camel, kind)
        if not isinstance(data, dict):
            continue
        for point in tolerant.objects(data, "dataPoints", "data_points"):
            found.points += 1
            try:
                found.rows += _rows(metric, data, point, entity, points_of, clean)
            except (TypeError, ValueError) as error:
                found.rejected += 1
                found.reason = found.reason or f"metric {metric.get('name')!r}: {error}"


Points = Callable[[Object], Iterator[tuple[str, float, Row]]]


def _rows(
    metric: Object, data: Object, point: Object, entity: Any, points_of: Points, clean: Clean | None
) -> list[Row]:
    if tolerant.integer(point.get("flags")) & _NO_VALUE:
        return []
    time = tolerant.integer(tolerant.field(point, "timeUnixNano", "time_unix_nano"))
    if not 0 < time < 2**63:
        raise ValueError("a data point has no time")
    labels = read(tolerant.attributes(point), clean=clean).kept
    temporality = tolerant.field(data, "aggregationTemporality", "aggregation_temporality")
    if temporality in _TEMPORALITY:
        labels["otel.temporality"] = _TEMPORALITY[temporality]
    name, unit = tolerant.text(metric.get("name")), tolerant.text(metric.get("unit"))
    return [
        {
            "time": time,
            "source": "otlp",
            "entity": entity,
            "metric": name + suffix,
            "value": value,
            "unit": "count" if suffix in ("_bucket", "_count") else unit,
            "attributes": labels | more,
        }
        for suffix, value, more in points_of(point)
    ]


def _number(point: Object) -> Iterator[tuple[str, float, Row]]:
    whole = tolerant.field(point, "asInt", "as_int")
    value = tolerant.field(point, "asDouble", "as_double") if whole is None else tolerant.integer(whole)
    if value is None:
        raise ValueError("a data point has no value")
    yield "", float(value), {}


def _histogram(point: Object) -> Iterator[tuple[str, float, Row]]:
    yield from _totals(point)
    bounds = tolerant.field(point, "explicitBounds", "explicit_bounds") or []
    counts = tolerant.field(point, "bucketCounts", "bucket_counts") or []
    below = 0
    for bound, count in zip([*bounds, "+Inf"], counts, strict=False):
        below += tolerant.integer(count)
        yield "_bucket", float(below), {"le": str(bound)}


def _totals(point: Object) -> Iterator[tuple[str, float, Row]]:
    """Yield what every kind of histogram has, exponential ones included, whose buckets are left out."""
    yield "_count", float(tolerant.integer(point.get("count"))), {}
    for name in ("sum", "min", "max"):
        if point.get(name) is not None:
            yield f"_{name}", float(point[name]), {}


def _summary(point: Object) -> Iterator[tuple[str, float, Row]]:
    yield from _totals(point)
    for each in tolerant.objects(point, "quantileValues", "quantile_values"):
        yield "", float(each.get("value") or 0), {"quantile": str(each.get("quantile") or 0)}


_KINDS: tuple[tuple[str, str, Points], ...] = (
    ("gauge", "gauge", _number),
    ("sum", "sum", _number),
    ("histogram", "histogram", _histogram),
    ("exponential_histogram", "exponentialHistogram", _totals),
    ("summary", "summary", _summary),
)
