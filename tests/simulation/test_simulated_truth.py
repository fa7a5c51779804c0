"""The truth of the demo world: against brute force, against the labels of the files, and against its rivals."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyBigWig
import pytest
from sklearn.metrics import average_precision_score

from ebert_core.genome.bins import benchmark_bin_starts
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND, label_bins
from ebert_core.simulation.ceilings import expected_auprc, motif_alone
from ebert_core.simulation.chip import chip_peaks, false_peak_rates, sigmoid
from ebert_core.simulation.config import WorldConfig
from ebert_core.simulation.factors import FACTORS, site_logits
from ebert_core.simulation.genome import stream
from ebert_core.simulation.states import cell_states
from ebert_core.simulation.truth import bin_chances, measure_template

CONFIG = WorldConfig()


def brute_force(sites, logits, rates, runs):
    """(P(bound), P(unbound)) per stride from many simulated experiments and the labelling rule itself."""
    starts = np.arange(len(rates[0]) * 4) * 50
    counts = np.zeros((4, len(starts)))
    rng = np.random.default_rng(11)
    for _ in range(runs):
        peaks = chip_peaks(rng, sites, logits, rates, CONFIG)
        strict = peaks.take(peaks.conservative)
        labels = label_bins(starts, (strict.start, strict.end), (peaks.start, peaks.end))
        counts[labels, np.arange(len(starts))] += 1
    return counts[BOUND] / runs, counts[UNBOUND] / runs


@pytest.mark.parametrize(
    ("places", "logits"),
    [
        ([1_000], [0.5]),
        ([1_013, 1_090], [1.0, 0.0]),
        ([1_013, 1_260], [1.5, 1.0]),
        ([1_000, 1_420], [2.0, 2.0]),
        ([900, 1_040, 1_390], [0.0, -1.0, 1.0]),
    ],
)
def test_chances_equal_brute_force(places, logits):
    places, logits = np.array(places), np.array(logits)
    rates = np.zeros(12), np.zeros(12)
    template = measure_template(np.random.default_rng(0), CONFIG)
    at_sites = places, sigmoid(logits), sigmoid(logits + CONFIG.relaxed_margin)
    chances = bin_chances(48, at_sites, rates, template)
    bound, unbound = brute_force(places, logits, rates, 4_000)
    # Sampling error is 0.008; merged peaks' greater width is left out, which shows at 250 bp.
    np.testing.assert_allclose(chances.unbound, unbound, atol=0.035)
    np.testing.assert_allclose(chances.bound, bound, atol=0.1 if 247 in np.diff(places) else 0.04)


def test_false_peaks_are_in_the_chances():
    strict, loose = np.zeros(12), np.zeros(12)
    strict[5], loose[6] = 0.3, 0.2
    template = measure_template(np.random.default_rng(0), CONFIG)
    nothing = np.empty(0, np.int64), np.empty(0), np.empty(0)
    chances = bin_chances(48, nothing, (strict, loose), template)
    bound, unbound = brute_force(np.empty(0, np.int64), np.empty(0), (strict, loose), 6_000)
    np.testing.assert_allclose(chances.unbound, unbound, atol=0.03)
    np.testing.assert_allclose(chances.bound, bound, atol=0.07)
    assert chances.bound.max() > 0.15


def read_peaks(path, chrom):
    rows = [line.split("\t") for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    return tuple(np.array([[int(row[1]), int(row[2])] for row in rows if row[0] == chrom]).reshape(-1, 2).T)


def read_bins(path, chrom, starts):
    with pyBigWig.open(str(path)) as handle:
        return handle.values(chrom, 0, handle.chroms(chrom), numpy=True)[starts + 75].astype(np.float64)


@pytest.fixture(scope="module")
def scored(small_world, small_genome):
    """Per TF and cell type: labels of the benchmark's bins of all chromosomes, and what predictors say of them."""
    found = {}
    assembly = small_world.assembly
    nothing = np.empty(0, np.int64), np.empty(0, np.int64)
    tracks = {
        cell: cell_states(stream(small_world.config, "states", cell), small_genome.landscape, small_genome.domains)
        for cell in small_world.cells
    }
    for factor, sites in zip(FACTORS, small_genome.sites, strict=True):
        tf, hits = factor.name, motif_alone(sites, assembly.flat_bp // 50)
        for cell in small_world.cells:
            parts = []
            for chrom in small_world.chroms:
                starts = benchmark_bin_starts(assembly.length(chrom), nothing)
                if len(starts) == 0:
                    continue
                strict = read_peaks(small_world.peaks_path(tf, cell), chrom)
                loose = read_peaks(small_world.peaks_path(tf, cell, "relaxed"), chrom)
                flat = starts + assembly.offset(chrom)
                parts.append(
                    (
                        label_bins(starts, strict, loose),
                        read_bins(small_world.truth_path(tf, cell), chrom, starts),
                        read_bins(small_world.truth_without_states_path(tf), chrom, starts),
                        hits[flat // 50],
                        tracks[cell][(flat + 100) // 200],
                    )
                )
            labels, truth, blind, motif, state = (np.concatenate(column) for column in zip(*parts, strict=True))
            found[tf, cell] = {"labels": labels, "truth": truth, "blind": blind, "motif": motif, "state": state}
    return found


def auprc(labels, score):
    kept = labels != AMBIGUOUS
    return average_precision_score(labels[kept] == BOUND, score[kept])


def test_truth_is_calibrated(scored):
    """In every class of predicted probability, as many bins are bound as predicted, within the sampling error."""
    truth = np.concatenate([each["truth"][each["labels"] != AMBIGUOUS] for each in scored.values()])
    bound = np.concatenate([(each["labels"] == BOUND)[each["labels"] != AMBIGUOUS] for each in scored.values()])
    classes = np.digitize(truth, [1e-4, 3e-3, 0.02, 0.1, 0.3, 0.5, 0.7, 0.85, 0.95])
    for number in range(10):
        here = classes == number
        expected, seen = truth[here].mean(), bound[here].mean()
        # A peak makes about 5 neighbouring bins bound at once, and a third as many bins are independent at best.
        error = np.sqrt(5 * expected / here.sum() * (1 - expected))
        assert abs(seen - expected) < 4 * error + 0.01 * expected + 1e-4, f"class {number}: {seen} for {expected}"


def test_truth_says_how_many_bins_are_bound(scored):
    for each in scored.values():
        kept = each["labels"] != AMBIGUOUS
        assert (each["labels"] == BOUND).sum() == pytest.approx(each["truth"][kept].sum(), rel=0.3)


def test_bound_bins_are_rare_and_ambiguity_exists(scored):
    for each in scored.values():
        assert 0.004 < (each["labels"] == BOUND).mean() < 0.02
        assert 0.004 < (each["labels"] == AMBIGUOUS).mean() < 0.04


def test_predictors_are_ranked_by_what_they_see(scored):
    means = {name: [] for name in ("truth", "blind", "motif", "state")}
    for each in scored.values():
        rate = {code: ((each["labels"] == BOUND) & (each["state"] == code)).mean() for code in np.unique(each["state"])}
        each = {**each, "state": np.vectorize(rate.get)(each["state"])}
        for name, values in means.items():
            values.append(auprc(each["labels"], each[name]))
    truth, blind, motif, state = (np.array(means[name]) for name in ("truth", "blind", "motif", "state"))
    assert (truth > 0.7).all()
    assert truth.mean() < 0.93
    assert (truth > blind + 0.08).all()
    assert (blind > motif + 0.08).all()
    assert motif.min() > 0.08
    assert motif.max() < 0.45
    assert (truth > state + 0.3).all()


def variations(each):
    """Predictors near the truth."""
    truth = each["truth"]
    logit = np.log(truth + 1e-9) - np.log1p(-truth + 1e-9)
    yield "noisy", logit + np.random.default_rng(0).normal(0, 0.5, size=len(truth))
    yield "blurred", np.convolve(truth, [0.25, 0.5, 0.25], mode="same")
    yield "sharpened", np.convolve(truth, [-0.25, 1.5, -0.25], mode="same")
    yield "mixed with the blind one", truth + each["blind"]
    yield "times the blind one", np.sqrt(truth) * each["blind"]
    yield "times the motif's score", truth * np.maximum(each["motif"], 1)
    yield "rounded", np.round(truth, 1)


def test_no_cheap_variation_beats_the_truth(scored):
    gains: dict[str, list[float]] = {}
    for each in scored.values():
        best = auprc(each["labels"], each["truth"])
        for name, score in variations(each):
            gains.setdefault(name, []).append(auprc(each["labels"], score) - best)
    for name, values in gains.items():
        assert np.mean(values) < 0.005, f"{name} gains {np.mean(values):.3f}"


def test_expected_auprc_is_what_simulated_labels_give(small_genome, small_config):
    """Expected values against the mean over simulated experiments, scored by scikit-learn."""
    factor, sites = FACTORS[2], small_genome.sites[2]
    track = cell_states(np.random.default_rng(1), small_genome.landscape, small_genome.domains)
    logits = site_logits(factor, sites, track)
    rates = false_peak_rates(track, small_genome.landscape.known, small_config)
    template = measure_template(np.random.default_rng(0), small_config)
    at_sites = sites.centre, sigmoid(logits), sigmoid(logits + small_config.relaxed_margin)
    chances = bin_chances(len(track) * 4, at_sites, rates, template)
    rng = np.random.default_rng(2)
    starts = np.arange(len(track) * 4) * 50
    for score in (chances.given_labelled, motif_alone(sites, len(starts))):
        seen = []
        for _ in range(30):
            peaks = chip_peaks(rng, sites.centre, logits, rates, small_config)
            strict = peaks.take(peaks.conservative)
            seen.append(auprc(label_bins(starts, (strict.start, strict.end), (peaks.start, peaks.end)), score))
        error = np.std(seen) / np.sqrt(len(seen))
        assert expected_auprc(score, chances.bound, chances.unbound) == pytest.approx(np.mean(seen), abs=4 * error)


def test_expected_auprc_of_certain_outcomes_is_average_precision():
    rng = np.random.default_rng(8)
    bound = (rng.random(500) < 0.2).astype(float)
    score = np.round(rng.random(500) + 0.3 * bound, 1)
    assert expected_auprc(score, bound, 1 - bound) == pytest.approx(average_precision_score(bound, score))


def test_the_summary_tells_the_ceilings(small_world, scored):
    summary = json.loads(small_world.summary.read_text())
    assert summary["expected_auprc_on"] == small_world.test_chrom
    for tf in small_world.tfs:
        for cell in small_world.cells:
            told = summary["expected_auprc"][tf][cell]
            assert told["with_states"] > told["without_states"] > told["motif_alone"] > 0.05
            assert told["with_states"] == pytest.approx(
                auprc(scored[tf, cell]["labels"], scored[tf, cell]["truth"]), abs=0.15
            )
