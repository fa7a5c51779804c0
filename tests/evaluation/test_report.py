"""The report: well-formed, self-contained, escaped; and the same figures as JSON and TSV."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re

import numpy as np
import pytest

from ebert_core.artifacts import sha256_of
from ebert_core.errors import OutputExistsError
from ebert_core.evaluation import figures
from ebert_core.evaluation.baselines import Unavailable
from ebert_core.evaluation.held_out import HeldOut
from ebert_core.evaluation.measures import measures_at, precision_recall_curve, reliability, roc_curve, thresholds
from ebert_core.evaluation.report import to_html, write_report
from ebert_core.evaluation.results import Difference, Evaluation, Interval, OverallRank, Row

NASTY = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta", "br", "wbr", "link", "img", "hr", "input"}


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
        "truth": "labels of d/",
        "placement": ("centre", "the mean"),
        "missing": ("error", "a bin without a score is an error"),
        "notes": ("a note",),
        "provenance": {"truth": {"p.bed": {"bytes": 1, "sha256": "ef" * 32}}, "dataset": "d", "motifs": None},
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


def page_of(*evaluations, ranks=None):
    manifest = {"created_utc": "2026-01-02T03:04:05Z", "command": ["ebert", "evaluate", "--compare", NASTY]}
    return to_html(evaluations, manifest, ranks)


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
    assert "1.00 % bound" in text


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
    assert NASTY in " ".join(Page(text.replace("<wbr>", "")).text)


def test_page_shows_the_figures():
    evaluation = make_evaluation()
    text = words(page_of(evaluation))
    for row in evaluation.rows:
        assert f"{row.measures.auprc:.3f}" in text
        assert f"{row.measures.recall_at_fdr[10]:.3f}" in text
    assert "! seen: trained on K562" in text
    assert "40 bound and 3,960 unbound bins" in text


def words(text):
    """What a reader sees."""
    return " ".join(" ".join(Page(text.replace("<wbr>", "")).text).split())


def test_page_shows_intervals_and_differences(full_evaluation):
    text = words(page_of(full_evaluation))
    assert "Below a measure: its 95 % interval, from 1,000 resamples of 249 blocks of 1 Mb (seed 3)." in text
    for row in full_evaluation.rows:
        ends = row.intervals["auprc"]
        assert f"{row.measures.auprc:.3f} {ends.lower:.3f}\u2013{ends.upper:.3f}" in text
    for each in full_evaluation.differences:
        signed = [f"{value:+.3f}".replace("-", "\u2212") for value in (each.value, each.interval.lower)]
        assert f"{signed[0]} {signed[1]} to " in text
    assert "98.7 %" in text
    assert "scores lie outside 0 to 1, so they are ranked, not calibrated" in text


def test_the_verdict_stands_beside_its_row(full_evaluation):
    ends = {"accessibility": (0.1, 0.2), "prevalence": (-0.2, -0.1), "state frequency": (-0.1, 0.1)}
    differences = [Difference("mine.bw", name, "auprc", sum(e) / 2, Interval(*e), 0.5) for name, e in ends.items()]
    text = words(page_of(dataclasses.replace(full_evaluation, differences=tuple(differences))))
    for line in (
        "accessibility +0.150 +0.100 to +0.200 better",
        "prevalence \u22120.150 \u22120.200 to \u22120.100 worse",
        "state frequency 0.000 \u22120.100 to +0.100 undecided",
    ):
        assert line in text
    assert "Differences in the other measures" not in text


def test_page_breaks_figures_down_by_state(full_evaluation):
    page = page_of(full_evaluation)
    text = words(page)
    for state in full_evaluation.states:
        total = state.bound + state.unbound
        assert f"{state.name} {total:,} {state.bound:,} " in text
        assert f'fill="{state.color}"' in page
    measured = full_evaluation.rows[0].by_state[9].auprc
    best = max(full_evaluation.rows[2:], key=lambda row: row.by_state[9].auprc)
    assert re.search(
        rf"9_EnhA1 [\d,]+ [\d,]+ \S+ % {measured:.3f} [\d.]+ {best.name} {best.by_state[9].auprc:.3f}", text
    )


def test_page_shows_the_ranks(full_evaluation, final_ranks):
    page = page_of(full_evaluation, ranks=final_ranks)
    text = words(page)
    assert "Overall rank 20 of 43 entries" in text
    assert "First in 1 of 5 pairs" in text
    assert "E2F1 in K562 7.5 of 41 0.410 0.620 team of E2F1" in text
    assert "TAF1 in liver no prediction: counts 0.5" in text
    assert "published score tables" in text
    # The top 12, what stands beside the entry, and gaps.
    shown = re.search(r"entry score (.*?) 43 entries", text)[1]
    assert shown.count("⋮") == 2
    assert re.findall(r"team (\d+)", shown) == [str(number) for number in (*range(1, 13), 18, 19, 21, 22)]
    links = [link for link in Page(page).links if link == "#pair-1"]
    assert len(links) == 1  # the only evaluated pair of the three
    assert 'id="pair-1"' in page


def test_the_standings_of_a_few_are_whole(final_ranks, full_evaluation):
    few = (OverallRank("b", 0.1, 1.0, False), OverallRank("predictions", 0.2, 2.0, True))
    text = words(page_of(full_evaluation, ranks=dataclasses.replace(final_ranks, overall=few, missing=())))
    assert "⋮" not in text
    assert "every pair has predictions" in text


def test_a_full_page_is_well_formed_and_escaped(full_evaluation, final_ranks):
    rows = tuple(dataclasses.replace(row, name=f"{row.name}{NASTY}") for row in full_evaluation.rows)
    locus = full_evaluation.loci[0]
    loci = tuple(
        dataclasses.replace(each, tracks={f"{name}{NASTY}": track for name, track in each.tracks.items()})
        for each in (*full_evaluation.loci, dataclasses.replace(locus, states=None))
    )
    nasty = dataclasses.replace(
        full_evaluation,
        rows=rows,
        loci=loci,
        states=tuple(dataclasses.replace(each, name=f"{each.name}{NASTY}") for each in full_evaluation.states),
        differences=tuple(
            dataclasses.replace(each, first=f"{each.first}{NASTY}", second=f"{each.second}{NASTY}")
            for each in full_evaluation.differences
        ),
    )
    ranks = dataclasses.replace(
        final_ranks,
        name=NASTY,
        source=NASTY,
        pairs=tuple(dataclasses.replace(each, tf=NASTY, cell=NASTY, best_team=NASTY) for each in final_ranks.pairs),
        missing=((NASTY, NASTY),),
        overall=tuple(dataclasses.replace(each, name=NASTY) for each in final_ranks.overall),
    )
    text = page_of(nasty, full_evaluation, ranks=ranks)
    page = Page(text)
    assert "<script" not in text
    assert len(page.ids) == len(set(page.ids))
    assert set(page.refs) <= set(page.ids)
    assert page.tags.count("desc") == 2 * 3 + 10 + 9
    assert not re.search(r"https?:|url\(|@import|//", text)


STREAM = make_row("a", held_out=HeldOut("unknown", "unknown: no"), provenance={"path": "-", "format": "text"})


@pytest.mark.parametrize(
    "evaluation",
    [
        pytest.param(make_evaluation([make_row("a", "baseline")]), id="baselines only"),
        pytest.param(make_evaluation([make_row("a")], unavailable=(), notes=()), id="one file only"),
        pytest.param(make_evaluation([make_row(f"f{i}", seed=i) for i in range(14)]), id="many files"),
        pytest.param(
            make_evaluation([STREAM], provenance={"truth": {}, "dataset": None, "motifs": None}), id="from a stream"
        ),
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
