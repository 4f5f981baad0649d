"""HTML that came from outside, rebuilt from a short list of tags and attributes; everything else becomes text or goes.

The page's content security policy would stop scripts as well; this is so that there is nothing to stop.
"""

import re
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser

from markupsafe import Markup

_TAGS = """
    a abbr article aside b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure
    h1 h2 h3 h4 h5 h6 header hr i ins kbd li mark ol p pre q s samp section small span strong sub summary sup table
    tbody td tfoot th thead time tr u ul var
    svg g rect text tspan title desc path line circle polyline polygon
"""
TAGS = frozenset(_TAGS.split())
EMPTY = frozenset({"br", "col", "hr"})
DROPPED_WITH_CONTENT = frozenset(
    {"script", "style", "template", "iframe", "object", "noscript", "head", "math", "textarea"}
)
_ATTRIBUTES = """
    class colspan dir lang open role rowspan scope span start tabindex title
    cx cy d dominant-baseline dx dy fill fill-opacity font-family font-size font-weight height opacity points
    preserveaspectratio r rx ry stroke stroke-width text-anchor transform viewbox width x x1 x2 y y1 y2
"""
ATTRIBUTES = frozenset(_ATTRIBUTES.split())
CASED = {"viewbox": "viewBox", "preserveaspectratio": "preserveAspectRatio"}  # the parser lowers names
_SAFE_LINK = re.compile(r"https?://|mailto:|#|[\w./-]+(?:[?#]|$)", re.IGNORECASE)
_NO_PAINT = re.compile(r"url\s*\(", re.IGNORECASE)


def clean(html: str, redact: Callable[[str], str] = str) -> Markup:
    """Return ``html`` rebuilt from allowed tags and attributes, its texts passed through ``redact``."""
    cleaner = _Cleaner(redact)
    cleaner.feed(html)
    cleaner.close()
    return Markup(cleaner.result())


class _Cleaner(HTMLParser):
    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__(convert_charrefs=True)
        self._redact = redact
        self._parts: list[str] = []
        self._open: list[str] = []
        self._dropping: list[str] = []

    def result(self) -> str:
        """Return what was kept, with every tag closed."""
        return "".join(self._parts) + "".join(f"</{tag}>" for tag in reversed(self._open))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._dropping or tag in DROPPED_WITH_CONTENT:
            self._dropping += [tag] * (tag in DROPPED_WITH_CONTENT)
        elif tag in TAGS:
            self._parts.append(f"<{tag}{self._attributes(attrs)}>")
            if tag not in EMPTY:
                self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._dropping and tag in TAGS:
            self._parts.append(f"<{tag}{self._attributes(attrs)}>" + ("" if tag in EMPTY else f"</{tag}>"))

    def handle_endtag(self, tag: str) -> None:
        if self._dropping:
            if tag == self._dropping[-1]:
                self._dropping.pop()
        elif tag in self._open:
            while self._open:
                last = self._open.pop()
                self._parts.append(f"</{last}>")
                if last == tag:
                    break

    def handle_data(self, data: str) -> None:
        if not self._dropping:
            self._parts.append(escape(self._redact(data), quote=False))

    def _attributes(self, attrs: list[tuple[str, str | None]]) -> str:
        kept = ((name, value or "") for name, value in attrs if _is_allowed(name, value or ""))
        return "".join(f' {CASED.get(name, name)}="{escape(self._redact(value))}"' for name, value in kept)


def _is_allowed(name: str, value: str) -> bool:
    if name == "id":  # others could stand in for the page's own elements
        return value.startswith("finding-")
    if name == "href":
        return bool(_SAFE_LINK.match(value.strip()))
    return (name in ATTRIBUTES or name.startswith(("aria-", "data-pnb-"))) and not _NO_PAINT.search(value)
