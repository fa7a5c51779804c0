"""From files to a dataset: what stands in the arrays, how a dataset grows, and what a failed or killed run leaves."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from ebert_core.artifacts import MANIFEST_NAME, exclusive_lock, sha256_of
from ebert_core.config import PrepareConfig
from ebert_core.data.builder import DatasetBuilder
from ebert_core.data.dataset import Dataset
from ebert_core.data.prepare import prepare
from ebert_core.epigenome.accessibility import read_accessibility
from ebert_core.epigenome.state_models import BUILT_IN
from ebert_core.errors import EbertError, InputError
from ebert_core.genome.bins import benchmark_bin_starts
from ebert_core.genome.labels import label_bins
from ebert_core.reporting import SILENT, Reporter

SEGMENTS = "chr1\t0\t400\t1_TssA\nchr1\t400\t1000\t18_Quies\nchr2\t0\t600\t5_Tx\n"
PEAKS = "chr1\t1500\t1700\nchr2\t900\t1300\n"
LENGTHS = {"chr1": 4_000, "chr2": 2_345}


class Small:
    """A world of two short chromosomes, cheap enough to prepare in every test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "out" / "dataset"
        letters = np.random.default_rng(3).choice(list("ACGT"), size=sum(LENGTHS.values()))
        first = "".join(letters[:4_000])
        self.genome = self.write("genome.fa", f">chr1\n{first}\n>chr2\n{''.join(letters[4_000:])}\n")
        self.states = self.write("states/K562_18_core_K27ac_mnemonics.bed", SEGMENTS).parent
        self.chip = self.write("chip/CTCF.K562.bed", PEAKS).parent
        self.access = self.write("access/K562.bed", PEAKS).parent

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def prepare(self, reporter=None, **options):
        return prepare(PrepareConfig(output=self.output, **options), reporter or SILENT)

    def whole(self, **options):
        return self.prepare(
            genome=self.genome, states=self.states, chip=self.chip, accessibility=self.access, **options
        )


@pytest.fixture
def small(tmp_path):
    return Small(tmp_path)


def stamps(folder):
    """Digest, time and inode of every array: equal only where a file was not written again."""
    return {
        path.relative_to(folder).as_posix(): (sha256_of(path), path.stat().st_mtime_ns, path.stat().st_ino)
        for path in sorted(folder.rglob("*.npy"))
    }


# What stands in the arrays


def test_sequence(toy_dataset, toy_files):
    for chrom, letters in toy_files.sequences.items():
        expected = ["ACGT".find(letter) if letter in "ACGT" else 4 for letter in letters.upper()]
        assert toy_dataset.sequence(chrom).tolist() == expected
    codes = toy_dataset.flat_sequence
    assert len(codes) == toy_dataset.assembly.flat_bp
    tail = codes[toy_dataset.assembly.offset("chrShort") + 150 :]
    assert tail.tolist() == [4] * 50, "a chromosome's tail is padded with N"
    not_acgt = sum(letter not in "ACGTacgt" for letters in toy_files.sequences.values() for letter in letters)
    assert toy_dataset.manifest["sequence"]["ambiguous_bases"] == not_acgt


@pytest.mark.parametrize(("stem", "cell"), [("E116", "GM12878"), ("HepG2", "HepG2"), ("MyCell", "MyCell")])
def test_states(toy_dataset, toy_files, stem, cell):
    expected = {chrom: [0] * -(-len(letters) // 200) for chrom, letters in toy_files.sequences.items()}
    labels = [state.label for state in BUILT_IN["roadmap18"].states]
    with gzip.open(toy_files.states / f"{stem}_18_core_K27ac_mnemonics.bed.gz", "rt") as handle:
        for line in handle:
            chrom, start, end, label = line.split()
            for place in range(int(start) // 200, int(end) // 200):
                expected[chrom][place] = labels.index(label) + 1
    for chrom, codes in expected.items():
        assert toy_dataset.states(cell, chrom).tolist() == codes
    assert toy_dataset.states(cell, "chr2")[-1] == 0, "the toy's files end with the last whole bin"


def test_accessibility(toy_dataset, toy_files):
    for cell, name in (("GM12878", "GM12878.narrowPeak.gz"), ("HepG2", "HepG2.bigWig")):
        track, _ = read_accessibility(toy_files.accessibility / name, toy_dataset.assembly)
        np.testing.assert_array_equal(toy_dataset.flat_accessibility(cell), track)
        assert track.max() > 0


def test_labels(toy_dataset, toy_files):
    for tf, cell in toy_dataset.label_pairs:
        with gzip.open(toy_files.chip / f"{tf}.{cell}.narrowPeak.gz", "rt") as handle:
            rows = [line.split("\t")[:3] for line in handle]
        for chrom, length in zip(toy_dataset.assembly.chroms, toy_dataset.assembly.lengths, strict=True):
            starts = benchmark_bin_starts(length, toy_dataset.excluded(chrom))
            peaks = np.array([(int(s), int(e)) for c, s, e in rows if c == chrom], dtype=np.int64).reshape(-1, 2)
            expected = np.zeros(-(-length // 200) * 4, dtype=np.uint8)
            expected[starts // 50] = label_bins(starts, (peaks[:, 0], peaks[:, 1]), (peaks[:, 0], peaks[:, 1]))
            np.testing.assert_array_equal(toy_dataset.labels(tf, cell, chrom), expected)
        counts = np.bincount(np.concatenate([toy_dataset.labels(tf, cell, c) for c in ("chr1", "chr2")]), minlength=4)
        bins = toy_dataset.manifest["labels"][tf][cell]["bins"]
        assert [bins["unbound"], bins["ambiguous"], bins["bound"]] == counts[1:].tolist()
        assert counts[3] > 0


def test_exclusion(toy_dataset):
    assert [array.tolist() for array in toy_dataset.excluded("chr1")] == [[40_010], [41_000]]
    assert [array.tolist() for array in toy_dataset.excluded("chr2")] == [[9_000], [9_200]]
    assert [array.tolist() for array in toy_dataset.excluded("chrShort")] == [[], []]


def test_the_manifest_describes_every_file(toy_dataset):
    manifest = json.loads((toy_dataset.path / MANIFEST_NAME).read_text())
    entries = {"sequence.npy": manifest["sequence"], "excluded.npy": manifest["excluded"]}
    for group in (manifest["states"], manifest["accessibility"], *manifest["labels"].values()):
        entries.update({entry["file"]: entry for entry in group.values()})
    assert set(entries) == {p.relative_to(toy_dataset.path).as_posix() for p in toy_dataset.path.rglob("*.npy")}
    for name, entry in entries.items():
        array = np.load(toy_dataset.path / name)
        assert (list(array.shape), str(array.dtype)) == (entry["shape"], entry["dtype"])
        assert entry["bytes"] == (toy_dataset.path / name).stat().st_size
        assert entry["sha256"] == sha256_of(toy_dataset.path / name)
    assert manifest["command"]
    assert manifest["assembly"]["digest"] == toy_dataset.assembly.digest


def test_equal_inputs_give_equal_bytes(toy_files, toy_dataset, tmp_path):
    again = prepare(toy_files.config(tmp_path / "dataset")).dataset
    assert {k: v[0] for k, v in stamps(again.path).items()} == {k: v[0] for k, v in stamps(toy_dataset.path).items()}


def test_chosen_chromosomes_in_their_own_order(small):
    dataset = small.prepare(genome=small.genome, states=small.states, chroms=("2", "chr1", "2")).dataset
    assert dataset.assembly.chroms == ("chr2", "chr1")
    assert dataset.states("K562", "chr2")[:4].tolist() == [5, 5, 5, 0]
    assert dataset.states("K562", "chr1")[:3].tolist() == [1, 1, 18]


def test_a_chromosome_without_any_peak_stays_unlabelled(small, said):
    small.write("chip/CTCF.K562.bed", "chr1\t1500\t1700\n")
    dataset = small.prepare(said, genome=small.genome, chip=small.chip).dataset
    assert set(dataset.labels("CTCF", "K562", "chr2").tolist()) == {0}
    assert set(dataset.labels("CTCF", "K562", "chr1").tolist()) == {0, 1, 2, 3}
    assert dataset.assayed_chroms("CTCF", "K562") == ("chr1",)
    assert any("no file has a peak on chr2" in text for text in said.warned)


def test_a_chromosome_is_assayed_when_any_file_has_a_peak_on_it(small):
    small.write("chip/MAX.K562.bed", "chr1\t1500\t1700\n")
    dataset = small.whole().dataset
    assert set(dataset.labels("MAX", "K562", "chr2").tolist()) == {0, 1}


def test_reconciled_names_are_said(small, said):
    small.write("states/K562_18_core_K27ac_mnemonics.bed", SEGMENTS.replace("chr", ""))
    dataset = small.prepare(said, genome=small.genome, states=small.states).dataset
    assert dataset.states("K562", "chr2")[0] == 5
    assert any("1 -> chr1" in text for text in said.said)


def test_uncovered_bins_are_warned_of(small, said):
    small.prepare(said, genome=small.genome, states=small.states)
    # 8 of 32 bins have a state.
    assert any("24 of 32 bins have no state" in text for text in said.warned)


# How a dataset grows


def test_one_kind_after_the_other_equals_all_at_once(small, digest_tree):
    at_once = digest_tree(small.whole().dataset.path)
    small.output = small.folder / "step-by-step"
    small.prepare(genome=small.genome)
    small.prepare(chip=small.chip)
    small.prepare(accessibility=small.access)
    small.prepare(states=small.states)
    by_steps = digest_tree(small.output)
    assert {k: v for k, v in at_once.items() if k != MANIFEST_NAME} == {
        k: v for k, v in by_steps.items() if k != MANIFEST_NAME
    }
    assert Dataset.open(small.output).state_model == BUILT_IN["roadmap18"]


def test_an_extension_leaves_old_arrays_alone(small):
    small.whole()
    before = stamps(small.output)
    small.write("more/HepG2_18_core_K27ac_mnemonics.bed", SEGMENTS)
    small.write("peaks/MAX.HepG2.bed", PEAKS)
    done = small.prepare(states=small.folder / "more", chip=small.folder / "peaks", genome=small.genome)
    assert {kind: number for kind, number in done.added.items() if number} == {"states": 1, "labels": 1}
    after = stamps(small.output)
    assert before.items() <= after.items()
    assert set(after) - set(before) == {"states/HepG2.npy", "labels/MAX/HepG2.npy"}
    opened = Dataset.open(small.output)
    assert opened.state_cells == ("HepG2", "K562")
    assert opened.label_pairs == (("CTCF", "K562"), ("MAX", "HepG2"))


def test_tracks_of_the_same_source_are_kept(small):
    small.whole()
    before = stamps(small.output)
    done = small.prepare(states=small.states, chip=small.chip, accessibility=small.access)
    assert {kind: number for kind, number in done.kept.items() if number} == {
        "states": 1,
        "accessibility": 1,
        "labels": 1,
    }
    assert not any(done.added.values())
    assert stamps(small.output) == before


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("states", "states/K562_18_core_K27ac_mnemonics.bed", "chr1\t0\t200\t2_TssFlnk\n"),
        ("accessibility", "access/K562.bed", "chr1\t0\t200\n"),
        ("chip", "chip/CTCF.K562.bed", "chr1\t700\t900\n"),
    ],
)
def test_another_source_needs_overwrite(small, digest_tree, kind, name, text):
    small.whole()
    before = digest_tree(small.output)
    source = small.write(name, text)
    with pytest.raises(EbertError, match=r"already holds .* of K562") as caught:
        small.prepare(**{kind: source.parent})
    assert "--overwrite" in caught.value.hint
    assert source.name in caught.value.hint
    assert digest_tree(small.output) == before

    done = small.prepare(**{kind: source.parent}, overwrite=True)
    assert sum(done.added.values()) == 1
    opened = Dataset.open(small.output)
    if kind == "states":
        assert opened.states("K562", "chr1").tolist() == [2] + [0] * 19
    elif kind == "accessibility":
        assert np.flatnonzero(opened.accessibility("K562", "chr1")).tolist() == [0, 1, 2, 3]
    else:
        assert opened.labels("CTCF", "K562", "chr1")[14] == 3
    assert len(list(small.output.rglob("*.npy"))) == 5, "the replaced array is gone"


def test_replacing_back_and_forth_never_loses_the_new_array(small):
    small.whole()
    for turn in range(5):
        small.write("states/K562_18_core_K27ac_mnemonics.bed", f"chr1\t0\t200\t{turn % 3 + 1}\n")
        small.prepare(states=small.states, overwrite=True)
        assert Dataset.open(small.output).states("K562", "chr1")[0] == turn % 3 + 1


def test_relaxed_peaks_count_as_part_of_the_source(small):
    sheet = small.write("chip.tsv", "tf\tcell\tpeaks\trelaxed\nCTCF\tK562\tchip/CTCF.K562.bed\tloose.bed\n")
    for turn, loose in enumerate(["chr1\t1400\t1800\n", "chr1\t1000\t2000\n", "chr1\t900\t2100\n"]):
        small.write("loose.bed", loose)
        small.prepare(genome=None if turn else small.genome, chip=sheet, overwrite=turn > 0)
        ambiguous = Dataset.open(small.output).labels("CTCF", "K562", "chr1") == 2
        assert np.flatnonzero(ambiguous)[0] == (int(loose.split("\t")[1]) - 199 + 49) // 50


def test_labels_say_which_tf_is_there_already(small):
    small.whole()
    small.write("chip/CTCF.K562.bed", "chr1\t700\t900\n")
    with pytest.raises(EbertError, match="already holds CTCF labels of K562"):
        small.prepare(chip=small.chip)


def test_aliases_are_kept_for_later(small):
    sheet = small.write("aliases.tsv", "alias\tcell\nmyeloid\tK562\n")
    small.prepare(genome=small.genome, aliases=sheet)
    small.write("more/Myeloid.bed", SEGMENTS)
    dataset = small.prepare(states=small.folder / "more", state_model="roadmap18").dataset
    assert dataset.state_cells == ("K562",)
    assert dataset.resolve_cell("MYELOID") == dataset.resolve_cell("E123") == "K562"


def test_tf_spellings_meet(small):
    small.whole()
    small.write("more/ctcf.HepG2.bed", PEAKS)
    dataset = small.prepare(chip=small.folder / "more").dataset
    assert dataset.tfs == ("CTCF",)
    assert dataset.cells_of("ctcf") == ("HepG2", "K562")


def test_two_files_of_one_cell_type_are_refused(small, digest_tree):
    small.whole()
    before = digest_tree(small.output)
    for name in ("more/MAX.E123.bed", "more/max.K562.bed"):
        small.write(name, PEAKS)
    with pytest.raises(InputError, match=r"is the second file for .* in K562"):
        small.prepare(chip=small.folder / "more", overwrite=True)
    for name in ("again/E123_18_core_K27ac_mnemonics.bed", "again/K562_18_core_K27ac_mnemonics.bed"):
        small.write(name, SEGMENTS)
    with pytest.raises(InputError, match="is the second file for K562"):
        small.prepare(states=small.folder / "again", overwrite=True)
    assert digest_tree(small.output) == before


def test_names_cannot_lead_out_of_the_dataset(small, digest_tree):
    small.whole()
    small.write("peaks.bed", PEAKS)
    names = ["../../evil", "..", "a/b", "a_b"]
    rows = "".join(f"{name}\t{name}\tpeaks.bed\n" for name in names)
    sheet = small.write("chip.tsv", f"tf\tcell\tpeaks\n{rows}")
    around = set(digest_tree(small.folder)) - {f"out/dataset/{name}" for name in digest_tree(small.output)}
    dataset = small.prepare(chip=sheet).dataset
    inside = {f"out/dataset/{name}" for name in digest_tree(small.output)}
    assert set(digest_tree(small.folder)) - inside == around
    assert {(name, name) for name in names} <= set(dataset.label_pairs)
    for name in names:
        assert Dataset.open(small.output).labels(name, name, "chr1").max() == 3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"chroms": ("chr1",)}, "other chromosomes"),
        ({"chroms": ("chr1", "chr7")}, "other chromosomes"),
        ({"genome": "other.fa"}, "another genome"),
        ({"genome": "missing.fa"}, "is not there"),
        ({"exclude": ("more.bed",)}, "another exclusion list"),
        ({"exclude": ("missing.bed",)}, "is not there"),
        ({"exclude": ("exclude.bed", "missing.bed")}, "is not there"),
        ({"state_model": "roadmap15", "states": "states"}, "state model is roadmap18, not roadmap15"),
    ],
)
def test_what_a_dataset_was_made_of_cannot_change(small, digest_tree, options, problem):
    exclude = small.write("exclude.bed", "chr1\t10\t20\n")
    small.write("other.fa", ">chr1\nACGT\n")
    small.write("more.bed", "chr1\t10\t20\nchr1\t50\t60\n")
    small.whole(exclude=(exclude,))
    before = digest_tree(small.output)
    resolved = {}
    for key, value in options.items():
        if key == "exclude":
            value = tuple(small.folder / name for name in value)
        resolved[key] = small.folder / value if key in ("genome", "states") else value
    with pytest.raises(EbertError, match=problem) as caught:
        small.prepare(**resolved)
    assert caught.value.hint
    assert digest_tree(small.output) == before


def test_the_same_genome_and_exclusion_may_be_named_again(small):
    lists = tuple(small.write(f"{i}.bed", f"chr1\t{i}\t{i + 5}\n") for i in range(2))
    small.whole(exclude=lists)
    before = stamps(small.output)
    small.whole(exclude=lists[::-1], chroms=("2", "1"))
    assert stamps(small.output) == before


def test_a_missing_exclusion_list_of_a_dataset_without_any(small):
    small.whole()
    with pytest.raises(InputError, match="is not there"):
        small.prepare(exclude=(small.folder / "missing.bed",))


def test_overwrite_with_a_genome_makes_the_dataset_anew(small):
    small.whole()
    small.prepare(genome=small.genome, accessibility=small.access, overwrite=True)
    opened = Dataset.open(small.output)
    assert (opened.state_cells, opened.accessibility_cells, opened.tfs) == ((), ("K562",), ())
    assert sorted(path.name for path in small.output.parent.iterdir()) == ["dataset"]


# Where a dataset may be


@pytest.mark.parametrize("what", ["file", "folder", "checkpoint"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_dataset_is_never_replaced(small, digest_tree, what, overwrite):
    if what == "file":
        small.write("out/dataset", "precious")
    elif what == "folder":
        small.write("out/dataset/notes.txt", "precious")
    else:
        small.write("out/dataset/ebert.json", json.dumps({"kind": "checkpoint", "format_version": 1}))
    before = digest_tree(small.folder)
    with pytest.raises(EbertError, match="exists and is not a dataset"):
        small.whole(overwrite=overwrite)
    assert digest_tree(small.folder) == before


def test_an_empty_folder_becomes_the_dataset(small):
    small.output.mkdir(parents=True)
    assert small.whole().dataset.tfs == ("CTCF",)


def test_a_link_to_another_disk_is_followed(small):
    real = small.folder / "big disk"
    real.mkdir()
    small.output.parent.mkdir()
    small.output.symlink_to(real)
    small.prepare(genome=small.genome)
    small.prepare(genome=small.genome, states=small.states, overwrite=True)
    assert small.output.is_symlink()
    assert (real / MANIFEST_NAME).is_file()
    assert Dataset.open(small.output).state_cells == ("K562",)
    assert sorted(path.name for path in small.folder.iterdir() if "dataset" in path.name or "big" in path.name) == [
        "big disk"
    ]


def test_the_working_folder_can_be_extended_but_not_made(small, monkeypatch, digest_tree):
    small.prepare(genome=small.genome)
    monkeypatch.chdir(small.output)
    prepare(PrepareConfig(output=Path("."), states=small.states))
    assert Dataset.open(small.output).state_cells == ("K562",)

    empty = small.folder / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    before = digest_tree(small.folder)
    for output in (Path("."), Path("..") / "empty"):
        with pytest.raises(EbertError, match="is not a dataset"):
            prepare(PrepareConfig(output=output, genome=small.genome))
    assert digest_tree(small.folder) == before


# What a failed or killed run leaves


def test_a_new_dataset_needs_a_genome(small, digest_tree):
    before = digest_tree(small.folder)
    with pytest.raises(EbertError, match="there is no dataset in") as caught:
        small.prepare(states=small.states)
    assert "--genome" in caught.value.hint
    assert digest_tree(small.folder) == before


BROKEN = [
    ("states/HepG2_18_core_K27ac_mnemonics.bed", "chr1\t0\t100\t1_TssA\n"),
    ("access/HepG2.bed", "chr1\t10\t5\n"),
    ("chip/MAX.HepG2.bed", "chr1\t10\t5\n"),
    ("chip/MAX.HepG2.bed", ""),
]


@pytest.mark.parametrize(("name", "text"), BROKEN)
def test_a_failing_input_leaves_nothing_of_a_new_dataset(small, digest_tree, name, text):
    small.write(name, text)
    before = digest_tree(small.folder)
    with pytest.raises(InputError):
        small.whole()
    assert digest_tree(small.folder) == before


@pytest.mark.parametrize(("name", "text"), BROKEN)
def test_a_failing_input_leaves_an_old_dataset_as_it_was(small, digest_tree, name, text):
    small.prepare(genome=small.genome)
    small.write(name, text)
    before = digest_tree(small.folder)
    with pytest.raises(InputError):
        small.prepare(states=small.states, accessibility=small.access, chip=small.chip)
    assert digest_tree(small.folder) == before
    with pytest.raises(InputError):
        small.whole(overwrite=True)
    assert digest_tree(small.folder) == before


@pytest.mark.parametrize("fresh", [True, False])
def test_an_interrupt_leaves_nothing_new(small, digest_tree, fresh):
    class Impatient(Reporter):
        def log(self, text):
            if "state model" in text:
                raise KeyboardInterrupt

    if not fresh:
        small.prepare(genome=small.genome, chip=small.chip)
    before = digest_tree(small.folder)
    with pytest.raises(KeyboardInterrupt):
        small.prepare(Impatient(), genome=small.genome, accessibility=small.access, states=small.states)
    assert digest_tree(small.folder) == before


def test_an_interrupt_after_the_manifest_keeps_what_it_names(small, monkeypatch):
    small.prepare(genome=small.genome)
    finish = DatasetBuilder.finish

    def finish_and_stop(self):
        finish(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(DatasetBuilder, "finish", finish_and_stop)
    with pytest.raises(KeyboardInterrupt):
        small.prepare(states=small.states)
    assert Dataset.open(small.output).states("K562", "chr1")[0] == 1


def kill_in_child(small, monkeypatch, **options):
    """Run prepare in a child that dies, as by SIGKILL, when all arrays are there and the manifest is not."""
    monkeypatch.setattr(DatasetBuilder, "finish", lambda self: os._exit(9))
    child = os.fork()
    if child == 0:
        small.prepare(**options)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    monkeypatch.undo()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_run_killed_before_its_manifest_leaves_the_old_dataset(small, monkeypatch, digest_tree):
    small.prepare(genome=small.genome, chip=small.chip)
    manifest = (small.output / MANIFEST_NAME).read_bytes()
    before = stamps(small.output)
    kill_in_child(small, monkeypatch, states=small.states, accessibility=small.access)
    assert (small.output / MANIFEST_NAME).read_bytes() == manifest
    opened = Dataset.open(small.output)
    assert opened.state_cells == ()
    assert opened.labels("CTCF", "K562", "chr1").max() == 3
    assert before.items() < stamps(small.output).items(), "arrays that nobody names"

    small.prepare(accessibility=small.access)
    assert set(stamps(small.output)) - set(before) == {"accessibility/K562.2.npy"}, "what was left is gone"
    assert Dataset.open(small.output).accessibility("K562", "chr1").max() > 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_killed_first_run_is_cleaned_up_by_the_next(small, monkeypatch):
    kill_in_child(small, monkeypatch, genome=small.genome)
    left = [path.name for path in small.output.parent.iterdir()]
    assert any(".partial-" in name for name in left)
    assert not small.output.exists()
    small.prepare(genome=small.genome)
    assert [path.name for path in small.output.parent.iterdir()] == ["dataset"]


def test_a_run_killed_between_the_two_renames_loses_nothing(small):
    small.whole()
    small.output.rename(small.output.with_name(".dataset.partial-1.replaced"))
    small.prepare(genome=small.genome)
    assert Dataset.open(small.output).tfs == ("CTCF",), "the old one is back, and was extended"
    assert [path.name for path in small.output.parent.iterdir()] == ["dataset"]


def test_a_second_run_at_the_same_time_is_refused(small, digest_tree):
    small.whole()
    with exclusive_lock(small.output):
        before = digest_tree(small.folder)
        with pytest.raises(EbertError, match=f"another run is writing {small.output}"):
            small.prepare(accessibility=small.access)
        assert digest_tree(small.folder) == before
    small.prepare(accessibility=small.access)


def test_a_dataset_cannot_grow_from_a_broken_one(small):
    small.whole()
    shutil.rmtree(small.output / "labels")
    (small.output / MANIFEST_NAME).write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        small.prepare(chip=small.chip)
