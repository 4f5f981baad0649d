"""An executed notebook becomes one page that shows everything and gives nothing away."""

import re

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from planted_pages import SCRIPT, planted_notebook
from secrets_to_plant import ENVIRONMENT, PROMPT, SECRETS

from perfnb.errors import PerfnbError, WrongUse
from perfnb.report.exporter import export
from perfnb.report.page import packed_plotly
from perfnb.report.prompts import CONTENT_ASKED_FOR, Prompts
from perfnb.report.redaction import Redactor
from perfnb.widgets.progress import LIVE_ONLY


def redactor(**given) -> Redactor:
    return Redactor.here(environment=ENVIRONMENT, prompts=Prompts.of([PROMPT]), **given)


def exported(*cells, **given) -> str:
    return export(new_notebook(cells=list(cells)), Redactor.here(environment={}), **given)


def shown(**output) -> str:
    return exported(new_code_cell("show()", outputs=[new_output("display_data", **output)]))


@pytest.fixture(scope="module")
def planted_page() -> str:
    return export(planted_notebook(), redactor())


@pytest.mark.parametrize("secret", SECRETS)
def test_no_planted_secret_is_in_the_page(planted_page, secret):
    assert secret not in planted_page.replace(packed_plotly(), "")


def test_the_footer_counts_what_was_taken_out(planted_page):
    footer = re.search(r"Taken out before writing: (.*?)\n", planted_page)[1]
    for kind in ("passwords", "keys", "tokens", "e-mails", "bearer tokens", "environment secrets", "prompt texts"):
        assert kind in footer


def test_the_two_scripts_of_the_page_are_its_own(planted_page):
    scripts = re.findall(r"<script(?P<kind>[^>]*)>", planted_page.replace(packed_plotly(), ""))
    data = ' type="application/json"'
    assert sorted(scripts) == ["", data, f'{data} id="chart-settings"', ' type="text/plain" id="plotly-packed"']


def test_metadata_and_defaults_that_were_replaced_are_left_out(planted_page):
    assert "papermill" not in planted_page
    assert "sample" not in re.findall(r"<summary><code>(.*?)</code>", planted_page)


def test_contents_are_kept_where_they_were_asked_for():
    page = export(planted_notebook(), Redactor.here(environment=ENVIRONMENT, prompts=CONTENT_ASKED_FOR))
    assert PROMPT in page
    assert "were asked for" in page


def test_a_script_in_any_text_stays_text(planted_page):
    assert SCRIPT not in planted_page
    assert "&lt;script&gt;window.broken" in planted_page


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"text/html": "<b>bold</b>", "text/plain": "plain"}, "<b>bold</b>"),
        ({"text/plain": "a < b"}, "<pre>a &lt; b</pre>"),
        ({"text/plain": ["two ", "parts"]}, "<pre>two parts</pre>"),
        ({"image/png": "iVBOR\nw0KGgo=", "text/plain": "<Figure>"}, '<img src="data:image/png;base64,iVBORw0KGgo=" alt="&lt;Figure&gt;">'),
        ({"text/markdown": "*it*"}, "<em>it</em>"),
        ({"application/json": {"a": "<"}}, "&#34;a&#34;: &#34;&lt;&#34;"),
        ({"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "IntSlider(value=5)"}, "IntSlider(value=5)"),
        ({"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/html": "<p>twin</p>", "text/plain": "x"}, "<p>twin</p>"),
    ],
)  # fmt: skip
def test_outputs_are_shown_by_their_readable_form(data, expected):
    assert expected in shown(data=data)


@pytest.mark.parametrize(
    "data",
    [
        {"application/javascript": "alert(1)"},
        {"application/pdf": "x"},
        {"application/vnd.custom+json": {}},
        {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}},
        {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "VBox(children=(Output(),))"},
        {"text/html": "<div id='plot'></div><script>draw()</script>"},
        {},
    ],
)
def test_an_output_that_would_be_lost_is_an_error_that_names_the_cell(data):
    with pytest.raises(WrongUse, match="cell 1 shows"):
        shown(data=data)


def test_progress_lines_are_left_out():
    assert "27 of 27" not in shown(data={"text/plain": "27 of 27"}, metadata=LIVE_ONLY)


def test_the_first_heading_is_the_only_title():
    page = exported(new_markdown_cell("# One\n\ntext"), new_markdown_cell("# Two\n\n## Three"))
    assert re.findall(r"<h1.*?>(.*?)</h1>", page) == ["One"]
    assert re.findall(r'<li class="level-\d"><a href="#(.*?)">(.*?)</a>', page) == [
        ("s-two", "Two"),
        ("s-three", "Three"),
    ]


def test_equal_headings_get_ids_of_their_own():
    page = exported(new_markdown_cell("# T\n\n## A\n\n## A\n\n## …"))
    assert re.findall(r'<h2 id="(.*?)"', page) == ["s-a", "s-a-2", "s-section"]


def test_a_page_without_charts_carries_no_plotly():
    assert len(exported(new_markdown_cell("# Small"))) < 30_000


def test_html_in_markdown_is_text():
    assert "&lt;marquee&gt;" in exported(new_markdown_cell("a <marquee> b"))


def test_links_between_notebooks_lead_to_their_pages():
    page = exported(new_markdown_cell("[next](99_postmortem.ipynb) [other](https://example.org/x.ipynb)"))
    assert 'href="99_postmortem.html"' in page
    assert 'href="https://example.org/x.ipynb"' in page


def test_a_secret_that_would_get_through_stops_the_export(monkeypatch):
    monkeypatch.setattr(Redactor, "text", lambda self, text: text)
    with pytest.raises(PerfnbError, match="would hold a secret"):
        export(planted_notebook(), redactor())


def test_the_same_notebook_gives_the_same_page():
    assert export(planted_notebook(), redactor()) == export(planted_notebook(), redactor())
