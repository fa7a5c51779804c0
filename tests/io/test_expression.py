"""Expression tables: Roadmap's and RSEM's columns, and what is refused."""

from __future__ import annotations

import gzip
import math

import numpy as np
import pytest

from ebert_core.errors import InputError
from ebert_core.io.expression import gene_key, read_expression

# Roadmap's rows end with a tab.
ROADMAP = "gene_id\tE003\tE116\nENSG00000000003\t23.265\t0.038\t\nENSG00000000005.10\t0.000\t1e2\t\n"
RSEM = (
    "gene_id\ttranscript_id(s)\tlength\teffective_length\texpected_count\tTPM\tFPKM\n"
    "ENSG1.2\tENST1.1,ENST2.1\t1200.00\t1100.00\t10.00\t3.50\t2.10\nCTCF\tENST3\t1.0\t1.0\t0.00\t0.00\t0.00\n"
)


def test_genes_by_cell_types(tmp_path):
    for name, content in (("a.txt", ROADMAP.encode()), ("a.pc.gz", gzip.compress(ROADMAP.encode()))):
        (tmp_path / name).write_bytes(content)
        table = read_expression(tmp_path / name)
        assert table.cells == ("E003", "E116")
        assert table.genes == ["ENSG00000000003", "ENSG00000000005"]
        assert table.values.tolist() == [[23.265, 0.038], [0.0, 100.0]]


def test_one_sample_of_rsem(tmp_path):
    (tmp_path / "a.tsv").write_text(RSEM.replace("\n", "\r\n"))
    table = read_expression(tmp_path / "a.tsv")
    assert table.cells is None
    assert table.genes == ["ENSG1", "CTCF"]
    assert table.values.tolist() == [[3.5], [0.0]]


@pytest.mark.parametrize(
    ("gene", "key"),
    [
        ("ENSG00000102974.9", "ENSG00000102974"), ("ENSMUSG00000005698.15", "ENSMUSG00000005698"), ("ctcf", "CTCF"),
        ("ENSG00000182378.8_PAR_Y", "ENSG00000182378.8_PAR_Y"), ("AC000068.5", "AC000068.5"), ("C1orf50", "C1ORF50"),
    ],
)  # fmt: skip
def test_keys(gene, key):
    assert gene_key(gene) == key


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "expected a header"),
        ("gene_id\n", 1, "expected a header"),
        ("gene_id\tK562\t\nCTCF\t1\t2\n", 1, "expected a header"),
        ("gene_id\tK562\tK562\nCTCF\t1\t2\n", 1, "has the column 'K562' twice"),
        ("gene_id\tK562\n", None, "has no genes"),
        ("gene_id\tK562\nCTCF\t1\nMAX\n", 3, "has 1 column"),
        ("gene_id\tK562\nCTCF\t1\t2\n", 2, "has 3 fields, the header has 2"),
        ("gene_id\tK562\nCTCF\t1\t\t\n", 2, "has 4 fields, the header has 2"),
        ("gene_id\tK562\nCTCF\tNA\n", 2, "K562 is 'NA', expected a number"),
        ("gene_id\tK562\nCTCF\t-1\n", 2, "K562 is -1, expected 0 or more"),
        ("gene_id\tK562\nCTCF\tnan\n", 2, "K562 is nan, expected 0 or more"),
        ("gene_id\tK562\nCTCF\t1\nMAX\t1\nctcf\t1\n", 4, "gives CTCF again, after line 2"),
        ("gene_id\tK562\nCTCF\t1\n\t1\n", 3, "names no gene"),
    ],
)
def test_tables_that_cannot_be(tmp_path, text, line, problem):
    (tmp_path / "a.tsv").write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
        read_expression(tmp_path / "a.tsv")
    assert caught.value.line == line
    assert caught.value.hint


@pytest.mark.real
def test_roadmaps_table(real_data):
    table = read_expression(real_data / "rna" / "57epigenomes.RPKM.pc.gz")
    assert len(table.cells) == 57
    with gzip.open(real_data / "rna" / "57epigenomes.RPKM.pc.gz", "rt") as handle:
        names = handle.readline().split()
        row = next(line.split() for line in handle if line.startswith("ENSG00000102974\t"))
    values = table.values[table.genes.index("ENSG00000102974")]
    assert values.tolist() == [float(value) for value in row[1:]]
    assert table.cells == tuple(names[1:])
    assert np.isfinite(values).all()
    assert math.log1p(values.max()) < 20
