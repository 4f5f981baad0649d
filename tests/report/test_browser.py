"""The pages as a reader sees them: in Chromium, with no network, in light and dark, on a narrow screen and on paper."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from browser import launched, needs_chromium
from builders import call, every, recording, request
from planted_pages import planted_notebook, planted_recording
from secrets_to_plant import ENVIRONMENT, PROMPT, SECRETS

from perfnb.objectives import Objectives
from perfnb.report.document import as_postmortem
from perfnb.report.exporter import export
from perfnb.report.page import MOST_BYTES
from perfnb.report.prompts import Prompts
from perfnb.report.redaction import Redactor

pytestmark = needs_chromium


@dataclass
class Seen:
    """What a browser did with a page."""

    page: object
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with launched() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """Return a postmortem and an exported notebook, full of secrets and scripts, and a plain postmortem."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        made = {
            "postmortem": as_postmortem(planted_recording(folder), Objectives.load()),
            "notebook": export(
                planted_notebook(), Redactor.here(environment=ENVIRONMENT, prompts=Prompts.of([PROMPT]))
            ),
            "plain": as_postmortem(_plain(folder), Objectives.load()),
        }
    for name, html in made.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


def _plain(folder):
    requests = every(700, 40, lambda at: request(at, 2500, stream=False))
    calls = every(700, 40, lambda at: call(at + 50, 2400, stream=False, output_tokens=180))
    return recording(folder, requests=requests, calls=calls)


@pytest.fixture
def opened(browser, pages):
    """Return a function that opens one of ``pages`` with the network off and waits until it is drawn."""
    contexts = []

    def open_page(name: str, *, colours: str = "light", width: int = 1100, offline: bool = True) -> Seen:
        context = browser.new_context(offline=offline, color_scheme=colours, viewport={"width": width, "height": 900})
        contexts.append(context)
        seen = Seen(context.new_page())
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on(
            "console",
            lambda message: seen.complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.goto(pages[name].as_uri())
        seen.page.wait_for_selector("html[data-drawn]", state="attached")
        return seen

    yield open_page
    for context in contexts:
        context.close()


def wait_until(page, claim: str, *, tries: int = 300) -> None:
    """Ask again and again: Playwright's own waiting evaluates strings in the page, which its policy rightly refuses."""
    for _ in range(tries):
        if page.evaluate(claim):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {claim}")


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("name", ["postmortem", "notebook", "plain"])
def test_every_chart_draws_without_network_or_complaint(opened, pages, name, colours):
    seen = opened(name, colours=colours)
    charts = seen.page.locator("figure.chart")
    assert charts.count() >= 1
    for number in range(charts.count()):
        assert charts.nth(number).locator("svg.main-svg").count() >= 1
        assert charts.nth(number).locator("svg.main-svg .trace, svg.main-svg .bars").count() >= 1
    assert seen.page.locator("figure.chart[data-failed]").count() == 0
    assert seen.requests == [pages[name].as_uri()]
    assert seen.complaints == []
    assert pages[name].stat().st_size < MOST_BYTES


@pytest.mark.parametrize("name", ["postmortem", "notebook"])
def test_secrets_are_gone_and_scripts_are_text_once_drawn(opened, name):
    page = opened(name).page
    shown = page.content() + page.evaluate("document.body.innerText")
    assert not [secret for secret in SECRETS if secret in shown]
    assert page.evaluate("window.broken") is None
    assert "<script>window.broken = true</script>" in page.evaluate("document.querySelector('main').textContent")


@pytest.mark.parametrize("name", ["postmortem", "notebook"])
def test_no_button_would_send_the_data_away(opened, name):
    page = opened(name).page
    page.locator("figure.chart .plot").first.hover()
    page.wait_for_selector(".modebar-btn", state="attached")
    titles = page.eval_on_selector_all(".modebar-btn", "buttons => buttons.map(b => b.dataset.title)")
    assert titles
    assert not [title for title in titles if "share" in title.lower() or "cloud" in title.lower()]
    assert "Share chart" not in page.evaluate("document.body.outerHTML")


def test_the_policy_stops_whatever_should_get_through(opened):
    with _listener() as (address, heard):
        page = opened("plain", offline=False).page
        page.evaluate(
            f"document.body.insertAdjacentHTML('beforeend', '<img src=\"{address}\" onerror=\"window.ran = 1\">')"
        )
        page.evaluate(
            "const s = document.createElement('script'); s.textContent = 'window.ran = 2'; document.body.append(s)"
        )
        assert page.evaluate(f"fetch('{address}').then(() => 'sent', () => 'stopped')") == "stopped"
        assert page.evaluate("window.ran") is None
        assert heard == []
        page.goto(address)  # the listener does listen
        assert heard


@contextmanager
def _listener() -> Iterator[tuple[str, list[str]]]:
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/x.png", heard
        finally:
            server.shutdown()
            thread.join()


def test_each_chart_has_a_name_a_sentence_and_its_numbers(opened):
    page = opened("plain").page
    charts = page.locator("figure.chart")
    for number in range(charts.count()):
        chart = charts.nth(number)
        label = chart.locator("[role=img]").first.get_attribute("aria-label")
        assert chart.locator(".chart-title").inner_text() in label
        assert chart.locator("details.numbers table").count() == 1
        assert len(chart.locator("figcaption").inner_text()) > 20


def test_the_page_has_one_title_and_a_contents_list_that_leads_somewhere(opened):
    page = opened("plain").page
    assert page.locator("h1").count() == 1
    targets = page.eval_on_selector_all(
        "nav.contents a, a[href^='#']", "links => links.map(a => a.getAttribute('href'))"
    )
    assert len(targets) > 8
    assert not [target for target in targets if page.locator(f"[id='{target[1:]}']").count() != 1]


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_text_can_be_read_in_both_colour_schemes(opened, colours):
    page = opened("plain", colours=colours).page
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 20
    assert not [found for found in contrasts if found["ratio"] < 4.5]


def test_charts_follow_when_the_reader_turns_the_light_off(opened):
    page = opened("plain").page
    colour = "getComputedStyle(document.querySelector('figure.chart .xtitle')).fill"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    wait_until(page, f"{colour} !== '{light}'")


@pytest.mark.parametrize("name", ["postmortem", "notebook", "plain"])
def test_on_a_narrow_screen_only_tables_and_charts_scroll_sideways(opened, name):
    page = opened(name, width=380).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_it_prints_with_charts_in_light_colours_within_the_paper(opened):
    page = opened("plain", colours="dark").page
    assert page.pdf(format="A4")[:4] == b"%PDF"
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    wait_until(
        page,
        "[...document.querySelectorAll('figure.chart .main-svg')].every(svg => svg.getBoundingClientRect().width <= 700)",
    )
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


CONTRASTS = """
() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const texts = [...document.querySelectorAll("main *, header *, nav *, footer *")].filter((element) =>
    !element.closest("svg, .modebar, .plot") && element.checkVisibility() &&
    [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
  return texts.map((element) => {
    const [one, two] = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    return { text: element.textContent.slice(0, 40), ratio: (one + 0.05) / (two + 0.05) };
  });
}
"""
