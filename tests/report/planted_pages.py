"""A notebook and a recording with one secret of each kind, and a script, in every place a text can stand."""

import pandas as pd
import plotly.graph_objects as go
from builders import MS, START, call, failed_call, recording, request, span
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from secrets_to_plant import PROMPT, TEXTS

from perfnb.profiles.flame import flame
from perfnb.recording import Recording
from perfnb.widgets.chart import Chart
from perfnb.widgets.table import Table

SCRIPT = "<script>window.broken = true</script>"
EVERYTHING = f"{'; '.join(TEXTS.values())} {SCRIPT}"


def planted_notebook():
    """Return an executed notebook that shows secrets in every place an export reads."""
    chart = Chart(figure(), EVERYTHING, pd.DataFrame({EVERYTHING: [1.0], "note": [EVERYTHING]}))
    bundle, metadata = chart._repr_mimebundle_()
    rows = pd.DataFrame({"text": [PROMPT], "n": [1], "note": [EVERYTHING]})
    outputs = [
        new_output("stream", name="stdout", text=EVERYTHING),
        new_output("stream", name="stderr", text=f"\x1b[31m{EVERYTHING}\x1b[0m"),
        new_output(
            "error", ename="ValueError", evalue=EVERYTHING, traceback=[f"\x1b[0;31mValueError\x1b[0m: {EVERYTHING}"]
        ),
        new_output("display_data", data=bundle, metadata=metadata),
        new_output("display_data", data=Table(rows, EVERYTHING)._repr_mimebundle_()),
        new_output("display_data", data={"text/html": rows._repr_html_(), "text/plain": "frame"}),
        new_output("display_data", data={"text/markdown": EVERYTHING}),
        new_output("display_data", data={"text/plain": EVERYTHING}),
        new_output("display_data", data={"application/json": {"a": [EVERYTHING], "response_text": PROMPT}}),
        new_output(
            "display_data", data={"image/svg+xml": flame({(f"python --dsn {EVERYTHING}",): 3}, title=EVERYTHING)}
        ),
    ]
    cells = [
        new_markdown_cell(f"# Planted\n\n## Section {EVERYTHING}\n\nText {EVERYTHING}"),
        new_code_cell('target = "sample"', metadata={"tags": ["parameters"]}),
        new_code_cell(f"# Parameters\ntarget = {EVERYTHING!r}", metadata={"tags": ["injected-parameters"]}),
        new_code_cell(f"connect({EVERYTHING!r})", outputs=outputs),
    ]
    metadata = {"papermill": {"parameters": {"target": EVERYTHING}}, "widgets": {"state": {"a": {"value": EVERYTHING}}}}
    return new_notebook(cells=cells, metadata=metadata)


def figure() -> go.Figure:
    """Return a figure with secrets in title, axes, names, hover texts and annotations."""
    made = go.Figure(go.Bar(x=[1, 2], y=[EVERYTHING, "b"], orientation="h", name=EVERYTHING, text=[EVERYTHING, ""]))
    made.update_layout(title=EVERYTHING, xaxis_title=EVERYTHING)
    made.add_annotation(text=EVERYTHING, x=1, y=0)
    return made


def planted_recording(folder, *, content: str = "full") -> Recording:
    """Return a recording that holds secrets in every column a report may show, and prompt texts."""
    messages = [{"role": "user", "digest": "d", "tokens": 20, "text": f"{PROMPT} <script>broken()</script>"}]
    calls, requests, spans = [], [], []
    for number in range(12):
        at, trace = number * 3000, f"{number:032x}"
        ids = {"trace_id": trace, "user_agent": EVERYTHING, "provider": EVERYTHING}
        requests.append(
            request(at, 2600, trace_id=trace, route=f"/chat {EVERYTHING}", stream=False, request_id=f"r{number}")
        )
        spans.append(
            span(
                "root",
                at,
                2600,
                trace=trace,
                kind="SERVER",
                service=EVERYTHING,
                resource={"service.version": EVERYTHING},
            )
        )
        spans.append(
            span(
                f"query {EVERYTHING}",
                at + 5,
                300,
                trace=trace,
                parent="root",
                operation="database",
                statement=f"SELECT 1 -- {EVERYTHING}",
            )
        )
        calls.append(
            call(
                at + 310,
                2200,
                stream=False,
                request_model=f"model {EVERYTHING}",
                messages=messages,
                response_text=PROMPT,
                output_tokens=200,
                **ids,
            )
        )
    calls += [
        failed_call(40 * number, error_type=f"refused {EVERYTHING}", trace_id=f"{number:032x}") for number in range(4)
    ]
    events = [
        {"time": START + 5 * MS, "kind": kind, "title": EVERYTHING, "body": {}} for kind in ("note", "alert", "source")
    ]
    stacks = [
        {"time": START, "pid": 1, "thread": "MainThread", "stack": f"main (app.py:1);{EVERYTHING} (app.py:2)", "samples": 300,
         "on_cpu": True, "mode": "profile", "period_ms": 10.0}
    ]  # fmt: skip
    return recording(
        folder,
        name="planted",
        content=content,
        calls=calls,
        requests=requests,
        spans=spans,
        events=events,
        stacks=stacks,
    )
