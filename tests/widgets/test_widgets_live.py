"""Controls at work in a kernel: choosing redraws in place, a note lands on the timeline."""

import nbformat
import pytest
from builders import recording

from perfnb import notebooks
from perfnb.recording import Recording
from perfnb.widgets.theme import PLOTLY_MIME

FIND = "from ipywidgets.widgets.widget import _instances\nfind = lambda kind: next(w for w in _instances.values() if type(w).__name__ == kind)"


def executed(tmp_path, *sources: str):
    path = tmp_path / "live.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources]), path)
    notebook, failure = notebooks.execute(path, {})
    assert failure == ""
    return notebook.cells[1:]  # the first holds the parameters


def test_choosing_another_one_redraws_in_place(tmp_path):
    prepare, show, _ = executed(
        tmp_path,
        "import pandas as pd\nimport plotly.graph_objects as go\nfrom perfnb.widgets.chart import Chart\n"
        "from perfnb.widgets.choose import Chooser\n"
        "draw = lambda key: Chart(go.Figure(layout_title_text=key), key, pd.DataFrame({'n': [1]}))",
        "Chooser('Pick', {'one': 'first', 'two': 'second'}, draw)",
        f"{FIND}\nfind('Dropdown').value = 'second'",
    )
    keys, control, chart = show.outputs
    assert list(keys.data) == ["application/javascript"]
    assert prepare.outputs == []
    assert "one" in control.data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in control.data
    assert chart.data[PLOTLY_MIME]["layout"]["title"]["text"] == "second"


@pytest.mark.parametrize(("typed", "kept"), [("rolled back", ["rolled back"]), ("  ", [])])
def test_a_note_typed_lands_on_the_timeline(tmp_path, typed, kept):
    path = recording(tmp_path).path
    _, show, _ = executed(
        tmp_path,
        f"import perfnb\nfrom perfnb import panels\nincident = perfnb.open({str(path)!r})",
        "panels.notes(incident)",
        f"{FIND}\nfind('Text').value = {typed!r}",
    )
    assert ("rolled back" in show.outputs[1].data["text/html"]) is bool(kept)
    with Recording.open(path) as read:
        assert list(read.query("SELECT title FROM events")["title"]) == kept


def test_progress_is_one_line_and_says_where_it_was_stopped(tmp_path):
    (cell,) = executed(
        tmp_path,
        "from perfnb.widgets.progress import Progress\ntry:\n    with Progress('Looking', 3) as progress:\n        progress('one')\n"
        "        progress('two')\n        raise KeyboardInterrupt\nexcept KeyboardInterrupt:\n    pass",
    )
    assert [output.data["text/plain"] for output in cell.outputs] == ["Looking: stopped at 2 of 3"]
