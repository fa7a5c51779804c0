"""Cell-type names: every spelling of the Roadmap epigenomes, near misses, and names in file names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ebert_core.epigenome.cell_types import canonical_cell, cell_of_file, epigenome_id, fold, resolve_cell
from ebert_core.errors import EbertError, UnknownNameError

# Of the summary table: E001 to E129 without E060 and E064.
EPIGENOMES = [f"E{number:03}" for number in range(1, 130) if number not in (60, 64)]


@pytest.mark.parametrize(
    ("spellings", "canonical"),
    [
        (("HepG2", "E118", "hepg2", "HEP-G2", "Hep G2", "e118", "LIV.HEPG2.CNCR", "HepG2 Hepatocellular Carcinoma "
          "Cell Line"), "HepG2"),
        (("IMR90", "IMR-90", "imr_90", "E017"), "IMR-90"),
        (("HeLa-S3", "HeLaS3", "HeLa", "E117"), "HeLa-S3"),
        (("H1-hESC", "H1", "h1hesc", "E003"), "H1-hESC"),
        (("GM12878", "E116", "GM12878 Lymphoblastoid Cells"), "GM12878"),
        (("K562", "E123"), "K562"),
        (("liver", "Liver", "E066"), "liver"),
        (("A549", "E114"), "A549"),
        (("E001", "ES-I3_Cell_Line", "esc.i3"), "E001"),
        (("CD4_Memory_Primary_Cells", "E037"), "E037"),
    ],
)  # fmt: skip
def test_spellings_of_one_cell_type(spellings, canonical):
    assert {canonical_cell(spelling) for spelling in spellings} == {canonical}


def test_all_127_epigenomes_are_known_and_distinct():
    assert len({canonical_cell(eid) for eid in EPIGENOMES}) == 127
    assert [epigenome_id(canonical_cell(eid)) for eid in EPIGENOMES] == EPIGENOMES
    assert epigenome_id("MCF-7") == ""


@pytest.mark.real
def test_names_equal_those_of_the_summary_table(real_data):
    table = (real_data / "rna" / "Consolidated_EpigenomeIDs_summary_Table.tsv").read_text(errors="replace")
    header, *rows = (line.split("\t") for line in table.splitlines())
    column = next(i for i, name in enumerate(header) if "mnemonic" in name.lower())
    eid = next(i for i, name in enumerate(header) if re.search(r"\bEID\b", name))
    seen = {row[eid]: row[column] for row in rows if len(row) > max(eid, column) and row[eid] in EPIGENOMES}
    assert len(seen) == 127
    for epigenome, mnemonic in seen.items():
        assert canonical_cell(mnemonic) == canonical_cell(epigenome)


def test_a_name_of_no_epigenome_is_kept_as_it_is():
    assert canonical_cell("MCF-7") == "MCF-7"
    assert canonical_cell("E060") == "E060"
    assert canonical_cell("") == ""


def test_a_description_of_two_epigenomes_names_neither():
    assert canonical_cell("Primary T helper naive cells from peripheral blood") not in ("E038", "E039")


def test_an_alias_goes_first():
    aliases = {"liver": "hepatocytes", "my cells": "MCF-7"}
    assert canonical_cell("Liver", aliases) == "hepatocytes"
    assert canonical_cell("MY-CELLS", aliases) == "MCF-7"
    assert canonical_cell("K562", aliases) == "K562"


def test_fold():
    assert fold("HeLa-S3") == fold("helas3") == "helas3"
    assert fold("+-.") == ""
    assert fold("Müller 1") == "müller1"


def test_resolve_takes_any_spelling():
    known = ["HepG2", "MCF-7", "IMR-90"]
    for spelling in ("HepG2", "E118", "hepg2", "HEP-G2"):
        assert resolve_cell(spelling, known) == "HepG2"
    assert resolve_cell("mcf7", known) == "MCF-7"
    assert resolve_cell("E017", known) == "IMR-90"
    assert resolve_cell("breast", known, {"Breast": "MCF-7"}) == "MCF-7"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("HepG3", "did you mean HepG2?"),
        ("IMR-91", "did you mean IMR-90?"),
        ("zebrafish", "known: HepG2, IMR-90, MCF-7"),
    ],
)
def test_a_near_miss_gets_a_suggestion(name, hint):
    with pytest.raises(UnknownNameError) as caught:
        resolve_cell(name, ["HepG2", "MCF-7", "IMR-90"])
    assert caught.value.message == f"unknown cell type {name!r}"
    assert caught.value.hint == hint


def test_a_known_epigenome_that_the_dataset_lacks_is_unknown():
    with pytest.raises(UnknownNameError):
        resolve_cell("E118", ["K562"])


def test_names_that_differ_in_punctuation_only_are_kept_apart():
    known = ["CD34+", "CD34-"]
    assert resolve_cell("CD34+", known) == "CD34+"
    assert resolve_cell("CD34-", known) == "CD34-"
    with pytest.raises(EbertError, match=re.escape("may mean CD34+ or CD34-")):
        resolve_cell("cd34", known)


def test_a_name_of_no_letters_means_nobody_else():
    with pytest.raises(EbertError):
        resolve_cell("---", ["肝臓", "K562"])


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("E116_15_coreMarks_mnemonics.bed.gz", "GM12878"),
        ("E116_15_coreMarks_dense.bed.gz", "GM12878"),
        ("E116_15_coreMarks_segments.bed", "GM12878"),
        ("E116_15_coreMarks_stateno.bed.gz", "GM12878"),
        ("E116_15_coreMarks_hg38lift_mnemonics.bed.gz", "GM12878"),
        ("E118_18_core_K27ac_mnemonics.bed.gz", "HepG2"),
        ("E017_25_imputed12marks_mnemonics.bed.gz", "IMR-90"),
        ("MCF-7_18_core_K27ac_mnemonics.bed.gz", "MCF-7"),
        ("SK-N-SH_15_segments.bed", "SK-N-SH"),
        ("HeLaS3_segments.bed", "HeLa-S3"),
        ("my_cell.2_dense.bed.bgz", "my_cell"),
        ("MCF_10_A.bed", "MCF_10_A"),
        ("K562.narrowPeak.gz", "K562"),
        ("HeLa-S3.narrowPeak", "HeLa-S3"),
        ("IMR-90.bigWig", "IMR-90"),
        ("DNASE.IMR-90.fc.signal.bigwig", "IMR-90"),
        ("DNASE.MCF-7.conservative.narrowPeak.gz", "MCF-7"),
        ("DNASE.K562.relaxed.narrowPeak.gz", "K562"),
        ("E116-DNase.macs2.narrowPeak.gz", "GM12878"),
        ("E116-DNase.fc.signal.bigwig", "GM12878"),
        ("HepG2.bam", "HepG2"),
        ("DNASE.IMR-90.biorep1.techrep2.bam", "IMR-90"),
        ("gene_expression.K562.biorep2.tsv.gz", "K562"),
        ("dnase.bed", "dnase"),
        ("segments.bed", "segments"),
        ("induced_pluripotent_stem_cell.bed", "induced_pluripotent_stem_cell"),
    ],
)
def test_the_cell_type_of_a_file(name, cell):
    assert cell_of_file(Path("some.folder_15_core") / name) == cell


@pytest.mark.real
def test_every_real_segmentation_has_a_cell_type(real_data):
    for path in (real_data / "states").rglob("*.bed.gz"):
        first = path.name.split("_")[0]
        assert cell_of_file(path) == canonical_cell(first)
        assert epigenome_id(cell_of_file(path)) == (first if first in EPIGENOMES else "")
