"""The dataset: a folder of memory-mapped arrays on the flat axis, described by its manifest (docs/formats.md).

Opening costs nothing; an array's size and digest are checked when it is first asked for. All arrays are read-only.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.artifacts import DATASET_FORMAT, MANIFEST_NAME, check_file, read_manifest
from ebert_core.epigenome.cell_types import resolve_cell
from ebert_core.epigenome.state_models import StateModel
from ebert_core.errors import EbertError, InputError, UnknownNameError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import BenchmarkBins
from ebert_core.genome.intervals import Positions, cut_out
from ebert_core.genome.labels import unpack_labels
from ebert_core.io.expression import gene_key
from ebert_core.vocabulary import STATE_BIN_BP, STRIDE_BP

SEQUENCE_FILE: Final = "sequence.npy"
EXCLUDED_FILE: Final = "excluded.npy"
REGIONS_FILE: Final = "regions.npy"
_MANIFEST_KEYS: Final = {
    "assembly", "state_model", "aliases", "sequence", "excluded", "regions", "states", "accessibility", "labels"
}  # fmt: skip


class MissingSequenceError(EbertError):
    """A dataset that was made from chromosome sizes was asked for its sequence."""


class Dataset:
    """An opened dataset folder.

    Attributes:
        path: the folder.
        manifest: its `ebert.json`.
        assembly: chromosome names and lengths, and the flat axis.
        state_model: alphabet of the state tracks; None where the dataset holds no states.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.assembly = Assembly.from_sizes((name, length) for name, length in manifest["assembly"]["chroms"])
        self.state_model = StateModel.from_json(manifest["state_model"]) if manifest["state_model"] else None
        self.aliases: dict[str, str] = manifest["aliases"]
        self._arrays: dict[str, NDArray[Any]] = {}

    @classmethod
    def open(cls, path: Path) -> Dataset:
        """Open a dataset; `EbertError` where the folder is missing, unfinished, foreign or of another version."""
        manifest = read_manifest(path, "dataset", DATASET_FORMAT)
        if missing := _MANIFEST_KEYS - set(manifest):
            raise InputError(
                path / MANIFEST_NAME,
                f"has no {min(missing)!r}",
                "the file was changed or damaged; make the dataset anew with `ebert prepare`",
            )
        try:
            _require_entries(manifest)
            return cls(path, manifest)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                path / MANIFEST_NAME,
                f"is damaged ({type(error).__name__}: {error})",
                "the file was changed or damaged; make the dataset anew with `ebert prepare`",
            ) from None

    @property
    def state_cells(self) -> tuple[str, ...]:
        """Cell types with a state track."""
        return tuple(sorted(self.manifest["states"]))

    @property
    def accessibility_cells(self) -> tuple[str, ...]:
        """Cell types with an accessibility track."""
        return tuple(sorted(self.manifest["accessibility"]))

    @property
    def expression_cells(self) -> tuple[str, ...]:
        """Cell types with gene expression; they need no track, and count among `cells` only where they have one."""
        return tuple(sorted(self.manifest.get("expression", {})))

    @property
    def has_tss(self) -> bool:
        """Whether it holds distances to transcript starts."""
        return "tss" in self.manifest

    @property
    def label_pairs(self) -> tuple[tuple[str, str], ...]:
        """(TF, cell type) pairs with labels."""
        return tuple(sorted((tf, cell) for tf, cells in self.manifest["labels"].items() for cell in cells))

    @property
    def tfs(self) -> tuple[str, ...]:
        """TFs with labels in at least one cell type."""
        return tuple(sorted(self.manifest["labels"]))

    @property
    def cells(self) -> tuple[str, ...]:
        """Every cell type with a track or with labels."""
        return tuple(sorted({*self.state_cells, *self.accessibility_cells, *(cell for _, cell in self.label_pairs)}))

    def cells_of(self, tf: str) -> tuple[str, ...]:
        """Cell types in which the TF has labels."""
        return tuple(sorted(self.manifest["labels"][self.resolve_tf(tf)]))

    def assayed_chroms(self, tf: str, cell: str) -> tuple[str, ...]:
        """Chromosomes on which the pair's bins are labelled."""
        return tuple(self.manifest["labels"][tf][cell]["chroms"])

    def resolve_cell(self, name: str) -> str:
        """The dataset's name of a cell type; `UnknownNameError` with a suggestion where there is none."""
        return resolve_cell(name, self.cells, self.aliases)

    def resolve_tf(self, name: str) -> str:
        """The dataset's spelling of a TF; `UnknownNameError` with a suggestion where there is none."""
        by_folded = {tf.casefold(): tf for tf in self.tfs}
        if name.casefold() not in by_folded:
            raise UnknownNameError("TF", name, self.tfs)
        return by_folded[name.casefold()]

    @property
    def has_sequence(self) -> bool:
        """Whether it was made from a FASTA, not from chromosome sizes alone."""
        return self.manifest["sequence"] is not None

    @property
    def flat_sequence(self) -> NDArray[np.uint8]:
        """Base codes on the flat axis, shape (flat_bp,); chromosome tails are padded with N.

        Raises:
            MissingSequenceError: the dataset holds none.
        """
        return self._array(SEQUENCE_FILE, self._sequence_entry())

    def flat_states(self, cell: str) -> NDArray[np.uint8]:
        """State codes on the flat axis, shape (flat_bp / 200,)."""
        return self._track("states", cell)

    def flat_accessibility(self, cell: str) -> NDArray[np.float16]:
        """ln(1 + mean signal) on the flat axis, shape (flat_bp / 50,)."""
        return self._track("accessibility", cell)

    @property
    def flat_tss_distance(self) -> NDArray[np.uint16]:
        """Distance in bp to the nearest transcript start, capped at 65,535, on the flat axis, shape (flat_bp / 50,).

        0 where a start of either strand lies within the stride. 65,535 stands for that and more, for a chromosome
        without a transcript start, and for the padding of chromosome tails.

        Raises:
            EbertError: the dataset holds none.
        """
        if not self.has_tss:
            raise EbertError(f"dataset {self.path} holds no transcript starts", "add some: `ebert prepare --tss FILE`")
        return self._array(self.manifest["tss"]["file"], self.manifest["tss"])

    def flat_packed_labels(self, tf: str, cell: str) -> NDArray[np.uint8]:
        """Packed labels on the flat axis, shape (flat_bp / 200,); see `ebert_core.genome.labels.unpack_labels`."""
        cells = self.manifest["labels"][self.resolve_tf(tf)]
        if cell not in cells:
            raise UnknownNameError(f"cell type with {tf} labels", cell, cells)
        return self._array(cells[cell]["file"], cells[cell])

    def sequence(self, chrom: str) -> NDArray[np.uint8]:
        """Base codes of a chromosome, shape (length,)."""
        offset = self.assembly.offset(chrom)
        return self.flat_sequence[offset : offset + self.assembly.length(chrom)]

    def states(self, cell: str, chrom: str) -> NDArray[np.uint8]:
        """State codes of a chromosome, shape (ceil(length / 200),)."""
        return self.flat_states(cell)[self._span(chrom, STATE_BIN_BP)]

    def accessibility(self, cell: str, chrom: str) -> NDArray[np.float16]:
        """ln(1 + mean signal) of a chromosome's strides, shape (ceil(length / 50),)."""
        return self.flat_accessibility(cell)[self._span(chrom, STRIDE_BP)]

    def tss_distance(self, chrom: str) -> NDArray[np.uint16]:
        """`flat_tss_distance` of a chromosome's strides, shape (ceil(length / 50),)."""
        return self.flat_tss_distance[self._span(chrom, STRIDE_BP)]

    def expression(self, cell: str, gene: str) -> float | None:
        """ln(1 + RPKM or TPM) of a gene in a cell type; None where its table does not name the gene.

        Args:
            cell: one of `expression_cells`.
            gene: as the table names it, or a symbol of the dataset's gene names; an Ensembl version and the case of
                letters do not count. Of several ids of one symbol the first that the table has counts.
        """
        table = self._track("expression", cell)
        key = gene_key(gene).encode()
        for name in (key, *self._ids_of(key)):
            if len(found := _rows_of(table, name)):
                return float(found[0])
        return None

    def _ids_of(self, symbol: bytes) -> list[bytes]:
        entry = self.manifest.get("gene_names")
        return [] if entry is None else _rows_of(self._array(entry["file"], entry), symbol).tolist()

    def labels(self, tf: str, cell: str, chrom: str) -> NDArray[np.uint8]:
        """Label codes of the bins that begin at every stride of a chromosome, shape (4 * ceil(length / 200),)."""
        return unpack_labels(self.flat_packed_labels(tf, cell)[self._span(chrom, STATE_BIN_BP)])

    @property
    def flat_excluded(self) -> Positions:
        """The exclusion list on the flat axis: sorted, disjoint, shape (number of regions, 2)."""
        return self._array(EXCLUDED_FILE, self.manifest["excluded"])

    def excluded(self, chrom: str) -> tuple[Positions, Positions]:
        """(starts, ends) of the exclusion list on a chromosome: sorted, disjoint."""
        offset = self.assembly.offset(chrom)
        return cut_out(self.flat_excluded, offset, offset + self.assembly.length(chrom))

    def benchmark_bins(self) -> BenchmarkBins:
        """The benchmark's bins: those that tile the dataset's regions, else those that the exclusion list leaves."""
        if self.manifest["regions"] is None:
            return BenchmarkBins.from_exclusion(self.assembly, self.excluded)
        regions = self._array(REGIONS_FILE, self.manifest["regions"])
        ends = self.assembly.offsets[1:]
        spans = zip(self.assembly.chroms, self.assembly.offsets, ends, strict=False)
        return BenchmarkBins.from_regions(
            self.assembly, {chrom: cut_out(regions, int(a), int(b)) for chrom, a, b in spans}
        )

    def digests(self, cells: Iterable[str]) -> dict[str, Any]:
        """What a run on these cell types reads beside labels: SHA-256 of sequence, exclusion list and state tracks."""
        states = {cell: self.manifest["states"][cell]["sha256"] for cell in cells if cell in self.manifest["states"]}
        return {
            "sequence": self._sequence_entry()["sha256"],
            "excluded": self.manifest["excluded"]["sha256"],
            "states": states,
        }

    def feature_digests(self, cells: Iterable[str]) -> dict[str, Any]:
        """What a run with task features reads besides `digests`: SHA-256 of these cell types' accessibility and
        expression, of the gene names and of the distances to transcript starts; only what is there."""
        found: dict[str, Any] = {}
        for group in ("accessibility", "expression"):
            entries = self.manifest.get(group, {})
            found[group] = {cell: entries[cell]["sha256"] for cell in cells if cell in entries}
        return found | {key: self.manifest[key]["sha256"] for key in ("tss", "gene_names") if key in self.manifest}

    def require_state_model(self) -> StateModel:
        """The state model; `EbertError` where the dataset holds no states."""
        if self.state_model is None:
            raise EbertError(f"dataset {self.path} holds no chromatin states", "add some: `ebert prepare --states DIR`")
        return self.state_model

    def _sequence_entry(self) -> dict[str, Any]:
        if not self.has_sequence:
            raise MissingSequenceError(
                f"dataset {self.path} holds no sequence: it was made from chromosome sizes alone",
                "make one from the reference: `ebert prepare --genome hg19.fa --output ANOTHER`",
            )
        entry: dict[str, Any] = self.manifest["sequence"]
        return entry

    def _span(self, chrom: str, resolution_bp: int) -> slice:
        first = self.assembly.offset(chrom) // resolution_bp
        return slice(first, first + -(-self.assembly.length(chrom) // resolution_bp))

    def _track(self, group: str, cell: str) -> NDArray[Any]:
        entries = self.manifest.get(group, {})
        if cell not in entries:
            raise UnknownNameError(f"cell type with {group}", cell, entries)
        return self._array(entries[cell]["file"], entries[cell])

    def _array(self, name: str, entry: dict[str, Any]) -> NDArray[Any]:
        if name not in self._arrays:
            self._arrays[name] = _load(check_file(self.path, name, entry, "dataset"))
        return self._arrays[name]


def named_entries(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """What a manifest says of every array that has a `file`: tracks, labels, and what a dataset need not hold."""
    groups = (manifest["states"], manifest["accessibility"], manifest.get("expression", {}))
    named = [entry for group in (*groups, *manifest["labels"].values()) for entry in group.values()]
    return named + [manifest[key] for key in ("tss", "gene_names") if key in manifest]


def _require_entries(manifest: dict[str, Any]) -> None:
    """Look at the parts that every command reads; a KeyError, TypeError or ValueError where one cannot be."""
    dict(manifest["aliases"].items())
    named = named_entries(manifest)
    files = [entry for entry in (manifest["sequence"], manifest["regions"]) if entry is not None]
    for entry in (*named, *files, manifest["excluded"]):
        if not (isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str)):
            raise TypeError("a file's bytes and sha256 are a number and a text")
    for entry in named:
        if not (isinstance(entry["file"], str) and all(isinstance(each["name"], str) for each in entry["sources"])):
            raise TypeError("a track's file and the names of its sources are texts")
    for cells in manifest["labels"].values():
        for entry in cells.values():
            if not all(isinstance(chrom, str) for chrom in entry["chroms"]):
                raise TypeError("labelled chromosomes are texts")


def _rows_of(table: NDArray[Any], key: bytes) -> NDArray[Any]:
    """The values of a sorted table's rows with this key."""
    keys = table["key"]
    return table["value"][np.searchsorted(keys, key, side="left") : np.searchsorted(keys, key, side="right")]


def _load(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r")
    except ValueError:
        return np.load(path)  # an array of no elements cannot be mapped
