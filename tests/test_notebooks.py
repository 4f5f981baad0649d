"""Notebooks hold prose and calls, run from top to bottom, and name the same causes as the checklist."""

import ast
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import psutil
import pytest
from builders import call, recording, request, span

from perfnb import notebooks
from perfnb.bundled import bundled
from perfnb.checklist import AREAS, checks, run
from perfnb.errors import NotReachable, PerfnbError, WrongUse
from perfnb.incident import sample_path
from perfnb.recording import Recording
from perfnb.widgets.cards import FINDINGS_MIME
from perfnb.widgets.next_steps import NOTEBOOKS

ALL = notebooks.names()
MOST_LINES = 3
MOST_BYTES = 500_000


def cells(name: str, kind: str) -> list[nbformat.NotebookNode]:
    notebook = nbformat.read(bundled("notebooks") / f"{name}.ipynb", as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def has_sample() -> bool:
    try:
        return sample_path().is_dir()
    except NotReachable:
        return False


needs_sample = pytest.mark.skipif(not has_sample(), reason="needs data/sample.perfnb, which the repository holds")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Recording:
    requests, calls, spans = [], [], []
    for number in range(20):
        at, trace = number * 1000, f"{number:032x}"
        ids = {"trace_id": trace, "parent_span_id": f"{trace}-chat"}
        requests.append(request(at, 3000, stream=False, trace_id=trace))
        calls.append(call(at + 50, 2900, stream=False, output_tokens=220, **ids))
        spans.append(span("chat", at, 3000, trace=trace, kind="SERVER", operation="http"))
    return recording(tmp_path_factory.mktemp("recorded"), requests=requests, calls=calls, spans=spans)


def test_the_notebooks_of_this_slice_are_there():
    assert {"00_start_here", "01_slow_responses", "02_costs", "99_postmortem"} <= set(ALL) <= set(NOTEBOOKS.values())


@pytest.mark.parametrize("name", ALL)
def test_code_cells_only_call(name):
    for cell in cells(name, "code"):
        lines = [line for line in cell.source.splitlines() if not line.startswith("#")]
        assert 1 <= len(lines) <= MOST_LINES
        tree = ast.parse(cell.source)
        kinds = (
            ast.FunctionDef,
            ast.AsyncFunctionDef,
            ast.ClassDef,
            ast.Lambda,
            ast.For,
            ast.While,
            ast.With,
            ast.If,
            ast.Try,
            ast.comprehension,
        )
        assert not [node for node in ast.walk(tree) if isinstance(node, kinds)]
        assert not re.search(r"^[!%]", cell.source, re.MULTILINE)


@pytest.mark.parametrize("name", ALL)
def test_prose_comes_before_every_panel_and_begins_with_a_title(name):
    notebook = nbformat.read(bundled("notebooks") / f"{name}.ipynb", as_version=4)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    headings = [line for cell in cells(name, "markdown") for line in cell.source.splitlines() if line.startswith("# ")]
    assert len(headings) == 1


@pytest.mark.parametrize("name", ALL)
def test_one_cell_holds_the_parameters(name):
    tagged = [cell for cell in cells(name, "code") if "parameters" in cell.metadata.get("tags", ())]
    assert len(tagged) == 1
    assert 'target = "sample"' in tagged[0].source.splitlines()


@pytest.mark.parametrize("name", ALL)
def test_only_checked_cells_are_committed_with_outputs(name):
    path = bundled("notebooks") / f"{name}.ipynb"
    assert path.stat().st_size < MOST_BYTES
    for cell in cells(name, "code"):
        if notebooks.CHECKED in cell.source:
            texts = [output.get("text") or output.get("data", {}).get("text/plain") for output in cell.outputs]
            assert all(output.output_type in ("stream", "execute_result") for output in cell.outputs)
            assert sum(map(len, map(str, texts))) < 2000
        else:
            assert cell.outputs == []
            assert cell.execution_count is None
    assert any(notebooks.CHECKED in cell.source for cell in cells(name, "code"))


@pytest.mark.parametrize("name", ALL)
def test_links_lead_to_notebooks_that_are_there(name):
    for cell in cells(name, "markdown"):
        for link in re.findall(r"\]\((\S+?\.ipynb)\)", cell.source):
            assert (bundled("notebooks") / link).exists()


@pytest.mark.parametrize("name", ALL)
def test_it_runs_headless_on_a_recording_and_names_the_same_causes(name, recorded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = bundled("notebooks") / f"{name}.ipynb"
    executed, failure = notebooks.execute(
        source,
        {"target": str(recorded.path), "out": "out.html"} if name.startswith("99") else {"target": str(recorded.path)},
    )
    assert failure == ""
    assert not [
        output for cell in executed.cells for output in cell.get("outputs", ()) if output.output_type == "error"
    ]
    expected = {"00": None, **{f"{number:02d}": area for number, area in enumerate(AREAS, 1)}}
    if name[:2] in expected:
        assert _published(executed) == run(recorded, area=expected[name[:2]]).as_dict(recorded)


def _published(executed) -> dict:
    found = [
        output.data[FINDINGS_MIME]
        for cell in executed.cells
        for output in cell.get("outputs", ())
        if FINDINGS_MIME in output.get("data", {})
    ]
    assert len(found) == 1
    return json.loads(json.dumps(found[0]))


def test_running_one_writes_a_page_and_the_last_one_the_postmortem_beside_it(recorded, tmp_path):
    page = notebooks.run("slow", str(recorded.path), tmp_path / "slow.html")
    html = page.read_text(encoding="utf-8")
    assert "<h1>Slow responses</h1>" in html
    assert 'id="finding-no-streaming"' in html
    assert "Looking for causes" not in html
    notebooks.run("postmortem", str(recorded.path), tmp_path / "99_postmortem.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["99_postmortem.html", "postmortem.html", "slow.html"]


def test_a_cell_that_fails_is_told_and_what_was_shown_is_kept(recorded, tmp_path):
    broken = tmp_path / "broken.ipynb"
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("print('before')"), nbformat.v4.new_code_cell("1 / 0")]
    )
    nbformat.write(made, broken)
    executed, failure = notebooks.execute(broken, {})
    assert failure == "ZeroDivisionError: division by zero"
    assert executed.cells[-2].outputs[0].text == "before\n"


def test_a_cell_that_hangs_is_stopped(tmp_path):
    hanging = tmp_path / "hanging.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import time; time.sleep(60)")]), hanging)
    _, failure = notebooks.execute(hanging, {}, timeout_s=2)
    assert "2 seconds" in failure


def test_a_run_that_fails_leaves_its_page_and_says_where(tmp_path):
    with pytest.raises(PerfnbError, match="no recording"):
        notebooks.run("slow", str(tmp_path / "none.perfnb"), tmp_path / "slow.html")


@pytest.mark.parametrize("name", ["slow", "01_slow_responses", "01_slow_responses.ipynb"])
def test_a_notebook_is_found_by_any_of_its_names(name):
    assert notebooks.path_of(name).name == "01_slow_responses.ipynb"


def test_an_unknown_notebook_is_an_error_that_lists_the_known():
    with pytest.raises(WrongUse, match="one of start, slow"):
        notebooks.path_of("nothing")


def test_the_wheel_comes_before_the_checkout_and_neither_is_an_error(tmp_path):
    package = tmp_path / "perfnb"
    (tmp_path / "notebooks").mkdir()
    assert bundled("notebooks", package=package) == tmp_path / "notebooks"
    (package / "_bundled" / "notebooks").mkdir(parents=True)
    assert bundled("notebooks", package=package) == package / "_bundled" / "notebooks"
    with pytest.raises(NotReachable, match="no data folder"):
        bundled("data", package=package)


def test_lab_opens_copies_whose_target_is_set_and_keeps_what_was_typed(recorded, tmp_path):
    commands = []

    def run(command, check, env, **_):
        commands.append(command)
        assert env["PATH"]
        return subprocess.CompletedProcess(command, 7 if "PERFNB_DSN" in env else 0)

    given = {"port": 8899, "open_browser": False, "variables": {"PERFNB_DSN": "postgresql://nowhere"}}
    assert notebooks.lab(str(recorded.path), folder=tmp_path, run=run, **given) == 7
    assert commands[0][:3] == [sys.executable, "-m", "jupyterlab"]
    assert {"--ServerApp.ip=127.0.0.1", "--ServerApp.port=8899", "--no-browser"} <= set(commands[0])
    copies = Path(commands[0][3])
    assert sorted(path.stem for path in copies.iterdir()) == list(ALL)
    copy = copies / "01_slow_responses.ipynb"
    assert f"target = '{recorded.path}'" in copy.read_text()
    copy.write_text("mine")
    notebooks.lab(str(recorded.path), folder=tmp_path, run=run)
    assert copy.read_text() == "mine"


@pytest.mark.parametrize("name", ["incident", "Störung 'zwei'"])
def test_recordings_of_one_name_have_copies_of_their_own(tmp_path, name):
    first, second = tmp_path / "monday" / f"{name}.perfnb", tmp_path / "today" / f"{name}.perfnb"
    opened = [notebooks.copy_for(str(path), tmp_path / "notebooks").name for path in (first, second, first, second)]
    assert opened == [name, f"{name}-2", name, f"{name}-2"]
    copy = tmp_path / "notebooks" / f"{name}-2" / "01_slow_responses.ipynb"
    assert "today" in copy.read_text(encoding="utf-8")


def wait_for(address: str) -> None:
    """Wait until JupyterLab answers: it tells its address before it listens to signals."""
    for _ in range(300):
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=30):
            return
        time.sleep(0.1)
    raise AssertionError(f"{address} does not answer")


@needs_sample
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_jupyterlab_ends_with_the_command_that_opened_it(tmp_path, number):
    command = [sys.executable, "-m", "perfnb.cli", "lab", "sample", "--no-browser"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as opened:
        address = next(line.split()[-1] for line in opened.stdout if "/lab?token=" in line)
        wait_for(address)
        (server,) = psutil.Process(opened.pid).children()
        assert "jupyterlab" in server.cmdline()
        opened.send_signal(number)
        server.wait(30)


@needs_sample
def test_the_sample_still_gives_the_findings_that_are_committed():
    golden = json.loads((sample_path().parent / "sample_findings.json").read_text())
    with Recording.open(sample_path()) as recording:
        answers = run(recording).as_dict(recording)
    assert answers | {"recording": "sample.perfnb"} == golden


@needs_sample
@pytest.mark.parametrize("name", [name for name in ALL if not name.startswith("99")])
def test_each_notebook_names_on_the_sample_what_is_committed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    golden = json.loads((sample_path().parent / "sample_findings.json").read_text())
    executed, failure = notebooks.execute(bundled("notebooks") / f"{name}.ipynb", {})
    assert failure == ""
    area = {full: short for short, full in NOTEBOOKS.items() if short in AREAS}.get(name)
    areas = {check.cause: check.area for check in checks()}
    expected = [one for one in golden["findings"] if area in (None, areas[one["cause"]])]
    found = _published(executed)["findings"]
    # what an area judges by its own symptom besides its own causes is not in the list of all areas
    assert [one for one in found if area in (None, areas[one["cause"]])] == expected


@needs_sample
def test_nbval_passes_on_what_is_committed(tmp_path):
    command = [
        sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", "120",
        "--nbval-sanitize-with", str(Path(__file__).with_name("nbval_sanitize.cfg")), "-p", "no:cacheprovider", str(bundled("notebooks")),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
