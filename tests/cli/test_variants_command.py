"""`ebert explain` and `ebert variants` on full disks, beside a second run, killed; and VCFs of every kind."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ebert_core.artifacts import exclusive_lock
from ebert_core.inference import explain, variant_files
from tests.cli import test_bad_input
from tests.cli.test_explain_command import EXPLAIN, HEAD, OTHER, VARIANTS, write_inputs

small_disk = test_bad_input.small_disk
FULL = test_bad_input.FULL
Ebert = Callable[..., object]
COMMANDS = {
    "explain": (*EXPLAIN, "--regions", "sites.bed"),
    "variants": (*VARIANTS, "--vcf", "many.vcf"),
    "variants, annotated": (*VARIANTS, "--vcf", "many.vcf", "--annotate", "variants/y.vcf"),
}
DEFAULT = {"explain": "explanations", "variants": "variants", "variants, annotated": "variants"}


@pytest.fixture
def here(road: Path, toy_files) -> Path:
    """The walked road as the working folder, with sites and 300 variants."""
    write_inputs(road, toy_files.sequences)
    rows = []
    for place in range(300, 6_300, 20):
        ref = toy_files.sequences["chr2"][place].upper()
        rows.append(f"2\t{place + 1}\trs{place}\t{ref}\t{OTHER[ref]}\t.\tPASS\tAF=0.5\n")
    (road / "many.vcf").write_text(HEAD + "".join(rows))
    return road


def files_of(folder: Path) -> set[str]:
    """All files, hidden ones too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size_kb", [4, 16])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk(ebert: Ebert, here: Path, small_disk: Callable[[int], Path], command: str, size_kb: int) -> None:
    disk = small_disk(size_kb)
    arguments = [str(disk / "y.vcf") if each == "variants/y.vcf" else each for each in COMMANDS[command]]
    done = ebert(*arguments, "-q", "-o", disk / "new")
    error = next(line for line in done.stderr.splitlines() if not line.startswith("warning: "))
    assert (done.exit_code, done.stdout, error[: len(FULL) + 7]) == (1, "", f"error: {FULL}"), done.stderr
    assert "Traceback" not in done.stderr
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_disk_that_is_full_at_the_very_end(
    ebert: Ebert, here: Path, digest_tree: Callable[[Path], dict], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Table, list of skipped alleles, VCF and sidecar are those of one run: all new, or all old."""
    assert ebert(*COMMANDS["variants, annotated"], "-q").exit_code == 0
    before, sync, left = digest_tree(here), os.fsync, [after]

    def full(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, os.strerror(28))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    done = ebert(*COMMANDS["variants, annotated"], "-q", "--one-strand", "--overwrite")
    assert (done.exit_code, FULL in done.stderr) == (1, True), done.stderr
    assert digest_tree(here) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_run_is_refused(ebert: Ebert, here: Path, command: str) -> None:
    folder = DEFAULT[command]
    name = {"explain": "CTCF.HepG2", "variants": "CTCF.HepG2.tsv", "variants, annotated": "y.vcf"}[command]
    with exclusive_lock(here / folder / name):
        done = ebert(*COMMANDS[command], "-q")
        assert (done.exit_code, done.stdout) == (1, "")
        assert f"error: another run is writing {folder}/{name}\n" in done.stderr
        assert files_of(here / folder) == {f".{name}.lock"}
    done = ebert(*COMMANDS[command], "-q")
    assert done.exit_code == 0, done.stderr


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function: this process gets a signal when all is scored and most of it written."""

    def arm(number: int) -> None:
        def score_vcf(*arguments: object) -> object:
            yield from variant_scores(*arguments)
            signal.raise_signal(number)

        variant_scores = variant_files.score_vcf
        monkeypatch.setattr(variant_files, "score_vcf", score_vcf)
        monkeypatch.setattr(explain._Files, "write_importance", lambda self: signal.raise_signal(number))

    return arm


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["explain", "variants, annotated"])
def test_a_stopped_run_leaves_nothing(
    ebert: Ebert, here: Path, stop: Callable[[int], None], command: str, number: int, code: int
) -> None:
    before = files_of(here)
    stop(number)
    done = ebert(*COMMANDS[command])
    assert (done.exit_code, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert files_of(here) == before


SLOWLY = """
import time
from ebert_core.inference import explain, variant_files
score = variant_files.score_vcf
def told(*arguments):
    for records in score(*arguments):
        yield records
        wait()
def wait(*_):
    print("under way", flush=True)
    time.sleep(300)
variant_files.score_vcf = told
explain._Files.write_importance = wait
from ebert_cli.app import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["explain", "variants, annotated"])
def test_a_killed_run_leaves_nothing_half_written(ebert: Ebert, here: Path, command: str) -> None:
    folder = here / DEFAULT[command]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, *COMMANDS[command]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        refused = ebert(*COMMANDS[command], "-q")
        assert (refused.exit_code, "another run is writing" in refused.stderr) == (1, True)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    left = set(folder.iterdir())
    assert left
    assert all(path.name.startswith(".") for path in left)
    assert ebert(*COMMANDS[command], "-q").exit_code == 0
    assert all(not path.name.startswith(".") for path in folder.iterdir())


@pytest.mark.slow
def test_a_reader_that_has_seen_enough(here: Path) -> None:
    command = f'"{sys.executable}" -m ebert_cli {" ".join(VARIANTS)} --vcf many.vcf -o - | head -n 2'
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 2)


# --- VCFs


def table_of(path: Path) -> dict[tuple[str, ...], list[float]]:
    """Alleles, in the order of the file, to their figures."""
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    return {tuple(row[:6]): [float(each) for each in row[6:]] for row in rows}


def test_unsorted_and_multi_allelic_records_score_as_others(ebert: Ebert, here: Path, toy_files) -> None:
    """In the order of the file, by whatever name of the chromosome, several alleles of a record or one by one."""
    letters = {chrom: text.upper() for chrom, text in toy_files.sequences.items()}
    places = [("chr2", 5_000), ("chr1", 700), ("chr2", 300), ("chr1", 9_000), ("chr2", 4_999)]
    rows = [(chrom, at, letters[chrom][at], [b for b in "ACGT" if b != letters[chrom][at]]) for chrom, at in places]
    one = [f"{chrom[3:]}\t{at + 1}\t.\t{ref}\t{','.join(alts)}\t.\t.\t.\n" for chrom, at, ref, alts in rows]
    many = [f"{chrom}\t{at + 1}\t.\t{ref}\t{alt}\t.\t.\t.\n" for chrom, at, ref, alts in sorted(rows) for alt in alts]
    for name, lines in (("one", one), ("many", many)):
        (here / f"{name}.vcf").write_text(HEAD + "".join(lines))
        done = ebert(*VARIANTS, "--vcf", f"{name}.vcf", "-o", f"{name}.tsv")
        assert done.exit_code == 0, done.stderr
        assert "15 of 15 alternative alleles scored; 15 of 15 checked" in done.stderr
    together, alone = table_of(here / "one.tsv"), table_of(here / "many.tsv")
    assert [(f"chr{key[0]}", int(key[1])) for key in together][::3] == [(chrom, at + 1) for chrom, at in places]
    assert {(f"chr{key[0]}", *key[1:]) for key in together} == set(alone)
    for key, figures in together.items():
        assert figures == pytest.approx(alone[f"chr{key[0]}", *key[1:]], abs=2e-2)


def shifted(text: str) -> str:
    """Every record one base further on, as between 0-based and 1-based."""
    head, rows = text[: len(HEAD)], [line.split("\t") for line in text[len(HEAD) :].splitlines()]
    return head + "".join("\t".join([row[0], str(int(row[1]) + 1), *row[2:]]) + "\n" for row in rows)


SYMBOLIC = "2\t500\t.\tA\t<DUP>\t.\t.\t.\n2\t600\t.\tA\t]2:5]A\t.\t.\t.\n"
FAULTS: dict[str, tuple[Callable[[str], str | bytes], str, str]] = {
    "cut short": (lambda good: gzip.compress(good.encode())[:-30], "is a truncated or damaged gzip file", ""),
    "not gzip": (lambda good: b"\x1f\x8b" + good.encode(), "is a truncated or damaged gzip file", ""),
    "of another genome": (
        lambda good: good.replace("\n2\t", "\nscaffold_2\t"),
        "has no allele that can be scored: 300 chromosome that the dataset lacks",
        "SNVs and small indels",
    ),
    "one base off": (
        shifted,
        "reference alleles are not the genome's (custom), the first in line 3",
        "another assembly",
    ),
    "past the end": (
        lambda good: HEAD + "2\t41338\t.\tA\tC\t.\t.\t.\n",
        "has no allele that can be scored: 1 out of the chromosome",
        "SNVs and small indels",
    ),
    "symbolic alone": (
        lambda good: HEAD + SYMBOLIC,
        "has no allele that can be scored: 1 symbolic allele, 1 breakend",
        "SNVs and small indels",
    ),
    "a header alone": (lambda good: good[: len(HEAD)], "has no variant", "complete"),
    "a row cut short": (lambda good: good[:-12], "column(s), expected at least 8", "mend the row"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_vcfs(ebert: Ebert, here: Path, digest_tree: Callable[[Path], dict], fault: str) -> None:
    spoil, message, hint = FAULTS[fault]
    spoilt = spoil((here / "many.vcf").read_text())
    (here / "x.vcf.gz").write_bytes(spoilt if isinstance(spoilt, bytes) else gzip.compress(spoilt.encode()))
    before = digest_tree(here)
    done = ebert(*VARIANTS, "--vcf", "x.vcf.gz", "--annotate", "y.vcf")
    assert (done.exit_code, done.stdout) == (1, "")
    error = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert error.startswith("error: x.vcf.gz")
    assert message in error
    assert hint in done.stderr.partition("hint: ")[2]
    assert "Traceback" not in done.stderr
    assert digest_tree(here) == before
