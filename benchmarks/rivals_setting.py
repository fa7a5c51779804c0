"""What is trained on and what is tested in one turn of the development benchmark: cells, chromosomes, bins, labels.

Letters: N benchmark bins of a chromosome, T TFs, R resamples.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebert_core.data.dataset import Dataset
from ebert_core.evaluation.bootstrap import Blocks, blocks_of, draw, replicate_measures
from ebert_core.evaluation.measures import thresholds
from ebert_core.genome.labels import AMBIGUOUS, BOUND, UNBOUND
from ebert_core.genome.regions import Region, hold_back
from ebert_core.vocabulary import BIN_BP, STRIDE_BP

ROOT = Path(__file__).resolve().parents[1]
TFS = ("CTCF", "MAX", "REST", "GABPA", "JUND", "TAF1", "RAD21", "CEBPB", "MAFK", "YY1")
CELLS = ("GM12878", "HeLa-S3", "K562")
TSS_FILE = "annotation/wgEncodeGencodeBasicV19.txStart.bed.gz"
CHROMS = ("chr20", "chr22")
SETTINGS = {
    "cross": "another cell type and another chromosome",
    "within": "the same cell type, another chromosome",
    "dream": "as cross, with the peaks of ENCODE-DREAM",
}
# `ebert finetune` holds back as much of each training chromosome, and the same stretch of it.
VALID_FRACTION = 0.15

Scores = NDArray[np.float32]


class Turn(NamedTuple):
    """What is tested: a cell type on a chromosome, in one of the `SETTINGS`."""

    setting: str
    cell: str
    chrom: str

    @property
    def name(self) -> str:
        return f"{self.setting}:{self.cell}@{self.chrom}"

    @property
    def train_chrom(self) -> str:
        return next(chrom for chrom in CHROMS if chrom != self.chrom)

    @property
    def train_cells(self) -> tuple[str, ...]:
        return (self.cell,) if self.setting == "within" else tuple(cell for cell in CELLS if cell != self.cell)


def parse_turn(text: str, setting: str) -> Turn:
    """`K562@chr22` -> the turn; ends the program where there is no such cell type or chromosome."""
    cell, _, chrom = text.partition("@")
    if cell not in CELLS or chrom not in CHROMS:
        sys.exit(f"--turns: {text!r} is no turn; write CELL@CHROM with {', '.join(CELLS)} and {', '.join(CHROMS)}")
    return Turn(setting, cell, chrom)


@dataclass(frozen=True)
class Task:
    """One turn on one dataset.

    Attributes:
        tfs: those with labels in the tested cell type and in at least one that is trained on.
        data: folder of the real files; work: the benchmark's own folder.
    """

    dataset: Dataset
    turn: Turn
    tfs: tuple[str, ...]
    data: Path
    work: Path

    @classmethod
    def of(cls, dataset: Dataset, turn: Turn, tfs: tuple[str, ...], data: Path, work: Path) -> Task:
        """The task of a turn, with those of `tfs` that can be trained and tested in it."""
        assayed = {tf: set(dataset.cells_of(tf)) for tf in tfs if tf in dataset.tfs}
        kept = [tf for tf in assayed if turn.cell in assayed[tf] and assayed[tf] & set(turn.train_cells)]
        return cls(dataset, turn, tuple(kept), data, work)

    @property
    def motifs_path(self) -> Path:
        return self.data / "motifs" / "JASPAR2024_CORE_human.meme"

    def train_cells(self, tf: str) -> tuple[str, ...]:
        """Cell types whose labels of the TF are learned from."""
        return tuple(cell for cell in self.turn.train_cells if cell in self.dataset.cells_of(tf))

    def parts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Benchmark bins of the training chromosome that lie in its training and in its validation part: strides."""
        chrom = self.turn.train_chrom
        _, held = hold_back([Region(chrom, 0, self.dataset.assembly.length(chrom))], VALID_FRACTION)
        strides = bin_strides(self.dataset, chrom)
        starts = strides * STRIDE_BP
        inside, apart = np.zeros(len(starts), bool), np.ones(len(starts), bool)
        for region in held:
            inside |= (starts >= region.start) & (starts + BIN_BP <= region.end)
            apart &= (starts + BIN_BP <= region.start) | (starts >= region.end)
        return strides[apart], strides[inside]


@functools.lru_cache(maxsize=4)
def bin_strides(dataset: Dataset, chrom: str) -> NDArray[np.int64]:
    """The strides at which the benchmark's bins of a chromosome begin, shape (N,)."""
    return dataset.benchmark_bins().starts(chrom) // STRIDE_BP


def neighbours_averaged(scores: Scores, strides: NDArray[np.int64], reach: int) -> Scores:
    """Every bin's score averaged with those of the bins up to `reach` strides away, which weigh the less the further.

    Args:
        scores, strides: of the bins, (N,); strides that are not among them have no say.
    """
    triangle = 1.0 + reach - np.abs(np.arange(-reach, reach + 1))
    values, there = np.zeros(int(strides.max()) + 1), np.zeros(int(strides.max()) + 1)
    values[strides], there[strides] = scores, 1
    total, weights = (np.convolve(each, triangle)[strides + reach] for each in (values, there))
    return (total / weights).astype(np.float32)


def labels_at(dataset: Dataset, tf: str, cell: str, chrom: str, strides: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Label codes of the bins that begin at these strides."""
    return dataset.labels(tf, cell, chrom)[strides]


def replicates(task: Task, tf: str, scores: Scores) -> tuple[float, NDArray[np.float64]]:
    """auPRC over the turn's bound and unbound bins, and on 1,000 resamples of 1-Mb blocks, shape (R,).

    The resamples of a chromosome are the same for every design, TF and cell type, so differences are paired. NaN where
    a resample has no bound bin.
    """
    dataset, chrom = task.dataset, task.turn.chrom
    strides = bin_strides(dataset, chrom)
    labels = labels_at(dataset, tf, task.turn.cell, chrom, strides)
    kept = (labels == BOUND) | (labels == UNBOUND)
    whole = blocks_of({chrom: strides * STRIDE_BP})
    # The blocks of all bins, a few of them perhaps without a bin that is kept.
    edges = np.concatenate([[0], np.cumsum(kept)])[whole.edges]
    bound, kept_scores = labels[kept] == BOUND, scores[kept]
    found = replicate_measures(
        kept_scores, bound, thresholds(kept_scores, bound), Blocks(edges, whole.block_bp), draw(len(whole))
    )
    return found.point["auprc"], found.values["auprc"]


def label_counts(task: Task, tf: str) -> dict[str, int]:
    """How many of the tested bins are bound and ambiguous."""
    chrom = task.turn.chrom
    labels = labels_at(task.dataset, tf, task.turn.cell, chrom, bin_strides(task.dataset, chrom))
    return {"bound": int((labels == BOUND).sum()), "ambiguous": int((labels == AMBIGUOUS).sum())}


def real_data() -> Path:
    """The folder of real hg19 files; ends the program where it is not there."""
    data = Path(os.environ.get("EBERT_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not data.is_dir():
        sys.exit(f"no real hg19 files in {data}; name their folder with EBERT_REAL_DATA")
    return data.resolve()


def ebert(*arguments: str | Path, cwd: Path) -> None:
    """Run one command of the package."""
    code = "from ebert_cli.app import main; main()"
    subprocess.run([sys.executable, "-c", code, *map(str, arguments), "--quiet"], cwd=cwd, check=True)


def prepared(data: Path, work: Path, peaks: str) -> Dataset:
    """The dataset of `uniform` or `dream` peaks, made once per work folder."""
    folder = work / f"dataset_{peaks}"
    if not folder.exists():
        sheet = work / f"chip_{peaks}.tsv"
        sheet.write_text("tf\tcell\tpeaks\trelaxed\n" + "".join(_sheet_rows(data / "chip" / peaks, peaks)))
        ebert("prepare", "--genome", data / "genome/hg19.chr20_21_22.fa.gz", "--states", data / "states/roadmap18",
              "--chip", sheet, "--accessibility", data / "dnase", "--tss", data / TSS_FILE, "--exclude",
              data / "annotation/wgEncodeDacMapabilityConsensusExcludable.bed.gz", "--output", folder,
              cwd=work)  # fmt: skip
    return Dataset.open(folder)


def _sheet_rows(folder: Path, peaks: str) -> list[str]:
    """Rows of the sheet for `ebert prepare --chip`: of the challenge's peaks, CTCF and MAX; else all that there are.

    The TFs that are not tested can be learned beside those that are.
    """
    rows = []
    if peaks == "uniform":
        for path in sorted(folder.glob("*.narrowPeak.gz")):
            tf, _, cell = path.name.removesuffix(".narrowPeak.gz").partition(".")
            rows.append(f"{tf}\t{cell}\t{path}\t{path}\n")
        return rows
    for tf in TFS[:2]:
        for cell in CELLS:
            strong = folder / f"ChIPseq.{cell}.{tf}.conservative.train.narrowPeak.gz"
            weak = folder / f"ChIPseq.{cell}.{tf}.relaxed.narrowPeak.gz"
            if strong.exists():
                rows.append(f"{tf}\t{cell}\t{strong}\t{weak if weak.exists() else strong}\n")
    return rows
