"""The report in a real browser: at a desk and on a phone, light and dark, without a complaint or a request.

The browser is driven over its DevTools pipe, so the page that is looked at is the very file that was written.
"""

from __future__ import annotations

import struct

import pytest

from ebert_core.evaluation.report import write_report
from tests.chromium import CHROMIUM, chromium

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed")

# What a page says of itself. Content of a .scroll box may be wider; the box takes its card's padding from <details>.
SIZES = "[innerWidth, document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
STICKING_OUT = """
[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && e.localName != 'details'
  && !e.ownerSVGElement && e.clientWidth && e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML.slice(0, 80))
"""
# Names stay in place while figures are scrolled past them; they must leave room.
BROAD_NAMES = """
[...document.querySelectorAll('tbody tr:not(.group) > th:first-child')]
  .filter(e => e.getBoundingClientRect().width > innerWidth / 2).map(e => e.textContent.trim())
"""
# Letters of a drawing that leave it, or lie on others.
LETTERS = """
[...document.querySelectorAll('svg[role=img]')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
  const out = boxes.filter(([_, b]) => b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1
    || b.bottom > frame.bottom + 1);
  const over = boxes.filter(([_, a], i) => boxes.some(([_, b], j) => i < j && a.left < b.right && b.left < a.right
    && a.top + 2 < b.bottom && b.top + 2 < a.bottom));
  return [...out.map(each => 'outside: ' + each[0]), ...over.map(each => 'overlaps: ' + each[0])];
})
"""
# Texts with less than 4.5:1 between letters and ground (WCAG 2.1, 1.4.3).
FAINT = """
(() => {
  const parse = color => color.match(/[\\d.]+/g).map(Number);
  const light = color => { const [r, g, b] = parse(color).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (parse(c).length < 4 || parse(c)[3] > 0.99) return c; } };
  const faint = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || e.closest('title, desc, style') || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    const pair = [light(e.ownerSVGElement ? style.fill : style.color), light(ground(e))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) faint.push(walk.currentNode.data.trim() + ' ' + ratio.toFixed(2));
  }
  return [...new Set(faint)];
})()
"""
COMPLAINTS = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory, full_evaluation, final_ranks):
    folder = tmp_path_factory.mktemp("report") / "report"
    return write_report(folder, [full_evaluation, full_evaluation], final_ranks)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_the_report_in_a_browser(tab, page, tmp_path, width, height, scheme):
    tab.show(page.as_uri(), width, height, scheme)
    requests = [event["params"]["request"] for event in tab.events if event["method"] == "Network.requestWillBeSent"]
    assert [request["url"] for request in requests] == [page.as_uri()]
    for opened in ("false", "true"):
        tab.ask(f"document.querySelectorAll('details').forEach(each => each.open = {opened})")
        assert tab.ask(STICKING_OUT) == []
        inner, scrolled, tall = tab.ask(SIZES)
        assert (inner, scrolled) == (width, width)
    assert tab.ask(BROAD_NAMES) == []
    assert tab.ask(LETTERS) == []
    assert tab.ask(FAINT) == []
    dark = tab.ask("getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 25)"
    assert dark == (scheme == "dark")
    picture = tab.picture()
    (tmp_path / "report.png").write_bytes(picture)
    assert struct.unpack(">II", picture[16:24]) == (width, tall)
    assert [event for event in tab.events if event["method"] in COMPLAINTS] == []


def test_the_page_lets_the_browser_run_nothing(tab, page, tmp_path):
    copy = tmp_path / "copy.html"
    script = "<script>document.title = 'run'</script><img src='file:///nothing.png' onerror=\"document.title = 'run'\">"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8")
    tab.show(copy.as_uri(), 1280, 900, "light")
    assert tab.ask("document.title") != "run"
    refused = [event["params"]["entry"]["text"] for event in tab.events if event["method"] == "Log.entryAdded"]
    assert len([text for text in refused if "Content Security Policy" in text]) >= 2
