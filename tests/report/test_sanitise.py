"""HTML from outside keeps its facts and loses everything that could act."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.report.sanitise import ATTRIBUTES, TAGS, clean


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>plain &amp; <b>bold</b></p>", "<p>plain &amp; <b>bold</b></p>"),
        ("<p>a &lt;script&gt; in text</p>", "<p>a &lt;script&gt; in text</p>"),
        ("<script>alert(1)</script>after", "after"),
        ("<style>p{background:url(http://x)}</style><p>x</p>", "<p>x</p>"),
        ('<p onclick="x()" class="a" style="color:red">x</p>', '<p class="a">x</p>'),
        ('<a href="javascript:alert(1)">x</a>', "<a>x</a>"),
        ('<a href=" JaVaScRiPt:alert(1)">x</a>', "<a>x</a>"),
        ('<a href="data:text/html,x">x</a>', "<a>x</a>"),
        ('<a href="https://example.org/?a=1&b=2">x</a>', '<a href="https://example.org/?a=1&amp;b=2">x</a>'),
        ('<a href="02_costs.ipynb">x</a>', '<a href="02_costs.ipynb">x</a>'),
        ('<img src="http://x/pixel.gif"><p>x', "<p>x</p>"),
        ('<iframe src="x"><p>in</p></iframe>out', "out"),
        ('<meta http-equiv="refresh" content="0;url=http://x">y', "y"),
        ('<form action="http://x"><input name="a">text</form>', "text"),
        ('<svg viewBox="0 0 1 1"><rect fill="url(http://x)" width="1"/></svg>', '<svg viewBox="0 0 1 1"><rect width="1"></rect></svg>'),
        ('<div id="plotly-packed">x</div>', "<div>x</div>"),
        ('<article id="finding-no-streaming">x</article>', '<article id="finding-no-streaming">x</article>'),
        ("</main></body></html>text", "text"),
        ("<table><tr><td>open", "<table><tr><td>open</td></tr></table>"),
    ],
)  # fmt: skip
def test_only_the_list_of_tags_and_attributes_is_left(html, expected):
    assert clean(html) == expected


def test_texts_and_attributes_go_through_redaction_unescaped():
    seen = []
    clean('<p title="a &amp; b">c &lt; d</p>', lambda text: seen.append(text) or text)
    assert seen == ["a & b", "c < d"]


def test_what_redaction_returns_is_escaped():
    assert clean("<p>x</p>", lambda text: "<script>") == "<p>&lt;script&gt;</p>"


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


MARKUP = st.sampled_from(
    ["<script>", "</script>", "<p>", "</p>", "<svg>", "<style>", "</style>", "<!--", "-->", "<![CDATA[", "]]>", "<a href=", "'", '"', ">",
     " onload=x ", "javascript:", "&lt;", "<b/", "<template>", "</template>", "text", "<td", "\x00", "<math>", "<title>", "</svg>"]
)  # fmt: skip


@given(st.lists(MARKUP, max_size=12).map("".join))
def test_no_mixture_of_markup_gets_through(html):
    made = clean(html)
    reader = _Reader()
    reader.feed(made)
    assert reader.tags <= TAGS
    assert reader.attributes <= ATTRIBUTES | {"href", "id"}
    assert not re.search(r'href="\s*javascript:', made, re.IGNORECASE)


@given(st.lists(MARKUP, max_size=12).map("".join))
def test_cleaning_twice_changes_nothing_more(html):
    assert clean(clean(html)) == clean(html)
