"""The command line: each command a few lines over the floors below.

Exit codes: 0 fine, 1 findings at or above --fail-on, 2 wrong use or a target that can't be reached.
"""

import json
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from perfnb import __version__
from perfnb.errors import PerfnbError, WrongUse

app = typer.Typer(
    name="perfnb",
    help="Find out why an LLM app is slow or costly, prove the fix, and write the postmortem.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)


class Format(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"


class Severity(StrEnum):
    """Severities, for --fail-on."""

    low = "low"
    medium = "medium"
    high = "high"
    critical = "critical"


class ContentMode(StrEnum):
    """What of prompts and answers is kept."""

    digest = "digest"
    full = "full"


NO_CALL_PASSED = (
    "no model call passed the proxy: point the app's base URL at it; a command is told OPENAI_BASE_URL, "
    "one that reads another variable: perfnb record … -- sh -c 'OTHER=$OPENAI_BASE_URL exec app'"
)

RecordingPath = Annotated[Path, typer.Argument(help="A recording: NAME.perfnb.", metavar="RECORDING")]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]


@app.command(epilog="Examples:\n\n`perfnb demo`\n\n`perfnb demo --fault no-streaming --headless --seconds 20`")
def demo(
    fault: Annotated[
        list[str] | None, typer.Option(help="Cause to stage; repeat for several; 'none' for a healthy app.")
    ] = None,
    headless: Annotated[
        bool, typer.Option("--headless", help="Run it all without JupyterLab and write the files.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="How long to record, in seconds.", min=3)] = 30,
    out: Annotated[Path, typer.Option(help="Folder for recording, findings, notebooks and postmortem.")] = Path(
        "perfnb-out"
    ),
    time_scale: Annotated[float, typer.Option(help="Simulate a provider this many times faster.", min=0.1)] = 1,
) -> None:
    """Start a faulty demo app, record it, name its causes and show them in the notebooks."""
    from perfnb import staging

    staging.run(fault or [], out=out, seconds=seconds, time_scale=time_scale, headless=headless, tell=_say)


@app.command(epilog="Examples:\n\n`perfnb lab`\n\n`perfnb lab incident.perfnb`")
def lab(
    target: Annotated[str, typer.Argument(help="A recording, or 'sample'.")] = "sample",
    port: Annotated[int | None, typer.Option(help="Port of JupyterLab.")] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Open JupyterLab on the notebooks."""
    from perfnb import notebooks

    raise typer.Exit(notebooks.lab(target, port=port, open_browser=browser))


@app.command(
    epilog="Examples:\n\n`perfnb record --upstream https://api.openai.com/v1 -- python app.py`\n\n"
    "`perfnb record --upstream https://api.openai.com/v1 --listen 8080 --app http://127.0.0.1:8000 --seconds 60`\n\n"
    "`perfnb record --otlp --pid 4711 --log app.log`\n\n"
    "`PERFNB_DSN=postgresql://app@db/shop perfnb record --otlp --seconds 60`"
)
def record(
    command: Annotated[
        list[str] | None, typer.Argument(help="Command that starts the app, after --.", metavar="[-- COMMAND …]")
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(help="Where model calls go; the app's base URL is then the proxy.")
    ] = None,
    proxy_port: Annotated[
        int | None,
        typer.Option(help="Port of the model proxy, for an app that can't be told another each time.", min=0),
    ] = None,
    listen: Annotated[int | None, typer.Option(help="Port for a pass-through in front of the app.", min=0)] = None,
    app_url: Annotated[str | None, typer.Option("--app", help="The app's URL, for --listen.")] = None,
    otlp: Annotated[bool, typer.Option("--otlp", help="Receive OpenTelemetry.")] = False,
    pid: Annotated[int | None, typer.Option(help="Process to sample: resources and stacks.")] = None,
    url: Annotated[
        list[str] | None, typer.Option(help="URL a probe asks, one request at a time; repeat for several.")
    ] = None,
    log: Annotated[list[Path] | None, typer.Option(help="Log file to follow; repeat for several.")] = None,
    dsn: Annotated[
        str | None,
        typer.Option(help="Postgres to watch, read-only; better in PERFNB_DSN, as others can see command lines."),
    ] = None,
    pgbouncer: Annotated[str | None, typer.Option(help="PgBouncer's DSN; its admin console is asked.")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="URL of a page in Prometheus' text form; repeat for several.")
    ] = None,
    qdrant: Annotated[str | None, typer.Option(help="Qdrant's URL, or the folder of a qdrant-edge shard.")] = None,
    milvus: Annotated[str | None, typer.Option(help="Milvus' URI, or a file of Milvus Lite.")] = None,
    redis: Annotated[str | None, typer.Option(help="Redis' URL.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after so long.", min=0.1)] = None,
    content: Annotated[
        ContentMode, typer.Option(help="Keep digests of prompts, or their full text.")
    ] = ContentMode.digest,
    out: Annotated[Path | None, typer.Option(help="Recording to make: NAME.perfnb.")] = None,
) -> None:
    """Record an app: start what can be seen of it, show what comes in, stop on Ctrl-C."""
    from perfnb import recorder
    from perfnb.target import Request, Target
    from perfnb.terminal import ending, live_counters

    requests = tuple(Request(each, method="GET") for each in url or ())
    target = Target.load(
        upstream=upstream, proxy_port=proxy_port, listen=listen, app=app_url, otlp=otlp or None, pid=pid, logs=log,
        command=tuple(command or ()), requests=requests, dsn=dsn, pgbouncer=pgbouncer, metrics=metrics, qdrant=qdrant, milvus=milvus, redis=redis,
    )  # fmt: skip
    path = out or recorder.default_path()
    ports = recorder.OTLP_PORTS  # an app that runs already may know no others
    with recorder.Recorder(target, path, content=content.value, tell=_say, otlp_ports=ports) as made:
        if not made.running:
            raise WrongUse(
                "there is nothing to record",
                hint="name at least one of --upstream, --listen with --app, --otlp, --pid, --url, --log, --dsn, --pgbouncer, --metrics, --qdrant, --milvus, --redis, or a command",
            )
        for name, value in made.environment().items():
            _say(f"{name}={value}")
        if url := getattr(made.running.get("otlp"), "grpc_url", None):
            _say(f"OTLP over gRPC: {url}")
        with live_counters(made.counters) as tick:
            code = recorder.wait(made, seconds, tick=lambda: _show(tick, made.lost_sources()))
        is_unused = made.is_proxy_unused
    if is_unused:
        _say(NO_CALL_PASSED)
    _say(f"recorded: {path}{ending(code)}\nnext: perfnb diagnose {path}")


@app.command(
    "import",
    epilog="Examples:\n\n`perfnb import traces.jsonl`\n\n`perfnb import app.log stacks.txt --out incident.perfnb`\n\n"
    "`perfnb import app.log --stages`",
)
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="OTLP/JSON files, JSON-lines logs, collapsed stacks, usage or cost exports of a provider.",
            metavar="FILE…",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Recording to make, or one to add to.")] = None,
    stages: Annotated[bool, typer.Option("--stages", help="Only print how long each stage of the logs takes.")] = False,
) -> None:
    """Make a recording from files; bad lines are counted and shown, never fatal."""
    if stages:
        _print_stages(files)
        return
    from perfnb.importing import import_files
    from perfnb.recorder import default_path
    from perfnb.recording import Recording

    path = out or default_path()
    with Recording.open(path) if path.exists() else Recording.create(path) as recording:
        imported = import_files(recording, files)
    for line in imported.lines():
        _say(line)
    _say(f"recorded: {path}\nnext: perfnb diagnose {path}")


@app.command(
    epilog="Examples:\n\n`perfnb diagnose incident.perfnb`\n\n`perfnb diagnose incident.perfnb --format json --fail-on high`"
)
def diagnose(
    recording: RecordingPath,
    area: Annotated[str | None, typer.Option(help="One area only: slow or costs.")] = None,
    format_: FormatOption = Format.table,
    fail_on: Annotated[
        Severity | None, typer.Option(help="Exit with 1 when a finding is this severe or worse.")
    ] = None,
) -> None:
    """Name the causes in a recording, with evidence and remedy."""
    from perfnb import checklist
    from perfnb.recording import Recording
    from perfnb.terminal import print_checklist

    with Recording.open(recording) as opened:
        answers = checklist.run(opened, area=area)
        if format_ is Format.json:
            _print_json(answers.as_dict(opened))
        else:
            print_checklist(answers)
    if fail_on and answers.at_least(fail_on.value):
        raise typer.Exit(1)


@app.command(epilog="Examples:\n\n`perfnb run slow --target incident.perfnb --html slow.html`")
def run(
    notebook: Annotated[str, typer.Argument(help="start, slow, costs or postmortem, or a notebook's file name.")],
    target: Annotated[str, typer.Option(help="A recording, or 'sample'.")] = "sample",
    html: Annotated[Path | None, typer.Option(help="HTML file to write.")] = None,
) -> None:
    """Run one notebook without JupyterLab and write it as HTML."""
    from perfnb import notebooks

    path = html or Path(f"{notebook}.html")
    _say(f"written: {notebooks.run(notebook, target, path)}")


@app.command(epilog="Examples:\n\n`perfnb report incident.perfnb -o postmortem.html`")
def report(
    recording: RecordingPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")] = Path("postmortem.html"),
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    with_content: Annotated[bool, typer.Option("--with-content", help="Leave prompts and answers in.")] = False,
) -> None:
    """Write the postmortem as one HTML file that needs no network."""
    from perfnb.report import postmortem

    _say(f"written: {postmortem(recording, out, title=title, with_content=with_content)}")


@app.command(epilog="Examples:\n\n`perfnb doctor`\n\n`perfnb doctor --format json`")
def doctor(format_: FormatOption = Format.table) -> None:
    """Tell what works here and what each missing thing needs."""
    from perfnb.doctor import examine
    from perfnb.target import Target
    from perfnb.terminal import print_readiness

    found = examine(Target.load())
    if format_ is Format.json:
        _print_json([vars(each) for each in found])
    else:
        print_readiness(found)


@app.command(epilog="Examples:\n\n`perfnb objectives`")
def objectives(format_: FormatOption = Format.table) -> None:
    """List the thresholds findings are judged by and where they come from."""
    from perfnb.objectives import Objectives
    from perfnb.terminal import objective_rows, print_rows

    rows = objective_rows(Objectives.load())
    if format_ is Format.json:
        _print_json(rows)
    else:
        print_rows("Objectives (override in perfnb.toml, [objectives])", rows)


@app.command(epilog="Examples:\n\n`perfnb revert incident.perfnb`\n\n`perfnb revert incident.perfnb --kept`")
def revert(
    recording: RecordingPath,
    kept: Annotated[bool, typer.Option("--kept", help="Undo what was kept on purpose, too.")] = False,
    format_: FormatOption = Format.table,
) -> None:
    """Undo what knobs changed on the live target and did not undo, even after a crash."""
    from perfnb.knobs.undo import reverted
    from perfnb.recording import Recording

    with Recording.open(recording) as opened:
        done = reverted(opened, kept=kept)
    if format_ is Format.json:
        _print_json([vars(each) for each in done])
    else:
        for each in done:
            typer.echo(str(each))
        if not done:
            _say("nothing to undo")
    if not all(each.is_undone for each in done):
        raise typer.Exit(2)


def _show(tick: Callable[[], None], lost: Iterable[str]) -> None:
    tick()
    for name in lost:
        _say(f"{name} stopped by itself; the rest goes on")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find out why an LLM app is slow or costly, prove the fix, and write the postmortem."""


def _print_stages(files: Iterable[Path]) -> None:
    from perfnb.importing import stages
    from perfnb.terminal import print_rows

    columns = ("stage", "count", "mean_ms", "max_ms", "p50_ms", "p95_ms", "p99_ms")
    for path in files:
        table = stages(path)
        rounded = [[round(value, 1) if isinstance(value, float) else value for value in row] for row in table.rows]
        print_rows(str(path), [dict(zip(columns, row, strict=True)) for row in rounded])
        if table.lines.bad:
            _say(f"{table.lines.bad} bad lines were left out")
        for number, reason in table.lines.shown:
            _say(f"  {path}:{number}: {reason}")


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def main() -> None:
    """Run the command line; errors perfnb raises on purpose become one line and exit code 2."""
    try:
        app()
    except PerfnbError as error:
        _say(f"perfnb: {error}")
        sys.exit(2)


if __name__ == "__main__":
    main()
