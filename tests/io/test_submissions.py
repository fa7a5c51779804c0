"""Submissions of the challenge: written and read row for row, every fault by its line; other programs read them too."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ebert_core.errors import EbertError, InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import BenchmarkBins
from ebert_core.io.bed import read_bin_regions
from ebert_core.io.submission_text import decimals
from ebert_core.io.submission_writer import SubmissionWriter
from ebert_core.io.submissions import (
    WHOLE_ROWS,
    read_submission,
    row_chroms,
    spelled,
    submission_chroms,
    submission_name,
)

# In the assembly's order, which is not the rows'. Starts have 3 to 9 digits, and stops gain one before starts do.
SIZES = {"chr1": 200_000_000, "chr2": 9_000, "chr10": 3_000, "chr21": 2_000, "chr8": 2_500}
REGIONS = {
    "chr1": [(600, 1_400), (9_500, 10_600), (99_999_000, 100_001_000)],
    "chr2": [(600, 3_000)],
    "chr10": [(600, 800), (1_000, 1_450)],
    "chr21": [(600, 1_400)],
    "chr8": [(650, 900)],
}
ROWS_OF_F = ["chr1", "chr10", "chr2", "chr21", "chr8"]


def make_bins(sizes: dict[str, int] = SIZES, regions: dict[str, list[tuple[int, int]]] = REGIONS) -> BenchmarkBins:
    edges = {chrom: np.array(rows, np.int64).T for chrom, rows in regions.items()}
    return BenchmarkBins.from_regions(
        Assembly.from_sizes(sizes.items()), {chrom: (rows[0], rows[1]) for chrom, rows in edges.items()}
    )


BINS = make_bins()


def places(chroms: Sequence[str]) -> list[tuple[str, int, int]]:
    """The rows of a submission, one by one from the regions."""
    return [
        (chrom, start, start + 200)
        for chrom in chroms
        for first, end in REGIONS[chrom]
        for start in range(first, end - 199, 50)
    ]


def values_of(chroms: Sequence[str], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {chrom: (rng.random(BINS.num_rows([chrom])) ** 9).astype(np.float32) for chrom in chroms}


def lines_of(chroms: Sequence[str], values: dict[str, np.ndarray]) -> list[str]:
    """What another tool would write."""
    numbers = [float(value) for chrom in chroms for value in values[chrom]]
    return [
        f"{chrom}\t{start}\t{end}\t{value!r}"
        for (chrom, start, end), value in zip(places(chroms), numbers, strict=True)
    ]


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    text = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def written(path: Path, values: dict[str, np.ndarray], bins: BenchmarkBins = BINS) -> SubmissionWriter:
    with SubmissionWriter(path, bins) as writer:
        for chrom in bins.assembly.chroms:
            if chrom in writer.chroms:
                writer.write(chrom, values[chrom])
    return writer


# --- names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("F.CTCF.PC-3.tab.gz", ("F", "CTCF", "PC-3")),
        ("L.MAX.MCF-7.tab", ("L", "MAX", "MCF-7")),
        ("B.NKX2-1.induced_pluripotent_stem_cell.tab.gz", ("B", "NKX2-1", "induced_pluripotent_stem_cell")),
        ("X.CTCF.PC-3.tab.gz", None),
        ("f.CTCF.PC-3.tab.gz", None),
        ("F.CTCF.PC-3.bed.gz", None),
        ("F.CTCF.tab.gz", None),
        ("F.CTCF.PC.3.tab.gz", None),
        ("F.CTCF..tab.gz", None),
        ("my.F.CTCF.PC-3.tab.gz", None),
        ("CTCF.PC-3.tab.gz", None),
    ],
)
def test_names(name: str, expected: tuple[str, str, str] | None) -> None:
    assert submission_name(Path("a.b/c") / name) == expected


def test_chromosomes_by_round() -> None:
    assert submission_chroms(Path("F.A.B.tab.gz"), BINS) == tuple(ROWS_OF_F)
    for letter in "LB":
        assert submission_chroms(Path(f"{letter}.A.B.tab"), BINS) == ("chr1", "chr21", "chr8")
    with pytest.raises(InputError, match="not called like a submission"):
        submission_chroms(Path("A.B.tab.gz"), BINS)
    bins = make_bins(regions={"chr2": REGIONS["chr2"]})
    with pytest.raises(InputError, match=r"holds chr1, chr8, chr21; the bins at hand are of chr2"):
        submission_chroms(Path("L.A.B.tab.gz"), bins)


def test_of_hg19_only_the_challenges_chromosomes_count_however_they_are_spelt() -> None:
    hg19 = Assembly.built_in("hg19")
    bare = [(chrom.removeprefix("chr"), length) for chrom, length in zip(hg19.chroms, hg19.lengths, strict=True)]
    assembly = Assembly.from_sizes([*bare, ("Y", 59_373_566), ("MT", 16_569)])
    bins = BenchmarkBins.from_exclusion(assembly, lambda chrom: (np.empty(0, np.int64), np.empty(0, np.int64)))
    assert "Y" in bins.chroms
    assert [spelled(chrom) for chrom in row_chroms(bins)] == sorted(hg19.chroms)
    assert row_chroms(bins, "L") == ("1", "21", "8")


# --- writing


def test_rows_are_the_regions_tiles_in_lexicographic_order(tmp_path: Path) -> None:
    values = values_of(ROWS_OF_F)
    writer = written(tmp_path / "x.gz", values)
    with gzip.open(tmp_path / "x.gz", "rt") as handle:
        rows = [line.split("\t") for line in handle.read().splitlines()]
    assert [(chrom, int(start), int(end)) for chrom, start, end, _ in rows] == places(ROWS_OF_F)
    found = np.array([float(value) for *_, value in rows]).astype(np.float32)
    np.testing.assert_array_equal(found, np.concatenate([values[chrom] for chrom in ROWS_OF_F]))
    assert writer.num_rows == len(rows)
    assert list(tmp_path.iterdir()) == [tmp_path / "x.gz"]


def test_zcat_reads_all_members(tmp_path: Path) -> None:
    written(tmp_path / "x.gz", values_of(ROWS_OF_F))
    text = subprocess.run(["zcat", tmp_path / "x.gz"], capture_output=True, check=True).stdout
    assert text == gzip.decompress((tmp_path / "x.gz").read_bytes())
    assert text.count(b"\n") == BINS.num_rows()


def test_equal_values_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    values = values_of(ROWS_OF_F)
    written(tmp_path / "a.gz", values)
    with SubmissionWriter(tmp_path / "b.gz", BINS) as writer:
        for chrom in reversed(ROWS_OF_F):
            writer.write(chrom, values[chrom])
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_bins_without_a_value_are_0_and_counted(tmp_path: Path) -> None:
    values = values_of(ROWS_OF_F)
    values["chr1"][3:9] = np.nan
    values["chr8"][:] = np.nan
    path = tmp_path / "F.A.B.tab.gz"
    assert written(path, values).unscored == 6 + len(values["chr8"])
    found = read_submission(path, BINS, ROWS_OF_F)
    for chrom in ROWS_OF_F:
        np.testing.assert_array_equal(found[chrom], np.nan_to_num(values[chrom], nan=0.0))


def test_chromosomes_are_spelt_as_the_challenge_spells_them(tmp_path: Path) -> None:
    bins = make_bins({"2": 9_000, "X": 3_000}, {"2": [(600, 1_000)], "X": [(600, 800)]})
    path = tmp_path / "F.A.B.tab.gz"
    values = {"2": np.full(5, 0.5, np.float32), "X": np.full(1, 0.25, np.float32)}
    written(path, values, bins)
    assert gzip.decompress(path.read_bytes()).splitlines()[-1] == b"chrX\t600\t800\t2.50000000e-01"
    assert set(read_submission(path, bins, ["X", "2"])) == {"X", "2"}


@pytest.mark.parametrize(
    ("chrom", "values"),
    [("chr8", np.zeros(3)), ("chrX", np.zeros(2)), ("chr8", np.array([0.5, 1.5])), ("chr8", np.array([np.nan, -0.1]))],
)
def test_what_does_not_belong_is_not_written(tmp_path: Path, chrom: str, values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=chrom), SubmissionWriter(tmp_path / "x", BINS) as writer:
        writer.write(chrom, values.astype(np.float32))


def test_a_chromosome_left_out_or_given_twice_is_an_error(tmp_path: Path) -> None:
    values = values_of(ROWS_OF_F)
    with pytest.raises(ValueError, match="chr10, chr2, chr21, chr8"), SubmissionWriter(tmp_path / "x", BINS) as writer:
        writer.write("chr1", values["chr1"])
    with SubmissionWriter(tmp_path / "x", BINS) as writer:
        for chrom in ROWS_OF_F:
            writer.write(chrom, values[chrom])
        with pytest.raises(ValueError, match="chr1 is written already"):
            writer.write("chr1", values["chr1"])


def nine_digits(value: float) -> float:
    return float(np.float32(value))


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50))
@example([0.0, 1.0, nine_digits(1e-45), nine_digits(1.17549435e-38), nine_digits(0.1), nine_digits(0.999999940395)])
@example([float(np.nextafter(np.float32(10.0**-k), np.float32(side))) for k in range(38) for side in (0, 1)])
def test_nine_digits_give_every_number_back(values: list[float]) -> None:
    numbers = np.abs(np.array(values, np.float32))
    text = decimals(numbers).tobytes().decode()
    read = np.array([float(line) for line in text.splitlines()]).astype(np.float32)
    np.testing.assert_array_equal(read.view(np.uint32), numbers.view(np.uint32))


# --- reading


@pytest.mark.parametrize("ending", ["tab", "tab.gz"])
@pytest.mark.parametrize("letter", ["F", "L", "B"])
def test_a_file_of_another_tool(tmp_path: Path, letter: str, ending: str) -> None:
    chroms = ROWS_OF_F if letter == "F" else ["chr1", "chr21", "chr8"]
    values = values_of(chroms)
    path = write_lines(tmp_path / f"{letter}.A.B.{ending}", lines_of(chroms, values))
    found = read_submission(path, BINS, ["chr8", "chr1", "chr2"])
    assert set(found) == {"chr8", "chr1", "chr2"} & set(chroms)
    for chrom, scores in found.items():
        assert scores.dtype == np.float32
        np.testing.assert_array_equal(scores, values[chrom])


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("1", 1), ("-3.5", -3.5), ("17", 17), ("1e-3", 1e-3), (".5", 0.5), ("2.50E+02", 250), (" 0.5", 0.5)],
)
def test_numbers_of_any_kind_and_beyond_0_to_1(tmp_path: Path, text: str, value: float) -> None:
    lines = [line.rsplit("\t", 1)[0] + f"\t{text}" for line in lines_of(ROWS_OF_F, values_of(ROWS_OF_F))]
    lines[4] = lines[4].rsplit("\t", 1)[0] + "\t0.123456789"  # not all of one width
    found = read_submission(write_lines(tmp_path / "F.A.B.tab.gz", lines), BINS, ROWS_OF_F)
    expected = np.full(len(found["chr1"]), value, np.float32)
    expected[4] = 0.123456789
    np.testing.assert_array_equal(found["chr1"], expected)
    np.testing.assert_array_equal(found["chr2"], np.float32(value))


def test_line_ends_of_windows_and_no_last_newline(tmp_path: Path) -> None:
    values = values_of(ROWS_OF_F)
    lines = lines_of(ROWS_OF_F, values)
    (tmp_path / "F.A.B.tab").write_bytes("\r\n".join(lines).encode())
    np.testing.assert_array_equal(read_submission(tmp_path / "F.A.B.tab", BINS, ["chr8"])["chr8"], values["chr8"])


FIRST_OF = {
    chrom: places(ROWS_OF_F).index((chrom, REGIONS[chrom][0][0], REGIONS[chrom][0][0] + 200)) for chrom in SIZES
}
LAST = len(places(ROWS_OF_F))
Lines = list[str]


def put(row: int, line: str) -> Callable[[Lines], Lines]:
    return lambda lines: [*lines[:row], line, *lines[row + 1 :]]


def insert(row: int, line: str) -> Callable[[Lines], Lines]:
    return lambda lines: [*lines[:row], line, *lines[row:]]


def value(row: int, text: str) -> Callable[[Lines], Lines]:
    return lambda lines: [*lines[:row], lines[row].rsplit("\t", 1)[0] + f"\t{text}", *lines[row + 1 :]]


def without(first: int, end: int) -> Callable[[Lines], Lines]:
    return lambda lines: lines[:first] + lines[end:]


FAULTS: dict[str, tuple[Callable[[Lines], Lines], int, str, str]] = {
    "a row missing": (without(4, 5), 5, "found chr1 850 1050, expected chr1 800 1000", "1 row(s) are missing"),
    "three rows missing": (without(20, 23), 21, "found chr1 10000 10200, expected chr1 9850", "3 row(s) are missing"),
    "a region missing": (without(13, 32), 14, "found chr1 99999000 99999200, expected chr1 9500 9700", "19 row(s)"),
    "the first row missing": (without(0, 1), 1, "found chr1 650 850, expected chr1 600 800", "1 row(s)"),
    "a row twice": (lambda lines: lines[:7] + lines[6:], 8, "found chr1 900 1100, expected chr1 950 1150", "twice"),
    "the last row twice": (lambda lines: [*lines, lines[-1]], LAST + 1, "expected the end of the file", "twice"),
    "a row after the end": (insert(LAST, "chr8\t750\t950\t0.5"), LAST + 1, "found chr8 750 950, expected the end", ""),
    "a row of one column after the end": (insert(LAST, "x"), LAST + 1, "found x, expected the end of the file", ""),
    "the file ends early": (without(LAST - 1, LAST), LAST, "the file ends, expected chr8 700 900", "every bin"),
    "only a chromosome": (without(FIRST_OF["chr10"], LAST), FIRST_OF["chr10"] + 1, "ends, expected chr10 600 800", ""),
    "nothing": (without(0, LAST), 1, "the file ends, expected chr1 600 800", "every bin"),
    "the end of a chromosome missing": (
        without(FIRST_OF["chr10"] - 2, FIRST_OF["chr10"]), FIRST_OF["chr10"] - 1,
        "found chr10 600 800, expected chr1 100000750 100000950", "rows are missing",
    ),
    "a chromosome missing": (
        without(FIRST_OF["chr10"], FIRST_OF["chr2"]), FIRST_OF["chr10"] + 1,
        "found chr2 600 800, expected chr10 600 800", "lexicographic",
    ),
    "two rows changed places": (
        lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]], 6,
        "found chr1 900 1100, expected chr1 850 1050", "1 row(s)",
    ),
    "one base off": (put(3, "chr1\t751\t951\t0.5"), 4, "found chr1 751 951, expected chr1 750 950", "in their order"),
    "another width": (put(3, "chr1\t750\t900\t0.5"), 4, "found chr1 750 900, expected chr1 750 950", "in their order"),
    "digits of another number": (put(3, "chr1\t0750\t950\t0.5"), 4, "found chr1 0750 950, expected chr1 750 950", ""),
    "positions of R": (
        put(52, "chr1\t1e+08\t100000200\t0.5"), 53,
        "found chr1 1e+08 100000200, expected chr1 100000000 100000200", "scipen",
    ),
    "positions that are no numbers": (put(3, "chr1\t7.5e2\t950\t0.5"), 4, "found chr1 7.5e2 950", "scipen"),
    "a huge position": (put(3, "chr1\t99999999999999999999\t950\t0.5"), 4, "found chr1 99999999999999999999", ""),
    "a header": (insert(0, "chr\tstart\tstop\tPC-3"), 1, "found chr start stop, expected chr1 600 800", "no header"),
    "a header with #": (insert(0, "#chr\tstart\tstop\tPC-3"), 1, "a comment or a header, expected chr1 600 800", ""),
    "a comment": (insert(9, "# hm"), 10, "is blank, a comment or a header, expected chr1 1050 1250", "but rows"),
    "a blank line": (insert(9, ""), 10, "is blank, a comment or a header, expected chr1 1050 1250", "but rows"),
    "another spelling": (put(0, "1\t600\t800\t0.5"), 1, "found 1 600 800, expected chr1 600 800", "write chr1 for 1"),
    "another chromosome": (put(0, "chrY\t600\t800\t0.5"), 1, "found chrY 600 800", "the bins are of chr1, chr10, chr2"),
    "three columns": (put(5, "chr1\t850\t1050"), 6, "has 3 column(s), expected 4: chr, start, stop, proba", "mend"),
    "five columns": (put(5, "chr1\t850\t1050\t0.5\t0.5"), 6, "has 5 column(s), expected 4", "mend"),
    "spaces": (put(5, "chr1 850 1050 0.5"), 6, "has 1 column(s), expected 4", "tabs, not spaces"),
    "an empty value": (value(5, ""), 6, "probability is '', expected a number", "mend"),
    "no number": (value(5, "high"), 6, "probability is 'high', expected a number", "mend"),
    "NA of R": (value(5, "NA"), 6, "probability is 'NA', expected a number", ""),
    "NaN": (value(5, "nan"), 6, "probability is 'nan', expected a finite number", ""),
    "infinite": (value(5, "-inf"), 6, "probability is '-inf', expected a finite number", ""),
    "beyond float32": (value(5, "1e99"), 6, "probability is '1e99', expected a finite number", ""),
    "not text": (value(5, "\xff\xfe"), 6, "expected a number", ""),
    "NaN before a word": (lambda lines: value(9, "x")(value(5, "nan")(lines)), 6, "probability is 'nan'", ""),
    "a word before NaN": (lambda lines: value(9, "nan")(value(5, "x")(lines)), 6, "probability is 'x'", ""),
    "a word before a wrong row": (lambda lines: without(9, 10)(value(5, "x")(lines)), 6, "probability is 'x'", ""),
    "a wrong row before a word": (lambda lines: without(4, 5)(value(9, "x")(lines)), 5, "found chr1 850 1050", ""),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_the_first_bad_line(tmp_path: Path, fault: str) -> None:
    spoil, line, problem, hint = FAULTS[fault]
    path = write_lines(tmp_path / "F.A.B.tab.gz", spoil(lines_of(ROWS_OF_F, values_of(ROWS_OF_F))))
    with pytest.raises(InputError) as caught:
        read_submission(path, BINS, ROWS_OF_F)
    assert str(caught.value).startswith(f"{path}, line {line:,}: ")
    assert problem in caught.value.message
    assert hint in caught.value.hint


def test_chromosomes_in_the_assemblys_order(tmp_path: Path) -> None:
    values = values_of(ROWS_OF_F)
    path = write_lines(tmp_path / "F.A.B.tab.gz", lines_of(list(SIZES), values))
    with pytest.raises(InputError, match=f"line {FIRST_OF['chr10'] + 1}: found chr2 600 800, expected chr10") as caught:
        read_submission(path, BINS, ["chr8"])
    assert "chr1, chr10, ..., chr19, chr2" in caught.value.hint


def test_a_ladder_submission_with_all_chromosomes(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "L.A.B.tab.gz", lines_of(ROWS_OF_F, values_of(ROWS_OF_F)))
    with pytest.raises(InputError, match="found chr10 600 800, expected chr21 600 800") as caught:
        read_submission(path, BINS, ["chr8"])
    assert "holds chr1, chr21, chr8 only" in caught.value.hint


def test_of_other_chromosomes_only_the_places_are_read(tmp_path: Path) -> None:
    lines = value(FIRST_OF["chr2"], "x")(lines_of(ROWS_OF_F, values_of(ROWS_OF_F)))
    path = write_lines(tmp_path / "F.A.B.tab.gz", lines)
    assert set(read_submission(path, BINS, ["chr8"])) == {"chr8"}
    assert read_submission(path, BINS, []) == {}
    write_lines(path, without(FIRST_OF["chr2"], FIRST_OF["chr2"] + 1)(lines))
    with pytest.raises(InputError, match=f"line {FIRST_OF['chr2'] + 1}: found chr2 650 850, expected chr2 600 800"):
        read_submission(path, BINS, ["chr8"])


@pytest.mark.parametrize("kept", [0, 5, 20, -1])
def test_truncated_gzip(tmp_path: Path, kept: int) -> None:
    path = write_lines(tmp_path / "F.A.B.tab.gz", lines_of(ROWS_OF_F, values_of(ROWS_OF_F)))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(EbertError, match=r"gzip|the file ends"):
        read_submission(path, BINS, ["chr8"])


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        read_submission(tmp_path / "F.A.B.tab.gz", BINS, ["chr8"])


def test_a_file_of_many_portions(tmp_path: Path) -> None:
    """Far more text than is parsed at a time; the fault is near the end."""
    bins = make_bins({"chr1": 40_000_000, "chr2": 9_000}, {"chr1": [(600, 30_000_000)], "chr2": [(600, 900)]})
    rng = np.random.default_rng(1)
    values = {chrom: rng.random(bins.num_rows([chrom])).astype(np.float32) for chrom in bins.chroms}
    path = tmp_path / "F.A.B.tab.gz"
    written(path, values, bins)
    found = read_submission(path, bins, bins.chroms)
    for chrom in bins.chroms:
        np.testing.assert_array_equal(found[chrom], values[chrom])
    text = gzip.decompress(path.read_bytes())
    plain = tmp_path / "F.A.B.tab"
    at = text.index(b"chr1\t29900000\t")
    plain.write_bytes(text[:at] + text[text.index(b"\n", at) + 1 :])
    line = (29_900_000 - 600) // 50 + 1
    with pytest.raises(InputError, match=f"line {line:,}: found chr1 29900050 29900250, expected chr1 29900000"):
        read_submission(plain, bins, ["chr2"])


@pytest.mark.real
def test_the_challenges_regions_give_its_rows(real_data: Path) -> None:
    assembly = Assembly.built_in("hg19")
    regions, *_ = read_bin_regions(real_data / "dream" / "test_regions.blacklistfiltered.merged.bed", assembly)
    bins = BenchmarkBins.from_regions(assembly, regions)
    assert bins.num_rows(submission_chroms(Path("F.CTCF.PC-3.tab.gz"), bins)) == WHOLE_ROWS
    assert bins.num_rows(submission_chroms(Path("L.CTCF.GM12878.tab.gz"), bins)) == 8_843_011
