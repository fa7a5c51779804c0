"""The final round: which files are an entry, what its labels must be, and the ranks that come out."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from ebert_core.errors import EbertError, InputError
from ebert_core.evaluation import challenge
from ebert_core.evaluation.evaluate import EvaluationConfig
from ebert_core.evaluation.measures import measure
from ebert_core.evaluation.ranking import FINAL_PAIRS, rank_entry
from ebert_core.evaluation.truth_files import TruthFiles, find_truth
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import BenchmarkBins
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND
from ebert_core.io.bigwig import BigWigWriter
from ebert_core.io.labels import write_label_table

SIZES = [("chr1", 90_000), ("chr2", 20_000), ("chr8", 60_000), ("chr21", 40_000)]
ASSEMBLY = Assembly.from_sizes(SIZES)
BINS = BenchmarkBins.from_exclusion(ASSEMBLY, lambda _: (np.empty(0, np.int64), np.empty(0, np.int64)))
ROW_ORDER = ("chr1", "chr21", "chr8")


def drawn(chrom, tf):
    """Starts, label codes and scores of a chromosome."""
    rng = np.random.default_rng([len(tf), ord(tf[0]), *map(ord, chrom)])
    starts = BINS.starts(chrom)
    labels = rng.choice([UNBOUND, AMBIGUOUS, BOUND], len(starts), p=[0.9, 0.04, 0.06]).astype(np.uint8)
    return starts, labels, (rng.random(len(starts)) * 0.6 + 0.4 * (labels == BOUND)).astype(np.float32)


def write_bigwig(path, tf):
    path.parent.mkdir(exist_ok=True)
    with BigWigWriter(path, ASSEMBLY) as writer:
        for chrom in ASSEMBLY.chroms:
            starts, _, scores = drawn(chrom, tf)
            writer.write_fixed_step(chrom, int(starts[0]) + 75, scores, 50, 50)
    return path


def write_submission(path, tf, chroms):
    rows = []
    for chrom in chroms:
        starts, _, scores = drawn(chrom, tf)
        rows += [f"{chrom}\t{a}\t{a + 200}\t{b:.9g}\n" for a, b in zip(starts.tolist(), scores.tolist(), strict=True)]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress("".join(rows).encode(), mtime=0))
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Labels of two final pairs on a small genome, and the challenge's rows made to fit it."""
    monkeypatch.setattr(challenge, "RANKED_ROWS", {chrom: BINS.num_rows([chrom]) for chrom in ROW_ORDER})
    (tmp_path / "labels").mkdir()
    for tf, cell in (("CTCF", "PC-3"), ("E2F1", "K562")):
        rows = {chrom: (drawn(chrom, tf)[0], drawn(chrom, tf)[1][:, None]) for chrom in BINS.chroms}
        write_label_table(tmp_path / "labels" / f"{tf}.test.labels.tsv.gz", [cell], rows)
    (tmp_path / "regions.bed").write_text("".join(f"{c}\t600\t{BINS.starts(c)[-1] + 200}\n" for c, _ in SIZES))
    return tmp_path


def final_round(folder, paths, **options):
    config = EvaluationConfig(with_baselines=False, resampling=None)
    truth = TruthFiles(labels=folder / "labels", **options)
    return challenge.final_round("ours", paths, truth, config)


def test_a_file_that_does_not_say_what_it_is(folder):
    path = write_bigwig(folder / "entry" / "mine.bw", "CTCF")
    with pytest.raises(InputError, match="does not say which TF"):
        final_round(folder, [path])
    with pytest.raises(EbertError, match="no prediction of a pair"):
        final_round(folder, [path.parent])


@pytest.mark.parametrize("name", ["CTCF.PC-3.bw", "F.ctcf.PC3.bigWig"])
def test_a_bigwig_may_be_called_after_its_pair(folder, name):
    path = write_bigwig(folder / "entry" / name, "CTCF")
    for entry in (path, path.parent):
        evaluations, ranks = final_round(folder, [entry])
        assert [(each.tf, each.cell) for each in ranks.pairs] == [("CTCF", "PC-3")]
    submission = write_submission(folder / "other" / "F.CTCF.PC-3.tab.gz", "CTCF", ("chr1", "chr2", "chr21", "chr8"))
    theirs, same = final_round(folder, [submission], regions=folder / "regions.bed")
    assert theirs[0].rows[0].measures == evaluations[0].rows[0].measures
    assert same == ranks


@pytest.mark.parametrize(("letter", "chroms"), [("F", ("chr1", "chr2", "chr21", "chr8")), ("L", ROW_ORDER)])
def test_subsamples_follow_the_rows_of_the_challenge(folder, letter, chroms):
    first = write_submission(folder / "entry" / f"{letter}.CTCF.PC-3.tab.gz", "CTCF", chroms)
    evaluations, ranks = final_round(folder, [first], regions=folder / "regions.bed")
    (row,) = evaluations[0].rows
    assert evaluations[0].chroms == ROW_ORDER
    labels = np.concatenate([drawn(chrom, "CTCF")[1] for chrom in ROW_ORDER])
    scores = np.concatenate([drawn(chrom, "CTCF")[2] for chrom in ROW_ORDER])
    # Slow reading of the rule: leave out the first tenth of every class in row order.
    keep = np.ones(len(labels), bool)
    for code in (UNBOUND, BOUND):
        here = np.flatnonzero(labels == code)
        keep[here[: -(-len(here) // 10)]] = False
    keep &= labels != AMBIGUOUS
    expected = measure(scores[keep], labels[keep] == BOUND)
    np.testing.assert_allclose(
        row.subsamples[0],
        [expected.auroc, expected.auprc, expected.recall_at_fdr[50], expected.recall_at_fdr[10]],
        rtol=0,
        atol=1e-12,
    )
    assert ranks == rank_entry("ours", {("CTCF", "PC-3"): row.subsamples})
    assert ranks.missing == tuple(pair for pair in FINAL_PAIRS if pair != ("CTCF", "PC-3"))


def test_two_predictions_for_one_pair(folder):
    write_submission(folder / "entry" / "L.CTCF.PC-3.tab.gz", "CTCF", ROW_ORDER)
    write_submission(folder / "entry" / "F.CTCF.PC3.tab.gz", "CTCF", ROW_ORDER)
    with pytest.raises(InputError, match=r"L\.CTCF\.PC-3\.tab\.gz: is the second prediction for CTCF in PC-3"):
        challenge.find_entry([folder / "entry"])


def test_files_of_other_pairs_are_left_out_and_told(folder):
    write_submission(folder / "entry" / "L.CTCF.PC-3.tab.gz", "CTCF", ROW_ORDER)
    write_submission(folder / "entry" / "L.MAX.K562.tab.gz", "MAX", ROW_ORDER)
    found, notes = challenge.find_entry([folder / "entry"])
    assert list(found) == [("CTCF", "PC-3")]
    assert notes == ["L.MAX.K562.tab.gz: MAX in K562 is no pair of the final round and was left out"]
    with pytest.raises(EbertError, match="no prediction of a pair of the final round") as caught:
        challenge.find_entry([folder / "entry" / "L.MAX.K562.tab.gz"])
    assert "NANOG in induced_pluripotent_stem_cell" in caught.value.hint


def test_labels_on_other_rows_are_refused(folder, monkeypatch):
    path = write_submission(folder / "entry" / "L.CTCF.PC-3.tab.gz", "CTCF", ROW_ORDER)
    rows = dict(challenge.RANKED_ROWS)
    monkeypatch.setattr(challenge, "RANKED_ROWS", rows | {"chr8": rows["chr8"] + 1})
    with pytest.raises(EbertError, match=rf"{rows['chr8']:,} rows on chr8, the challenge has {rows['chr8'] + 1:,}"):
        final_round(folder, [path], regions=folder / "regions.bed")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda labels: (labels / "CTCF.test.labels.tsv.gz").unlink(), "has no label table of CTCF"),
        (
            lambda labels: write_label_table(
                labels / "CTCF.test.labels.tsv.gz", ["liver"], {"chr1": (BINS.starts("chr1")[:1], np.array([[1]]))}
            ),
            "has no cell type 'PC-3'",
        ),
        (
            lambda labels: (labels / "CTCF.more.labels.tsv.gz").write_bytes(
                (labels / "CTCF.test.labels.tsv.gz").read_bytes()
            ),
            "is the second label table of CTCF with PC-3",
        ),
    ],
)
def test_label_tables_that_do_not_serve(folder, change, words):
    path = write_submission(folder / "entry" / "L.CTCF.PC-3.tab.gz", "CTCF", ROW_ORDER)
    change(folder / "labels")
    with pytest.raises(InputError, match=words):
        final_round(folder, [path], regions=folder / "regions.bed")


def test_a_label_table_of_another_tf(folder):
    path = write_submission(folder / "entry" / "L.CTCF.PC-3.tab.gz", "CTCF", ROW_ORDER)
    files = TruthFiles(labels=folder / "labels" / "E2F1.test.labels.tsv.gz", regions=folder / "regions.bed")
    with pytest.raises(InputError, match="is called after E2F1, the predictions are of CTCF"):
        find_truth(("CTCF", "PC-3"), files, [path], None)


def test_a_submission_needs_the_bins_it_must_have(folder):
    path = write_submission(folder / "entry" / "L.CTCF.PC-3.tab.gz", "CTCF", ROW_ORDER)
    with pytest.raises(InputError, match="which rows it must have is not known") as caught:
        final_round(folder, [path])
    assert "--regions" in caught.value.hint
