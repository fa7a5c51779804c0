"""Which peak file is of which TF and cell type, in both spellings of the field and in a sheet."""

from __future__ import annotations

import pytest

from ebert_core.errors import EbertError, InputError
from ebert_core.io.chip import find_chip


@pytest.fixture
def folder(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.touch()
        return tmp_path

    return make


def described(experiments):
    return [(e.tf, e.cell, e.conservative.name, e.relaxed.name) for e in experiments]


@pytest.mark.parametrize(
    ("name", "tf", "cell"),
    [
        ("CTCF.K562.narrowPeak.gz", "CTCF", "K562"),
        ("CTCF.HeLa-S3.narrowPeak", "CTCF", "HeLa-S3"),
        ("NKX2-1.A549.bed", "NKX2-1", "A549"),
        ("POLR2A.GM12878.broadPeak.bgz", "POLR2A", "GM12878"),
        ("CTCF.E118.BED.GZ", "CTCF", "E118"),
        ("ChIPseq.HeLa-S3.CTCF.conservative.train.narrowPeak.gz", "CTCF", "HeLa-S3"),
        ("ChIPseq.induced_pluripotent_stem_cell.NANOG.conservative.narrowPeak.gz", "NANOG",
         "induced_pluripotent_stem_cell"),
    ],
)  # fmt: skip
def test_file_names(folder, name, tf, cell):
    found = find_chip(folder(name))
    assert described(found.experiments) == [(tf, cell, name, name)]
    assert (found.tables, found.notes) == ([], [])
    assert find_chip(folder() / name) == found


def test_conservative_and_relaxed_files_meet(folder):
    strict, loose = (
        "ChIPseq.A549.CTCF.conservative.train.narrowPeak.gz",
        "ChIPseq.A549.CTCF.relaxed.narrowPeak.gz",
    )
    found = find_chip(folder(strict, loose))
    assert described(found.experiments) == [("CTCF", "A549", strict, loose)]
    assert found.notes == []


def test_what_lacks_its_counterpart_is_told(folder):
    source = folder(
        "ChIPseq.A549.CTCF.conservative.train.narrowPeak.gz",
        "ChIPseq.A549.CTCF.relaxed.narrowPeak.gz",
        "ChIPseq.A549.MAX.conservative.train.narrowPeak.gz",
        "ChIPseq.A549.MYC.relaxed.narrowPeak.gz",
    )
    found = find_chip(source)
    assert [(e.tf, e.relaxed.name.split(".")[3]) for e in found.experiments] == [
        ("CTCF", "relaxed"),
        ("MAX", "conservative"),
    ]
    notes = found.notes
    assert len(notes) == 2
    assert any("1 relaxed peak file(s) without a conservative one were left out" in note for note in notes)
    assert any("1 experiment(s) have no relaxed file" in note for note in notes)


def test_other_and_hidden_files_of_a_folder_do_not_count(folder):
    source = folder("CTCF.K562.narrowPeak.gz", "README.md", "._CTCF.K562.narrowPeak.gz", ".DS_Store", "sub/x.bed")
    assert described(find_chip(source).experiments) == [("CTCF", "K562", *["CTCF.K562.narrowPeak.gz"] * 2)]


@pytest.mark.parametrize(
    ("name", "tf"),
    [
        ("CTCF.train.labels.tsv.gz", "CTCF"),
        ("NKX2-1.labels.tsv", "NKX2-1"),
        ("MAX.test.labels.TSV.BGZ", "MAX"),
        ("MAX.K562.final.labels.tsv", "MAX"),
    ],
)
def test_label_tables_alone_and_among_peaks(folder, name, tf):
    found = find_chip(folder(name))
    assert [(tf, path.name) for tf, path in found.tables] == [(tf, name)]
    assert found.experiments == []
    assert find_chip(folder() / name) == found
    among = find_chip(folder("CTCF.A549.narrowPeak", "labels.tsv", "readme.tsv", f"._{name}"))
    assert among.tables == found.tables
    assert described(among.experiments) == [("CTCF", "A549", *["CTCF.A549.narrowPeak"] * 2)]


def test_relaxed_peaks_beside_a_label_table_are_left_out_and_told(folder):
    found = find_chip(folder("ChIPseq.A549.MYC.relaxed.narrowPeak.gz", "MYC.labels.tsv.gz"))
    assert found.experiments == []
    assert "1 relaxed peak file(s) without a conservative one were left out" in found.notes[0]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ((), "holds no peak file and no label table"),
        (("README.md",), "holds no peak file"),
        (("peaks.bed",), "does not say its TF and cell type"),
        (("ChIPseq.A549.MYC.relaxed.narrowPeak.gz",), "holds relaxed peaks only"),
        (("CTCF.K562.narrowPeak.gz", "CTCF.K562.bed"), "is the second file for CTCF in K562"),
    ],
)
def test_folders_that_cannot_be_read(folder, names, problem):
    with pytest.raises(EbertError, match=problem) as caught:
        find_chip(folder(*names))
    assert caught.value.hint


def test_a_missing_source(tmp_path):
    with pytest.raises(EbertError, match="is not there"):
        find_chip(tmp_path / "chip")


def write_sheet(folder, text):
    path = folder("a.bed", "b.bed") / "sheet.tsv"
    path.write_text(text)
    return path


def test_a_sheet_with_paths_relative_to_itself(folder):
    sheet = write_sheet(folder, "tf\tcell\tpeaks\trelaxed\nCTCF\tmine\ta.bed\tb.bed\nMAX\tmine\tb.bed\t\n")
    found = find_chip(sheet)
    assert described(found.experiments) == [("CTCF", "mine", "a.bed", "b.bed"), ("MAX", "mine", "b.bed", "b.bed")]
    assert all(e.conservative.is_file() for e in found.experiments)
    assert (found.tables, found.notes) == ([], [])


@pytest.mark.parametrize(
    ("rows", "line", "problem"),
    [
        ("CTCF\tK562\tc.bed\n", 2, "c.bed, which is not there"),
        ("CTCF\tK562\ta.bed\nCTCF\tK562\tb.bed\n", 3, "lists CTCF in K562 twice"),
        ("\tK562\ta.bed\n", 2, "has no tf in this row"),
        ("CTCF\t\ta.bed\n", 2, "has no cell in this row"),
        ("CTCF\tK562\t\n", 2, "has no peaks in this row"),
        ("", None, "has no rows"),
    ],
)
def test_broken_sheets(folder, rows, line, problem):
    with pytest.raises(InputError) as caught:
        find_chip(write_sheet(folder, f"tf\tcell\tpeaks\n{rows}"))
    assert caught.value.line == line
    assert problem in caught.value.message
    assert caught.value.hint
