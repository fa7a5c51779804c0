"""Called sites, against a walk over single bins and bedtools; rules that choose the threshold."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.errors import EbertError
from ebert_core.inference.calls import CallRule, Site, ThresholdTable, call_sites, write_narrow_peak

values = st.one_of(st.just(float("nan")), st.sampled_from([0.0, 0.2, 0.5, 0.5, 0.7, 1.0]), st.floats(0, 1, width=32))
tracks = st.lists(values, max_size=60).map(lambda track: np.array(track, dtype=np.float32))


def walked(probabilities: np.ndarray, threshold: float) -> list[list[int]]:
    """Bins over the threshold; two are of one site when they share a base pair, directly or through others."""
    groups: list[list[int]] = []
    for number, value in enumerate(probabilities):
        if not np.isnan(value) and value >= np.float32(threshold):
            if groups and 50 * number < 50 * groups[-1][-1] + 200:
                groups[-1].append(number)
            else:
                groups.append([number])
    return groups


@settings(max_examples=200, deadline=None)
@given(tracks, st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]))
def test_sites_by_walking(probabilities: np.ndarray, threshold: float) -> None:
    sites = call_sites("chr1", probabilities, threshold)
    groups = walked(probabilities, threshold)
    assert [(site.start, site.end) for site in sites] == [(50 * g[0], 50 * g[-1] + 200) for g in groups]
    for site, group in zip(sites, groups, strict=True):
        best = max(group, key=lambda number: probabilities[number])
        assert site.probability == probabilities[best]
        assert site.start + site.summit == 50 * best + 100
        assert 0 <= site.summit < site.end - site.start
        assert site.probability >= np.float32(threshold)
    for left, right in itertools.pairwise(sites):
        assert left.end <= right.start


def test_threshold_of_the_model_calls_the_bin_it_was_made_from() -> None:
    """A threshold is saved as a 64-bit number, probabilities have 32 bits."""
    value = np.float32(0.1)
    assert len(call_sites("chr1", np.array([value]), float(value))) == 1
    assert len(call_sites("chr1", np.array([np.float32(0.3)]), 0.3)) == 1


def test_nothing_scored_is_nothing_called() -> None:
    assert call_sites("chr1", np.full(9, np.nan, dtype=np.float32), 0.0) == []
    assert call_sites("chr1", np.empty(0, dtype=np.float32), 0.0) == []


def written(sites: list[Site]) -> list[list[str]]:
    handle = io.StringIO()
    write_narrow_peak(sites, handle)
    return [line.split("\t") for line in handle.getvalue().splitlines()]


def test_narrow_peak_columns() -> None:
    rows = written([Site("chr1", 0, 200, 1.0, 100), Site("chr2", 150, 500, 0.123456789, 125)])
    assert rows == [
        ["chr1", "0", "200", ".", "1000", ".", "1", "-1", "-1", "100"],
        ["chr2", "150", "500", ".", "123", ".", "0.123457", "-1", "-1", "125"],
    ]


@pytest.mark.skipif(shutil.which("bedtools") is None, reason="needs bedtools")
def test_bedtools_reads_sorts_and_merges_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    track = np.repeat(rng.random(300), 3).astype(np.float32)
    sites = call_sites("chr1", track, 0.6) + call_sites("chr2", track[::-1].copy(), 0.8)
    path = tmp_path / "sites.narrowPeak"
    with path.open("w") as handle:
        write_narrow_peak(sites, handle)

    def bedtools(*arguments: str) -> list[list[str]]:
        done = subprocess.run(["bedtools", *arguments, "-i", str(path)], check=True, capture_output=True, text=True)
        assert done.stderr == ""
        return [line.split("\t") for line in done.stdout.splitlines()]

    rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert bedtools("sort") == rows
    # Merging what shares at least 1 bp changes nothing: sites do not overlap.
    assert [row[:3] for row in bedtools("merge", "-d", "-1")] == [row[:3] for row in rows]
    for row in rows:
        assert 0 <= int(row[4]) <= 1000
        assert 0 <= int(row[9]) < int(row[2]) - int(row[1])


# --- rules; the table itself is tested where it is made (tests/training/test_fit_calibration.py)

# The third row is better than the second in both columns, as a real curve can be.
TABLE = ThresholdTable(
    thresholds=np.array([0.9, 0.7, 0.5, 0.25, 0.125]),
    precision=np.array([0.5, 0.75, 0.875, 0.7, 0.25]),
    recall=np.array([0.1, 0.3, 0.35, 0.7, 1.0]),
    num_bound=20,
    num_unbound=980,
)


@pytest.mark.parametrize(
    ("text", "threshold", "precision", "recall"),
    [
        ("precision=0.7", 0.25, 0.7, 0.7),
        ("precision=0.71", 0.5, 0.875, 0.35),
        ("precision=0.5", 0.25, 0.7, 0.7),
        ("precision=0", 0.125, 0.25, 1.0),
        ("fdr=0.3", 0.25, 0.7, 0.7),
        ("fdr=0.125", 0.5, 0.875, 0.35),
        ("FDR = 1", 0.125, 0.25, 1.0),
        ("recall=0.3", 0.7, 0.75, 0.3),
        ("recall=0.31", 0.5, 0.875, 0.35),
        ("recall=0", 0.9, 0.5, 0.1),
        ("recall=1", 0.125, 0.25, 1.0),
        ("f1", 0.25, 0.7, 0.7),
        ("F1", 0.25, 0.7, 0.7),
        ("threshold=0.5", 0.5, 0.875, 0.35),
        ("threshold=0.3", 0.3, 0.875, 0.35),
        ("threshold=0", 0.0, 0.25, 1.0),
        ("threshold=0.95", 0.95, None, None),
    ],
)
def test_rules(text: str, threshold: float, precision: float | None, recall: float | None) -> None:
    call = TABLE.choose(CallRule.parse(text), "CTCF")
    assert (call.threshold, call.precision, call.recall) == (threshold, precision, recall)
    assert (call.num_bound, call.num_unbound) == (20, 980)
    assert CallRule.parse(call.rule) == CallRule.parse(text)
    assert call.rule in call.describe()
    if precision is None or recall is None:
        assert call.f1 is None
        assert "no validation bin" in call.describe()
    else:
        assert call.f1 == pytest.approx(2 * precision * recall / (precision + recall))
        assert f"precision {precision:.3f}, recall {recall:.3f}" in call.describe()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("precision=0.9", "no threshold reaches precision=0.9 on the model's 20 bound", "--call-at precision=0.87"),
        ("precision=0.9", "the best precision is 0.875, at recall 0.350", ""),
        ("fdr=0.1", "no threshold reaches fdr=0.1", "--call-at fdr=0.13"),
        ("fdr=0", "the lowest FDR is 0.125, at recall 0.350", ""),
    ],
)
def test_what_the_validation_part_never_reached(text: str, message: str, hint: str) -> None:
    with pytest.raises(EbertError) as caught:
        TABLE.choose(CallRule.parse(text), "CTCF")
    assert caught.value.message.startswith("CTCF: ")
    assert message in caught.value.message
    assert hint in caught.value.hint
    rule = caught.value.hint.rpartition(" ")[2]
    assert TABLE.choose(CallRule.parse(rule), "CTCF").precision == 0.875, "the hint's rule can be had"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("precison=0.8", "unknown calling rule 'precison'", "did you mean precision?"),
        ("0.8", "unknown calling rule '0.8'", "for example precision=0.8"),
        ("", "unknown calling rule ''", "for example"),
        ("precision", "calling rule 'precision': expected precision= and a number from 0 to 1", "for example"),
        ("precision=", "expected precision= and a number", ""),
        ("recall=high", "calling rule 'recall=high': expected recall= and a number from 0 to 1", ""),
        ("recall=80", "expected recall= and a number from 0 to 1", ""),
        ("fdr=-0.1", "expected fdr= and a number from 0 to 1", ""),
        ("threshold=nan", "expected threshold= and a number from 0 to 1", ""),
        ("f1=0.5", "f1 takes the best there is, no value", ""),
    ],
)
def test_what_is_no_rule(text: str, message: str, hint: str) -> None:
    with pytest.raises(EbertError) as caught:
        CallRule.parse(text)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_table_survives_its_manifest() -> None:
    found = ThresholdTable.from_json(json.loads(json.dumps(TABLE.to_json())))
    for name in ("thresholds", "precision", "recall", "f1"):
        assert getattr(found, name).tolist() == getattr(TABLE, name).tolist()
    assert (found.num_bound, found.num_unbound) == (20, 980)
    written = TABLE.to_json()
    assert written["fdr"] == pytest.approx([1 - precision for precision in TABLE.precision])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("recall", None),
        ("recall", "all"),
        ("recall", [0.1, 0.3, 0.35, 0.7]),
        ("recall", [0.1, 0.3, 0.35, 0.7, 0.9]),
        ("recall", [0.1, 0.35, 0.3, 0.7, 1.0]),
        ("precision", [0.5, 0.75, 0.875, 0.7, 1.25]),
        ("precision", [0.5, 0.75, 0.875, 0.7, float("nan")]),
        ("precision", [0.5, 0.75, 0.875, 0.7, 0.3]),
        ("threshold", [0.9, 0.7, 0.7, 0.25, 0.125]),
        ("threshold", [0.125, 0.25, 0.5, 0.7, 0.9]),
        ("threshold", []),
        ("threshold", [[0.9, 0.7, 0.5, 0.25, 0.125]]),
        ("f1", [0.0, 0.0, 0.0, 0.0, 0.0]),
        ("fdr", [0.5, 0.25, 0.125, 0.3, "x"]),
        ("num_bound", None),
        ("num_unbound", "many"),
    ],
)
def test_a_damaged_table_is_refused(key: str, value: object) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        ThresholdTable.from_json({**TABLE.to_json(), key: value})
    without = TABLE.to_json()
    del without[key]
    with pytest.raises(KeyError, match=key):
        ThresholdTable.from_json(without)
