"""Evaluation: the bins that count, bins without a score, what was held out, and which truth."""

from __future__ import annotations

import io
import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from ebert_core.artifacts import build_manifest, file_entry
from ebert_core.errors import EbertError, InputError, UnknownNameError
from ebert_core.evaluation import evaluated_bins, plan, truth_files
from ebert_core.evaluation.evaluate import Contender, EvaluationConfig, evaluate
from ebert_core.evaluation.truth import truth_from_dataset, truth_from_peaks, truth_from_table
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import BenchmarkBins, all_bin_starts
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND, UNLABELLED
from ebert_core.io.bigwig import BigWigWriter
from ebert_core.io.labels import write_label_table
from ebert_core.io.predictions import PREDICTIONS_FORMAT, sidecar_path
from ebert_core.vocabulary import BASE_N

CHROMS = ("chr1", "chr2")


def labels_of(dataset, chrom, tf="CTCF", cell="HepG2"):
    labels = dataset.labels(tf, cell, chrom)
    strides = np.flatnonzero(labels != UNLABELLED)
    return strides * 50, labels[strides]


def scores_of(dataset, chrom, seed=0):
    """Scores of all bins of a chromosome that know a little of the truth."""
    rng = np.random.default_rng([seed, len(chrom), ord(chrom[-1])])
    starts = all_bin_starts(dataset.assembly.length(chrom))
    bound = dataset.labels("CTCF", "HepG2", chrom)[starts // 50] == BOUND
    return starts, np.round(rng.random(len(starts)) * 0.7 + 0.3 * bound, 3).astype(np.float32)


def write_bins(path, dataset, chroms=CHROMS, keep=lambda chrom, starts: np.ones(len(starts), bool), seed=0):
    """A tab file of 200-bp bins."""
    rows = []
    for chrom in chroms:
        starts, scores = scores_of(dataset, chrom, seed)
        kept = keep(chrom, starts)
        rows += [f"{chrom}\t{a}\t{a + 200}\t{b}\n" for a, b in zip(starts[kept].tolist(), scores[kept], strict=True)]
    path.write_text("".join(rows))
    return path


def run(dataset, path, truth=None, contenders=None, **options):
    config = EvaluationConfig(**{"with_baselines": False, "allow_seen": True, **options})
    truth = truth or truth_from_dataset(dataset, "CTCF", "HepG2")
    return evaluate(config, truth, contenders or [Contender("mine", path)], dataset)


@pytest.fixture
def tab(tmp_path, toy_dataset):
    return write_bins(tmp_path / "mine.tab", toy_dataset)


def test_measures_are_those_of_the_bound_and_unbound_bins(tab, toy_dataset):
    result = run(toy_dataset, tab)
    bound, scores, ambiguous = [], [], 0
    for chrom in CHROMS:
        starts, labels = labels_of(toy_dataset, chrom)
        ambiguous += int((labels == AMBIGUOUS).sum())
        clear = labels != AMBIGUOUS
        bound.append(labels[clear] == BOUND)
        scores.append(scores_of(toy_dataset, chrom)[1][starts[clear] // 50])
    joined = np.concatenate(bound), np.concatenate(scores)
    (row,) = result.rows
    assert row.measures.auroc == pytest.approx(roc_auc_score(*joined), abs=1e-12)
    assert row.measures.average_precision == pytest.approx(average_precision_score(*joined), abs=1e-12)
    for chrom, one_bound, one_scores in zip(CHROMS, bound, scores, strict=True):
        assert row.by_chrom[chrom].auroc == pytest.approx(roc_auc_score(one_bound, one_scores), abs=1e-12)
        assert result.counts[chrom]["bound"] == one_bound.sum()
        assert result.counts[chrom]["unbound"] == (~one_bound).sum()
    assert result.chroms == CHROMS
    assert result.total("ambiguous") == ambiguous > 0
    assert result.total("bound") + result.total("unbound") == row.measures.num_bins
    assert (row.missing_bins, row.held_out.status, row.reliability is not None) == (0, "unknown", True)
    assert row.provenance["sha256"] == file_entry(tab)["sha256"]


def test_rows_of_one_table_share_their_bins_and_baselines_come_last(tab, toy_dataset, tmp_path):
    other = write_bins(tmp_path / "other.tab", toy_dataset, seed=5)
    contenders = [Contender("mine", tab), Contender("theirs", other, "comparison")]
    result = run(toy_dataset, tab, contenders=contenders, with_baselines=True, chroms=("2",))
    assert [row.kind for row in result.rows][:3] == ["prediction", "comparison", "baseline"]
    assert [row.name for row in result.rows][2:] == [
        "prevalence", "accessibility", "state frequency", "accessibility x state", "mean of training cells",
    ]  # fmt: skip
    assert [each.name for each in result.unavailable] == ["best motif hit", "organisers' logistic"]
    assert len({(row.measures.num_bins, row.measures.num_bound) for row in result.rows}) == 1
    assert result.chroms == ("chr2",)
    assert all(row.by_chrom == {"chr2": row.measures} for row in result.rows)
    prevalence = result.rows[2].measures
    assert prevalence.auprc == pytest.approx(prevalence.prevalence)
    assert all(row.held_out is None and row.reliability is None for row in result.rows[2:])


def test_missing_bins_are_an_error_that_names_the_first(tmp_path, toy_dataset):
    path = write_bins(
        tmp_path / "mine.tab", toy_dataset, keep=lambda chrom, starts: (chrom == "chr1") | (starts >= 5000)
    )
    starts, labels = labels_of(toy_dataset, "chr2")
    gone = starts[(labels != AMBIGUOUS) & (starts < 5000)]
    words = rf"mine\.tab: has no score for {len(gone):,} of [\d,]+ bins; the first is chr2:{gone[0]:,}"
    with pytest.raises(InputError, match=words) as caught:
        run(toy_dataset, path)
    assert "--missing zero" in caught.value.hint
    (row,) = run(toy_dataset, path, missing="zero").rows
    assert (row.missing_bins, row.unknown_bins) == (len(gone), 0)
    assert row.note == f"{len(gone):,} bins without a score count as 0"


def test_bins_of_n_only_may_miss_and_count_as_the_lowest(tmp_path, toy_dataset, monkeypatch):
    monkeypatch.setattr(evaluated_bins, "_SEQUENCE_AT_ONCE", 1000)  # the sequence in several pieces
    sequence = toy_dataset.sequence("chr1")

    def keep(chrom, starts):
        known = [(sequence[start : start + 200] != BASE_N).any() for start in starts.tolist()]
        return np.array(known) if chrom == "chr1" else np.ones(len(starts), bool)

    path = write_bins(tmp_path / "mine.tab", toy_dataset, keep=keep)
    starts, labels = labels_of(toy_dataset, "chr1")
    clear = starts[labels != AMBIGUOUS]
    expected = int((~keep("chr1", clear)).sum())
    assert expected > 40
    (row,) = run(toy_dataset, path).rows
    assert (row.missing_bins, row.unknown_bins) == (expected, expected)
    assert row.note.startswith(f"{expected} bins without a score count as 0, all of N only")
    full = run(toy_dataset, write_bins(tmp_path / "full.tab", toy_dataset)).rows[0]
    assert row.measures != full.measures
    truth = truth_from_dataset(toy_dataset, "CTCF", "HepG2")
    with pytest.raises(InputError, match="has no score for"):  # without the sequence nobody knows
        evaluate(EvaluationConfig(with_baselines=False), truth, [Contender("mine", path)], None)


def test_missing_scores_of_log_odds_count_as_their_lowest(tmp_path, toy_dataset):
    starts, scores = scores_of(toy_dataset, "chr2")
    rows = [f"chr2\t{a}\t{a + 200}\t{b - 9}\n" for a, b in zip(starts.tolist(), scores, strict=True) if a > 2000]
    (tmp_path / "x.bed").write_text("".join(rows))
    (row,) = run(toy_dataset, tmp_path / "x.bed", missing="zero").rows
    assert f"count as {float(np.float32(min(scores[starts > 2000]) - 9)):g}; " in row.note
    assert row.reliability is None


def test_placement_matters_and_is_recorded(tmp_path, toy_dataset):
    path = tmp_path / "mine.bw"
    with BigWigWriter(path, toy_dataset.assembly) as writer:
        for chrom in CHROMS:
            writer.write_fixed_step(chrom, 75, scores_of(toy_dataset, chrom)[1], 50, 50)
    centre, start = run(toy_dataset, path), run(toy_dataset, path, placement="start", missing="zero")
    exact = run(toy_dataset, write_bins(tmp_path / "mine.tab", toy_dataset))
    assert centre.rows[0].measures == exact.rows[0].measures
    assert centre.rows[0].measures.auprc > start.rows[0].measures.auprc
    assert start.placement == ("start", "the mean over the bin's first 50 bp")


def test_chromosomes_default_to_those_with_labels_and_predictions(tmp_path, toy_dataset):
    path = write_bins(tmp_path / "mine.tab", toy_dataset, chroms=("chr2",))
    assert run(toy_dataset, path).chroms == ("chr2",)
    with pytest.raises(EbertError, match="chrShort has no CTCF labels in HepG2"):
        run(toy_dataset, path, chroms=("chrShort",))
    with pytest.raises(UnknownNameError, match="unknown chromosome 'chr9'"):
        run(toy_dataset, path, chroms=("chr9",))
    (tmp_path / "other.bed").write_text("chrShort\t0\t150\t1\n")
    with pytest.raises(EbertError, match="no chromosome has both") as caught:
        run(toy_dataset, tmp_path / "other.bed")
    assert "other.bed: chrShort" in caught.value.hint


def test_arguments_that_cannot_be(tab, toy_dataset):
    with pytest.raises(EbertError, match="nothing to evaluate"):
        evaluate(EvaluationConfig(with_baselines=False), truth_from_dataset(toy_dataset, "CTCF", "HepG2"), [])
    with pytest.raises(EbertError, match="two predictions are called 'a'"):
        run(toy_dataset, tab, contenders=[Contender("a", tab), Contender("a", tab)])
    with pytest.raises(EbertError, match="unknown placement 'middle'"):
        EvaluationConfig(placement="middle")
    with pytest.raises(EbertError, match="unknown treatment"):
        EvaluationConfig(missing="nan")
    other = Assembly.from_sizes([("chr1", 60_000)])
    bins = BenchmarkBins.from_exclusion(other, lambda _: none())
    truth = truth_from_peaks(("CTCF", "HepG2"), bins, write_peak(tab.with_name("p.bed")))
    with pytest.raises(EbertError, match="is on custom, the truth on custom"):
        run(toy_dataset, tab, truth=truth)


def test_a_prediction_may_not_be_called_like_a_baseline(tab, toy_dataset):
    twin = [Contender("prevalence", tab)]
    with pytest.raises(EbertError, match="a prediction is called 'prevalence', as a baseline is"):
        run(toy_dataset, tab, contenders=twin, with_baselines=True)
    assert len(run(toy_dataset, tab, contenders=twin).rows) == 1


def test_standard_input_is_read_once(tab, toy_dataset):
    with pytest.raises(EbertError, match="two files are read from standard input"):
        run(toy_dataset, tab, contenders=[Contender("a", Path("-")), Contender("b", Path("-"))])


def test_peaks_from_a_pipe(tab, toy_dataset, toy_files, monkeypatch):
    class Standard:
        buffer = io.BytesIO((toy_files.chip / "CTCF.HepG2.narrowPeak.gz").read_bytes())

    monkeypatch.setattr("sys.stdin", Standard)
    truth = truth_from_peaks(("CTCF", "HepG2"), toy_dataset.benchmark_bins(), Path("-"))
    piped = run(toy_dataset, tab, truth)
    assert piped.provenance["truth"] == {}
    assert piped.rows[0].measures == run(toy_dataset, tab).rows[0].measures


def none():
    return np.empty(0, np.int64), np.empty(0, np.int64)


def write_peak(path, text="chr1\t1000\t1300\n"):
    path.write_text(text)
    return path


def test_a_chromosome_without_bound_bins(tmp_path, toy_dataset):
    path = write_bins(tmp_path / "mine.tab", toy_dataset)
    peak = write_peak(tmp_path / "p.bed", "chr1\t30000\t30300\nchr2\t1\t4\n")
    truth = truth_from_peaks(("CTCF", "HepG2"), toy_dataset.benchmark_bins(), peak)
    (row,) = run(toy_dataset, path, truth=truth).rows
    assert row.by_chrom["chr2"] is None
    assert row.by_chrom["chr1"].num_bound == row.measures.num_bound > 0
    with pytest.raises(EbertError, match="chr2 has no bound bin"):
        run(toy_dataset, path, truth=truth, chroms=("chr2",))


def same_labels(a, b):
    assert a.chroms == b.chroms
    for chrom in a.chroms:
        for mine, theirs in zip(a.on(chrom), b.on(chrom), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_truth_from_peaks_and_from_a_table_is_the_datasets(tmp_path, toy_files, toy_dataset):
    truth = truth_from_dataset(toy_dataset, "ctcf", "E118")
    assert (truth.tf, truth.cell) == ("CTCF", "HepG2")
    peaks = toy_files.chip / "CTCF.HepG2.narrowPeak.gz"
    pair, assembly = ("CTCF", "HepG2"), toy_dataset.assembly
    from_peaks = truth_from_peaks(pair, toy_dataset.benchmark_bins(), peaks)
    same_labels(from_peaks, truth)
    table = tmp_path / "CTCF.train.labels.tsv.gz"
    rows = {chrom: labels_of(toy_dataset, chrom) for chrom in CHROMS}
    write_label_table(table, ["HepG2"], {chrom: (starts, codes[:, None]) for chrom, (starts, codes) in rows.items()})
    from_table = truth_from_table(table, assembly, "CTCF", "hepg2")
    same_labels(from_table, truth)
    path = write_bins(tmp_path / "mine.tab", toy_dataset)
    found = [run(toy_dataset, path, truth=each) for each in (truth, from_peaks, from_table)]
    assert found[0].rows[0].measures == found[1].rows[0].measures == found[2].rows[0].measures
    assert list(found[0].provenance["truth"]) == [peaks.name]
    assert list(found[1].provenance["truth"]) == [str(peaks)]
    assert {each["sha256"] for result in found[:2] for each in result.provenance["truth"].values()} == {
        file_entry(peaks)["sha256"]
    }
    assert [each.truth for each in found] == [
        f"labels of {toy_dataset.path}/",
        "peaks CTCF.HepG2.narrowPeak.gz, also as relaxed peaks",
        "label table CTCF.train.labels.tsv.gz, column HepG2",
    ]


def test_relaxed_peaks_make_bins_ambiguous(tmp_path, toy_dataset):
    strong = write_peak(tmp_path / "c.bed")
    weak = write_peak(tmp_path / "r.bed", "chr1\t1000\t1300\nchr1\t5000\t5100\n")
    truth = truth_from_peaks(("X", "Y"), toy_dataset.benchmark_bins(), strong, weak)
    starts, labels = truth.on("chr1")
    by_start = dict(zip(starts.tolist(), labels.tolist(), strict=True))
    assert [by_start[start] for start in (1050, 5000, 7000)] == [BOUND, AMBIGUOUS, UNBOUND]
    with pytest.raises(InputError, match=r"c\.bed: has no peak on chr2"):
        truth.on("chr2")


def test_truth_that_is_not_there(toy_dataset):
    with pytest.raises(UnknownNameError, match="unknown TF 'CTFC'"):
        truth_from_dataset(toy_dataset, "CTFC", "HepG2")
    with pytest.raises(EbertError, match="has no CTCF labels in MyCell") as caught:
        truth_from_dataset(toy_dataset, "CTCF", "MyCell")
    assert "GM12878, HepG2" in caught.value.hint


def test_what_was_seen_is_refused_until_told(tab, toy_dataset):
    with_sidecar(tab, toy_dataset)
    words = r"mine is not held out for CTCF in HepG2; seen: trained on chr1, in other cell types"
    with pytest.raises(EbertError, match=words) as caught:
        run(toy_dataset, tab, allow_seen=False)
    assert "--chrom chr2 was not trained on" in caught.value.hint
    assert "--allow-seen" in caught.value.hint
    assert run(toy_dataset, tab, allow_seen=False, chroms=("chr2",)).rows[0].held_out.status == "held out"
    assert run(toy_dataset, tab).rows[0].held_out.status == "seen"
    with_sidecar(tab, toy_dataset, trained_on={"tfs": ["CTCF"], "cells": ["hepg2"], "regions": [["chr1", 0, 9]]})
    with pytest.raises(EbertError, match="trained on HepG2, on other chromosomes") as caught:
        run(toy_dataset, tab, allow_seen=False, chroms=("chr2",))
    assert caught.value.hint.startswith("--allow-seen")


def with_sidecar(path, dataset, **changes):
    body = {
        "tf": "CTCF",
        "cell": "HepG2",
        "assembly": {"name": "custom", "digest": dataset.assembly.digest},
        "model": {"path": "models/CTCF"},
        "trained_on": {"tfs": ["CTCF"], "cells": ["GM12878"], "regions": [["chr1", 0, 60_000]]},
        "files": {path.name: file_entry(path)},
    } | changes
    sidecar_path(path).write_text(json.dumps(build_manifest("predictions", PREDICTIONS_FORMAT, body)))
    return path


def test_what_a_prediction_says_of_itself_is_held_against_the_evaluation(tab, toy_dataset):
    with_sidecar(tab, toy_dataset)
    assert run(toy_dataset, tab, chroms=("chr2",)).rows[0].held_out.status == "held out"
    row = run(toy_dataset, tab).rows[0]
    assert row.held_out.text == "seen: trained on chr1, in other cell types"
    assert row.provenance["model"] == {"path": "models/CTCF"}
    with_sidecar(tab, toy_dataset, assembly={"name": "hg38", "digest": ""})
    run(toy_dataset, tab)  # a custom assembly cannot be told apart by name
    tab.write_text(tab.read_text() + "\n")
    with pytest.raises(InputError, match="the manifest says"):
        run(toy_dataset, tab)


def paths_of(made):
    return [each.path for contenders in made.values() for each in contenders]


class TestPlan:
    @pytest.fixture
    def folder(self, tmp_path, toy_dataset, monkeypatch):
        (tmp_path / "predictions").mkdir()
        monkeypatch.chdir(tmp_path)
        for tf, cell in (("CTCF", "HepG2"), ("MAX", "GM12878")):
            path = write_bins(tmp_path / "predictions" / f"{tf}.{cell}.bed.gz", toy_dataset)
            with_sidecar(path, toy_dataset, tf=tf, cell=cell)
        (tmp_path / "stray.bed").write_text("chr1\t0\t200\t1\n")
        return tmp_path

    def made(self, *arguments, dataset=None):
        made = plan.make_plan(*arguments, dataset)
        return {pair: [(each.name, str(each.path), each.kind) for each in several] for pair, several in made.items()}

    def test_default_is_all_that_say_what_they_are(self, folder):
        first, second = "predictions/CTCF.HepG2.bed.gz", "predictions/MAX.GM12878.bed.gz"
        assert self.made([], [], None, None) == {
            ("CTCF", "HepG2"): [("CTCF.HepG2.bed.gz", first, "prediction")],
            ("MAX", "GM12878"): [("MAX.GM12878.bed.gz", second, "prediction")],
        }
        assert list(self.made([], [], "max", None)) == [("MAX", "GM12878")]

    def test_names_are_spelt_as_the_dataset_does(self, folder, toy_dataset):
        assert list(self.made([folder / "stray.bed"], [], "max", "E116", dataset=toy_dataset)) == [("MAX", "GM12878")]
        with pytest.raises(UnknownNameError, match="unknown cell type 'GM'"):
            self.made([], [], None, "GM", dataset=toy_dataset)
        with_truth = plan.make_plan([folder / "stray.bed"], [], "REST", "e116", toy_dataset, known_only=False)
        assert list(with_truth) == [("REST", "GM12878")]

    def test_comparisons_find_their_pair(self, folder):
        stray, own = folder / "stray.bed", folder / "predictions" / "MAX.GM12878.bed.gz"
        made = self.made([], [f"ctcf.hepg2:a: b={stray}", f"mine={own}"], None, None)
        assert made[("CTCF", "HepG2")][1] == ("a: b", str(stray), "comparison")
        assert made[("MAX", "GM12878")][1] == ("mine", str(own), "comparison")
        alone = self.made([], [f"x: y={stray}"], "MAX", None)
        assert alone[("MAX", "GM12878")][1] == ("x: y", str(stray), "comparison")
        nothing_else = self.made([], [f"z={stray}"], "REST", "K562")
        assert nothing_else == {("REST", "K562"): [("z", str(stray), "comparison")]}

    def test_a_comparison_may_spell_its_cell_otherwise(self, folder, toy_dataset):
        own = folder / "predictions" / "MAX.GM12878.bed.gz"
        with_sidecar(own, toy_dataset, tf="MAX", cell="E116")
        made = self.made([folder / "stray.bed"], [f"mine={own}"], "MAX", "GM12878")
        assert made[("MAX", "GM12878")][1] == ("mine", str(own), "comparison")

    def test_a_folder_without_predictions_is_named(self, folder):
        (folder / "empty").mkdir()
        with pytest.raises(EbertError, match="no predictions of CTCF in empty") as caught:
            self.made([Path("empty")], [], "CTCF", None)
        assert "name other files one by one" in caught.value.hint

    def test_files_of_one_name_are_told_apart(self, folder, toy_dataset):
        (folder / "other").mkdir()
        twin = with_sidecar(write_bins(folder / "other" / "CTCF.HepG2.bed.gz", toy_dataset), toy_dataset)
        ours = folder / "predictions" / "CTCF.HepG2.bed.gz"
        names = [name for name, _, _ in self.made([ours, twin], [], None, None)[("CTCF", "HepG2")]]
        assert names == [str(ours), str(twin)]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ((["stray.bed"], [], None, None), "does not say which TF"),
            ((["stray.bed"], [], "CTCF", None), "does not say which TF"),
            ((["gone.bed"], [], None, None), "is not there"),
            ((["predictions/MAX.GM12878.bed.gz"], [], "CTCF", None), "is of MAX in GM12878, not of CTCF"),
            (([], [], "REST", None), "no predictions of REST in predictions"),
            ((["."], [], "CTCF", "HepG2"), r"no predictions of CTCF in HepG2 in \.$"),
            (([], ["stray.bed"], None, None), "is not NAME=FILE"),
            (([], ["=stray.bed"], None, None), "is not NAME=FILE"),
            (([], ["a=stray.bed"], None, None), "belongs to none of the evaluated pairs"),
            (([], ["a=predictions/MAX.GM12878.bed.gz"], "CTCF", None), "belongs to none of the evaluated pairs"),
        ],
    )
    def test_errors(self, folder, arguments, words):
        paths, *rest = arguments
        with pytest.raises(EbertError, match=words):
            self.made([folder / path if path == "gone.bed" else plan.Path(path) for path in paths], *rest)

    def test_truth_of_other_files(self, folder, toy_files, toy_dataset):
        peaks = toy_files.chip / "CTCF.HepG2.narrowPeak.gz"
        two = plan.make_plan([], [], None, None, None)
        with pytest.raises(EbertError, match="--peaks are of one pair"):
            truth_files.TruthFiles(peaks).require_fit(len(two))
        one = plan.make_plan([], [], "CTCF", None, None)
        with pytest.raises(EbertError, match="sizes of the chromosomes are not known"):
            truth_files.find_truth(("CTCF", "HepG2"), truth_files.TruthFiles(peaks), paths_of(one), None)
        files = truth_files.TruthFiles(peaks, exclude=(toy_files.exclude,))
        expected = truth_from_dataset(toy_dataset, "CTCF", "HepG2")
        same_labels(truth_files.find_truth(("CTCF", "HepG2"), files, paths_of(one), toy_dataset), expected)
        bigwig = folder / "x.bw"
        with BigWigWriter(bigwig, toy_dataset.assembly) as writer:
            writer.write_fixed_step("chr2", 75, scores_of(toy_dataset, "chr2")[1], 50, 50)
        alone = plan.make_plan([bigwig], [], "CTCF", "HepG2", None)
        assert truth_files.open_dataset(truth_files.DATASET_FOLDER, files) is None
        sizes = folder / "toy.sizes"
        sizes.write_text("".join(f"{c}\t{n}\n" for c, n in zip(*astuple(toy_dataset.assembly), strict=True)))
        named = truth_files.TruthFiles(peaks, exclude=(toy_files.exclude,), assembly=str(sizes))
        same_labels(truth_files.find_truth(("CTCF", "HepG2"), named, paths_of(one), None), expected)
        with pytest.raises(EbertError, match="has its own"):
            truth_files.find_truth(("CTCF", "HepG2"), named, paths_of(one), toy_dataset)
        with pytest.raises(EbertError, match="hg18: is not there"):
            truth_files.find_truth(("CTCF", "HepG2"), truth_files.TruthFiles(peaks, assembly="hg18"), [], None)
        with pytest.raises(EbertError, match="misspelt is not there"):
            truth_files.open_dataset(folder / "misspelt", files)
        same_labels(truth_files.find_truth(("CTCF", "HepG2"), files, paths_of(alone), None), expected)
        with pytest.raises(EbertError, match="no other truth was given"):
            truth_files.open_dataset(folder / "dataset", truth_files.TruthFiles())

    @pytest.mark.parametrize(
        "values",
        [
            {"peaks": 1, "labels": 1},
            {"relaxed": 1},
            {"exclude": (1,)},
            {"labels": 1, "exclude": (1,)},
            {"assembly": "hg19"},
        ],
    )
    def test_truths_that_exclude_each_other(self, values):
        with pytest.raises(EbertError, match="given"):
            truth_files.TruthFiles(**values)


def test_states_of_the_evaluated_bins(tab, toy_dataset):
    result = run(toy_dataset, tab)
    (row,) = result.rows
    assert sum(state.bound for state in result.states) == result.total("bound")
    assert sum(state.unbound for state in result.states) == result.total("unbound")
    model = dict(enumerate(toy_dataset.state_model.states, start=1))
    codes, bound = [], []
    for chrom in CHROMS:
        starts, labels = labels_of(toy_dataset, chrom)
        clear = labels != AMBIGUOUS
        codes.append(toy_dataset.states("HepG2", chrom)[(starts[clear] + 100) // 200])
        bound.append(labels[clear] == BOUND)
    codes, bound = np.concatenate(codes), np.concatenate(bound)
    for state in result.states:
        here = codes == state.code
        assert (state.bound, state.unbound) == (int(bound[here].sum()), int((~bound[here]).sum()))
        if state.code:
            assert (state.name, state.color) == (model[state.code].label, model[state.code].color)
        measured = row.by_state[state.code]
        assert (measured is None) == (state.bound == 0 or state.unbound == 0)
        if measured:
            assert (measured.num_bins, measured.num_bound) == (int(here.sum()), state.bound)
