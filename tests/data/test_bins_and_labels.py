"""The benchmark's bins of a dataset, datasets without a sequence, and label tables in and out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from ebert_core.artifacts import MANIFEST_NAME
from ebert_core.config import PrepareConfig
from ebert_core.data.dataset import Dataset, MissingSequenceError
from ebert_core.data.label_export import write_labels
from ebert_core.data.prepare import prepare
from ebert_core.data.windows import WindowReader, eligible_starts
from ebert_core.errors import EbertError, InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import benchmark_bin_starts
from ebert_core.genome.regions import whole
from ebert_core.reporting import SILENT

LENGTHS = {"chr2": 4_000, "chr10": 3_050, "chr1": 2_345, "chrM": 500}
SIZES = "".join(f"{chrom}\t{length}\n" for chrom, length in LENGTHS.items())
REGIONS = "chr2\t600\t1000\nchr2\t1200\t1400\nchr1\t50\t300\n"
# The bins that tile them, in the challenge's order of chromosomes.
TILES = {"chr1": [50, 100], "chr2": [600, 650, 700, 750, 800, 1200]}
PEAKS = {"K562": "chr2\t700\t900\nchr1\t60\t200\n", "HepG2": "chr2\t1250\t1390\n", "A549": "chr10\t900\t1100\n"}


class World:
    """A folder of inputs, and datasets of chromosome sizes made from them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "dataset"
        self.sizes = self.write("toy.chrom.sizes", SIZES)
        self.regions = self.write("regions.bed", REGIONS)
        self.exclude = self.write("exclude.bed", "chr2\t2000\t2110\nchr10\t0\t700\n")
        for cell, rows in PEAKS.items():
            self.chip = self.write(f"chip/CTCF.{cell}.bed", rows).parent

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    def prepare(self, reporter=None, output=None, **options) -> Dataset:
        config = PrepareConfig(output=output or self.output, **options)
        return prepare(config, reporter or SILENT).dataset

    def make(self, reporter=None, output=None, **options) -> Dataset:
        return self.prepare(reporter, output, genome=self.sizes, **options)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def labelled(dataset, tf, cell):
    """{(chrom, start): letter} of every labelled bin."""
    found = {}
    for chrom in dataset.assembly.chroms:
        labels = dataset.labels(tf, cell, chrom)
        found |= {(chrom, 50 * int(place)): "-UAB"[labels[place]] for place in np.flatnonzero(labels)}
    return found


def table_text(rows, cells=("K562",)):
    return "\t".join(["chr", "start", "stop", *cells]) + "\n" + "".join(f"{row}\n" for row in rows)


def row(chrom, start, letters):
    return "\t".join([chrom, str(start), str(start + 200), *letters])


# The benchmark's bins


def test_regions_decide_the_bins(world, said):
    dataset = world.make(said, regions=world.regions, exclude=(world.exclude,))
    bins = dataset.benchmark_bins()
    assert {chrom: bins.starts(chrom).tolist() for chrom in bins.chroms} == TILES
    assert bins.assembly == dataset.assembly
    assert "regions: 8 of the benchmark's bins on 2 sequence(s)" in said.said
    reopened = Dataset.open(world.output)
    assert reopened.benchmark_bins().num_rows() == 8
    assert [edges.tolist() for edges in reopened.excluded("chr2")] == [[2000], [2110]]


def test_without_regions_the_exclusion_list_decides(world):
    bins = world.make(exclude=(world.exclude,)).benchmark_bins()
    gone = (np.array([2000]), np.array([2110]))
    assert bins.starts("chr2").tolist() == benchmark_bin_starts(4_000, gone).tolist()
    assert bins.chroms == ("chr1", "chr10", "chr2")
    assert bins.num_rows() == sum(len(bins.starts(chrom)) for chrom in LENGTHS)


def test_labels_are_made_on_the_regions_bins(world):
    dataset = world.make(regions=world.regions, chip=world.chip / "CTCF.K562.bed")
    assert labelled(dataset, "CTCF", "K562") == {
        ("chr1", 50): "B", ("chr1", 100): "B",
        ("chr2", 600): "B", ("chr2", 650): "B", ("chr2", 700): "B", ("chr2", 750): "B", ("chr2", 800): "B",
        ("chr2", 1200): "U",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("first", "then", "problem"),
    [
        ("regions.bed", "other.bed", "was made with another regions file"),
        (None, "regions.bed", "was made without a regions file"),
    ],
)
def test_the_bins_of_a_dataset_cannot_change(world, digest_tree, first, then, problem):
    world.write("other.bed", "chr2\t600\t1000\n")
    world.make(regions=first and world.folder / first)
    before = digest_tree(world.output)
    for overwrite in (False, True):
        with pytest.raises(EbertError, match=problem) as caught:
            world.prepare(regions=world.folder / then, overwrite=overwrite)
        assert "--overwrite" in caught.value.hint
    assert digest_tree(world.output) == before
    assert world.make(regions=world.folder / then, overwrite=True).benchmark_bins().num_rows() > 0


def test_the_same_regions_may_be_named_again(world):
    world.make(regions=world.regions)
    world.prepare(regions=world.regions, chip=world.chip)
    assert world.prepare().benchmark_bins().num_rows() == 8


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("chr2\t600\t1010\n", "line 1: region 600-1,010 is no multiple of 50 bp long"),
        ("chr2\t600\t1000\nchr2\t900\t1200\n", "line 2: region 900-1,200 overlaps 600-1,000 of line 1"),
        ("chr2\t600\t4050\n", "line 1: end 4,050 is past the end of chr2"),
        ("chrQ\t600\t900\n", "has no row on the genome's chromosomes"),
        ("", "has no data lines"),
    ],
)
def test_regions_that_cannot_be(world, digest_tree, text, problem):
    path = world.write("bad.bed", text)
    before = digest_tree(world.folder)
    with pytest.raises(InputError, match=problem) as caught:
        world.make(regions=path)
    assert "bad.bed" in caught.value.message
    assert digest_tree(world.folder) == before


def test_a_missing_regions_file(world):
    with pytest.raises(InputError, match="is not there") as caught:
        world.make(regions=world.folder / "no.bed")
    assert "--regions" in caught.value.hint


# A dataset without a sequence


def test_chromosome_sizes_make_a_dataset_for_labels(world, said):
    dataset = world.make(said, chip=world.chip)
    assert dict(zip(dataset.assembly.chroms, dataset.assembly.lengths, strict=True)) == LENGTHS
    assert not dataset.has_sequence
    assert dataset.cells_of("CTCF") == ("A549", "HepG2", "K562")
    assert any("chromosome sizes alone" in text for text in said.said)
    assert json.loads((world.output / MANIFEST_NAME).read_text())["sequence"] is None
    assert not (world.output / "sequence.npy").exists()


def test_asking_for_the_sequence_says_what_to_do(world):
    dataset = world.make()
    for ask in (
        lambda: dataset.flat_sequence,
        lambda: dataset.sequence("chr1"),
        lambda: dataset.digests([]),
        lambda: eligible_starts(dataset, whole(dataset.assembly), 200),
        lambda: WindowReader(dataset, [None], 200),
    ):
        with pytest.raises(MissingSequenceError, match="holds no sequence") as caught:
            ask()
        assert "--genome" in caught.value.hint


def test_a_built_in_genome_needs_no_file(world):
    dataset = world.prepare(genome=Path("hg19"), chroms=("chr22", "21"))
    assert dataset.assembly.chroms == ("chr22", "chr21")
    assert dataset.assembly.name == "hg19"
    assert world.prepare(genome=Path("hg19")).assembly == dataset.assembly
    with pytest.raises(EbertError, match="was made from another genome"):
        world.make()
    with pytest.raises(EbertError, match="other chromosomes"):
        world.prepare(genome=Path("hg19"), chroms=("chr1",))
    whole_genome = world.prepare(genome=Path("hg19"), output=world.folder / "whole")
    assert whole_genome.assembly == Assembly.built_in("hg19")


def test_an_index_of_a_genome_will_do(world):
    index = world.write("toy.fa.fai", "chr7\t900\t6\t60\t61\nchr8\t1300\t930\t60\t61\n")
    assert world.prepare(genome=index).assembly.lengths == (900, 1300)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no data lines"),
        ("chr1\n", r"line 1: has 1 column\(s\), expected at least 2"),
        ("chr1\tlong\n", "line 1: length is 'long', expected a whole number"),
        ("chr1\t9\nchr2\t0\n", "line 2: 'chr2' has 0 bp"),
        ("chr1\t9\n\t5\n", "line 2: '' has 5 bp"),
        ("chr1\t9\nchr1\t9\n", "line 2: gives chr1 for the second time"),
        (None, "is not there"),
    ],
)
def test_bad_sizes(world, text, problem):
    path = world.folder / "bad.chrom.sizes" if text is None else world.write("bad.chrom.sizes", text)
    with pytest.raises(InputError, match=problem) as caught:
        world.prepare(genome=path)
    assert caught.value.hint
    assert not world.output.exists()


def test_sizes_may_be_named_again(world):
    world.make()
    assert world.make(chip=world.chip).tfs == ("CTCF",)


# Label tables, read


def test_every_column_of_a_table_becomes_labels(world, said):
    rows = [row("chr1", 50, "UB"), row("chr1", 100, "AU"), row("chr2", 600, "BB"), row("chr2", 1200, "UA")]
    path = world.write("tables/CTCF.train.labels.tsv.gz", table_text(rows, ("K562", "E118")))
    dataset = world.make(said, regions=world.regions, chip=path.parent)
    assert dataset.label_pairs == (("CTCF", "HepG2"), ("CTCF", "K562"))
    assert labelled(dataset, "CTCF", "K562") == {
        ("chr1", 50): "U", ("chr1", 100): "A", ("chr2", 600): "B", ("chr2", 1200): "U"
    }  # fmt: skip
    assert labelled(dataset, "CTCF", "HepG2") == {
        ("chr1", 50): "B", ("chr1", 100): "U", ("chr2", 600): "B", ("chr2", 1200): "A"
    }  # fmt: skip
    assert dataset.assayed_chroms("CTCF", "K562") == ("chr2", "chr1")
    assert dataset.manifest["labels"]["CTCF"]["K562"]["bins"] == {"unbound": 2, "ambiguous": 1, "bound": 1}
    assert dataset.manifest["labels"]["CTCF"]["K562"]["sources"][0]["name"] == path.name
    assert said.warned == ["CTCF.train.labels.tsv.gz: 4 bins of the dataset have no row and stay unlabelled"]


def test_rows_and_bins_without_a_counterpart_are_counted_and_told(world, said):
    rows = [row("chr1", 50, "B"), row("chr1", 150, "U"), row("chrX", 600, "U"), row("chrX", 650, "U")]
    path = world.write("CTCF.labels.tsv", table_text(rows))
    dataset = world.make(said, regions=world.regions, chip=path)
    assert labelled(dataset, "CTCF", "K562") == {("chr1", 50): "B"}
    assert said.warned == [
        "CTCF.labels.tsv: 1 rows are no bins of the dataset and were left out",
        "CTCF.labels.tsv: 1 bins of the dataset have no row and stay unlabelled",
    ]
    assert any("2 rows lie on chromosomes that the genome lacks (chrX)" in text for text in said.said)
    assert any("has no row on chr2; bins there stay unlabelled" in text for text in said.said)


def test_tables_of_one_tf_are_joined(world):
    world.write("tables/CTCF.train.labels.tsv", table_text([row("chr2", 600, "BU")], ("K562", "A549")))
    world.write("tables/ctcf.test.labels.tsv", table_text([row("chr1", 50, "B")]))
    world.write("tables/CTCF.more.labels.tsv", table_text([row("chr1", 50, "A")], ("A549",)))
    world.write("tables/MAX.labels.tsv", table_text([row("chr1", 50, "U")]))
    world.write("tables/MAX.HepG2.bed", "chr2\t600\t800\n")
    dataset = world.make(regions=world.regions, chip=world.folder / "tables")
    assert dataset.label_pairs == (("CTCF", "A549"), ("CTCF", "K562"), ("MAX", "HepG2"), ("MAX", "K562"))
    assert labelled(dataset, "CTCF", "K562") == {("chr1", 50): "B", ("chr2", 600): "B"}
    assert labelled(dataset, "CTCF", "A549") == {("chr1", 50): "A", ("chr2", 600): "U"}
    assert len(dataset.manifest["labels"]["CTCF"]["K562"]["sources"]) == 2
    again = prepare(PrepareConfig(output=world.output, chip=world.folder / "tables"))
    assert (again.kept["labels"], again.added["labels"]) == (4, 0)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (
            {"CTCF.a.labels.tsv": [row("chr1", 50, "B")], "CTCF.b.labels.tsv": [row("chr1", 100, "U")]},
            r"CTCF\.b\.labels\.tsv: has labels of K562 on chr1, as CTCF\.a\.labels\.tsv has",
        ),
        ({"CTCF.a.labels.tsv": [row("chr1", 50, "B")], "CTCF.K562.bed": None}, "is the second file for CTCF in K562"),
        ({"CTCF.labels.tsv": [row("chr1", 50, "X")]}, "line 2: label is 'X', expected U, A or B"),
        ({"CTCF.labels.tsv": [row("chr1", 50, "B")] * 2}, "line 3: chr1:50 is out of order or given twice"),
        ({"CTCF.labels.tsv": [row("chr1", 2200, "B")]}, "line 2: chr1:2,200-2,400 is no bin of the benchmark"),
        ({"CTCF.labels.tsv": [row("chrQ", 50, "B")]}, "has no row on chr2"),
        ({"CTCF.labels.tsv": []}, "has no row on chr2"),
    ],
)
def test_tables_that_cannot_be(world, digest_tree, files, problem):
    for name, rows in files.items():
        world.write(f"tables/{name}", "chr1\t60\t200\n" if rows is None else table_text(rows))
    world.make(regions=world.regions)
    before = digest_tree(world.output)
    with pytest.raises(InputError, match=problem) as caught:
        world.prepare(chip=world.folder / "tables")
    assert caught.value.hint
    assert digest_tree(world.output) == before


def test_two_columns_of_one_cell_type(world):
    path = world.write("CTCF.labels.tsv", table_text([row("chr1", 50, "BU")], ("E118", "HepG2")))
    with pytest.raises(InputError, match=r"line 1: has two columns for HepG2, one of them 'HepG2'"):
        world.make(regions=world.regions, chip=path)


def test_another_table_needs_overwrite(world):
    path = world.write("CTCF.labels.tsv", table_text([row("chr1", 50, "B")]))
    world.make(regions=world.regions, chip=path)
    world.write("CTCF.labels.tsv", table_text([row("chr1", 50, "U")]))
    with pytest.raises(EbertError, match=r"already holds CTCF labels of K562, from CTCF\.labels\.tsv"):
        world.prepare(chip=path)
    assert labelled(world.prepare(chip=path, overwrite=True), "CTCF", "K562") == {("chr1", 50): "U"}


def test_a_cut_table_leaves_the_dataset_as_it_was(world, digest_tree):
    world.make(regions=world.regions, chip=world.chip)
    path = world.write("MAX.labels.tsv.gz", table_text([row("chr2", 50 * n, "U") for n in range(75)]))
    path.write_bytes(path.read_bytes()[:-20])
    before = digest_tree(world.output)
    with pytest.raises(InputError, match="truncated or damaged gzip"):
        world.prepare(chip=path)
    assert digest_tree(world.output) == before


# Label tables, written


def test_labels_tables_and_labels_again_are_equal(world):
    world.write("chip/MAX.K562.bed", "chr2\t2500\t2700\nchr10\t1500\t1600\n")
    first = world.make(chip=world.chip, exclude=(world.exclude,), write_labels=world.folder / "tables")
    second = world.make(chip=world.folder / "tables", exclude=(world.exclude,), output=world.folder / "second")
    assert sorted(path.name for path in (world.folder / "tables").iterdir()) == [
        "CTCF.labels.tsv.gz",
        "MAX.labels.tsv.gz",
    ]
    assert second.label_pairs == first.label_pairs
    for tf, cell in first.label_pairs:
        np.testing.assert_array_equal(second.flat_packed_labels(tf, cell), first.flat_packed_labels(tf, cell))
        assert set(labelled(first, tf, cell).values()) >= {"U", "B"}
        assert second.assayed_chroms(tf, cell) == first.assayed_chroms(tf, cell)


def test_a_table_is_the_challenges(world):
    dataset = world.make(regions=world.regions, chip=world.chip)
    (path,) = write_labels(dataset, world.folder / "new" / "tables")
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    assert lines[0] == "chr\tstart\tstop\tA549\tHepG2\tK562"
    expected = [(chrom, start) for chrom in ("chr1", "chr2") for start in TILES[chrom]]
    assert [tuple(line.split("\t")[:3]) for line in lines[1:]] == [(c, str(s), str(s + 200)) for c, s in expected]
    for column, cell in enumerate(("A549", "HepG2", "K562"), start=3):
        letters = labelled(dataset, "CTCF", cell)
        assert [line.split("\t")[column] for line in lines[1:]] == [letters[place] for place in expected]


def test_what_only_some_cell_types_have_is_left_out_and_told(world, said):
    rows = [row("chr1", 50, "B"), row("chr2", 600, "U"), row("chr2", 650, "U")]
    world.write("tables/CTCF.a.labels.tsv", table_text(rows))
    world.write("tables/CTCF.b.labels.tsv", table_text([row("chr2", 650, "A"), row("chr2", 700, "B")], ("A549",)))
    dataset = world.make(regions=world.regions, chip=world.folder / "tables")
    (path,) = write_labels(dataset, world.folder / "out", reporter=said)
    assert gzip.decompress(path.read_bytes()).decode() == table_text([row("chr2", 650, "AU")], ("A549", "K562"))
    assert said.warned == [
        "CTCF.labels.tsv.gz: chromosomes labelled in some cell types only (chr1) and 2 more bins labelled in some cell "
        "types only were left out"
    ]


def test_tables_are_neither_overwritten_nor_half_written(world, digest_tree):
    world.write("chip/MAX.K562.bed", "chr2\t2500\t2700\n")
    dataset = world.make(chip=world.chip)
    folder = world.folder / "out"
    write_labels(dataset, folder)
    (folder / "CTCF.labels.tsv.gz").unlink()
    before = digest_tree(folder)
    with pytest.raises(EbertError, match=r"MAX\.labels\.tsv\.gz already exists") as caught:
        write_labels(dataset, folder)
    assert "--overwrite" in caught.value.hint
    assert digest_tree(folder) == before
    assert len(write_labels(dataset, folder, overwrite=True)) == 2


def test_tables_that_cannot_be_written(world):
    with pytest.raises(EbertError, match="holds no labels") as caught:
        world.make(write_labels=world.folder / "out")
    assert "--chip" in caught.value.hint
    world.write("tables/CTCF.a.labels.tsv", table_text([row("chr1", 650, "B")]))
    world.write("tables/CTCF.b.labels.tsv", table_text([row("chr2", 650, "A")], ("A549",)))
    with pytest.raises(EbertError, match=r"no chromosome is labelled in all cell types of CTCF \(A549, K562\)"):
        world.prepare(chip=world.folder / "tables", write_labels=world.folder / "out")
    assert not (world.folder / "out").exists()
    assert Dataset.open(world.output).tfs == ("CTCF",), "the labels were added all the same"
    world.write("file", "")
    with pytest.raises(InputError, match="file: is no folder"):
        world.prepare(write_labels=world.folder / "file")


def test_a_table_is_never_written_over_a_folder(world):
    dataset = world.make(chip=world.chip)
    (world.folder / "out" / "CTCF.labels.tsv.gz").mkdir(parents=True)
    with pytest.raises(EbertError, match=r"CTCF\.labels\.tsv\.gz is a folder, expected a file"):
        write_labels(dataset, world.folder / "out", overwrite=True)


def test_a_table_of_other_bins_is_refused(world, digest_tree):
    dataset = world.make(regions=world.regions)
    before = digest_tree(world.output)
    world.write("CTCF.labels.tsv", table_text([row("chr2", 2000, "B")]))
    with pytest.raises(InputError, match=r"has no row that is a bin of the dataset \(8 bins\)"):
        world.prepare(chip=world.folder / "CTCF.labels.tsv")
    assert digest_tree(dataset.path) == before


@pytest.mark.real
def test_the_challenges_bins_and_labels_of_a_real_tf(tmp_path, real_data):
    chip = real_data / "chip" / "dream"
    sheet = tmp_path / "chip.tsv"
    names = [chip / f"ChIPseq.HeLa-S3.CTCF.{kind}.narrowPeak.gz" for kind in ("conservative.train", "relaxed")]
    sheet.write_text("tf\tcell\tpeaks\trelaxed\nCTCF\tHeLa-S3\t{}\t{}\n".format(*names))
    regions = real_data / "dream" / "test_regions.blacklistfiltered.merged.bed"
    options = {"genome": Path("hg19"), "regions": regions, "chip": sheet}
    dataset = prepare(PrepareConfig(output=tmp_path / "a", write_labels=tmp_path / "tables", **options)).dataset
    assert dataset.benchmark_bins().num_rows() == 60_519_747
    counts = dataset.manifest["labels"]["CTCF"]["HeLa-S3"]
    assert counts["chroms"] == ["chr20", "chr22"]
    assert sum(counts["bins"].values()) == 1_258_450 + 1_025_608
    again = prepare(PrepareConfig(output=tmp_path / "b", **(options | {"chip": tmp_path / "tables"}))).dataset
    np.testing.assert_array_equal(
        again.flat_packed_labels("CTCF", "HeLa-S3"), dataset.flat_packed_labels("CTCF", "HeLa-S3")
    )
