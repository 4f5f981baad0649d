"""``perfnb lab`` as its user meets it: JupyterLab in a real browser, a notebook run and its panels used."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import NotebookPage, jupyterlab, launched, needs_chromium

pytestmark = needs_chromium

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookPage]:
    """Yield the notebook on slow responses, run from top to bottom on the sample."""
    folder = tmp_path_factory.mktemp("lab")
    with jupyterlab(folder, "lab", "sample", "--no-browser") as address, launched() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        notebook = NotebookPage(page, address, "01_slow_responses.ipynb")
        notebook.run_all()
        yield notebook


def test_the_notebook_runs_and_names_the_causes(slow: NotebookPage) -> None:
    expected = json.loads((DATA / "sample_findings.json").read_text())["findings"]
    named = slow.find("[data-mime-type='application/vnd.jupyter.stdout']:has-text('no-streaming')").text_content()
    assert [line.split()[0] for line in named.splitlines() if line.strip()] == [
        each["cause"] for each in expected if each["area"] == "slow"
    ]
    assert slow.errors() == []


def test_charts_draw(slow: NotebookPage) -> None:
    chart = slow.find(".js-plotly-plot .main-svg")
    box = chart.bounding_box()
    assert box["width"] > 300
    assert box["height"] > 100


def test_a_choice_redraws_its_chart_by_keyboard(slow: NotebookPage) -> None:
    chooser = slow.find(".jp-OutputArea-output select")
    second = chooser.locator("option").nth(1).get_attribute("value")
    before = slow.page.locator(".js-plotly-plot").all_inner_texts()
    chooser.focus()
    slow.page.keyboard.press("ArrowDown")
    assert chooser.input_value() == second
    drawn = (
        "before => before !== JSON.stringify([...document.querySelectorAll('.js-plotly-plot')].map(e => e.innerText))"
    )
    slow.page.wait_for_function(drawn, arg=json.dumps(before))


def test_nothing_leaves_the_machine(slow: NotebookPage) -> None:
    assert slow.strangers == []
