"""igv.js in headless Chromium opens what `ebert predict` writes, and reads and draws what pyBigWig reads.

igv.js comes from the npm registry, for example `npm install --prefix work/npm igv`; Chromium from the distribution.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyBigWig
import pysam
import pytest
from typer.testing import CliRunner

from ebert_cli.app import app
from tests.chromium import CHROMIUM, Chromium, chromium

ROOT = Path(__file__).resolve().parents[2]
IGV_PLACES = [Path(each) / "dist" / "igv.min.js" for each in (
    os.environ.get("EBERT_IGV", "none"), ROOT / "work/npm/node_modules/igv", ROOT / "node_modules/igv"
)]  # fmt: skip
IGV = next((path for path in IGV_PLACES if path.is_file()), None)
TF, CELL, CHROM = "CTCF", "HepG2", "chr1"
NAME = f"{TF}.{CELL}"
# Over a piece without known bases (20,000 to 23,010), so that what has no value is looked at too.
LOCUS = (19_000, 24_000)
HEIGHT = 120

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed"),
    pytest.mark.skipif(IGV is None, reason="no igv.js: npm install --prefix work/npm igv, or name it with EBERT_IGV"),
]

PAGE = """<!doctype html><meta charset="utf-8"><title>igv</title><script src="igv.min.js"></script>
<body style="margin:0"><div id="igv"></div></body>"""
OPEN = """
igv.createBrowser(document.getElementById('igv'), CONFIG).then(browser => {
  window.browser = browser;
  window.view = name => browser.trackViews.find(each => each.track && each.track.name === name);
})
"""
# What igv.js's own readers give: the features of a track as it would draw them, `BP` base pairs on a pixel.
FEATURES = "view('NAME').track.featureSource.getFeatures({chr: 'CHROM', start: START, end: END, bpPerPixel: BP})"
VALUES = f"{FEATURES}.then(found => found.map(each => [each.start, each.end, each.value]))"
SITES = f"{FEATURES}.then(found => found.map(each => [each.chr, each.start, each.end, each.score, each.signal]))"
# Per column of pixels of the drawn track: its first base, and how many pixels are of the track's blue.
COLUMNS = """
(() => {
  const {canvas} = view('NAME').viewports[0], {bpStart, bpPerPixel, pixelHeight} = canvas._data;
  const ratio = canvas.width / canvas._data.pixelWidth;
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height), columns = [];
  for (let x = 0; x < canvas.width; x++) {
    let painted = 0;
    for (let y = 0; y < canvas.height; y++) {
      const at = 4 * (y * canvas.width + x);
      painted += data[at + 3] > 128 && data[at + 2] > 150 && data[at] < 60;
    }
    columns.push([bpStart + x / ratio * bpPerPixel, painted / ratio]);
  }
  return {columns, bpPerPixel, pixelHeight};
})()
"""


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, and the bytes of them that a request asks for; says nothing."""

    def send_head(self) -> Any:
        asked = self.headers.get("Range", "")
        if not asked.startswith("bytes="):
            return super().send_head()
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return None
        first, _, last = asked.removeprefix("bytes=").partition("-")
        size = path.stat().st_size
        end = min(int(last) if last else size - 1, size - 1)
        if int(first) > end:
            self.send_error(416)
            return None
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{end}/{size}")
        self.send_header("Content-Length", str(end + 1 - int(first)))
        self.end_headers()
        self.wfile.write(path.read_bytes()[int(first) : end + 1])
        return None

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture(scope="module")
def folder(toy_files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A web site: igv.js, the genome with its index, and what `ebert predict` wrote."""
    place = tmp_path_factory.mktemp("site")
    shape = [f"--set=encoder.{value}" for value in ("width=16", "num_layers=1", "num_heads=2", "stem_channels=8")]
    tiny = ["--set", "optimizer.warmup_fraction=0", "--threads", "1", "--quiet"]
    inputs = ["--genome", toy_files.genome, "--states", toy_files.states, "--chip", toy_files.chip]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for command in (
            ["prepare", *inputs, "--exclude", toy_files.exclude, "--quiet"],
            ["pretrain", "--steps", 1, "--set", "valid_windows=1", "--valid-chrom", "chr2", *shape, *tiny],
            ["finetune", "--tf", TF, "--steps", 20, "--set", "valid_bp=4000", *tiny],
            ["predict", "--tf", TF, "--cell", CELL, "--threads", 1, "--quiet"],
        ):
            done = CliRunner().invoke(app, list(map(str, command)))
            assert done.exit_code == 0, done.output
    (place / "genome.fa").write_bytes(toy_files.genome.read_bytes())
    pysam.faidx(str(place / "genome.fa"))
    assert IGV is not None
    (place / "igv.min.js").write_bytes(IGV.read_bytes())
    (place / "page.html").write_text(PAGE)
    return place


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    handler = functools.partial(RangeHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def wait(tab: Chromium, script: str, **names: object) -> Any:
    """The value of a promise in the page."""
    for name, value in names.items():
        script = script.replace(name, str(value))
    answer = tab.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
    assert "exceptionDetails" not in answer, answer["exceptionDetails"]
    return answer["result"].get("value")


@pytest.fixture(scope="module")
def tab(folder: Path, site: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """igv.js with the prediction and its sites, at LOCUS."""
    start, end = LOCUS
    with pyBigWig.open(str(folder / f"predictions/{NAME}.bw")) as handle:
        values = [value for *_, value in handle.intervals(CHROM, start, end)]
    # An all but untrained model says much the same everywhere: the axis spans what there is.
    low, high = min(values), max(values)
    config = {
        "reference": {"id": "toy", "fastaURL": "genome.fa", "indexURL": "genome.fa.fai"},
        "loadDefaultGenomes": False,
        "locus": f"{CHROM}:{start + 1}-{end}",
        "tracks": [
            {"name": NAME, "type": "wig", "format": "bigwig", "url": f"predictions/{NAME}.bw", "height": HEIGHT,
             "min": low - 0.1 * (high - low), "max": high, "color": "rgb(0,0,200)"},
            {"name": "sites", "type": "annotation", "format": "narrowpeak", "url": f"predictions/{NAME}.narrowPeak"},
        ],
    }  # fmt: skip
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        browser.show(f"{site}/page.html", 1280, 500, "light")
        wait(browser, OPEN, CONFIG=json.dumps(config))
        yield browser


def test_it_opens_without_a_complaint_or_a_foreign_request(tab: Chromium, site: str, tmp_path: Path) -> None:
    (tmp_path / "igv.png").write_bytes(tab.picture())
    requests = [event["params"]["request"]["url"] for event in tab.events
                if event["method"] == "Network.requestWillBeSent"]  # fmt: skip
    assert any(url.startswith(f"{site}/predictions/{NAME}.bw") for url in requests)
    assert all(url.startswith((site, "data:", "blob:")) for url in requests), requests
    complaints = [event for event in tab.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert [each for each in complaints if "favicon" not in json.dumps(each)] == []


@pytest.mark.parametrize(("chrom", "start", "end"), [(CHROM, *LOCUS), (CHROM, 0, 60_000), ("chr2", 8_000, 41_337)])
def test_values_are_those_of_pybigwig(tab: Chromium, folder: Path, chrom: str, start: int, end: int) -> None:
    found = wait(tab, VALUES, NAME=NAME, CHROM=chrom, START=start, END=end, BP=1)
    with pyBigWig.open(str(folder / f"predictions/{NAME}.bw")) as handle:
        expected = [list(each) for each in handle.intervals(chrom, start, end)]
    # It hands out whole blocks of the file.
    assert [each for each in found if each[0] < end and each[1] > start] == expected
    assert len(expected) > 30


def test_zoomed_out_values_are_means(tab: Chromium, folder: Path) -> None:
    found = wait(tab, VALUES, NAME=NAME, CHROM=CHROM, START=0, END=60_000, BP=5_000)
    with pyBigWig.open(str(folder / f"predictions/{NAME}.bw")) as handle:
        assert 1 < len(found) < len(handle.intervals(CHROM)) / 2
        for start, end, value in found:
            (mean,) = handle.stats(CHROM, int(start), int(end), type="mean", exact=True)
            assert value == pytest.approx(mean, rel=1e-5), (start, end)


def test_sites_are_those_of_the_file(tab: Chromium, folder: Path) -> None:
    found = wait(tab, SITES, NAME="sites", CHROM=CHROM, START=0, END=60_000, BP=1)
    rows = [line.split("\t") for line in (folder / f"predictions/{NAME}.narrowPeak").read_text().splitlines()]
    expected = [[row[0], int(row[1]), int(row[2]), float(row[4]), float(row[6])] for row in rows if row[0] == CHROM]
    assert found == expected
    assert expected


def test_bars_stand_where_the_values_are(tab: Chromium, folder: Path) -> None:
    """Each 50-bp bar is as high as its value; where there is none, nothing is drawn."""
    drawn = tab.ask(COLUMNS.replace("NAME", NAME))
    track = tab.ask(f"view('{NAME}').track.dataRange")
    with pyBigWig.open(str(folder / f"predictions/{NAME}.bw")) as handle:
        values = handle.values(CHROM, *LOCUS)
    scale = (drawn["pixelHeight"] - 1) / (track["max"] - track["min"])
    bars = empty = 0
    for bp, painted in drawn["columns"]:
        # Columns that lie within one bar; at its edges two bars share a pixel.
        if not LOCUS[0] + 50 < bp < LOCUS[1] - 50:
            continue
        near = {values[int(bp + shift * drawn["bpPerPixel"]) - LOCUS[0]] for shift in (-1, 0, 1, 2)}
        if all(value != value for value in near):
            assert painted <= 1, bp
            empty += 1
        elif len(near) == 1:
            assert painted == pytest.approx((near.pop() - track["min"]) * scale, abs=1.5), bp
            bars += 1
    assert bars > 300
    assert empty > 300
