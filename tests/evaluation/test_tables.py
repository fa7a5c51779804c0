"""The report as JSON and TSV: the documented keys and columns, and the very figures."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from ebert_core.evaluation import tables
from ebert_core.evaluation.report import to_json_text, write_report

FORMATS = Path(__file__).resolve().parents[2] / "docs" / "formats.md"


@pytest.fixture(scope="session")
def plain_evaluation(full_evaluation):
    """Without bootstrap, states, loci and subsamples; the second chromosome has no bound bin."""
    rows = [
        dataclasses.replace(
            row, intervals={}, by_state={}, subsamples=None, by_chrom={"chr1": row.measures, "chr2": None}
        )
        for row in full_evaluation.rows
    ]
    return dataclasses.replace(
        full_evaluation,
        chroms=("chr1", "chr2"),
        counts={"chr1": full_evaluation.counts["chr22"], "chr2": {"bound": 0, "unbound": 5, "ambiguous": 2}},
        rows=tuple(rows),
        bootstrap=None,
        differences=(),
        states=(),
        loci=(),
    )


def documented():
    """Object -> keys, and file -> columns, as the tables of docs/formats.md list them."""
    section = FORMATS.read_text(encoding="utf-8").split("\n## Report (")[1].split("\n## ")[0]
    keys, columns, thing = {}, {}, ""
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("|") else []
        if len(cells) == 3 and cells[0].startswith("`"):
            columns[cells[0].strip("`")] = re.findall(r"`(\w+)`", cells[2])
        elif len(cells) == 3 and cells[1].startswith("`"):
            thing = cells[0] or thing
            keys.setdefault(thing, set()).update(re.findall(r"`(\w+)`", cells[1]))
    return keys, columns


def test_json_has_the_documented_keys(full_evaluation, final_ranks):
    keys, _ = documented()
    report = json.loads(
        to_json_text([full_evaluation], final_ranks), parse_constant=lambda constant: pytest.fail(f"{constant} in JSON")
    )
    evaluation, ranks = report["evaluations"][0], report["ranks"]
    row, locus = evaluation["rows"][0], evaluation["loci"][0]
    found = {
        "report": report.keys() - {"kind", "format_version", "ebert_version", "created_utc", "command"},
        "evaluation": evaluation,
        "bootstrap": evaluation["bootstrap"],
        "row": row,
        "held_out": row["held_out"],
        "measures": row["measures"],
        "interval": row["intervals"]["auprc"],
        "calibration": row["calibration"],
        "class": row["calibration"]["classes"][0],
        "difference": evaluation["differences"][0],
        "state": evaluation["states"][0],
        "locus": locus,
        "track": locus["tracks"][0],
        "ranks": ranks,
        "pair": ranks["pairs"][0],
        "missing": ranks["missing"][0],
        "standing": ranks["overall"][0],
    }
    assert {name: set(each) for name, each in found.items()} == keys


def test_tsv_has_the_documented_columns(tmp_path, full_evaluation, final_ranks):
    _, columns = documented()
    write_report(tmp_path / "report", [full_evaluation], final_ranks)
    ends = [f"{key}_{end}" for key in tables.RANKED for end in ("lower", "upper")]
    expected = {
        name: [each for each in found if each not in ("M_lower", "M_upper", "all")] for name, found in columns.items()
    }
    expected["report.tsv"] += ends
    written = {path.name: path.read_text().splitlines()[0].split("\t") for path in (tmp_path / "report").glob("*.tsv")}
    assert written == expected


def test_json_has_the_figures(full_evaluation, final_ranks):
    content = json.loads(to_json_text([full_evaluation], final_ranks))
    full, row = content["evaluations"][0], full_evaluation.rows[0]
    assert full["rows"][0]["measures"]["auprc"] == row.measures.auprc
    assert sum(each["bins"] for each in full["rows"][0]["calibration"]["classes"]) == row.measures.num_bins
    assert full["rows"][1]["calibration"] is None
    assert full["rows"][2]["held_out"] is None
    assert full["rows"][0]["intervals"]["auprc"] == dataclasses.asdict(row.intervals["auprc"])
    assert full["rows"][0]["subsamples"]["recall_at_50_fdr"] == row.subsamples[:, 2].tolist()
    assert full["rows"][0]["measures_by_state"]["9_EnhA1"]["auprc"] == row.by_state[9].auprc
    assert [each["verdict"] for each in full["differences"]] == [each.verdict for each in full_evaluation.differences]
    assert content["ranks"]["pairs"][2] == dataclasses.asdict(final_ranks.pairs[2])
    assert content["ranks"]["missing"][1] == {"tf": "TAF1", "cell": "liver"}


def test_json_has_the_loci(full_evaluation):
    loci = json.loads(to_json_text([full_evaluation]))["evaluations"][0]["loci"]
    for locus, expected in zip(loci, full_evaluation.loci, strict=True):
        assert {label for _, _, label in locus["labels"]} <= {"bound", "unbound", "ambiguous"}
        assert [tuple(run) for run in locus["states"]] == list(expected.states)
        for track in locus["tracks"]:
            starts, scores = expected.tracks[track["name"]]
            assert track["starts"] == starts.tolist()
            assert np.array(track["scores"], np.float32).tobytes() == scores.tobytes()


def test_json_without_bootstrap_states_and_ranks(plain_evaluation):
    content = json.loads(to_json_text([plain_evaluation]))
    plain = content["evaluations"][0]
    assert (plain["bootstrap"], plain["differences"], plain["states"], plain["loci"]) == (None, [], [], [])
    assert plain["rows"][0]["measures_by_chrom"]["chr2"] is None
    assert (plain["rows"][0]["subsamples"], content["ranks"]) == (None, None)
    assert plain["bins"]["ambiguous"] == plain_evaluation.counts["chr1"]["ambiguous"] + 2


@pytest.mark.parametrize(
    "value", [[1, 2.5, None], [], [[1, "a [\n 2\n] \\n"], {"b": [3, [4, 5]]}], {"c": [True, "[ 6 ]"]}]
)
def test_json_on_fewer_lines_says_the_same(value):
    assert json.loads(tables.to_json(value)) == value


def test_json_is_short_and_has_no_nan():
    assert tables.to_json([1, 2, None]) == "[1, 2, null]\n"
    assert tables.to_json({"a": [float("nan")], "b": (1.5, float("inf"))}) == (
        '{\n  "a": [null],\n  "b": [1.5, null]\n}\n'
    )


def read_tsv(text):
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


def test_tsv_of_intervals_states_and_differences(full_evaluation):
    evaluations, row = [full_evaluation], full_evaluation.rows[1]
    line = next(line for line in read_tsv(tables.to_tsv(evaluations)) if line["name"] == row.name)
    assert float(line["auroc_lower"]) == row.intervals["auroc"].lower
    assert float(line["recall_at_50_fdr_upper"]) == row.intervals["recall_at_50_fdr"].upper
    lines = read_tsv(tables.states_tsv(evaluations))
    assert len(lines) == len(full_evaluation.states) * len(full_evaluation.rows)
    by_name = {state.name: state for state in full_evaluation.states}
    for line in lines:
        assert int(line["num_bound"]) == by_name[line["state"]].bound
        assert (line["auprc"] == "") == (int(line["num_bound"]) in (0, int(line["num_bins"])))
    line = read_tsv(tables.differences_tsv(evaluations))[1]
    each = full_evaluation.differences[1]
    assert (line["second"], line["measure"], line["verdict"]) == (each.second, each.measure, each.verdict)
    assert [float(line[key]) for key in ("difference", "lower", "upper")] == [
        each.value, each.interval.lower, each.interval.upper,
    ]  # fmt: skip


def test_tsv_of_ranks(final_ranks):
    lines = read_tsv(tables.ranks_tsv(final_ranks))
    assert [(line["tf"], line["rank"]) for line in lines] == [
        ("CTCF", "3.0"), ("MAX", "1.0"), ("E2F1", "7.5"), ("NANOG", ""), ("TAF1", ""),
    ]  # fmt: skip
    assert [line["name"] for line in read_tsv(tables.standings_tsv(final_ranks)) if line["own"] == "yes"] == [
        "predictions"
    ]


def test_tsv_of_measures(plain_evaluation):
    lines = read_tsv(tables.to_tsv([plain_evaluation]))
    assert tuple(lines[0]) == tables.TSV_COLUMNS
    names = [row.name for row in plain_evaluation.rows]
    assert [(line["name"], line["chrom"]) for line in lines] == [
        (name, chrom) for name in names for chrom in ("all", "chr1", "chr2")
    ]
    first, _, empty = lines[:3]
    assert float(first["auprc"]) == plain_evaluation.rows[0].measures.auprc
    assert (first["held_out"], first["auprc_lower"]) == ("seen", "")
    assert float(first["brier"]) == plain_evaluation.rows[0].reliability.brier
    assert (empty["auprc"], empty["num_bins"], empty["brier"]) == ("", "", "")


def test_tsv_of_one_chromosome_has_one_line_per_row(full_evaluation):
    assert len(read_tsv(tables.to_tsv([full_evaluation]))) == len(full_evaluation.rows)
