"""The report in a real browser: at a desk and on a phone, light and dark, without a complaint or a request.

The browser is driven over its DevTools pipe, so the page that is looked at is the very file that was written.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import struct
import subprocess
import time
from contextlib import contextmanager, suppress

import pytest

from ebert_core.evaluation.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE_S = 60


class Chromium:
    """A tab of a headless browser; it reads commands on descriptor 3 and writes answers and events on 4.

    Each is a JSON text that ends in a zero byte.
    """

    def __init__(self, process, write, read):
        self._process, self._write, self._read = process, write, read
        self._numbers, self._buffer, self._session = itertools.count(1), b"", None
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Give a command and wait for its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def wait_for(self, method):
        """Wait for an event."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())

    def _next(self):
        limit = time.monotonic() + PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, limit - time.monotonic()))
            piece = os.read(self._read, 1 << 16) if ready else b""
            assert piece, f"the browser fell silent (exit status {self._process.poll()})"
            self._buffer += piece
        text, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(text)

    def show(self, url, width, height, scheme):
        """Load a page at a size (CSS px) and colour scheme; `events` then holds what this page caused."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)  # fmt: skip
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events = []
        self.call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")

    def ask(self, script):
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self):
        """The whole page as PNG bytes."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(answer["data"])


@contextmanager
def chromium(profile):
    """A browser that is gone afterwards."""
    to_browser, write = os.pipe()
    read, from_browser = os.pipe()
    command = f'exec "$@" 3</dev/fd/{to_browser} 4>/dev/fd/{from_browser}'
    process = subprocess.Popen(
        ["/bin/sh", "-c", command, "sh", CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_browser)
    os.close(from_browser)
    try:
        browser = Chromium(process, write, read)
        yield browser
        with suppress(AssertionError, OSError):
            browser._session = None
            browser.call("Browser.close")
    finally:
        for descriptor in (write, read):
            os.close(descriptor)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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
