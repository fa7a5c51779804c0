"""The report: well-formed, self-contained, escaped; and the same figures as JSON and TSV."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest

from ebert_core.artifacts import sha256_of
from ebert_core.errors import OutputExistsError
from ebert_core.evaluation import figures
from ebert_core.evaluation.baselines import Unavailable
from ebert_core.evaluation.held_out import HeldOut
from ebert_core.evaluation.measures import measures_at, precision_recall_curve, reliability, roc_curve, thresholds
from ebert_core.evaluation.report import TSV_COLUMNS, as_json, to_html, to_tsv, write_report
from ebert_core.evaluation.results import Evaluation, Row

NASTY = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta", "br", "link", "img", "hr", "input"}


def make_row(name, kind="prediction", seed=0, skill=0.5, **changes):
    rng = np.random.default_rng(seed)
    bound = np.arange(4000) < 40
    scores = np.clip(rng.random(4000) * (1 - skill) + skill * bound, 0, 1).astype(np.float32)
    counts = thresholds(scores, bound)
    values = {
        "name": name,
        "kind": kind,
        "measures": measures_at(counts),
        "by_chrom": {"chr1": measures_at(counts), "chr2": None},
        "note": "",
        "pr_curve": precision_recall_curve(counts),
        "roc_curve": roc_curve(counts),
    }
    if kind != "baseline":
        values["held_out"] = HeldOut("seen", "seen: trained on K562")
        values["reliability"] = reliability(scores, bound)
        values["provenance"] = {"path": f"p/{name}", "format": "bigWig", "sha256": "ab" * 32, "model": {"path": "m"}}
    return Row(**{**values, **changes})


def make_evaluation(rows=None, **changes):
    rows = rows or (
        make_row("mine"),
        make_row("theirs", "comparison", 1, 0.2, reliability=None),
        make_row("prevalence", "baseline", 2, 0.0),
    )
    values = {
        "tf": "CTCF",
        "cell": "K562",
        "chroms": ("chr1", "chr2"),
        "assembly": {"name": "hg19", "digest": "cd" * 32},
        "counts": {chrom: {"bound": 20, "unbound": 1980, "ambiguous": 7} for chrom in ("chr1", "chr2")},
        "rows": tuple(rows),
        "unavailable": (Unavailable("accessibility", "the dataset has no accessibility of K562"),),
        "truth": "labels of dataset d",
        "placement": ("centre", "the mean"),
        "missing": ("error", "a bin without a score is an error"),
        "notes": ("a note",),
        "provenance": {"truth": {"p.bed": {"bytes": 1, "sha256": "ef" * 32}}, "dataset": "d"},
    }
    return Evaluation(**{**values, **changes})


class Page(html.parser.HTMLParser):
    """Checks nesting; collects ids, references and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.refs, self.links, self.text = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.refs += (values.get("aria-labelledby") or "").split()
        self.links += [values[name] for name in ("href", "src", "xlink:href") if name in values]
        assert not any(name.startswith("on") for name in values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        depth = len(self.open)
        self.handle_starttag(tag, attributes)
        del self.open[depth:]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(*evaluations):
    manifest = {"created_utc": "2026-01-02T03:04:05Z", "command": ["ebert", "evaluate", "--compare", NASTY]}
    return to_html(evaluations, manifest)


def test_page_is_well_formed_and_accessible():
    page = Page(page_of(make_evaluation(), make_evaluation(tf="MAX")))
    assert len(page.ids) == len(set(page.ids))
    assert set(page.refs) <= set(page.ids)
    assert page.tags.count("desc") == 2 * 3  # every figure of both pairs
    assert page.tags.count("h1") == 1
    text = " ".join(" ".join(page.text).split())
    assert "2 pairs of transcription factor and cell type" in text
    assert "2026-01-02 03:04:05 UTC" in text
    assert "accessibility (the dataset has no accessibility of K562)" in text
    assert "1 % bound" in text


def test_page_needs_no_network_and_no_script():
    text = page_of(make_evaluation())
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import|//", text)
    assert "script" not in page.tags
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)


def test_names_are_escaped():
    rows = (make_row(NASTY, note=NASTY), make_row(f"base {NASTY}", "baseline"))
    evaluation = make_evaluation(
        rows, tf=NASTY, cell=NASTY, truth=NASTY, notes=(NASTY,), unavailable=(Unavailable(NASTY, NASTY),)
    )
    text = page_of(evaluation)
    assert "<script" not in text
    assert "script" not in Page(text).tags
    assert NASTY in " ".join(Page(text).text)


def test_page_shows_the_figures():
    evaluation = make_evaluation()
    text = " ".join(" ".join(Page(page_of(evaluation)).text).split())
    for row in evaluation.rows:
        assert f"{row.measures.auprc:.3f}" in text
        assert f"{row.measures.recall_at_fdr[10]:.3f}" in text
    assert "! seen: trained on K562" in text
    assert "40 bound and 3,960 unbound bins" in text


STREAM = make_row("a", held_out=HeldOut("unknown", "unknown: no"), provenance={"path": "-", "format": "text"})


@pytest.mark.parametrize(
    "evaluation",
    [
        pytest.param(make_evaluation([make_row("a", "baseline")]), id="baselines only"),
        pytest.param(make_evaluation([make_row("a")], unavailable=(), notes=()), id="one file only"),
        pytest.param(make_evaluation([make_row(f"f{i}", seed=i) for i in range(14)]), id="many files"),
        pytest.param(make_evaluation([STREAM], provenance={"truth": {}, "dataset": None}), id="from a stream"),
    ],
)
def test_page_of_unusual_tables(evaluation):
    Page(page_of(evaluation))


def test_colours_tell_many_files_apart():
    evaluation = make_evaluation([make_row(f"f{i}") for i in range(14)] + [make_row("b", "baseline")])
    styles = figures.colours(evaluation)
    assert len({styles[f"f{i}"] for i in range(14)}) == 14
    assert styles["b"][0] == "base0"


def test_paths_lie_in_the_square_and_drop_what_is_on_a_line():
    straight = np.linspace(0, 1, 500)
    assert figures.svg_path(straight, np.full(500, 0.25)) == "M52 254L372 254"
    assert figures.svg_path(np.array([0, 0, 1.0]), np.array([0, 1, 1.0])) == "M52 334L52 14L372 14"
    for line in figures.curve_lines(make_evaluation(), "pr"):
        numbers = np.array([float(part) for part in re.findall(r"[\d.]+", line.path)]).reshape(-1, 2)
        assert ((numbers >= [52, 14]) & (numbers <= [372, 334])).all()
    assert figures.curve_lines(make_evaluation(), "roc")[0].kind == "baseline"


def test_report_folder(tmp_path):
    evaluations = [make_evaluation(), make_evaluation(tf="MAX")]
    page = write_report(tmp_path / "report", evaluations)
    assert page == tmp_path / "report" / "report.html"
    manifest = json.loads((tmp_path / "report" / "ebert.json").read_text())
    assert (manifest["kind"], manifest["format_version"]) == ("report", 1)
    assert {name: sha256_of(tmp_path / "report" / name) for name in manifest["files"]} == {
        name: entry["sha256"] for name, entry in manifest["files"].items()
    }
    assert sorted(manifest["files"]) == ["report.html", "report.json", "report.tsv"]
    with pytest.raises(OutputExistsError):
        write_report(tmp_path / "report", evaluations)
    write_report(tmp_path / "report", evaluations[:1], overwrite=True)
    assert [each["tf"] for each in json.loads((tmp_path / "report" / "report.json").read_text())["evaluations"]] == [
        "CTCF"
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report"]


def test_json_has_the_documented_keys_and_no_nan(tmp_path):
    write_report(tmp_path / "report", [make_evaluation()])
    text = (tmp_path / "report" / "report.json").read_text()
    content = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} in JSON"))
    evaluation = content["evaluations"][0]
    assert set(evaluation) == {
        "tf", "cell", "chroms", "assembly", "truth", "placement", "missing", "bins", "bins_by_chrom", "rows",
        "unavailable", "notes", "provenance",
    }  # fmt: skip
    assert evaluation["bins"] == {"bound": 40, "unbound": 3960, "ambiguous": 14}
    row = evaluation["rows"][0]
    assert set(row) == {
        "name", "kind", "note", "held_out", "measures", "measures_by_chrom", "missing_bins", "bins_without_known_base",
        "calibration", "pr_curve", "roc_curve", "provenance",
    }  # fmt: skip
    assert set(row["measures"]) == {
        "num_bins", "num_bound", "prevalence", "auroc", "auprc", "average_precision",
        "recall_at_5_fdr", "recall_at_10_fdr", "recall_at_25_fdr", "recall_at_50_fdr",
    }  # fmt: skip
    assert row["measures_by_chrom"]["chr2"] is None
    assert sum(each["bins"] for each in row["calibration"]["classes"]) == 4000
    assert evaluation["rows"][1]["calibration"] is None
    assert math.isclose(row["measures"]["auprc"], make_row("mine").measures.auprc)
    assert as_json(make_evaluation())["rows"][2]["held_out"] is None


def test_tsv():
    lines = list(csv.DictReader(to_tsv([make_evaluation()]).splitlines(), delimiter="\t"))
    assert tuple(lines[0]) == TSV_COLUMNS
    assert [(line["name"], line["chrom"]) for line in lines] == [
        (name, chrom) for name in ("mine", "theirs", "prevalence") for chrom in ("all", "chr1", "chr2")
    ]
    first, _, empty = lines[:3]
    assert float(first["auprc"]) == make_row("mine").measures.auprc
    assert first["held_out"] == "seen"
    assert float(first["brier"]) > 0
    assert (empty["auprc"], empty["num_bins"], empty["brier"]) == ("", "", "")
    one = dataclasses.replace(make_row("x"), by_chrom={"chr1": make_row("x").measures})
    assert len(to_tsv([make_evaluation([one])]).splitlines()) == 2


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_finds_nothing_to_complain_of(tmp_path, dark):
    page = write_report(tmp_path / "report", [make_evaluation(), make_evaluation(tf=NASTY)])
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
         f"--user-data-dir={tmp_path / 'profile'}", "--window-size=390,844", "--dump-dom",
         *(["--blink-settings=preferredColorScheme=0"] if dark else []), page.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "How to read the measures" in done.stdout
    assert "CONSOLE" not in done.stderr
