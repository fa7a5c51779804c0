"""Intervals, differences and loci of a whole evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from ebert_core.errors import EbertError
from ebert_core.evaluation.evaluate import Contender, EvaluationConfig, evaluate
from ebert_core.evaluation.scoring import Resampling
from ebert_core.evaluation.truth import truth_from_peaks
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import BenchmarkBins
from ebert_core.genome.labels import BOUND
from ebert_core.io.bigwig import BigWigWriter


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("intervals")
    assembly = Assembly.from_sizes([("chr1", 6_000_000), ("chr2", 2_500_000)])
    rng = np.random.default_rng(4)
    bins = BenchmarkBins.from_exclusion(assembly, lambda _: (np.empty(0, np.int64), np.empty(0, np.int64)))
    rows = [(c, int(rng.integers(1000, n - 2000))) for c, n in zip(assembly.chroms, assembly.lengths, strict=True)
            for _ in range(n // 20_000)]  # fmt: skip
    peaks = folder / "p.bed"
    peaks.write_text("".join(f"{c}\t{start}\t{start + 300}\n" for c, start in rows))
    truth = truth_from_peaks(("CTCF", "K562"), bins, peaks)
    contenders = []
    for name, known in (("good", 0.4), ("poor", 0.1)):
        path = folder / f"{name}.bw"
        with BigWigWriter(path, assembly) as writer:
            for chrom in assembly.chroms:
                starts, labels = truth.on(chrom)
                scores = rng.random(len(starts)) * (1 - known) + known * (labels == BOUND)
                writer.write_fixed_step(chrom, int(starts[0]) + 75, scores.astype(np.float32), 50, 50)
        contenders.append(Contender(name, path))
    config = EvaluationConfig(with_baselines=False)
    return truth, contenders, evaluate(config, truth, contenders)


class TestIntervals:
    """Six Mb, two predictions of which the first knows more, no dataset."""

    def test_they_hold_their_figures(self, compared):
        _, _, result = compared
        assert (result.bootstrap.num_blocks, result.bootstrap.replicates) == (9, 1000)
        for row in result.rows:
            values = row.measures.as_dict()
            assert {"auroc", "auprc", "average_precision", "recall_at_10_fdr"} <= set(row.intervals)
            for key, interval in row.intervals.items():
                assert interval.lower <= values[key] <= interval.upper
            assert row.intervals["auprc"].lower < row.intervals["auprc"].upper

    def test_the_better_is_better(self, compared):
        truth, contenders, result = compared
        by_measure = {each.measure: each for each in result.differences}
        assert by_measure["auprc"].verdict == "better"
        assert by_measure["auprc"].share_above == 1.0
        first, second = (row.measures.auprc for row in result.rows)
        assert by_measure["auprc"].value == pytest.approx(first - second)
        turned = evaluate(EvaluationConfig(with_baselines=False), truth, contenders[::-1])
        assert {each.measure: each.verdict for each in turned.differences}["auprc"] == "worse"

    def test_equal_files_cannot_be_told_apart(self, compared):
        truth, contenders, _ = compared
        twins = [contenders[0], Contender("twin", contenders[0].path)]
        result = evaluate(EvaluationConfig(with_baselines=False), truth, twins)
        assert {each.verdict for each in result.differences} == {"undecided"}
        assert all(each.interval.lower == each.interval.upper == 0 for each in result.differences)

    def test_loci_show_every_labelled_bin(self, compared):
        truth, _, result = compared
        assert {locus.kind for locus in result.loci} == {"best hit", "worst miss", "worst false alarm"}
        for locus in result.loci:
            starts, _ = truth.on(locus.chrom)
            inside = starts[(starts + 75 >= locus.start) & (starts + 125 <= locus.end)]
            assert set(locus.tracks) == {"good", "poor"}
            for shown, scores in locus.tracks.values():
                np.testing.assert_array_equal(shown, inside)
                assert len(scores) == len(shown)
            assert locus.states is None

    def test_none_without_resamples(self, compared):
        truth, contenders, _ = compared
        result = evaluate(EvaluationConfig(with_baselines=False, resampling=None), truth, contenders)
        assert result.bootstrap is None
        assert result.differences == ()
        assert all(row.intervals == {} for row in result.rows)
        with pytest.raises(EbertError, match="99 resamples are too few"):
            Resampling(99)
