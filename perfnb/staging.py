"""Stage an incident: the demo stack with perfnb's sources around it, recorded, judged and written up."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from perfnb import checklist
from perfnb.checklist import Checklist
from perfnb.demo.provider.pricing import price_list
from perfnb.demo.stack import Stack
from perfnb.errors import WrongUse
from perfnb.recorder import Recorder
from perfnb.recording import Content, Recording
from perfnb.recording.manifest import write_manifest
from perfnb.sources.base import Source
from perfnb.target import BESIDE, Request, Target

Evidence = Literal["traces", "front", "probe"]
"""How an app is seen: by its own traces and the proxy; by front and proxy alone; by probe and proxy alone."""

Tell = Callable[[str], None]

BILL = "bill.json"
"""File beside the stage's logs: what the provider's own books say of the time that was recorded."""

EXPORT_S = 1.0  # the app's exporter sends its last batch within its schedule delay
BOOKED_S = 0.3  # … once the provider has noticed that callers are gone
SHOWN_FOR_S = 3600.0
TRIED_S = 300.0
"""Of the users' requests, those of so long are what a trial sends."""

# What a newcomer's demo shows: a few faults of different kinds that leave one another visible.
SHOWCASE = (
    "no-streaming", "slow-embedding", "blocked-event-loop", "verbose-system-prompt",
    "connection-held-during-model-call", "per-id-queries",
)  # fmt: skip


@dataclass(frozen=True)
class StagedApp:
    """An app that can be staged: how it is started and visited by the demo's users.

    ``start(stack, environment)`` returns its URL; ``environment`` is what :meth:`Recorder.environment` gave.
    ``health`` is a path that costs nothing, ``users`` are habits of :class:`perfnb.demo.workload.Habits`, ``knob`` says
    where its settings are (``[knob.NAME]`` of ``perfnb.toml``, with ``{url}`` for its own address). ``fill(stack, dsn)``
    makes its database, where that is not the demo's.
    """

    start: Callable[[Stack, Mapping[str, str]], str]
    health: str
    users: Mapping[str, Any] = field(default_factory=dict)
    needs_postgres: bool = True
    fill: Callable[[Stack, str], None] | None = None
    knob: Mapping[str, str] = field(default_factory=dict)


def _start_demo_app(stack: Stack, environment: Mapping[str, str]) -> str:
    return stack.start_app(
        openai_base_url=environment["OPENAI_BASE_URL"], otlp_endpoint=environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    )


DEMO_APP = StagedApp(
    _start_demo_app,
    "/health",
    knob={"title": "settings of the support desk", "url": "{url}/optimization/configure"},
)


@dataclass(frozen=True)
class Staged:
    """A running stage: the demo's parts, the recorder around them, the app's URL and the one its users go to.

    ``billed_before`` is the provider's bill by model when the recording began: filling the database costs, too.
    """

    demo: Stack
    recorder: Recorder
    app_url: str
    users_url: str
    billed_before: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@contextmanager
def staged(
    path: Path,
    faults: Sequence[str] = (),
    *,
    evidence: Evidence = "traces",
    app: StagedApp = DEMO_APP,
    content: Content = "digest",
    time_scale: float = 1,
    seed: int = 0,
    logs: Path | None = None,
    tell: Tell = lambda line: None,
) -> Iterator[Staged]:
    """Start provider, Postgres, recorder and app; leaving stops all of them and seals the recording at ``path``."""
    with ExitStack() as stack:
        demo = stack.enter_context(Stack(logs or path.parent / "logs", faults=faults, time_scale=time_scale, seed=seed))
        tell("starting the simulated provider" + (" and Postgres" if app.needs_postgres else ""))
        upstream = demo.start_provider()
        fill = partial(app.fill, demo) if app.fill else None
        dsn = demo.start_postgres(fill) if app.needs_postgres else None
        billed = demo.bill()["models"]
        target = Target(upstream=upstream, otlp=evidence == "traces", dsn=dsn)
        recorder = stack.enter_context(Recorder(target, path, content=content, simulated=True, tell=tell))
        _bring_prices(recorder.recording)
        tell("starting the app")
        url = app.start(demo, recorder.environment())
        recorder.watch_process(demo.app_pid)
        _name_target(recorder.recording, url, app, demo)
        yield Staged(demo, recorder, url, _front(recorder, url) if evidence == "front" else url, billed)


def record_demo(
    path: Path,
    faults: Sequence[str] = (),
    *,
    seconds: float = 20,
    evidence: Evidence = "traces",
    app: StagedApp = DEMO_APP,
    time_scale: float = 1,
    logs: Path | None = None,
    tell: Tell = lambda line: None,
) -> Path:
    """Run the demo stack with ``faults`` for ``seconds`` and return the sealed recording at ``path``.

    What the provider charged meanwhile is written into ``bill.json`` beside the logs.
    """
    logs = logs or path.parent / "logs"
    with staged(path, faults, evidence=evidence, app=app, time_scale=time_scale, logs=logs, tell=tell) as stage:
        tell(f"recording for {seconds:.0f} s")
        if evidence == "probe":
            stage.demo.begin(seconds)
            _probe(stage, app, seconds)
        else:
            stage.demo.run_workload(stage.users_url, seconds, habits=app.users, progress=_every(5, tell))
            time.sleep(EXPORT_S)
        stage.recorder.stop()  # so that nothing more is booked …
        time.sleep(BOOKED_S)
        (logs / BILL).write_text(json.dumps(_billed(stage), indent=2) + "\n")
    return path


def _billed(stage: Staged) -> dict[str, Any]:
    """Return dollars in all and by model, charged since the recording began."""
    models = {
        name: entry["usd"] - stage.billed_before.get(name, {}).get("usd", 0.0)
        for name, entry in stage.demo.bill()["models"].items()
    }
    return {"simulated": True, "usd": sum(models.values()), "models": models}


def _name_target(recording: Recording, url: str, app: StagedApp, demo: Stack) -> None:
    """Put into the recording what a trial sends to the app, and where its settings are."""
    habits = {**app.users, "ingest_share": 0}  # a trial adds no documents
    planned = demo.planned(TRIED_S, habits=habits, day=1)
    told: dict[str, Any] = {"request": [{"url": url + each.path, "json": dict(each.body)} for each in planned]}
    if app.knob:
        told["knob"] = {"desk": {name: value.format(url=url) for name, value in app.knob.items()}}
    (recording.path / BESIDE).write_text(json.dumps(told))


def _bring_prices(recording: Recording) -> None:
    """Put the simulated provider's published prices into the recording, as no list in the world has them."""
    recording.manifest["prices"] = [dict(entry) for entry in price_list()]
    write_manifest(recording.path, recording.manifest)


def show_demo(path: Path, faults: Sequence[str], *, seconds: float, time_scale: float, logs: Path, tell: Tell) -> None:
    """Open JupyterLab on the demo while it runs and is recorded; closing JupyterLab (Ctrl-C twice) stops everything."""
    from perfnb import notebooks

    with staged(path, faults, time_scale=time_scale, logs=logs, tell=tell) as stage:
        stage.demo.start_workload(stage.users_url, SHOWN_FOR_S)
        tell(f"recording; JupyterLab opens in {seconds:.0f} s, when there is something to see, and the app runs on")
        time.sleep(seconds)
        variables = {"PERFNB_DSN": stage.demo.dsn}  # to try changes of the database; no recording holds a password
        notebooks.lab(str(path), folder=path.parent / "notebooks", variables=variables)


def _every(turns: int, tell: Tell) -> Callable[[Mapping[str, Any]], None]:
    """Return a progress function that tells every so many reports."""
    count = iter(range(1, 1_000_000))

    def progress(report: Mapping[str, Any]) -> None:
        if next(count) % turns == 0:
            tell(f"  {report.get('sent', 0)} requests sent")

    return progress


def _front(recorder: Recorder, app: str) -> str:
    from perfnb.sources.front import Front

    front = recorder.start("front", lambda: Front(recorder.recording.path, app))
    if front is None:
        raise WrongUse("the front could not start", hint=recorder.refused["front"])
    return str(getattr(front, "url", ""))


def _probe(stage: Staged, app: StagedApp, seconds: float) -> None:
    from perfnb.sources.probe import Probe

    planned = stage.demo.planned(seconds, habits=app.users)
    patience_s = stage.demo.patience_s(app.users)
    requests = tuple(Request(stage.app_url + each.path, json=dict(each.body), timeout_s=patience_s) for each in planned)

    def make() -> Source:
        return Probe(recorder.recording.path, requests, repeat=1, pause_s=0.05, lag_url=stage.app_url + app.health)

    recorder = stage.recorder
    recorder.start("probe", make)
    until = time.monotonic() + seconds
    while time.monotonic() < until and getattr(recorder.running.get("probe"), "is_alive", False):
        time.sleep(0.2)


def run(faults: Sequence[str], *, out: Path, seconds: float, time_scale: float, headless: bool, tell: Tell) -> None:
    """Do what ``perfnb demo`` does: show the faulty app live in JupyterLab, or record it and write all files.

    No faults named means a few of different kinds; the name ``none`` means a healthy app.
    """
    wanted = () if "none" in faults else tuple(faults) or SHOWCASE
    out.mkdir(parents=True, exist_ok=True)
    path, logs = _free(out / "recording.perfnb"), out / "logs"
    if not headless:
        show_demo(path, wanted, seconds=seconds, time_scale=time_scale, logs=logs, tell=tell)
        return
    record_demo(path, wanted, seconds=seconds, time_scale=time_scale, logs=logs, tell=tell)
    answers = write_findings(path, out / "findings.json")
    tell(f"found: {', '.join(finding.cause for finding in answers.findings) or 'nothing'}")
    write_pages(path, out, tell)


def write_findings(recording: Path, out: Path) -> Checklist:
    """Run every check over ``recording`` and write the answers as ``perfnb diagnose --format json`` prints them."""
    with Recording.open(recording) as opened:
        answers = checklist.run(opened)
        out.write_text(json.dumps(answers.as_dict(opened), indent=2) + "\n")
    return answers


def write_pages(recording: Path, out: Path, tell: Tell) -> None:
    """Run each notebook on ``recording`` and write it as HTML, and the postmortem."""
    from perfnb import notebooks
    from perfnb.report import postmortem

    for name in notebooks.names():
        tell(f"running notebook {name}")
        notebooks.run(name, str(recording), out / f"{name}.html")
    tell("writing the postmortem")
    postmortem(recording, out / "postmortem.html")
    tell(f"written: {', '.join(sorted(page.name for page in out.glob('*.html')))} in {out}")


def _free(path: Path) -> Path:
    """Return ``path`` after moving an earlier recording there out of the way."""
    if path.exists():
        path.rename(path.with_name(f"{path.stem}-{path.stat().st_mtime_ns}.perfnb"))
    return path
