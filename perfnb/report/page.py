"""One HTML file that needs nothing else: style, boot script and plotly.js inside, and a policy that forbids the network."""

import base64
import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup

from perfnb import __version__
from perfnb.errors import PerfnbError
from perfnb.report.redaction import Redactor
from perfnb.widgets import theme, wording
from perfnb.widgets.html import environment as widget_environment
from perfnb.widgets.html import style as card_style

MOST_BYTES = 3_000_000

LIGHT = theme.template(ink="#3b4252", grid="#e3e6ec", surface="#ffffff", top=24)
DARK = theme.template(ink="#c9d1dc", grid="#303845", surface="#161b22", top=24)


@dataclass(frozen=True)
class Heading:
    """One line of the table of contents."""

    level: int
    id: str
    text: str


@dataclass(frozen=True)
class Page:
    """What a page shows.

    Attributes:
        title: Its only first-level heading.
        body: Sections, already escaped and redacted.
        lead: One sentence under the title.
        badge: Said beside the title, such as "simulated".
        facts: Short lines under the lead: when, what.
    """

    title: str
    body: Markup
    lead: str = ""
    badge: str = ""
    facts: tuple[str, ...] = field(default=())


def as_html(page: Page, redactor: Redactor) -> str:
    """Return the whole file; raises PerfnbError where a known secret would still be in it."""
    body, contents = with_contents(str(page.body))
    has_charts = '<figure class="chart' in body
    html = (
        environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            body=Markup(body),
            contents=contents,
            style=Markup(card_style() + asset("page.css")),
            policy=policy(has_charts),
            packed=Markup(packed_plotly()) if has_charts else "",
            settings=script_json({"config": theme.CONFIG, "light": LIGHT, "dark": DARK, "onDark": theme.ON_DARK}),
            boot=Markup(asset("boot.js")),
            replaced=replaced(redactor.counts),
            hides_content=redactor.hides_content,
            version=__version__,
        )
    )
    if kinds := redactor.leaked(html.replace(packed_plotly(), "") if has_charts else html):
        raise PerfnbError(f"the page would hold a secret ({wording.listed(kinds)})", hint="nothing was written")
    return html


@cache
def environment() -> Environment:
    """Return the Jinja environment of reports, which finds the widgets' templates too."""
    made = widget_environment().overlay(
        loader=ChoiceLoader([PackageLoader("perfnb.report"), PackageLoader("perfnb.widgets")])
    )
    made.filters.update(widget_environment().filters)
    return made


@cache
def asset(name: str) -> str:
    """Return a file of ``perfnb/report/assets``."""
    return resources.files("perfnb.report").joinpath(f"assets/{name}").read_text(encoding="utf-8")


@cache
def plotly_source() -> str:
    """Return plotly.js as the installed plotly ships it."""
    return resources.files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")


@cache
def packed_plotly() -> str:
    """Return plotly.js, compressed, as text: 1.9 MB in place of 4.8."""
    return base64.b64encode(gzip.compress(plotly_source().encode(), compresslevel=9, mtime=0)).decode()


def policy(has_charts: bool) -> str:
    """Return a content security policy: no network at all, and no script but the two this page was made with."""
    scripts = [asset("boot.js"), *([plotly_source()] if has_charts else [])]
    allowed = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts
    )
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def script_json(value: Any) -> Markup:
    """Return ``value`` as JSON that can stand inside a script element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def with_contents(body: str) -> tuple[str, list[Heading]]:
    """Give second- and third-level headings an id and return the body with the list of them."""
    headings: list[Heading] = []
    taken: Counter[str] = Counter()

    def mark(match: re.Match[str]) -> str:
        text = Markup(match["inner"]).striptags()
        slug = re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "section"
        taken[slug] += 1
        name = f"s-{slug}" + (f"-{taken[slug]}" if taken[slug] > 1 else "")
        if "no-contents" not in match["rest"]:
            headings.append(Heading(int(match["level"]), name, text))
        return f'<h{match["level"]} id="{name}"{match["rest"]}>{match["inner"]}</h{match["level"]}>'

    marked = re.sub(r"<h(?P<level>[23])(?P<rest>[^>]*)>(?P<inner>.*?)</h(?P=level)>", mark, body, flags=re.DOTALL)
    return marked, headings


def replaced(counts: Counter[str]) -> str:
    """Return "2 passwords and 1 e-mail" for what was taken out, or nothing."""
    return wording.listed(
        [wording.counted(count, kind, _plural(kind)) for kind, count in counts.most_common() if count]
    )


def chart_figure(figure: dict[str, Any], alt: str, twin: Markup) -> Markup:
    """Return the element the boot script draws into: figure JSON, text alternative and the numbers as a table."""
    layout = {name: part for name, part in figure.get("layout", {}).items() if name not in ("template", "title")}
    drawn = {"data": figure.get("data", []), "layout": layout}
    title = title_of(figure)
    return Markup(
        environment()
        .get_template("chart.html.j2")
        .render(
            title=title,
            alt=alt,
            twin=twin,
            json=script_json(drawn),
            height=int(layout.get("height") or 380),
            has_rows=any(map(_has_rows, drawn["data"])),
        )
    )


def _has_rows(trace: dict[str, Any]) -> bool:
    """Tell whether ``trace`` has one named row per value; such a figure needs room for the names."""
    places = trace.get("y")
    return trace.get("orientation") == "h" or (isinstance(places, list) and any(isinstance(one, str) for one in places))


def title_of(figure: dict[str, Any]) -> str:
    """Return a figure's title as plain text; plotly's has tags and entities."""
    title = figure.get("layout", {}).get("title", "")
    text = title.get("text", "") if isinstance(title, dict) else title
    return Markup(text or "").striptags()


def _plural(kind: str) -> str:
    return {"directory": "directories", "prompt text": "prompt texts"}.get(kind, kind + "s")


def assembled(parts: Iterable[str | Markup]) -> Markup:
    """Return ``parts`` one after another."""
    return Markup("\n").join(Markup(part) for part in parts)
