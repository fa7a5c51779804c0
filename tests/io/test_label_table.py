"""Label tables: a round trip, the challenge's own spelling, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebert_core.errors import InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND
from ebert_core.io import labels as label_tables
from ebert_core.io import portions
from ebert_core.io.labels import label_table_cells, read_label_table, write_label_table

ASSEMBLY = Assembly.from_sizes([("chr1", 5000), ("chr2", 3000), ("chr10", 4000)])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(["x.tsv", "x.tsv.gz"]), st.sampled_from([30, 1 << 24]), st.sampled_from([2, 1 << 18]))
def test_round_trip(tmp_path, data, name, portion_bytes, rows_at_once):
    cells = ("K562", "IMR-90", "H1-hESC")[: data.draw(st.integers(1, 3))]
    chroms = {}
    for chrom in data.draw(st.lists(st.sampled_from(ASSEMBLY.chroms), min_size=1, unique=True)):
        starts = np.array(sorted(data.draw(st.sets(st.integers(0, 50), min_size=1, max_size=9)))) * 50
        codes = data.draw(
            st.lists(st.integers(1, 3), min_size=len(starts) * len(cells), max_size=len(starts) * len(cells))
        )
        chroms[chrom] = starts, np.array(codes, np.uint8).reshape(-1, len(cells))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portions, "_PORTION_BYTES", portion_bytes)
        patch.setattr(label_tables, "_ROWS_AT_ONCE", rows_at_once)
        write_label_table(tmp_path / name, cells, chroms)
        assert label_table_cells(tmp_path / name) == cells
        for index, cell in enumerate(cells):
            table = read_label_table(tmp_path / name, ASSEMBLY, cell)
            assert (table.cell, table.cells, table.dropped) == (cell, cells, {})
            assert set(table.chroms) == set(chroms)
            for chrom, (starts, codes) in chroms.items():
                np.testing.assert_array_equal(table.chroms[chrom][0], starts)
                np.testing.assert_array_equal(table.chroms[chrom][1], codes[:, index])


def test_bytes_are_the_challenges_and_repeatable(tmp_path):
    codes = np.array([[UNBOUND, BOUND], [AMBIGUOUS, UNBOUND]], np.uint8)
    chroms = {"chr2": (np.array([600, 650]), codes), "chr10": (np.array([600]), codes[:1])}
    write_label_table(tmp_path / "a.tsv", ["A549", "MCF-7"], chroms)
    # chr10 before chr2: lexicographic, as the challenge orders its rows.
    assert (tmp_path / "a.tsv").read_text() == (
        "chr\tstart\tstop\tA549\tMCF-7\nchr10\t600\t800\tU\tB\nchr2\t600\t800\tU\tB\nchr2\t650\t850\tA\tU\n"
    )
    for name in ("b.tsv.gz", "c.tsv.gz"):
        write_label_table(tmp_path / name, ["A549", "MCF-7"], chroms)
    assert (tmp_path / "b.tsv.gz").read_bytes() == (tmp_path / "c.tsv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "b.tsv.gz").read_bytes()) == (tmp_path / "a.tsv").read_bytes()


def test_unlabelled_bins_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="unlabelled"):
        write_label_table(tmp_path / "a.tsv", ["A"], {"chr1": (np.array([600]), np.zeros((1, 1), np.uint8))})


HEAD = "chr\tstart\tstop\tK562\tIMR-90\n"


def save(tmp_path, text):
    path = tmp_path / "x.tsv"
    path.write_text(text)
    return path


def test_names_are_forgiving_and_strangers_counted(tmp_path):
    path = save(tmp_path, HEAD + "1\t600\t800\tU\tB\nchrX\t600\t800\tU\tU\nchrX\t650\t850\tU\tU\n")
    table = read_label_table(path, ASSEMBLY, "imr90")
    assert table.cell == "IMR-90"
    assert table.chroms["chr1"][1].tolist() == [BOUND]
    assert table.dropped == {"chrX": 2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: begins with ''"),
        ("chr1\t600\t800\tU\n", "line 1: begins with 'chr1 600 800 U'"),
        ("chr\tstart\tstop\n", "expected chr start stop and the cell types"),
        ("chr\tstart\tstop\tK562\tK562\n", "names a cell type twice"),
        ("chr\tstart\tstop\tK562\tk-562\n", r"names a cell type twice \(K562, k-562\)"),
        ("chr\tstart\tstop\t\tK562\n", "line 1: has a column without a name"),
        (HEAD, "has no row on chr1"),
        (HEAD + "chr1\t600\t800\tU\n", r"line 2: has 4 columns, the header has 5"),
        (HEAD + "chr1\t600\t800\tU\tU\nchr1\t700\t800\tU\tU\n", "line 3: chr1:700-800 is no bin"),
        (HEAD + "chr1\t610\t810\tU\tU\n", "line 2: chr1:610-810 is no bin"),
        (HEAD + "chr1\t4900\t5100\tU\tU\n", "line 2: chr1:4,900-5,100 is no bin"),
        (HEAD + "chr1\tx\t800\tU\tU\n", "line 2: start is 'x'"),
        (HEAD + "chr1\t600\t800\tX\tU\n", "line 2: label is 'X', expected U, A or B"),
        (HEAD + "chr1\t600\t800\tUU\tU\n", "line 2: label is 'UU'"),
        (HEAD + "chr1\t600\t800\t\tU\n", "line 2: label is ''"),
        (HEAD + "chr1\t650\t850\tU\tU\nchr1\t600\t800\tU\tU\n", "line 3: chr1:600 is out of order or given twice"),
        (HEAD + "chr1\t600\t800\tU\tU\nchr2\t600\t800\tU\tU\nchr1\t600\t800\tU\tU\n", "line 4: chr1:600 is out of"),
        (HEAD + "chrQ\t600\t800\tU\tU\n", "has no row on chr1"),
    ],
)
@pytest.mark.parametrize("portion_bytes", [16, 1 << 24])
def test_refusals(tmp_path, monkeypatch, text, words, portion_bytes):
    monkeypatch.setattr(portions, "_PORTION_BYTES", portion_bytes)
    with pytest.raises(InputError, match=words) as caught:
        read_label_table(save(tmp_path, text), ASSEMBLY, "K562")
    assert "x.tsv" in caught.value.message


def test_a_missing_file_a_missing_cell_and_a_cut_gzip(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        read_label_table(tmp_path / "no.tsv", ASSEMBLY, "K562")
    with pytest.raises(InputError, match="-: is no regular file, and a label table is read twice"):
        read_label_table(Path("-"), ASSEMBLY, "K562")
    path = save(tmp_path, HEAD + "chr1\t600\t800\tU\tB\n")
    with pytest.raises(InputError, match="has no cell type 'K526'") as caught:
        read_label_table(path, ASSEMBLY, "K526")
    assert "K562" in caught.value.hint
    for size in (15, 60):
        (tmp_path / "cut.tsv.gz").write_bytes(gzip.compress(path.read_bytes() * 9, mtime=0)[:size])
        with pytest.raises(InputError, match="truncated or damaged gzip"):
            read_label_table(tmp_path / "cut.tsv.gz", ASSEMBLY, "K562")
