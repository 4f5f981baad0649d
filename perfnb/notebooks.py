"""The notebooks: find them, run one headless and write it as HTML, or open JupyterLab on a copy of them."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from itertools import chain, count
from pathlib import Path
from typing import IO, Any

from perfnb.bundled import bundled
from perfnb.demo.keeper import die_with_parent
from perfnb.errors import PerfnbError, WrongUse
from perfnb.incident import SAMPLE, sample_path
from perfnb.incident import open as open_incident
from perfnb.recording import Recording
from perfnb.widgets import wording
from perfnb.widgets.next_steps import NOTEBOOKS

CELL_TIMEOUT_S = 600
CHECKED = "# NBVAL_CHECK_OUTPUT"

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


def names() -> tuple[str, ...]:
    """Return the file names, without suffix, of the notebooks this installation has, in order."""
    return tuple(sorted(path.stem for path in bundled("notebooks").glob("[0-9]*.ipynb")))


def path_of(name: str) -> Path:
    """Return the notebook called ``name``: ``slow``, ``01_slow_responses`` or ``01_slow_responses.ipynb``."""
    stem = NOTEBOOKS.get(name, name.removesuffix(".ipynb"))
    if stem not in names():
        known = [short for short, full in NOTEBOOKS.items() if full in names()]
        raise WrongUse(f"no notebook {name!r}", hint=f"one of {', '.join(known)}")
    return bundled("notebooks") / f"{stem}.ipynb"


def run(name: str, target: str = SAMPLE, out: Path | str | None = None, *, timeout_s: int = CELL_TIMEOUT_S) -> Path:
    """Run a notebook on ``target`` without JupyterLab, write it as HTML to ``out`` and return that path.

    A cell that fails ends the run: what was shown until then, the failure included, is written, and PerfnbError tells
    which cell it was.
    """
    from perfnb.report.document import redactor_for, write
    from perfnb.report.exporter import export

    source = path_of(name)
    page = Path(out or f"{source.stem}.html")
    target = _absolute(target)
    parameters = {"target": target} | (
        {"out": str(page.resolve().with_name("postmortem.html"))} if source.stem.startswith("99") else {}
    )
    notebook, failure = execute(source, parameters, timeout_s=timeout_s)
    with Recording.open(sample_path() if target == SAMPLE else target) as recording:
        window, simulated = recording.window, bool(recording.manifest.get("simulated"))
        facts = (
            recording.path.name,
            f"{wording.moment(window.start)} UTC, {wording.duration(window.seconds * 1000)} observed",
        )
        html = export(notebook, redactor_for(recording), badge="simulated" if simulated else "", facts=facts)
    write(html, page)
    if failure:
        raise PerfnbError(f"{source.name} stopped: {failure}", hint=f"see {page}")
    return page


def execute(source: Path, parameters: Mapping[str, Any], *, timeout_s: int = CELL_TIMEOUT_S) -> tuple[Any, str]:
    """Return the notebook after running it in a kernel of its own, and in one line why it stopped early, if it did."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    notebook = parameterize_notebook(
        load_notebook_node(str(source)), dict(parameters), kernel_name="python3", language="python"
    )
    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        kernel_name="python3",
        kernel_manager_class=_own_kernel(),
        resources={"metadata": {"path": str(Path.cwd())}},
    )
    with tempfile.TemporaryFile() as said:  # what the kernel writes to the terminal, such as on its way out
        try:
            client.execute(stdout=said, stderr=said)
        except CellExecutionError as error:
            return notebook, f"{error.ename}: {error.evalue}"
        except CellTimeoutError as error:
            return notebook, str(error).strip().partition("\n")[0]
        except DeadKernelError:
            return notebook, f"the kernel died: {_last_line(said)}"
    return notebook, ""


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def lab(
    target: str = SAMPLE,
    *,
    port: int | None = None,
    open_browser: bool = True,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
    run: Run = subprocess.run,
) -> int:
    """Open JupyterLab on a copy of the notebooks whose target is ``target``; return its exit code when it ends.

    Its kernels see ``variables`` besides this process' own.
    """
    copies = copy_for(target, folder or Path("perfnb-out") / "notebooks")
    command = [sys.executable, "-m", "jupyterlab", str(copies), "--ServerApp.ip=127.0.0.1"]
    command += [f"--ServerApp.port={port}"] if port else []
    command += [] if open_browser else ["--no-browser"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    # Ctrl-C is JupyterLab's to answer: it asks whether to stop. A handler, unlike SIG_IGN, is not passed on to it.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        environment = {**os.environ, **(variables or {})}
        return run(command, check=False, env=environment, preexec_fn=die_with_parent(signal.SIGTERM)).returncode
    finally:
        signal.signal(signal.SIGINT, before)


def copy_for(target: str, folder: Path) -> Path:
    """Copy the notebooks to ``folder/NAME`` of the recording with their target set; a copy that is there is kept.

    Where the copies there are of another recording of that name, the folder's name ends in -2, and so on.
    """
    import nbformat

    target = _absolute(target)
    line = f"target = {target!r}"
    copies = _free_for(line, folder / Path(target).name.removesuffix(".perfnb"))
    copies.mkdir(parents=True, exist_ok=True)
    for name in names():
        copy = copies / f"{name}.ipynb"
        if not copy.exists():
            notebook = nbformat.read(bundled("notebooks") / copy.name, as_version=4)
            cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
            cell.source = cell.source.replace(f'target = "{SAMPLE}"', line)
            nbformat.write(notebook, copy)
    return copies


def _free_for(line: str, folder: Path) -> Path:
    """Return ``folder``, numbered where its notebooks hold no cell with the ``line`` that sets the target."""
    written = json.dumps(line, ensure_ascii=False)[1:-1]

    def is_free(copies: Path) -> bool:
        found = [path.read_text(encoding="utf-8") for path in copies.glob("*.ipynb")]
        return not found or any(written in text for text in found)

    numbered = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return next(filter(is_free, chain([folder], numbered)))


def refresh() -> None:
    """Bring what depends on the sample recording up to date: its findings, and the outputs that nbval compares."""
    import nbformat

    incident = open_incident(SAMPLE)
    answers = incident.checklist().as_dict(incident.recording) | {"recording": "sample.perfnb"}
    sample_path().with_name("sample_findings.json").write_text(json.dumps(answers, indent=2, ensure_ascii=False) + "\n")
    for name in names():
        path = path_of(name)
        notebook, failure = execute(path, {})
        if failure:
            raise PerfnbError(f"{path.name} stopped: {failure}", hint="mend it, then refresh again")
        nbformat.write(_stripped(notebook, nbformat.read(path, as_version=4)), path)


def _stripped(executed: Any, committed: Any) -> Any:
    """Return ``committed`` with the outputs ``executed`` has in cells that are checked, and in no other."""
    outputs = {cell.id: cell for cell in executed.cells if cell.cell_type == "code"}
    number = 0
    for cell in committed.cells:
        if cell.cell_type == "code":
            checked = CHECKED in cell.source
            number += checked
            cell.execution_count = number if checked else None
            cell.outputs = outputs[cell.id].outputs if checked else []
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = number
            cell.metadata.pop("execution", None)
    return committed


def _absolute(target: str) -> str:
    return target if target == SAMPLE or "://" in target else str(Path(target).expanduser().resolve())


def _own_kernel() -> type:
    """Return a kernel manager that starts this interpreter, whatever kernels the user has installed."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    argv = [sys.executable, "-m", "ipykernel_launcher", "--log-level=ERROR", "-f", "{connection_file}"]

    class OwnKernel(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

    return OwnKernel
