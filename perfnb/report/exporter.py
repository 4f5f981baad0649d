"""An executed notebook as one HTML file: charts live but offline, widgets as their static twins, secrets taken out."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from perfnb.errors import WrongUse
from perfnb.report.page import Page, as_html, assembled, chart_figure, environment, title_of
from perfnb.report.redaction import Redactor
from perfnb.report.sanitise import clean
from perfnb.report.tables import without_content
from perfnb.widgets.theme import PLOTLY_MIME

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
SILENT_TAGS = frozenset({"remove-cell", "hide-in-export"})

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")

Output = Mapping[str, Any]


def export(notebook: Any, redactor: Redactor, *, title: str = "", badge: str = "", facts: tuple[str, ...] = ()) -> str:
    """Return ``notebook`` (a NotebookNode, executed) as HTML.

    Raises WrongUse for an output that a page without a kernel can't show: nothing is left out in silence.
    """
    skipped = _skipped_tags(notebook)
    cells = [(number, cell) for number, cell in enumerate(notebook.cells, 1) if not skipped & _tags(cell)]
    blocks = [_cell(cell, number, redactor) for number, cell in cells]
    body = str(assembled(block for block in blocks if block))
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.DOTALL)
    shown = title or (Markup(heading[1]).striptags() if heading else "Notebook")
    if heading:
        body = body.replace(heading[0], "", 1)
    page = Page(
        redactor.text(shown), Markup(_linked(_demote(body))), badge=badge, facts=tuple(map(redactor.text, facts))
    )
    return as_html(page, redactor)


def markdown(source: str, redactor: Redactor) -> Markup:
    """Return Markdown as HTML; HTML inside it is shown as text."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    renderer = IPythonRenderer(escape=True, exclude_anchor_links=True)
    return clean(MarkdownWithMath(renderer=renderer).render(source), redactor.text)


def _cell(cell: Any, number: int, redactor: Redactor) -> Markup:
    if cell.cell_type == "markdown":
        return markdown(cell.source, redactor)
    if cell.cell_type != "code" or not cell.source.strip():
        return Markup("")
    outputs = [output_html(output, number, redactor) for output in cell.get("outputs", ()) if not _is_live_only(output)]
    return assembled([_code(cell.source, redactor), *outputs])


def _code(source: str, redactor: Redactor) -> Markup:
    from nbconvert.filters.highlight import Highlight2HTML

    source = redactor.text(source)
    lines = [line for line in source.splitlines() if not line.startswith("#")] or source.splitlines()
    highlight: Callable[[str], str] = Highlight2HTML(pygments_lexer="ipython3")
    listing = clean(highlight(source))
    return Markup(environment().get_template("code.html.j2").render(first=lines[0], listing=listing))


def output_html(output: Output, number: int, redactor: Redactor) -> Markup:
    """Return one output of cell ``number``."""
    match output["output_type"]:
        case "stream":
            return _pre(output["text"], output["name"], redactor)
        case "error":
            return _pre("\n".join(output["traceback"]), "traceback", redactor)
    return _wrapped(_shown(output, number, redactor))


def _shown(output: Output, number: int, redactor: Redactor) -> Markup:
    data: Mapping[str, Any] = output["data"]
    if PLOTLY_MIME in data:
        return _chart(output, redactor)
    image = next((mime for mime in IMAGES if mime in data), None)
    for mime, render in RENDERERS.items():
        if mime == "text/plain" and image:
            return _image(image, _joined(data[image]), output, redactor)
        if mime in data:
            html = render(_joined(data[mime]), redactor)
            if mime == "text/html" and _is_blank(html) and not _is_blank(Markup.escape(_joined(data[mime]))):
                raise _unshown(number, "HTML that is empty without its scripts")
            if mime == "text/plain" and WIDGET_MIME in data and "Output(" in html:
                raise _unshown(number, "an Output widget, whose contents are not in the notebook")
            return html
    raise _unshown(number, listed_mimes(data))


def _chart(output: Output, redactor: Redactor) -> Markup:
    data = output["data"]
    figure = redactor.data(data[PLOTLY_MIME], keys=False)
    title = title_of(figure)
    alt = output.get("metadata", {}).get("perfnb", {}).get("alt") or title or "Chart"
    twin = _html(_joined(data["text/html"]), redactor) if "text/html" in data else Markup.escape("")
    return chart_figure(figure, redactor.text(alt), twin)


def _html(text: str, redactor: Redactor) -> Markup:
    return without_content(clean(text, redactor.text), redactor)


def _json(value: Any, redactor: Redactor) -> Markup:
    import json

    return Markup("<pre>{}</pre>").format(json.dumps(redactor.data(value), indent=1, ensure_ascii=False))


def _plain(text: str, redactor: Redactor) -> Markup:
    return Markup("<pre>{}</pre>").format(redactor.text(_ANSI.sub("", text)))


def _image(mime: str, base64_data: str, output: Output, redactor: Redactor) -> Markup:
    alt = output.get("metadata", {}).get("perfnb", {}).get("alt") or _joined(output["data"].get("text/plain", "Image"))
    data = re.sub(r"[^A-Za-z0-9+/=]", "", base64_data)
    return Markup('<img src="data:{};base64,{}" alt="{}">').format(mime, data, redactor.text(alt))


RENDERERS: Mapping[str, Callable[[Any, Redactor], Markup]] = {
    "text/html": _html,
    "image/svg+xml": _html,
    "text/markdown": markdown,
    "application/json": _json,
    "text/plain": _plain,
}


def listed_mimes(data: Mapping[str, Any]) -> str:
    """Return the mime types of an output as a reader sees them in an error."""
    return ", ".join(sorted(data)) or "nothing"


def _joined(part: Any) -> Any:
    return "".join(part) if isinstance(part, list) and all(isinstance(line, str) for line in part) else part


def _pre(text: Any, kind: str, redactor: Redactor) -> Markup:
    shown = redactor.text(_ANSI.sub("", _joined(text)))
    return _wrapped(Markup('<pre class="{}">{}</pre>').format(kind, shown))


def _wrapped(html: Markup) -> Markup:
    return Markup('<div class="output">{}</div>').format(html)


def _is_blank(html: Markup) -> bool:
    return not html.striptags().strip() and not re.search(r"<(svg|rect|path|hr)\b", html)


def _linked(body: str) -> str:
    """Let links between our notebooks lead to the pages made of them."""
    return re.sub(r'href="(\d\d_\w+)\.ipynb"', r'href="\1.html"', body)


def _skipped_tags(notebook: Any) -> set[str]:
    """Return the tags of cells to leave out: on purpose, or defaults of parameters that were given."""
    is_given = any("injected-parameters" in _tags(cell) for cell in notebook.cells)
    return {*SILENT_TAGS, *(["parameters"] if is_given else [])}


def _tags(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", ()))


def _is_live_only(output: Output) -> bool:
    return bool(output.get("metadata", {}).get("perfnb", {}).get("live_only"))


def _demote(body: str) -> str:
    """Turn further first-level headings into second-level ones: a page has one title."""
    return re.sub(r"<(/?)h1(?=[\s>])", r"<\1h2", body)


def _unshown(number: int, what: str) -> WrongUse:
    return WrongUse(
        f"cell {number} shows {what}, which a page without a kernel can't", hint="publish text/html beside it"
    )
