"""Empty the table columns that hold what was said to or by a model."""

import re

from markupsafe import Markup

from perfnb.report.redaction import HIDDEN_CONTENT, Redactor, is_content


def without_content(html: Markup, redactor: Redactor) -> Markup:
    """Return ``html`` with the cells of table columns that hold message contents replaced."""
    if not redactor.hides_content:
        return html
    return Markup(
        re.sub(
            r"<table.*?</table>", lambda found: _table_without_content(found[0], redactor), str(html), flags=re.DOTALL
        )
    )


def _table_without_content(html: str, redactor: Redactor) -> str:
    head = re.search(r"<thead.*?</thead>", html, re.DOTALL)
    names = re.findall(r"<th[^>]*>(.*?)</th>", head[0], re.DOTALL) if head else []
    hidden = {place for place, name in enumerate(names) if is_content(Markup(name).striptags().replace(" ", "_"))}
    if not hidden or not head:
        return html
    start = head.end()
    return html[:start] + re.sub(
        r"<tr.*?</tr>", lambda row: _row_without(row[0], hidden, redactor), html[start:], flags=re.DOTALL
    )


def _row_without(row: str, hidden: set[int], redactor: Redactor) -> str:
    places = iter(range(row.count("<td") + row.count("<th")))

    def cell(match: re.Match[str]) -> str:
        if next(places) not in hidden:
            return match[0]
        redactor.counts["prompt text"] += 1
        return f"<{match['tag']}>{HIDDEN_CONTENT}</{match['tag']}>"

    return re.sub(r"<(?P<tag>t[dh])(?=[\s>])[^>]*>.*?</(?P=tag)>", cell, row, flags=re.DOTALL)
