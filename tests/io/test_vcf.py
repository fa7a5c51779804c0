"""VCF files: read as pysam reads them, refused with the line, annotated so that pysam finds what was written."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pysam
import pytest

from ebert_core.errors import InputError
from ebert_core.io.bgzip import BgzipWriter
from ebert_core.io.vcf import InfoField, VcfFile, annotated_header, annotated_record, info_key

NAMES = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
HEAD = (
    "##fileformat=VCFv4.2\n##contig=<ID=chr1,length=60000>\n##contig=<ID=2,length=41337>\n"
    '##FILTER=<ID=q10,Description="x">\n##INFO=<ID=AF,Number=A,Type=Float,Description="x">\n'
    '##INFO=<ID=DB,Number=0,Type=Flag,Description="x">\n##FORMAT=<ID=GT,Number=1,Type=String,Description="x">\n'
)
ROWS = (
    "chr1\t101\trs1;rs2\tA\tC\t29.5\tPASS\tAF=0.25;DB\tGT\t0/1\n"
    "chr1\t200\t.\tg\tT,GAA,*\t.\tq10\tAF=0.1,0.2,0.3\tGT\t1/2\n"
    "2\t7\tx\tACGT\tA\t.\t.\t.\tGT\t./.\n"
    "2\t9\t.\tN\t<DEL>\t.\tPASS\tDB\tGT\t0/0\n"
    "2\t12\t.\tC\t.\t.\tPASS\tDB\tGT\t0/0\n"
)
TEXT = f"{HEAD}{NAMES}\tFORMAT\tsample\n{ROWS}"


def saved(tmp_path: Path, content: str | bytes, name: str = "x.vcf") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def bgzipped(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "b.vcf.gz"
    with BgzipWriter(path) as writer:
        writer.write(content.encode())
    return path


@pytest.mark.parametrize("how", ["plain", "gzip", "bgzip", "crlf", "no newline at the end"])
def test_records_are_those_of_pysam(tmp_path: Path, how: str) -> None:
    path = saved(tmp_path, TEXT)
    with pysam.VariantFile(str(path)) as handle:
        expected = [(r.chrom, r.start, r.id or ".", r.ref.upper(), tuple(r.alts or ())) for r in handle]
    if how == "gzip":
        path = saved(tmp_path, gzip.compress(TEXT.encode()), "x.vcf.gz")
    elif how == "bgzip":
        path = bgzipped(tmp_path, TEXT)
    elif how == "crlf":
        path = saved(tmp_path, TEXT.replace("\n", "\r\n"))
    elif how == "no newline at the end":
        path = saved(tmp_path, TEXT[:-1])
    vcf = VcfFile(path)
    for _ in range(2):  # a file may be read again
        records = list(vcf.records())
        assert [(r.chrom, r.position, r.id, r.ref.upper(), r.alts) for r in records] == expected
        assert [r.line for r in records] == [9, 10, 11, 12, 13]
        assert [r.text for r in records] == ROWS.splitlines()
    assert vcf.header == TEXT.splitlines()[:8]


def test_standard_input_is_read_twice_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    vcf = VcfFile(Path("-"))
    assert [r.text for r in vcf.records()] == [r.text for r in vcf.records()] == ROWS.splitlines()


MINIMAL = f"##fileformat=VCFv4.2\n{NAMES}\n"
FAULTS = {
    "empty": ("", None, "is empty, expected a VCF file"),
    "bed": ("chr1\t0\t1\n", 1, "is not a VCF file"),
    "bcf": (gzip.compress(b"BCF\2\2\0\0"), None, "is BCF, expected VCF"),
    "no column names": ("##fileformat=VCFv4.2\nchr1\t1\t.\tA\tC\t.\t.\t.\n", 1, "has no line of column names"),
    "spaces in the names": (MINIMAL.replace("\t", " "), 2, "has no line of column names"),
    "few columns": (f"{MINIMAL}chr1\t1\t.\tA\tC\n", 3, "has 5 column(s), expected at least 8"),
    "spaces": (f"{MINIMAL}chr1 1 . A C . . .\n", 3, "has 1 column(s), expected at least 8"),
    "a word": (f"{MINIMAL}chr1\tone\t.\tA\tC\t.\t.\t.\n", 3, "POS is 'one', expected a whole number"),
    "negative": (f"{MINIMAL}chr1\t-1\t.\tA\tC\t.\t.\t.\n", 3, "POS is '-1'"),
    "other digits": (f"{MINIMAL}chr1\t٣\t.\tA\tC\t.\t.\t.\n", 3, "expected a whole number"),
    "no reference": (f"{MINIMAL}\nchr1\t1\t.\t.\tC\t.\t.\t.\n", 4, "has an empty allele: REF '.'"),
    "empty alternative": (f"{MINIMAL}chr1\t1\t.\tA\tC,\t.\t.\t.\n", 3, "has an empty allele"),
    "cut": (gzip.compress(TEXT.encode())[:-12], None, "is a truncated or damaged gzip file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_the_line(tmp_path: Path, fault: str) -> None:
    content, line, says = FAULTS[fault]
    with pytest.raises(InputError) as caught:
        list(VcfFile(saved(tmp_path, content)).records())
    assert says in caught.value.message
    assert caught.value.line == line


def test_a_header_alone_has_no_records(tmp_path: Path) -> None:
    assert list(VcfFile(saved(tmp_path, MINIMAL)).records()) == []


def test_pysam_reads_back_what_was_annotated(tmp_path: Path) -> None:
    fields = [InfoField(info_key("EBERT", "NKX2-5(var.2)", s), f"what {s} is") for s in ("REF", "DELTA")]
    assert fields[0].key == "EBERT_NKX2_5_var.2__REF"
    vcf = VcfFile(saved(tmp_path, TEXT))
    numbers = {9: [0.5], 10: [1e-7, None, None], 11: [-2.25], 12: [None], 13: []}

    def annotated(vcf: VcfFile, shift: float) -> str:
        lines = annotated_header(vcf.header, fields)
        for record in vcf.records():
            values = [None if x is None else x + shift for x in numbers[record.line - len(vcf.header) + 8]]
            lines.append(annotated_record(record, {field.key: values for field in fields}))
        return "\n".join(lines) + "\n"

    once = annotated(vcf, 0)
    # What is annotated again carries the new values, and each line once.
    twice = annotated(VcfFile(saved(tmp_path, once, "once.vcf")), 1)
    for text, shift in ((once, 0), (twice, 1)):
        assert text.count("##INFO=<ID=EBERT") == 2
        path = bgzipped(tmp_path, text)
        with pysam.VariantFile(str(path)) as handle:
            for record, line, original in zip(handle, numbers, ROWS.splitlines(), strict=True):
                for field in fields:
                    found = record.info.get(field.key, tuple(None for _ in numbers[line]))
                    expected = [None if x is None else pytest.approx(x + shift, rel=1e-5) for x in numbers[line]]
                    assert list(found) == expected
                kept = str(record).rstrip("\n").split("\t")
                assert kept[:5] == original.split("\t")[:5]
                assert kept[8:] == original.split("\t")[8:]
            assert handle.header.info[fields[1].key].description == "what DELTA is"
            assert handle.header.info[fields[1].key].number == "A"


def test_the_rest_of_a_line_stays_byte_for_byte(tmp_path: Path) -> None:
    row = b"chr1\t101\tr\xe9\tA\tC\t29.50\tPASS\tAF=0.250;X\tGT:Y\t0/1:\xff"
    (record,) = VcfFile(saved(tmp_path, MINIMAL.encode() + row + b"\n")).records()
    text = annotated_record(record, {"K": [1.0]}).encode("utf-8", "surrogateescape")
    assert text == row.replace(b"AF=0.250;X", b"AF=0.250;X;K=1")
