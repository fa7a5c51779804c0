"""Bad input: one clear error each, exit 1, no traceback, nothing written or harmed.

Every case runs the real command on real files. What it says names the file, and the line where there is one.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pysam
import pytest

# Every bin has a state: a warning would come before the error.
SEGMENTS = "chr1\t0\t400\t1_TssA\nchr1\t400\t4000\t18_Quies\nchr2\t0\t2345\t5_Tx\n"
PEAKS = "chr1\t1500\t1700\t.\t0\t.\t5.5\t-1\t-1\t100\nchr2\t900\t1300\t.\t0\t.\t2.5\t-1\t-1\t100\n"
LETTERS = "".join(np.random.default_rng(3).choice(list("ACGT"), size=6_400))
GENOME = f">chr1\n{LETTERS[:4_000]}\n>chr2\n{LETTERS[4_000:6_345]}\n"

# Option -> a good file for it.
FILES = {
    "--genome": "genome.fa",
    "--states": "K562_18_core_K27ac_mnemonics.bed",
    "--chip": "CTCF.K562.narrowPeak",
    "--accessibility": "HepG2.narrowPeak",
    "--tss": "starts.bed",
    "--exclude": "exclude.bed",
}
CONTENT = {
    "--genome": GENOME,
    "--states": SEGMENTS,
    "--chip": PEAKS,
    "--accessibility": PEAKS,
    "--tss": "chr1\t1500\t1501\t.\t.\t+\nchr2\t900\t901\t.\t.\t-\n",
    "--exclude": "chr1\t3000\t3100\n",
}


def write_inputs(folder: Path) -> None:
    for option, name in FILES.items():
        (folder / name).write_text(CONTENT[option])


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working folder with good inputs for a new dataset."""
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    return tmp_path


def prepare_with(**changed: str) -> list[str]:
    """`prepare` of all inputs, some of them other files, as arguments."""
    files = {**FILES, **{f"--{option}": name for option, name in changed.items()}}
    return ["prepare", "--quiet", *(word for pair in files.items() for word in pair)]


def check_error(done, *says: str) -> None:
    assert done.exit_code == 1, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: "), done.stderr
    assert lines[1].startswith("hint: "), done.stderr
    assert len(lines) == 2
    assert len(lines[1]) > len("hint: ")
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stdout == ""
    for words in says:
        assert words in done.stderr


# prepare: one faulty file of any kind


@dataclass(frozen=True)
class Fault:
    """A fault that every kind of interval file may have: its content, where it is, what is said of it."""

    name: str
    content: str | bytes | None
    line: int | None
    says: str
    suffix: str = ""


WIDE = "\t1_TssA\t0\t.\t1\t-1\t-1\t0"
FAULTS = [
    Fault("missing", None, None, "is not there"),
    Fault("empty", "", None, "has no data lines"),
    Fault("header only", "#chrom\tstart\tend\ntrack name=x\n", None, "has no data lines"),
    Fault("end before start", f"chr1\t0\t200{WIDE}\nchr1\t400\t200{WIDE}\n", 2, "end 200 is not beyond start 400"),
    Fault("end at start", f"chr1\t200\t200{WIDE}\n", 1, "end 200 is not beyond start 200"),
    Fault("negative start", f"#\nchr1\t-200\t200{WIDE}\n", 2, "start is -200, expected 0 or more"),
    Fault("past the end", f"chr1\t0\t4200{WIDE}\n", 1, "end 4,200 is past the end of chr1 (4,000 bp)"),
    Fault("no number", f"chr1\tzero\t200{WIDE}\n", 1, "start is 'zero', expected a whole number"),
    Fault("header row", f"chrom\tstart\tend{WIDE}\nchr1\t0\t200{WIDE}\n", 1, "start is 'start'"),
    Fault("spaces", f"chr1 0 200{WIDE}\n".replace("\t", " "), 1, "separate the columns with tabs, not spaces"),
    Fault("two columns", "chr1\t0\n", 1, "has 2 column(s), expected at least 3"),
    Fault("other names", f"scaffold_7\t0\t200{WIDE}\n", None, "has no row on the genome's chromosomes (chr1, chr2)"),
    Fault("truncated gz", gzip.compress(SEGMENTS.encode())[:-9], None, "is a truncated or damaged gzip file", ".gz"),
    Fault("no gz", SEGMENTS, None, "is called .gz but is not gzip", ".gz"),
    Fault("binary", bytes(range(1, 256)) * 4, 1, "expected at least 3 separated by tabs"),
]


@pytest.mark.parametrize("option", [option for option in FILES if option != "--genome"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_faulty_interval_file(here, ebert, digest_tree, option, fault):
    path = here / f"{FILES[option]}{fault.suffix}"
    if fault.content is None:
        path.unlink()
    else:
        path.write_bytes(fault.content if isinstance(fault.content, bytes) else fault.content.encode())
    before = digest_tree(here)
    done = ebert(*prepare_with(**{option[2:]: path.name}))
    check_error(done, fault.says, path.name if fault.line is None else f"{path.name}, line {fault.line}: ")
    assert digest_tree(here) == before


# prepare: everything else


@dataclass(frozen=True)
class Case:
    """Files to write, the arguments, and what is said. A `None` content removes the file."""

    name: str
    files: dict[str, str | bytes | None]
    arguments: list[str]
    says: list[str]


def bam(chrom: str, length: int, quality: int = 30) -> bytes:
    """A BAM file of one read of 10 bp at the chromosome's start."""
    header = pysam.AlignmentHeader.from_references([chrom], [length])
    with tempfile.NamedTemporaryFile(suffix=".bam") as file:
        with pysam.AlignmentFile(file.name, "wb", header=header) as handle:
            fields = ["read", "0", chrom, "1", str(quality), "10M", "*", "0", "0", "A" * 10, "I" * 10]
            handle.write(pysam.AlignedSegment.fromstring("\t".join(fields), header))
        return Path(file.name).read_bytes()


HG19_END = 48129895
STATES = FILES["--states"]
E116 = "states/E116_15_coreMarks_mnemonics.bed"
E118 = "states/E118_18_core_K27ac_mnemonics.bed"
NEW = ["prepare", "--quiet", "--genome", "genome.fa"]
CASES = [
    Case("no genome", {}, ["prepare", "-q", "--states", STATES], ["there is no dataset in dataset yet", "--genome"]),
    Case("missing genome", {}, prepare_with(genome="x.fa"), ["x.fa: is not there"]),
    Case("genome is a folder", {"x/y": ""}, prepare_with(genome="x"), ["x: is a folder"]),
    Case("empty genome", {"x.fa": ""}, prepare_with(genome="x.fa"), ["x.fa: is empty"]),
    Case("gzip genome", {"x.fa.gz": gzip.compress(GENOME.encode())}, prepare_with(genome="x.fa.gz"),
         ["x.fa.gz: is gzip", "gunzip -c x.fa.gz | bgzip"]),
    Case("truncated gzip genome", {"x.fa.gz": gzip.compress(GENOME.encode())[:700]}, prepare_with(genome="x.fa.gz"),
         ["x.fa.gz: is gzip"]),
    Case("BED as genome", {}, prepare_with(genome=STATES), [f"{STATES}, line 1: does not look like FASTA"]),
    Case("uneven genome", {"x.fa": ">chr1\nACGT\nAC\nACGT\n"}, prepare_with(genome="x.fa"),
         ["x.fa, line 4: cannot be indexed"]),
    Case("twice in the genome", {"x.fa": GENOME + GENOME}, prepare_with(genome="x.fa"), ["two sequences named 'chr1'"]),
    Case("protein", {"x.fa": ">p\nMKTLL\n"}, prepare_with(genome="x.fa"), ["'L' at p:3", "no nucleotide"]),
    Case("unknown chromosome", {}, [*prepare_with(), "--chrom", "chr1,chrom2"],
         ["unknown chromosome 'chrom2'", "did you mean chr"]),
    Case("overlapping segments", {STATES: "chr1\t0\t600\t1_TssA\nchr1\t400\t800\t5_Tx\n"}, prepare_with(),
         [f"{STATES}, line 2: segment 400-800 overlaps an earlier one"]),
    Case("not on bins", {STATES: "chr1\t0\t600\t1_TssA\nchr1\t600\t750\t5_Tx\n"}, prepare_with(),
         [f"{STATES}, line 2: segment 600-750 does not lie on 200-bp bins"]),
    Case("unknown state", {STATES: SEGMENTS + "chr2\t600\t800\t19_New\n"}, prepare_with(),
         [f"{STATES}, line 4: state '19_New' is not one of the 18 states of roadmap18", "--state-model"]),
    Case("no state", {STATES: "chr1\t0\t600\n"}, prepare_with(), [f"{STATES}, line 1: has 3 columns", "BED4"]),
    Case("ambiguous states", {"K562_segments.bed": "chr1\t0\t600\tE1\n"}, prepare_with(states="K562_segments.bed"),
         ["state names E1 fit roadmap15, roadmap18, roadmap25", "--state-model"]),
    Case("mixed state models", {E116: "chr1\t0\t600\t15_Quies\n", E118: "chr1\t0\t600\t18_Quies\n"},
         prepare_with(states="states"), [E116[7:], E118[7:], "roadmap15", "roadmap18", "one state model"]),
    Case("mixed state models, five files",
         {**{f"states/c{i}_18_core_mnemonics.bed": SEGMENTS for i in range(4)},
          "states/z_15_coreMarks_mnemonics.bed": "chr1\t0\t600\t15_Quies\n"}, prepare_with(states="states"),
         ["z_15_coreMarks_mnemonics.bed, line 1: state '15_Quies' is not one of the 18 states of roadmap18"]),
    Case("another model by name", {}, [*prepare_with(), "--state-model", "roadmap15"],
         [f"{STATES}, line 2: state '18_Quies' is not one of the 15 states of roadmap15"]),
    Case("unknown model", {}, [*prepare_with(), "--state-model", "roadmap16"],
         ["unknown state model 'roadmap16'", "roadmap15, roadmap18"]),
    Case("broken model", {"m.tsv": "number\tname\n1\tA\n1\tB\n"}, [*prepare_with(), "--state-model", "m.tsv"],
         ["m.tsv, line 3: state 1 B is given twice"]),
    Case("empty folder of states", {"states/readme": ""}, prepare_with(states="states"),
         ["states holds no segmentation file"]),
    Case("two files of one cell type", {"states/E118_18_core_a.bed": SEGMENTS, "states/hepg2.bed": SEGMENTS},
         prepare_with(states="states"), ["hepg2.bed: is the second file for HepG2", "E118_18_core_a.bed"]),
    Case("sheet of a missing file", {"s.tsv": "cell\tpath\nK562\tnone.bed\n"}, prepare_with(states="s.tsv"),
         ["s.tsv, line 2: names none.bed, which is not there"]),
    Case("sheet without a column", {"s.tsv": "name\tpath\nK562\tx.bed\n"}, prepare_with(states="s.tsv"),
         ["s.tsv, line 1: has no column 'cell'"]),
    Case("no peak on the chosen chromosome", {FILES["--chip"]: PEAKS.splitlines()[0] + "\n"},
         [*NEW, "--chrom", "chr2", "--chip", FILES["--chip"]],
         [f"{FILES['--chip']}: has no row on the genome's chromosomes (chr2); it names chr1"]),
    Case("peaks of no TF", {"peaks.bed": PEAKS}, prepare_with(chip="peaks.bed"), ["peaks.bed"]),
    Case("relaxed peaks only", {"chip/ChIPseq.A549.MYC.relaxed.narrowPeak": PEAKS}, prepare_with(chip="chip"),
         ["chip holds relaxed peaks only"]),
    Case("signal is no number", {FILES["--accessibility"]: PEAKS.replace("2.5", "high")}, prepare_with(),
         [f"{FILES['--accessibility']}, line 2: signalValue is 'high', expected a number"]),
    Case("negative signal", {FILES["--accessibility"]: PEAKS.replace("2.5", "-2.5")}, prepare_with(),
         [f"{FILES['--accessibility']}: has a signalValue of -2.5 on chr2"]),
    Case("no bigWig", {"HepG2.bigWig": PEAKS}, prepare_with(accessibility="HepG2.bigWig"),
         ["HepG2.bigWig: is not a bigWig file"]),
    Case("reads of another assembly", {"HepG2.bam": bam("chr1", 4_001)}, prepare_with(accessibility="HepG2.bam"),
         ["HepG2.bam: says chr1 has 4,001 bp, the genome has 4,000"]),
    Case("reads of other chromosomes", {"HepG2.bam": bam("chr7", 4_000)}, prepare_with(accessibility="HepG2.bam"),
         ["HepG2.bam: shares no chromosome with the genome; it names chr7"]),
    Case("reads of low quality only", {"HepG2.bam": bam("chr1", 4_000, 3)}, prepare_with(accessibility="HepG2.bam"),
         ["HepG2.bam: has no read to count", "1 of low mapping quality"]),
    Case("truncated reads", {"HepG2.bam": bam("chr1", 4_000)[:-28]}, prepare_with(accessibility="HepG2.bam"),
         ["HepG2.bam: is a truncated BAM file: its last block is missing"]),
    Case("damaged reads", {"HepG2.bam": bam("chr1", 4_000)[:50] + bam("chr1", 4_000)[-28:]},
         prepare_with(accessibility="HepG2.bam"), ["HepG2.bam: is a truncated or damaged gzip file"]),
    Case("no reads", {"HepG2.bam": ""}, prepare_with(accessibility="HepG2.bam"), ["HepG2.bam: is empty"]),
    Case("BED as BAM", {"HepG2.bam": PEAKS}, prepare_with(accessibility="HepG2.bam"), ["HepG2.bam: is no BAM file"]),
    Case("peaks beside reads", {"a/HepG2.bam": bam("chr1", 4_000), "a/HepG2.narrowPeak": PEAKS},
         prepare_with(accessibility="a"), ["HepG2.narrowPeak: is the second file for HepG2"]),
    Case("genes without strand", {"g.bed": "chr1\t5\t6\nchr1\t50\t90\tCTCF\n"}, prepare_with(tss="g.bed"),
         ["g.bed, line 2: is 40 bp long and has no strand"]),
    Case("strand of no kind", {"g.bed": "chr1\t5\t6\tCTCF\t0\t*\n"}, prepare_with(tss="g.bed"),
         ["g.bed, line 1: strand is '*', expected +, - or ."]),
    Case("no expression", {}, [*prepare_with(), "--expression", "rpkm.tsv"], ["rpkm.tsv: is not there"]),
    Case("expression without cell types", {"rpkm.tsv": "CTCF\n"}, [*prepare_with(), "--expression", "rpkm.tsv"],
         ["rpkm.tsv, line 1: begins with 'CTCF', expected a header"]),
    Case("expression is no number", {"rpkm.tsv": "gene\tK562\nCTCF\thigh\n"},
         [*prepare_with(), "--expression", "rpkm.tsv"], ["rpkm.tsv, line 2: K562 is 'high', expected a number"]),
    Case("logarithm of expression", {"rpkm.tsv": "gene\tK562\nCTCF\t-2\n"},
         [*prepare_with(), "--expression", "rpkm.tsv"], ["rpkm.tsv, line 2: K562 is -2, expected 0 or more"]),
    Case("a gene twice", {"rpkm.tsv": "gene\tK562\nMAX\t1\nMAX\t2\n"}, [*prepare_with(), "--expression", "rpkm.tsv"],
         ["rpkm.tsv, line 3: gives MAX again, after line 2"]),
    Case("gene names without ids", {"n.tsv": "gene\tsymbol\nE\tMAX\n"}, [*prepare_with(), "--gene-names", "n.tsv"],
         ["n.tsv, line 1: has no column 'id', expected id, symbol"]),
    Case("assembly mismatch",
         {"hg.fa": f">chr20\n{'A' * 63_025}\n", "p.bed": "chr20\t0\t64444167\n"},
         ["prepare", "-q", "--genome", "hg.fa", "--exclude", "p.bed"],
         ["p.bed, line 1: end 64,444,167 is past the end of chr20 (63,025 bp)", "look like hg38"]),
    Case("aliases missing", {}, [*prepare_with(), "--aliases", "a.tsv"], ["a.tsv: is not there"]),
    Case("output is a file", {"dataset": "precious"}, prepare_with(), ["dataset exists and is not a dataset"]),
    Case("output is another folder", {"dataset/thesis.txt": "precious"}, [*prepare_with(), "--overwrite"],
         ["dataset exists and is not a dataset", "--output"]),
    Case("output is a checkpoint", {"p/ebert.json": '{"kind": "checkpoint", "format_version": 1}'},
         [*prepare_with(), "--overwrite", "--output", "p"], ["p exists and is not a dataset"]),
    Case("output below a file", {"f": ""}, [*prepare_with(), "--output", "f/dataset"],
         ["f is a file, expected a folder", "--output"]),
    Case("output name too long", {}, [*prepare_with(), "--output", "x" * 300], ["name too long"]),
    Case("output is the working folder", {}, [*prepare_with(), "--output", "."], ["exists and is not a dataset"]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_of_prepare(here, ebert, digest_tree, case):
    for name, content in case.files.items():
        path = here / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = digest_tree(here)
    check_error(ebert(*case.arguments), *case.says)
    assert digest_tree(here) == before


def test_every_faulty_file_leaves_an_existing_dataset_as_it_was(here, ebert, digest_tree):
    assert ebert("prepare", "--quiet", "--genome", "genome.fa").exit_code == 0
    for option in ("--states", "--chip", "--accessibility"):
        (here / f"bad.{FILES[option]}").write_text("chr1\t0\t200\t1_TssA\nchr1\t200\t100\t1_TssA\n")
        before = digest_tree(here)
        good = [
            word for other in FILES if other not in ("--genome", "--exclude", option) for word in (other, FILES[other])
        ]
        check_error(ebert("prepare", "--quiet", *good, option, f"bad.{FILES[option]}"), "line 2: end 100")
        assert digest_tree(here) == before


def test_a_truncated_bgzip_genome(here, ebert, digest_tree):
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), size=300_000))
    (here / "big.fa").write_text(f">chr1\n{letters}\n")
    pysam.tabix_compress("big.fa", "big.fa.gz")
    content = (here / "big.fa.gz").read_bytes()
    for kept in (len(content) // 2, len(content) - 28):
        (here / "big.fa.gz").write_bytes(content[:kept])
        before = digest_tree(here)
        check_error(ebert("prepare", "-q", "--genome", "big.fa.gz"), "big.fa.gz: is a truncated bgzip file")
        assert digest_tree(here) == before


# What looks odd and is accepted

ACCEPTED = {
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "header and track lines": lambda text: f'#chrom\tstart\tend\ntrack name="x y"\nbrowser position chr1\n\n{text}\n\n',
    "byte order mark": lambda text: f"\ufeff{text}",
    "no last newline": lambda text: text.rstrip("\n"),
    "names without chr": lambda text: text.replace("chr", ""),
    "other chromosomes too": lambda text: text + "chrUn_7\t0\t200\t1_TssA\t0\t.\t3\t-1\t-1\t0\n",
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted_oddities_give_the_same_arrays(here, ebert, digest_tree, change):
    def arrays(folder):
        return {name: digest for name, digest in digest_tree(here / folder).items() if name.endswith(".npy")}

    assert ebert(*prepare_with()).exit_code == 0
    for option, name in FILES.items():
        if option != "--genome":
            (here / name).write_bytes(change(CONTENT[option]).encode())
    done = ebert(*prepare_with(), "--output", "odd")
    assert done.exit_code == 0, done.stderr
    assert arrays("odd") == arrays("dataset") != {}


def test_reconciled_chromosome_names_are_said(here, ebert):
    (here / STATES).write_text(SEGMENTS.replace("chr", ""))
    done = ebert("prepare", "--genome", "genome.fa", "--states", STATES)
    assert done.exit_code == 0
    assert "chromosome names were reconciled (1 -> chr1)" in done.stderr


# Disks and folders


@pytest.fixture
def small_disk(tmp_path_factory):
    """A function: size in kB -> an empty disk of that size; needs the right to mount."""
    mounted = []

    def make(size_kb: int) -> Path:
        folder = tmp_path_factory.mktemp("disk")
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("may not mount a small disk here")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


FULL = "no space left on the device while writing"


@pytest.mark.parametrize("size_kb", [4, 64, 112])
def test_a_full_disk_while_a_dataset_is_made(toy_files, ebert, digest_tree, small_disk, size_kb):
    # The toy's sequence takes 100 kB; 4 kB hold no more than its folder.
    disk = small_disk(size_kb)
    arguments = ["--genome", toy_files.genome, "--states", toy_files.states, "-a", toy_files.accessibility]
    check_error(ebert("prepare", "-q", *arguments, "--output", disk / "dataset"), FULL, str(disk / "dataset"))
    assert digest_tree(disk) == {}


def test_a_full_disk_while_a_dataset_grows(toy_files, ebert, digest_tree, small_disk):
    disk = small_disk(256)
    output = ["--output", disk / "dataset"]
    assert ebert("prepare", "-q", "--genome", toy_files.genome, *output).exit_code == 0
    with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(1024))
    before = digest_tree(disk)
    check_error(ebert("prepare", "-q", "--states", toy_files.states, *output), FULL)
    assert digest_tree(disk) == before


@pytest.mark.parametrize("option", ["states", "chip", "accessibility"])
def test_a_full_disk_without_one(here, ebert, digest_tree, monkeypatch, option):
    assert ebert("prepare", "-q", "--genome", "genome.fa").exit_code == 0
    before = digest_tree(here)

    def no_space(descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", no_space)
    check_error(ebert("prepare", "-q", f"--{option}", FILES[f"--{option}"]), FULL)
    assert digest_tree(here) == before


@pytest.mark.parametrize("formats", ["dream", "narrowpeak,dream"])
def test_a_full_disk_while_a_submission_is_written(road, ebert, small_disk, formats):
    disk = small_disk(12)
    predict = ["predict", "-q", "--tf", "CTCF", "--cell", "HepG2", "--threads", 1]
    done = ebert(*predict, "--format", formats, "--output", disk / "new")
    assert (done.exit_code, FULL in done.stderr) == (1, True), done.stderr
    assert "Traceback" not in done.stderr
    assert list(disk.iterdir()) == []


def test_a_full_disk_while_label_tables_are_written(road, ebert, digest_tree, small_disk):
    disk, before = small_disk(4), digest_tree(road / "dataset")
    done = ebert("prepare", "-q", "--write-labels", disk / "tables")
    check_error(done, FULL)
    assert [path for path in disk.rglob("*") if path.is_file()] == []
    assert digest_tree(road / "dataset") == before


@pytest.mark.parametrize("size_kb", [4, 16])
@pytest.mark.parametrize("command", ["pretrain", "finetune", "predict", "evaluate"])
def test_a_full_disk_while_the_others_write(road, ebert, small_disk, command, size_kb):
    disk = small_disk(size_kb)
    # With one thread: products so small cost more on two, which wait for each other.
    small = ["--steps", 1, "--set", "global_batch=2", "--threads", 1]
    shape = ["--set", "encoder.width=32", "--set", "encoder.num_layers=1"]
    arguments = {
        "pretrain": ["--valid-chrom", "chr2", "--set", "valid_windows=1", *shape, *small],
        "finetune": ["--tf", "CTCF", "--set", "valid_bp=4000", *small],
        "predict": ["--tf", "CTCF", "--cell", "HepG2", "--format", "bigwig,narrowpeak,dream", "--threads", 1],
        "evaluate": ["--missing", "zero", "--format", "json", "--allow-seen"],
    }[command]
    done = ebert(command, "--quiet", *arguments, "--output", disk / "new")
    first = next(line for line in done.stderr.splitlines() if not line.startswith("warning: "))
    assert (done.exit_code, first[: len(FULL) + 7]) == (1, f"error: {FULL}"), done.stderr
    assert "Traceback" not in done.stderr
    # What a training run had done so far waits for --resume.
    assert {path.name for path in disk.iterdir()} <= {"new.partial"}


def test_a_genome_without_index_in_a_read_only_folder(toy_files, ebert, digest_tree, small_disk, tmp_path):
    disk = small_disk(400)
    shutil.copy(toy_files.genome, disk / "plain.fa")
    pysam.tabix_compress(str(toy_files.genome), str(disk / "packed.fa.gz"))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before = digest_tree(disk)
    for name in ("plain.fa", "packed.fa.gz"):
        done = ebert("prepare", "-q", "--genome", disk / name, "--output", tmp_path / name)
        assert done.exit_code == 0, done.stderr
    assert digest_tree(disk) == before
    check_error(
        ebert("prepare", "-q", "--genome", toy_files.genome, "--output", disk / "dataset"),
        f"not allowed to write {disk / 'dataset'}",
        "--output",
    )


def test_an_index_is_never_put_beside_the_genome(here, ebert):
    assert ebert("prepare", "-q", "--genome", "genome.fa").exit_code == 0
    assert [path.name for path in here.iterdir() if path.name.startswith("genome")] == ["genome.fa"]


def test_a_file_that_may_not_be_read(here, ebert, digest_tree, monkeypatch):
    before = digest_tree(here)
    path_open = Path.open

    def refuse(self, *arguments, **options):
        if self.name == STATES:
            raise PermissionError(13, "Permission denied", str(self))
        return path_open(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)  # root may read whatever the mode
    done = ebert(*prepare_with())
    monkeypatch.undo()
    check_error(done, f"{STATES}: may not be read")
    assert digest_tree(here) == before


# Signals


def start_and_wait(here: Path, *arguments: str) -> subprocess.Popen[str]:
    """Run prepare until it reads a segmentation from a pipe that nobody fills."""
    (here / "slow").mkdir()
    os.mkfifo(here / "slow" / "HepG2_18_core_mnemonics.bed")
    command = [sys.executable, "-m", "ebert_cli", "prepare", "--states", "slow", *arguments]
    process = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (here / ".dataset.lock").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)  # reading the small genome takes a few ms
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_run_leaves_nothing(here, ebert, digest_tree, number, code, existing):
    if existing:
        assert ebert("prepare", "-q", "--genome", "genome.fa", "--chip", FILES["--chip"]).exit_code == 0
    before = digest_tree(here)
    process = start_and_wait(here, "--genome", "genome.fa", "--accessibility", FILES["--accessibility"])
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == code, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("interrupted")
    shutil.rmtree(here / "slow")
    assert digest_tree(here) == before


def test_a_second_run_at_the_same_time_is_refused(here, ebert):
    process = start_and_wait(here, "--genome", "genome.fa")
    check_error(ebert("prepare", "-q", "--genome", "genome.fa"), "another run is writing dataset")
    process.kill()
    process.communicate(timeout=30)
    assert ebert("prepare", "-q", "--genome", "genome.fa").exit_code == 0
    assert not [path.name for path in here.iterdir() if path.name.startswith(".dataset")], "the killed run's are gone"


# The other commands


@dataclass(frozen=True)
class Later:
    """A command on the prepared, trained and predicted toy world."""

    name: str
    arguments: list[str]
    says: list[str]
    break_it: Callable[[Path], None] = field(default=lambda folder: None)


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / "ebert.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


MEME = "MEME version 4\nMOTIF M1 CTCF\nletter-probability matrix: w= 2\n"
PREDICT = ["predict", "--quiet", "--tf", "CTCF", "--cell", "HepG2", "--output", "new"]
FINETUNE = ["finetune", "--quiet", "--tf", "CTCF", "--output", "new"]
PRETRAIN = ["pretrain", "--quiet", "--valid-chrom", "chr2", "--output", "new"]
SCORE = ["evaluate", "--quiet", "--output", "new", "--chrom", "chr2", "--allow-seen"]
LATER = [
    Later("unknown cell", [*PREDICT, "--cell", "HepG3"], ["unknown cell type 'HepG3'", "did you mean HepG2?"]),
    Later("cell of no track", [*PREDICT, "--cell", "E123"], ["cell type 'E123'", "GM12878, HepG2, MyCell"]),
    Later("empty cell", [*PREDICT, "--cell", "", "--no-states"], ["no cell type was named"]),
    Later("unknown TF", [*PREDICT, "--tf", "CTFC"], ["TF 'CTFC'", "did you mean CTCF?"]),
    Later("no TF", ["predict", "-q", "--tf", ",", "--cell", "HepG2"], ["no TF was named"]),
    Later("unknown chromosome", [*PREDICT, "--chrom", "chr7"], ["unknown chromosome 'chr7'", "did you mean chr"]),
    Later("region past the end", [*PREDICT, "--chrom", "chr2:0-50,000"], ["past the end of chr2 (41,337 bp)"]),
    Later("malformed region", [*PREDICT, "--chrom", "chr2:5"], ["'chr2:5' is not a region", "chrom:start-end"]),
    Later("broken regions", [*PREDICT, "--regions", "r.bed"], ["r.bed, line 2: end 5 is not beyond start 5"],
          lambda folder: (folder / "r.bed").write_text("chr1\t5\t9\nchr1\t5\t5\n") and None),
    Later("regions and chrom", [*PREDICT, "--regions", "r.bed", "--chrom", "chr1"], ["--chrom and --regions"]),
    Later("empty chromosome", [*PREDICT, "--chrom", ""], ["--chrom '' names nothing", "leave the option out"]),
    Later("states and none", [*PREDICT, "--states", "s.bed", "--no-states"], ["--states and --no-states"]),
    Later("output below a file", [*PREDICT, "--output", "dataset/ebert.json"], ["dataset/ebert.json is a file"]),
    Later("missing states", [*PREDICT, "--states", "s.bed"], ["s.bed: is not there"]),
    Later("states of another model", [*PREDICT, "--cell", "X", "--states", "s.bed"],
          ["s.bed, line 1: state '19_New' is not one of the 18 states"],
          lambda folder: (folder / "s.bed").write_text("chr1\t0\t200\t19_New\n") and None),
    Later("no model", [*PREDICT, "--model", "models/MAX"], ["model models/MAX is not there", "`ebert finetune`"]),
    Later("not a model", [*PREDICT, "--model", "pretrained"], ["holds a checkpoint, expected a model"]),
    Later("broken model", PREDICT, ["models/CTCF/weights.safetensors: does not match the digest", "`ebert finetune`"],
          lambda folder: flip_last_byte(folder / "models" / "CTCF" / "weights.safetensors")),
    Later("model of another format", [*PREDICT, "--model", "models/CTCF"], ["has format version 99"],
          lambda folder: edit_manifest(folder / "models" / "CTCF", format_version=99)),
    Later("model without calibration", [*PREDICT, "--model", "models/CTCF"],
          ["models/CTCF/ebert.json: is damaged or of another version of ebert (no 'CTCF')", "`ebert finetune`"],
          lambda folder: edit_manifest(folder / "models" / "CTCF", calibration={})),
    Later("model with a setting of tomorrow", PREDICT, ["config.new: Extra inputs are not permitted"],
          lambda folder: edit_manifest(folder / "models" / "CTCF", config={"fusion": {}, "new": 1})),
    Later("model without task features", PREDICT,
          ["models/CTCF/ebert.json: says nothing that can be read of its task features"],
          lambda folder: edit_manifest(folder / "models" / "CTCF", features=None)),
    Later("model of damaged task features", PREDICT,
          ["models/CTCF/ebert.json: says nothing that can be read of its task features", "`ebert finetune`"],
          lambda folder: edit_manifest(folder / "models" / "CTCF", features={"motifs": 3})),
    Later("prediction exists", [*PREDICT, "--output", "predictions"],
          ["predictions/CTCF.HepG2.bw already exists", "--overwrite"]),
    Later("no dataset", [*PREDICT, "--dataset", "none"], ["dataset none is not there", "`ebert prepare`"]),
    Later("broken dataset", PREDICT, ["dataset/sequence.npy: does not match the digest", "`ebert prepare`"],
          lambda folder: flip_last_byte(folder / "dataset" / "sequence.npy")),
    Later("unknown TF to learn", [*FINETUNE, "--tf", "CTFC"], ["unknown TF 'CTFC'", "did you mean CTCF?"]),
    Later("nothing held out", [*FINETUNE, "--hold-out-cell", ""], ["--hold-out-cell '' names nothing"]),
    Later("no part held out", [*FINETUNE, "--hold-out-chrom", ","], ["--hold-out-chrom ',' names nothing"]),
    Later("model over a dataset", [*FINETUNE, "--output", "dataset", "--overwrite"], ["dataset exists and is not"]),
    Later("unknown cell to learn", [*FINETUNE, "--cell", "HepG3"], ["'HepG3'", "did you mean HepG2?"]),
    Later("cell without labels", [*FINETUNE, "--cell", "MyCell"], ["'MyCell'", "GM12878, HepG2"]),
    Later("chromosome without peaks", [*FINETUNE, "--chrom", "chrShort"], ["CTCF has no bound bin", "chrShort"]),
    Later("unknown TF to learn beside", [*FINETUNE, "--also", "MAXX"], ["unknown TF 'MAXX'", "did you mean MAX?"]),
    Later("nothing to learn beside", [*FINETUNE, "--also", ","], ["--also ',' names nothing"]),
    Later("no motifs", [*FINETUNE, "--motifs", "m.meme"], ["m.meme: is not there"]),
    Later("motifs are a folder", [*FINETUNE, "--motifs", "dataset"], ["dataset: is a folder"]),
    Later("motifs of another format", [*FINETUNE, "--motifs", "m.meme"],
          ["m.meme, line 1: is not a MEME file, which begins with 'MEME version'"],
          lambda folder: (folder / "m.meme").write_text(">MA0139.1 CTCF\n") and None),
    Later("motifs of probability 2", [*FINETUNE, "--motifs", "m.meme"],
          ["m.meme, line 4: motif M1: '1 1 0 0' is not four probabilities that add up to 1"],
          lambda folder: (folder / "m.meme").write_text(f"{MEME}1 1 0 0\n") and None),
    Later("motifs cut short", [*FINETUNE, "--motifs", "m.meme"], ["m.meme", "motif M1 has 1 rows, its header says 2"],
          lambda folder: (folder / "m.meme").write_text(f"{MEME}1 0 0 0\n") and None),
    Later("no checkpoint", [*FINETUNE, "--checkpoint", "none"], ["checkpoint none is not there", "`ebert pretrain`"]),
    Later("broken checkpoint", FINETUNE, ["pretrained/weights.safetensors: does not match the digest"],
          lambda folder: flip_last_byte(folder / "pretrained" / "weights.safetensors")),
    Later("truncated checkpoint", FINETUNE, ["pretrained/weights.safetensors: has 1,000 bytes, the manifest says"],
          lambda folder: os.truncate(folder / "pretrained" / "weights.safetensors", 1_000)),
    Later("unknown preset", ["pretrain", "-q", "--preset", "tini"], ["unknown preset 'tini'", "did you mean tiny?"]),
    Later("unknown setting", [*PRETRAIN, "--set", "masking.dna_raet=0.2"],
          ["masking.dna_raet is not a setting", "did you mean masking.dna_rate"]),
    Later("setting of a wrong kind", [*PRETRAIN, "--set", "encoder.token_bp=0"], ["encoder.token_bp = 0"]),
    Later("nothing hidden", [*PRETRAIN, "--set", "masking.dna_rate=0", "--set", "masking.state_rate=0"],
          ["masking hides nothing"]),
    Later("windows longer than the genome", [*PRETRAIN, "--set", "window_bp=200000"], ["200,000 bp"]),
    Later("missing settings", [*PRETRAIN, "--config", "x.toml"], ["x.toml: is not there"]),
    Later("settings are a folder", [*PRETRAIN, "--config", "dataset"], ["dataset: Is a directory"]),
    Later("unknown cell to read", [*PRETRAIN, "--cell", "HepG3"], ["'HepG3'", "did you mean HepG2?"]),
    Later("checkpoint over the rest", [*PRETRAIN, "--output", ".", "--overwrite"], ["exists and is not a checkpoint"]),
    Later("checkpoint exists", [*PRETRAIN, "--output", "pretrained"], ["pretrained already exists", "--overwrite"]),
    Later("missing predictions", [*SCORE, "x.bw", "--tf", "CTCF", "--cell", "HepG2"], ["x.bw: is not there"]),
    Later("no predictions of the TF", [*SCORE, "--tf", "MAX"], ["no predictions of MAX"]),
    Later("report over the rest", [*SCORE, "--output", ".", "--overwrite"], [". exists and is not a report"]),
    Later("report over a file", [*SCORE, "--output", "dataset/ebert.json", "--overwrite"], ["is not a report"]),
    Later("report over models", [*SCORE, "--output", "models", "--overwrite"], ["models exists and is not a report"]),
    Later("seen in training", SCORE[:-3],
          ["CTCF.HepG2.bw is not held out for CTCF in HepG2", "seen: trained on", "--allow-seen"]),
    Later("unknown challenge", [*SCORE, "--challenge", "first"], ["unknown challenge 'first'", "known: final"]),
    Later("a challenge of one pair", [*SCORE, "--challenge", "final"], ["--challenge settles TFs, cell types"]),
    Later("no final pair", ["evaluate", "-q", "--challenge", "final", "-o", "new"],
          ["no prediction of a pair of the final"]),
    Later("regions alone", [*SCORE, "--regions", "r.bed"], ["--regions was given without --peaks or --labels"]),
    Later("few resamples", [*SCORE, "--bootstrap", "5", "--missing", "zero"], ["5 resamples are too few"]),
    Later("bins without a score", SCORE, ["predictions/CTCF.HepG2.bw: has no score for", "--missing zero"]),
    Later("peaks missing", [*SCORE, "--peaks", "p.bed"], ["p.bed: is not there"]),
]  # fmt: skip


@pytest.mark.parametrize("case", LATER, ids=lambda case: case.name)
def test_bad_input_of_the_other_commands(road, ebert, digest_tree, case):
    case.break_it(road)
    before = digest_tree(road)
    check_error(ebert(*case.arguments), *case.says)
    assert digest_tree(road) == before


def test_a_checkpoint_of_another_vocabulary(road, ebert, toy_files, digest_tree):
    (road / "E116_15_coreMarks_mnemonics.bed").write_text("chr1\t0\t4000\t15_Quies\n")
    fifteen = ["--states", "E116_15_coreMarks_mnemonics.bed", "--chip", toy_files.chip, "--output", "fifteen"]
    assert ebert("prepare", "-q", "--genome", toy_files.genome, *fifteen).exit_code == 0
    before = digest_tree(road)
    for command in (FINETUNE, [*PREDICT, "--cell", "GM12878"]):
        check_error(ebert(*command, "--dataset", "fifteen"), "roadmap15", "roadmap18")
        assert digest_tree(road) == before


def test_a_model_of_another_assembly(road, ebert, digest_tree):
    write_inputs(road)
    assert ebert(*prepare_with(), "--output", "other").exit_code == 0
    before = digest_tree(road)
    done = ebert(*PREDICT, "--cell", "K562", "--dataset", "other")
    check_error(done, "chr1 has 60,000 bp in one and 4,000 bp in the other")
    assert digest_tree(road) == before
