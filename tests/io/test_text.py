"""Tab-separated text: every shape a file may come in, against Python's csv module, and every way it may be broken."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebert_core.errors import InputError
from ebert_core.io.text import parse_table, read_bytes, read_lines, read_sheet, read_table

ROWS = b"chr1\t5\t10\nchr2\t7\t9\n"
FIELD = st.text(alphabet="abcxyz0189.-+_ ", max_size=8)


def values(table):
    """All located fields of a table."""
    return [[table.text(row, column) for column in range(table.bounds.shape[1])] for row in range(len(table))]


def parsed(content, num_columns=3, **options):
    return parse_table(content, Path("a.bed"), num_columns, **options)


@given(
    st.lists(st.lists(FIELD, min_size=1, max_size=6), max_size=12),
    st.integers(1, 5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
def test_fields_equal_those_of_the_csv_module(rows, num_columns, end, final_newline):
    text = end.join("\t".join(fields) for fields in rows) + (end if final_newline else "")
    read = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))
    expected = [(number, fields) for number, fields in enumerate(read, start=1) if "".join(fields).strip()]

    table = parsed(text.encode(), num_columns, min_columns=0)

    assert table.lines.tolist() == [number for number, _ in expected]
    assert table.widths.tolist() == [len(fields) for _, fields in expected]
    padded = [(fields + [""] * num_columns)[:num_columns] for _, fields in expected]
    assert values(table) == padded
    for column in range(num_columns):
        names, codes = table.categories(column)
        assert [names[code] for code in codes] == [fields[column] for fields in padded]


@given(st.lists(st.tuples(st.integers(-(10**17), 10**17), st.floats(allow_nan=False)), min_size=1, max_size=20))
def test_numbers_come_back(pairs):
    table = parsed("".join(f"{whole}\t{real!r}\n" for whole, real in pairs).encode(), 2)
    assert table.integers(0, "start").tolist() == [whole for whole, _ in pairs]
    np.testing.assert_array_equal(table.floats(1, "score"), [real for _, real in pairs])


@pytest.mark.parametrize(
    "content",
    [
        ROWS,
        ROWS[:-1],
        ROWS.replace(b"\n", b"\r\n"),
        ROWS.replace(b"\n", b"\r"),
        b"#chrom\tstart\tend\n" + ROWS,
        b'track name="a b" description="x"\nbrowser position chr1:1-2\n' + ROWS,
        b"track\n" + ROWS,
        b"browser\tdense\tall\n" + ROWS,
        ROWS + b"\n\n",
        ROWS.replace(b"\n", b"\n\n  \n"),
        b"\xef\xbb\xbf" + ROWS,
        b"chr1\t5\t10\textra\tfields\nchr2\t7\t9\t\n",
    ],
    ids=["plain", "no-last-newline", "crlf", "cr", "comment", "track", "bare-track", "browser", "blank-last",
         "blank-between", "byte-order-mark", "more-columns"],
)  # fmt: skip
def test_accepted_shapes_of_one_table(content, tmp_path):
    path = tmp_path / "a.bed"
    path.write_bytes(content)
    assert values(read_table(path, 3)) == [["chr1", "5", "10"], ["chr2", "7", "9"]]


def test_a_chromosome_may_begin_like_a_header_word():
    rows = b"tracker\t1\t2\nbrowserless\t3\t4\nt\t5\t6\nb\t7\t8\n"
    assert parsed(rows).categories(0)[0] == ["b", "browserless", "t", "tracker"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_line_numbers_count_every_line_of_the_file(line_end):
    content = line_end.join([b"#x", b"", b"chr1\t1\t2", b"track x", b"chr1\tb\t2", b""])
    table = parsed(content)
    assert table.lines.tolist() == [3, 5]
    with pytest.raises(InputError, match=r"^a\.bed, line 5: start is 'b', expected a whole number"):
        table.integers(1, "start")


@pytest.mark.parametrize(
    "text",
    ["", "-", "+5", "1e6", "1.0", "1,000", " 5", "5 ", "0x5", "9" * 19, "-" + "9" * 19, "--5", "5-", "²", "chrom"],
)
def test_a_field_that_is_no_whole_number_is_refused(text):
    table = parsed(f"chr1\t7\t9\nchr1\t{text}\t9\n".encode())
    with pytest.raises(InputError) as caught:
        table.integers(1, "start")
    assert caught.value.line == 2
    assert f"start is {text!r}, expected a whole number" in caught.value.message
    assert caught.value.hint


def test_a_header_line_without_a_hash_is_explained():
    with pytest.raises(InputError, match="line 1") as caught:
        parsed(b"chrom\tstart\tend\n" + ROWS).integers(1, "start")
    assert "#" in caught.value.hint


@pytest.mark.parametrize("number", ["999999999999999999", "-999999999999999999", "0", "-0", "007"])
def test_the_longest_numbers(number):
    assert parsed(f"chr1\t{number}\t9\n".encode()).integers(1, "start").tolist() == [int(number)]


@pytest.mark.parametrize("text", ["", "x", "1,5", "1_0", "0.5\N{NO-BREAK SPACE}", "\N{ARABIC-INDIC DIGIT FIVE}"])
def test_a_field_that_is_no_number_is_refused(text):
    with pytest.raises(InputError, match=r"line 2: score is .* expected a number"):
        parsed(f"chr1\t1.5\t9\nchr1\t{text}\t9\n".encode()).floats(1, "score")


def test_too_few_columns_name_the_line_and_what_was_found():
    with pytest.raises(InputError, match=r"line 2: has 2 column\(s\), expected at least 3 separated by tabs"):
        parsed(b"chr1\t5\t10\nchr1\t5\n")


def test_spaces_instead_of_tabs_are_explained():
    with pytest.raises(InputError, match="line 1") as caught:
        parsed(b"chr1 5 10\n")
    assert "tabs, not spaces" in caught.value.hint


def test_bytes_that_are_no_utf8_do_not_stop_the_reading():
    assert parsed(b"chr1\t5\t10\tna\xefve\n", 4).text(0, 3) == "na�ve"


@pytest.mark.parametrize("suffix", [".bed.gz", ".bed.bgz", ".bed"])
def test_gzip_and_bgzip_are_told_by_their_bytes(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(ROWS[:10]) + gzip.compress(ROWS[10:]))
    assert read_bytes(path) == ROWS
    with pysam.BGZFile(str(path), "wb") as handle:
        handle.write(ROWS)
    assert read_bytes(path) == ROWS


@pytest.mark.parametrize("kept", [2, 5, 12, -12, -4, -1])
def test_truncated_gzip(tmp_path, kept):
    path = tmp_path / "a.bed.gz"
    path.write_bytes(gzip.compress(ROWS * 50)[:kept])
    with pytest.raises(InputError, match="is a truncated or damaged gzip file") as caught:
        read_bytes(path)
    assert "again" in caught.value.hint


def test_damaged_gzip(tmp_path):
    content = bytearray(gzip.compress(bytes(np.random.default_rng(0).integers(0, 256, 500, dtype=np.uint8))))
    content[200] ^= 0xFF
    path = tmp_path / "a.bed.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated or damaged gzip"):
        read_bytes(path)


def test_bgzip_cut_between_two_blocks_is_seen(tmp_path):
    path = tmp_path / "a.bed.gz"
    with pysam.BGZFile(str(path), "wb") as handle:
        handle.write(ROWS)
    # BGZF ends with an empty block of 28 bytes; without it whole blocks may be missing unseen.
    path.write_bytes(path.read_bytes()[:-28])
    with pytest.raises(InputError, match="is a truncated bgzip file: its last block is missing"):
        read_bytes(path)


def test_text_called_gz(tmp_path):
    path = tmp_path / "a.bed.gz"
    path.write_bytes(ROWS)
    with pytest.raises(InputError, match=r"is called \.gz but is not gzip"):
        read_bytes(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"#only\n", b"track x\n\n"])
def test_nothing_but_headers_is_a_table_of_no_rows(content):
    table = parsed(content)
    assert len(table) == 0
    assert table.integers(1, "start").tolist() == []


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        read_bytes(tmp_path / "a.bed")
    with pytest.raises(InputError, match="is a folder"):
        read_bytes(tmp_path)


def test_standard_input(monkeypatch):
    class Standard:
        buffer = io.BytesIO(gzip.compress(ROWS))

    monkeypatch.setattr("sys.stdin", Standard)
    assert values(read_table(Path("-"), 2)) == [["chr1", "5"], ["chr2", "7"]]


def test_standard_input_may_be_closed(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        read_bytes(Path("-"))


def test_an_unreadable_file_is_explained(tmp_path, monkeypatch):
    path = tmp_path / "a.bed"
    path.write_bytes(ROWS)

    def refuse(self, mode):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, whom no mode stops
    with pytest.raises(InputError, match="may not be read"):
        read_bytes(path)


def test_lines_of_a_binary_file(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"\x00\xff\xfe\x80")
    with pytest.raises(InputError, match="is not text"):
        read_lines(path)


def sheet(tmp_path, text):
    path = tmp_path / "sheet.tsv"
    path.write_bytes(text.encode())
    return path


def test_a_sheet(tmp_path):
    path = sheet(tmp_path, "\ufeff# a remark\r\npath\tcell\r\n\r\na.bed\t K562 \r\n#b.bed\tHepG2\r\nc.bed\tA549\r\n")
    assert read_sheet(path, ("cell", "path"), ("note",)) == [
        (4, {"cell": "K562", "path": "a.bed"}),
        (6, {"cell": "A549", "path": "c.bed"}),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cell\nK562\n", r"line 1: has no column 'path', expected cell, path, note"),
        ("cell\tpath\tpaht\nK562\ta\tb\n", r"line 1: has an unknown column 'paht'"),
        ("cell\tpath\tcell\nK562\ta\tb\n", r"line 1: has the column 'cell' twice"),
        ("cell\tpath\nK562\ta\nHepG2\n", r"line 3: has 1 field\(s\), the header has 2"),
        ("cell\tpath\n", "has no rows"),
        ("", "has no rows"),
    ],
)
def test_a_broken_sheet(tmp_path, text, problem):
    with pytest.raises(InputError, match=problem):
        read_sheet(sheet(tmp_path, text), ("cell", "path"), ("note",))
