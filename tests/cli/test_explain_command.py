"""`ebert explain` and `ebert variants`: what they write and print, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pysam
import pytest

from tests.conftest import TOY_MOTIFS

EXPLAIN = ("explain", "--tf", "ctcf", "--cell", "hepg2", "--threads", "1", "--width", "20")
VARIANTS = ("variants", "--tf", "CTCF", "--cell", "HepG2", "--threads", "1")
HEAD = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}
Ebert = Callable[..., object]


def write_inputs(folder: Path, sequences: dict[str, str]) -> None:
    (folder / "sites.bed").write_text("chr1\t5000\t5200\n1\t21000\t21200\nchr2\t9500\t9600\nchrU\t1\t2\n")
    columns = ["".join(f" {int(base == each)}" for each in "ACGT") + "\n" for base in TOY_MOTIFS["CTCF"]]
    matrix = f"letter-probability matrix: alength= 4 w= {len(columns)}\n{''.join(columns)}"
    (folder / "motifs.meme").write_text(f"MEME version 4\n\nALPHABET= ACGT\n\nMOTIF M1 CTCF\n{matrix}")
    rows = []
    for place in range(300, 4_300, 500):
        ref = sequences["chr2"][place].upper()
        rows.append(f"2\t{place + 1}\trs{place}\t{ref}\t{OTHER[ref]}\t.\tPASS\tAF=0.5\n")
    rows.append("2\t500\t.\tA\t<DEL>\t.\t.\t.\n")
    (folder / "x.vcf").write_text(HEAD + "".join(rows))


@pytest.fixture
def here(road: Path, toy_files) -> Path:
    """The walked road as the working folder, with sites, motifs and variants."""
    write_inputs(road, toy_files.sequences)
    return road


def test_explain_writes_a_folder_and_prints_the_motif(ebert: Ebert, here: Path) -> None:
    done = ebert(*EXPLAIN, "--regions", "sites.bed", "--motifs", "motifs.meme", "--pictures", 1)
    assert done.exit_code == 0, done.stderr
    folder = here / "explanations" / "CTCF.HepG2"
    names = {"sites.tsv", "bases.tsv", "states.tsv", "importance.bedGraph", "ebert.json", "0001.chr1_5000_5200.svg"}
    assert {path.name for path in folder.iterdir()} == names
    assert "Importance of bases against CTCF (M1)" in done.stdout
    assert "all 2 together" in done.stdout
    assert "warning: chr1:21000-21200 was left out: the genome has only N here" in done.stderr
    assert "chrU" in done.stderr
    assert "2 sites explained, in explanations/CTCF.HepG2" in done.stderr
    assert "fp32" in done.stderr
    told = json.loads((folder / "ebert.json").read_text())
    assert told["settings"] == {"width": 20, "whole": False, "reach": 0}
    again = ebert(*EXPLAIN, "--chrom", "chr2:9500-9600")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "error: explanations/CTCF.HepG2 already exists" in again.stderr
    over = ebert(*EXPLAIN, "--chrom", "chr2:9500-9600,chr1:4,000-4,100", "--overwrite", "--quiet", "--whole")
    assert (over.exit_code, over.stdout, over.stderr) == (0, "", "")
    assert json.loads((folder / "ebert.json").read_text())["sites"] == 2


def test_explain_reads_a_pipe_and_needs_no_states(ebert: Ebert, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (here / "sites.bed").open() as handle:
        monkeypatch.setattr("sys.stdin", handle)
        done = ebert(*EXPLAIN, "--regions", "sites.bed", "--no-states", "-o", "out", "-q")
    assert done.exit_code == 0, done.stderr
    rows = [line.split("\t") for line in (here / "out" / "states.tsv").read_text().splitlines()]
    by_state = {row[5]: row for row in rows if row[0] == "chr2:9500-9600" and row[4] == "shown"}
    assert by_state["as it is"][6] == by_state["unknown"][6]


def test_variants_are_written_and_printed_alike(ebert: Ebert, here: Path) -> None:
    done = ebert(*VARIANTS, "--vcf", "x.vcf", "--annotate", "y.vcf.gz")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == ""
    assert "8 of 9 alternative alleles scored; 8 of 8 checked reference alleles are the genome's" in done.stderr
    skipped = "variants/CTCF.HepG2.skipped.tsv"
    assert f"warning: skipped: 1 symbolic allele (first in line 11); listed in {skipped}" in done.stderr
    assert (here / skipped).read_text().splitlines()[1].split("\t")[5:] == ["11", "symbolic allele"]
    table = (here / "variants" / "CTCF.HepG2.tsv").read_text()
    assert len(table.splitlines()) == 9
    assert (here / "variants" / "CTCF.HepG2.ebert.json").is_file()
    with pysam.VariantFile(str(here / "y.vcf.gz")) as handle:
        deltas = [record.info["EBERT_CTCF_DELTA"][0] for record in handle if "EBERT_CTCF_DELTA" in record.info]
    assert deltas == pytest.approx([float(line.split("\t")[-1]) for line in table.splitlines()[1:]], rel=1e-5)
    printed = ebert(*VARIANTS, "--vcf", "y.vcf.gz", "-o", "-")
    assert (printed.exit_code, printed.stdout) == (0, table)
    assert printed.stderr.startswith("warning: skipped: 1 symbolic allele")
    one = ebert(*VARIANTS, "--vcf", "x.vcf", "-o", "one.tsv.gz", "--one-strand", "-q")
    assert one.exit_code == 0
    assert (here / "one.skipped.tsv").is_file()


def test_the_reference_has_the_probability_of_predict(ebert: Ebert, here: Path) -> None:
    both = [ebert(*VARIANTS, "--vcf", "x.vcf", "-o", "-"), ebert("predict", *VARIANTS[1:], "-o", "-", "-c", "chr2")]
    scores, bins = ([line.split("\t") for line in done.stdout.splitlines()] for done in both)
    values = {int(row[1]): float(row[4]) for row in bins}
    for row in scores[1:]:
        at = int(row[1]) - 1
        held = [value for start, value in values.items() if start <= at < start + 200]
        assert float(row[9]) == pytest.approx(max(held), rel=1e-3)


FAULTS = {
    "no site": (EXPLAIN, "no site was named", "--regions FILE"),
    "two kinds of sites": ((*EXPLAIN, "--regions", "sites.bed", "-c", "chr1"), "were both given", "--chrom chr20"),
    "two TFs": ((*EXPLAIN[:2], "CTCF,MAX", *EXPLAIN[3:], "-c", "chr1:5-9"), "--tf 'CTCF,MAX' is not one TF", "one"),
    "an unknown TF": ((*EXPLAIN[:2], "CTFC", *EXPLAIN[3:], "-c", "chr1:5-9"), "unknown TF 'CTFC'", "CTCF?"),
    "an unknown cell": ((*EXPLAIN[:4], "HepG3", *EXPLAIN[5:], "-c", "chr1:5-9"), "unknown cell type", "HepG2"),
    "a chromosome": ((*EXPLAIN, "-c", "chr1"), "chr1:0-60,000 has 60,000 bp, a site has 1,000", "name the site"),
    "an unknown chromosome": ((*EXPLAIN, "-c", "chr7:5-9"), "unknown chromosome 'chr7'", "chr1"),
    "past the end": ((*EXPLAIN, "-c", "chr2:41000-42000"), "goes past the end of chr2", "0-based"),
    "no motif": ((*EXPLAIN, "-c", "chr1:5-9", "--motifs", "sites.bed"), "is not a MEME file", ""),
    "sites of N": ((*EXPLAIN, "-c", "chr1:21000-21100"), "none of 1 site has a score", "`ebert predict`"),
    "a wide stretch": ((*EXPLAIN, "-c", "chr1:500-900", "--width", "9999"), "--width 9999 bp", "2,000"),
    "no such file": ((*EXPLAIN, "--regions", "none.bed"), "none.bed: is not there", "check the path"),
    "states twice": ((*EXPLAIN, "-c", "chr1:5-9", "--no-states", "--states", "x"), "were both given", "one of them"),
    "another folder": ((*EXPLAIN, "-c", "chr1:500-900", "-o", "models", "--overwrite"), "models exists and is not", ""),
    "no VCF": ((*VARIANTS, "--vcf", "sites.bed"), "sites.bed, line 1: is not a VCF file", ""),
    "no TF": (("variants", "--tf", ",", *VARIANTS[3:], "--vcf", "x.vcf"), "no TF was named", "--tf CTCF"),
    "an empty VCF": ((*VARIANTS, "--vcf", "empty.vcf"), "empty.vcf: has no variant", "complete"),
    "another assembly": ((*VARIANTS, "--vcf", "wrong.vcf"), "2 of 2 reference alleles are not the genome's", "another"),
    "swapped alleles": ((*VARIANTS, "--vcf", "swapped.vcf"), "8 of 8 reference alleles", "swapped"),
    "a bad row": ((*VARIANTS, "--vcf", "bad.vcf"), "bad.vcf, line 3: POS is 'x'", "mend"),
    "both at once": ((*VARIANTS, "--vcf", "x.vcf", "-o", "a", "--annotate", "a"), "both the table and the VCF", "two"),
    "an output there": ((*VARIANTS, "--vcf", "x.vcf", "-o", "sites.bed"), "sites.bed already exists", "--overwrite"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(ebert: Ebert, here: Path, digest_tree: Callable[[Path], dict], toy_files, fault: str) -> None:
    arguments, message, hint = FAULTS[fault]
    base = toy_files.sequences["chr1"][700].upper()
    wrong = f"chr1\t701\t.\t{OTHER[base]}\t{OTHER[OTHER[base]]}\t.\t.\t.\n"
    (here / "wrong.vcf").write_text(HEAD + wrong * 2)
    (here / "empty.vcf").write_text(HEAD)
    (here / "bad.vcf").write_text(f"{HEAD}chr1\tx\t.\tA\tC\t.\t.\t.\n")
    rows = [line.split("\t") for line in (here / "x.vcf").read_text().splitlines()[2:10]]
    (here / "swapped.vcf").write_text(HEAD + "".join("\t".join([*r[:3], r[4], r[3], *r[5:]]) + "\n" for r in rows))
    before = digest_tree(here)
    done = ebert(*arguments)
    assert (done.exit_code, done.stdout) == (1, ""), done.stderr
    error = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert message in error
    assert hint in done.stderr.partition("hint: ")[2]
    assert "Traceback" not in done.stderr
    assert digest_tree(here) == before
