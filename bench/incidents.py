"""Stage every fault and the healthy app: is the cause named first, and is the healthy app clear?

    python bench/incidents.py [--area slow] [--only CAUSE …] [--app demo|plain|shop] [--evidence traces|front|probe]
                              [--format json] [--readme]

``--app plain`` stages what can be staged in an app written another way, without OpenTelemetry and without a database
(tests/planted/plain_app.py); ``--app shop`` in one with threads and SQLAlchemy on a database of its own
(tests/planted/shop_app.py).

Each incident is staged for real (but for those of bench/recorded.py): demo stack, proxy and sources, a recording, all checks of all areas. ``rank`` is the
cause's place among the findings of its own area, as a part of the wait and a part of the dollars can't be compared.
``false`` is what was named, in any area, and is neither the staged cause nor one of the consequences declared beside its
fault. Beside them stand the dollars of the recording and those of the provider's own bill; in the area costs they must
agree within 2 %.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from perfnb import checklist
from perfnb.attribution.money import spent_usd
from perfnb.checklist import catalogue
from perfnb.demo.faults import FAULTS
from perfnb.recording import Recording
from perfnb.staging import BILL, DEMO_APP, StagedApp, record_demo

BILL_TOLERANCE = 0.02


sys.path.insert(0, str(Path(__file__).parent))
from recorded import RECORDED  # noqa: E402


@dataclass(frozen=True)
class Incident:
    """What became of one staged cause; rank is None where it was missed, dollars where nothing was recorded."""

    cause: str
    area: str
    staged: str
    rank: int | None
    named: list[str]
    false: list[str]
    recorded_usd: float | None = None
    billed_usd: float | None = None

    @property
    def bill_error(self) -> float | None:
        """Return by what part of the bill the recording is off."""
        if not self.billed_usd or self.recorded_usd is None:
            return None
        return self.recorded_usd / self.billed_usd - 1

    @property
    def is_good(self) -> bool:
        """Tell whether the cause was named first and nothing falsely, and costs agree with the bill."""
        agrees = self.area != "costs" or (self.bill_error is not None and abs(self.bill_error) <= BILL_TOLERANCE)
        return self.rank == 1 and not self.false and agrees


@dataclass(frozen=True)
class Named:
    """What perfnb said of one recording: causes of all areas, those of the fault's area, and dollars beside the bill."""

    everywhere: list[str]
    in_area: list[str]
    recorded_usd: float | None
    billed_usd: float | None


def main() -> int:
    options = _options()
    started = time.monotonic()
    app, stageable = _app(options.app)
    causes = [
        fault.cause for fault in FAULTS.values() if options.area in (None, fault.area) and fault.cause in stageable
    ]
    if options.only:
        causes = [cause for cause in causes if cause in options.only]
    with tempfile.TemporaryDirectory(prefix="perfnb-incidents-") as folder, ThreadPoolExecutor(options.jobs) as pool:
        healthy = pool.submit(_named, Path(folder), None, app, options)
        incidents = list(pool.map(lambda cause: _stage(Path(folder), cause, app, options), causes))
        named_healthy = healthy.result().everywhere
        if options.app == "demo":
            incidents += [_recorded(Path(folder), cause, options) for cause in RECORDED if _is_wanted(cause, options)]
    result = {
        "schema": 1,
        "incidents": [asdict(incident) for incident in incidents],
        "healthy": {"named": named_healthy},
        "seconds": round(time.monotonic() - started),
    }
    if options.format == "json":
        print(json.dumps(result, indent=2))
    else:
        print(as_table(incidents, named_healthy))
    if options.readme:
        from readme import write_table

        write_table("incidents", as_table(incidents, named_healthy))
    good = all(incident.is_good for incident in incidents) and not named_healthy
    return 0 if good else 1


def _app(name: str) -> tuple[StagedApp, tuple[str, ...]]:
    """Return the app to stage and the causes that can be staged in it."""
    if name == "demo":
        return DEMO_APP, tuple(FAULTS)
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    if name == "shop":
        from planted import shop_stack

        return StagedApp(shop_stack.start_shop, "/up", shop_stack.USERS, fill=shop_stack.fill), shop_stack.CAUSES
    from planted.plain_stack import CAUSES, USERS, start_plain_app

    app = StagedApp(
        lambda stack, environment: start_plain_app(stack, environment["OPENAI_BASE_URL"]),
        "/up",
        USERS,
        needs_postgres=False,
    )
    return app, CAUSES


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--area", help="one area only")
    parser.add_argument("--only", nargs="+", metavar="CAUSE", help="these causes only, and the healthy app")
    parser.add_argument("--app", default="demo", choices=("demo", "plain", "shop"))
    parser.add_argument("--evidence", default="traces", choices=("traces", "front", "probe"))
    parser.add_argument("--seconds", type=float, default=20, help="length of each recording")
    parser.add_argument("--jobs", type=int, default=1, help="incidents staged at once")
    parser.add_argument("--format", default="table", choices=("table", "json"))
    parser.add_argument("--readme", action="store_true", help="write the table into the README")
    parser.add_argument("--keep", type=Path, help="keep the recordings in this folder")
    parser.add_argument("--again", action="store_true", help="judge the recordings kept there again, staging nothing")
    return parser.parse_args()


def _stage(folder: Path, cause: str, app: StagedApp, options: argparse.Namespace) -> Incident:
    fault = FAULTS[cause]
    named = _named(folder, cause, app, options)
    rank = named.in_area.index(cause) + 1 if cause in named.in_area else None
    false = [each for each in named.everywhere if each != cause and each not in fault.consequences]
    dollars = (named.recorded_usd, named.billed_usd)
    return Incident(cause, fault.area, "live", rank, named.everywhere, false, *dollars)


def _is_wanted(cause: str, options: argparse.Namespace) -> bool:
    return options.area in (None, catalogue()[cause].area) and (not options.only or cause in options.only)


def _recorded(folder: Path, cause: str, options: argparse.Namespace) -> Incident:
    """Make a recording that contains ``cause``, which can't be staged live, and judge it."""
    home = options.keep or folder
    path = home / cause / "incident.perfnb"
    if not options.again:
        RECORDED[cause](home / "healthy" / "incident.perfnb", path)
    with Recording.open(path) as recording:
        everywhere = [finding.cause for finding in checklist.run(recording).findings]
        in_area = [finding.cause for finding in checklist.run(recording, area=catalogue()[cause].area).findings]
    rank = in_area.index(cause) + 1 if cause in in_area else None
    print(f"  {cause}: {', '.join(everywhere) or 'nothing named'}", file=sys.stderr)
    return Incident(
        cause, catalogue()[cause].area, "recording", rank, everywhere, [each for each in everywhere if each != cause]
    )


def _named(folder: Path, cause: str | None, app: StagedApp, options: argparse.Namespace) -> Named:
    """Stage ``cause`` (or nothing) and return the causes perfnb names, first one first."""
    name = cause or "healthy"
    print(f"staging {name}", file=sys.stderr)
    home = (options.keep or folder) / name
    path = home / "incident.perfnb"
    if not options.again:
        record_demo(
            path,
            [cause] if cause else [],
            seconds=options.seconds,
            evidence=options.evidence,
            app=app,
            logs=home,
        )
    with Recording.open(path) as recording:
        everywhere = [finding.cause for finding in checklist.run(recording).findings]
        area = FAULTS[cause].area if cause else None
        in_area = [finding.cause for finding in checklist.run(recording, area=area).findings]
        spent = spent_usd(recording)
    billed = json.loads((home / BILL).read_text())["usd"]
    print(f"  {name}: {', '.join(everywhere) or 'nothing named'}; ${spent:.4f}, billed ${billed:.4f}", file=sys.stderr)
    return Named(everywhere, in_area, spent, billed)


def as_table(incidents: Iterable[Incident], healthy: list[str]) -> str:
    lines = [
        "| staged cause | area | named first | named as well (true consequences) | named falsely | dollars off the bill |",
        "|---|---|---|---|---|---|",
    ]
    for incident in incidents:
        verdict = {1: "yes", None: "**missed**"}.get(incident.rank, f"**no, as number {incident.rank}**")
        others = [each for each in incident.named if each != incident.cause and each not in incident.false]
        off = "" if incident.bill_error is None else f"{abs(incident.bill_error):.1%}"
        how = "" if incident.staged == "live" else " (recorded)"
        lines.append(
            f"| {incident.cause}{how} | {incident.area} | {verdict} | {', '.join(others)} | {', '.join(incident.false)} | {off} |"
        )
    lines.append(f"| (healthy app) | | {'nothing named' if not healthy else '**named**'} | | {', '.join(healthy)} | |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
