"""Builds a dataset's arrays and the manifest that describes them; one epigenome, TF or chromosome at a time."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.artifacts import MANIFEST_NAME, file_entry, publish_file, sha256_of, write_json
from ebert_core.config import PrepareConfig
from ebert_core.data.dataset import EXCLUDED_FILE, SEQUENCE_FILE
from ebert_core.epigenome.accessibility import read_accessibility
from ebert_core.epigenome.cell_types import canonical_cell, cell_of_file
from ebert_core.epigenome.state_models import StateModel, load_state_model
from ebert_core.epigenome.state_tracks import build_state_track, detect_shared_model, read_segmentation
from ebert_core.errors import EbertError, InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import benchmark_bin_starts
from ebert_core.genome.intervals import cut_out
from ebert_core.genome.labels import label_bins, pack_labels
from ebert_core.io.bed import merged_regions, read_peaks
from ebert_core.io.chip import ChipExperiment, find_experiments
from ebert_core.io.fasta import Fasta, count_ambiguous
from ebert_core.io.text import read_sheet
from ebert_core.reporting import Reporter
from ebert_core.vocabulary import BASE_N, STRIDE_BP

_SEGMENTATION_ENDINGS: Final = (".bed", ".bed.gz", ".bed.bgz")
_ACCESSIBILITY_ENDINGS: Final = (*_SEGMENTATION_ENDINGS, ".narrowPeak", ".narrowPeak.gz", ".bw", ".bigwig", ".bigWig")


class DatasetBuilder:
    """Writes arrays into a folder and keeps the manifest that describes them."""

    def __init__(self, folder: Path, manifest: dict[str, Any], reporter: Reporter, overwrite: bool) -> None:
        self.folder = folder
        self.manifest = manifest
        self.reporter = reporter
        self.overwrite = overwrite
        self.added = {"states": 0, "accessibility": 0, "labels": 0}
        self.kept = {"states": 0, "accessibility": 0, "labels": 0}

    @property
    def assembly(self) -> Assembly:
        return Assembly.from_sizes((name, length) for name, length in self.manifest["assembly"]["chroms"])

    def finish(self) -> None:
        """Publish the manifest; only now do readers see what was added."""
        write_json(self.folder / MANIFEST_NAME, self.manifest)
        tracks = [*self.manifest["states"].values(), *self.manifest["accessibility"].values()]
        tracks += [entry for cells in self.manifest["labels"].values() for entry in cells.values()]
        named = {self.folder / entry["file"] for entry in tracks}
        for group in ("states", "accessibility", "labels"):
            for path in (self.folder / group).rglob("*"):
                if path.is_file() and path not in named:
                    path.unlink()  # replaced just now, or left by a killed run

    def add_genome(self, config: PrepareConfig) -> None:
        assert config.genome is not None
        with Fasta(config.genome) as fasta:
            chroms = fasta.assembly.require(config.chroms) if config.chroms else list(fasta.assembly.chroms)
            assembly = Assembly.from_sizes((chrom, fasta.assembly.length(chrom)) for chrom in dict.fromkeys(chroms))
            path = self.folder / SEQUENCE_FILE
            ambiguous = 0
            with (
                self.reporter.task("reading the genome", assembly.flat_bp, "bp") as advance,
                path.open("wb") as handle,
            ):
                _write_header(handle, (assembly.flat_bp,), np.dtype(np.uint8))
                for chrom, padded in zip(assembly.chroms, np.diff(assembly.offsets), strict=True):
                    codes = fasta.codes(chrom)
                    handle.write(codes.data)
                    handle.write(bytes([BASE_N]) * int(padded - len(codes)))
                    ambiguous += count_ambiguous(codes)
                    advance(len(codes), chrom)
        self.manifest["assembly"] = assembly.to_json()
        self.manifest["sequence"] = {
            **file_entry(path),
            **_shape((assembly.flat_bp,), np.dtype(np.uint8)),
            "ambiguous_bases": ambiguous,
            "source": {"name": config.genome.name, "sha256": sha256_of(config.genome)},
        }
        self.reporter.log(
            f"genome: {assembly.name}, {len(assembly.chroms)} sequence(s), {sum(assembly.lengths):,} bp, "
            f"of which {ambiguous:,} are N or another ambiguity letter"
        )

    def add_aliases(self, sheet: Path) -> None:
        for _, row in read_sheet(sheet, ("alias", "cell")):
            self.manifest["aliases"][row["alias"]] = row["cell"]

    def same_exclusion(self, paths: tuple[Path, ...]) -> bool:
        """Whether the dataset was made with these exclusion lists, in any order."""
        known = {source["sha256"] for source in self.manifest["excluded"]["sources"]}
        return known == {sha256_of(path) for path in paths}

    def add_exclusion(self, paths: tuple[Path, ...]) -> None:
        union, notes = merged_regions(paths, self.assembly)
        self._tell(notes)
        regions = np.array(
            [
                (start + self.assembly.offset(chrom), end + self.assembly.offset(chrom))
                for chrom in self.assembly.chroms
                for start, end in zip(*union.get(chrom, ((), ())), strict=True)
            ],
            dtype=np.int64,
        ).reshape(-1, 2)
        path = self.folder / EXCLUDED_FILE
        with path.open("wb") as handle:
            _write_array(handle, regions)
        sources = [{"name": source.name, "sha256": sha256_of(source)} for source in paths]
        self.manifest["excluded"] = {
            **file_entry(path),
            **_shape(regions.shape, regions.dtype),
            "sources": sources,
        }
        if paths:
            self.reporter.log(f"exclusion list: {len(regions):,} regions, {int(np.diff(regions).sum()):,} bp")

    def add_states(self, source: Path, state_model: str | None) -> None:
        files = _cell_files(source, _SEGMENTATION_ENDINGS, "segmentation", self.manifest["aliases"])
        model = self._settle_state_model(files, state_model)
        with self.reporter.task("reading chromatin states", len(files), "epigenomes") as advance:
            for cell, path in files.items():
                if self._is_new("states", self.manifest["states"], cell, path):
                    segmentation = read_segmentation(path, self.assembly)
                    track = build_state_track(segmentation, self.assembly, model)
                    self._tell(track.notes)
                    self._warn_uncovered(path, track.uncovered_bins, len(track.codes))
                    entry = self._save("states", cell, track.codes, path)
                    self.manifest["states"][cell] = {**entry, "uncovered_bins": track.uncovered_bins}
                advance(1, cell)

    def _warn_uncovered(self, path: Path, uncovered: int, total: int) -> None:
        # Roadmap's ChromHMM files end at the last whole bin of each chromosome; that much is no news.
        if uncovered > len(self.assembly.chroms):
            self.reporter.warn(f"{path.name}: {uncovered:,} of {total:,} bins have no state and stay unknown")

    def _settle_state_model(self, files: dict[str, Path], name: str | None) -> StateModel:
        known = StateModel.from_json(self.manifest["state_model"]) if self.manifest["state_model"] else None
        if name is not None:
            model = load_state_model(name)
        elif known is not None:
            return known
        else:
            # A file may use a few states only, so the names of one file seldom settle the model; those of four do.
            some = [read_segmentation(path, self.assembly) for path in list(files.values())[:4]]
            model = detect_shared_model(some, [path.name for path in files.values()])
        if known is not None and known != model:
            raise EbertError(
                f"the dataset's state model is {known.name}, not {model.name}",
                "leave --state-model out, or make another dataset with --output",
            )
        self.manifest["state_model"] = model.to_json()
        self.reporter.log(f"state model: {model.name}, {len(model.states)} states")
        return model

    def add_accessibility(self, source: Path) -> None:
        files = _cell_files(source, _ACCESSIBILITY_ENDINGS, "accessibility", self.manifest["aliases"])
        with self.reporter.task("reading accessibility", len(files), "tracks") as advance:
            for cell, path in files.items():
                if self._is_new("accessibility", self.manifest["accessibility"], cell, path):
                    track, notes = read_accessibility(path, self.assembly)
                    self._tell(notes)
                    self.manifest["accessibility"][cell] = self._save("accessibility", cell, track, path)
                advance(1, cell)

    def add_labels(self, source: Path) -> None:
        experiments, notes = find_experiments(source)
        self._tell(notes)
        assayed = self._assayed_chroms(experiments)
        silent = [chrom for chrom in self.assembly.chroms if chrom not in assayed]
        if silent:
            self.reporter.warn(
                f"{source.name}: no file has a peak on {', '.join(silent[:6])}{' ...' if len(silent) > 6 else ''}; "
                "bins there stay unlabelled, not unbound"
            )
        starts = {c: benchmark_bin_starts(self.assembly.length(c), self._excluded(c)) for c in assayed}
        with self.reporter.task("labelling bins", len(experiments), "TF x cell") as advance:
            for (tf, cell), experiment in self._named(experiments).items():
                entries = self.manifest["labels"].setdefault(tf, {})
                if self._is_new(f"{tf} labels", entries, cell, experiment.conservative, experiment.relaxed):
                    entries[cell] = self._label(experiment, tf, cell, starts)
                advance(1, f"{tf} {cell}")

    def _named(self, experiments: list[ChipExperiment]) -> dict[tuple[str, str], ChipExperiment]:
        """Experiments by the dataset's spelling of TF and cell type."""
        spellings = {tf.casefold(): tf for tf in self.manifest["labels"]}
        named: dict[tuple[str, str], ChipExperiment] = {}
        for experiment in experiments:
            tf = spellings.setdefault(experiment.tf.casefold(), experiment.tf)
            pair = tf, canonical_cell(experiment.cell, self.manifest["aliases"])
            if pair in named:
                raise InputError(
                    experiment.conservative,
                    f"is the second file for {tf} in {pair[1]}",
                    f"the first is {named[pair].conservative.name}; keep one of them",
                )
            named[pair] = experiment
        return named

    def _assayed_chroms(self, experiments: list[ChipExperiment]) -> list[str]:
        with_peaks: set[str] = set()
        for experiment in experiments:
            if with_peaks == set(self.assembly.chroms):
                break
            with_peaks |= read_peaks(experiment.conservative, self.assembly).chroms
        return [chrom for chrom in self.assembly.chroms if chrom in with_peaks]

    def _label(
        self, experiment: ChipExperiment, tf: str, cell: str, starts: dict[str, NDArray[np.int64]]
    ) -> dict[str, Any]:
        conservative = read_peaks(experiment.conservative, self.assembly)
        same = experiment.relaxed == experiment.conservative
        relaxed = conservative if same else read_peaks(experiment.relaxed, self.assembly)
        self._tell(conservative.notes)
        labels = np.zeros(self.assembly.flat_bp // STRIDE_BP, dtype=np.uint8)
        for chrom, bins in starts.items():
            first = self.assembly.offset(chrom) // STRIDE_BP
            labels[first + bins // STRIDE_BP] = label_bins(bins, conservative.on(chrom), relaxed.on(chrom))
        counts = np.bincount(labels, minlength=4)
        entry = self._save(f"labels/{_file_stem(tf)}", cell, pack_labels(labels), experiment.conservative)
        return {
            **entry,
            "source_relaxed": {"name": experiment.relaxed.name, "sha256": sha256_of(experiment.relaxed)},
            "chroms": list(starts),
            "bins": {"unbound": int(counts[1]), "ambiguous": int(counts[2]), "bound": int(counts[3])},
        }

    def _excluded(self, chrom: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        offset = self.assembly.offset(chrom)
        return cut_out(np.load(self.folder / EXCLUDED_FILE), offset, offset + self.assembly.length(chrom))

    def _is_new(self, kind: str, entries: dict[str, Any], cell: str, path: Path, relaxed: Path | None = None) -> bool:
        """Whether a track must be built; one from the same file is kept, one from another file is an error."""
        old, counted = entries.get(cell), kind.split()[-1]
        if old is None:
            self.added[counted] += 1
            return True
        same = old["source"]["sha256"] == sha256_of(path)
        if relaxed is not None:
            same = same and old["source_relaxed"]["sha256"] == sha256_of(relaxed)
        if same:
            self.kept[counted] += 1
            return False
        if not self.overwrite:
            raise EbertError(
                f"the dataset already holds {kind} of {cell}, from {old['source']['name']}",
                f"pass --overwrite to replace them by {path.name}, or give the cell type another name in a sheet",
            )
        self.added[counted] += 1
        return True

    def _save(self, group: str, cell: str, array: NDArray[Any], source: Path) -> dict[str, Any]:
        """Write one array under a name that no file has yet, and describe it."""
        stem = _file_stem(cell)
        path = self.folder / group / f"{stem}.npy"
        for number in itertools.count(2):
            if not path.exists():
                break
            path = path.with_name(f"{stem}.{number}.npy")
        with publish_file(path) as staged, staged.open("wb") as handle:
            _write_array(handle, array)
        return {
            "file": path.relative_to(self.folder).as_posix(),
            **file_entry(path),
            **_shape(array.shape, array.dtype),
            "source": {"name": source.name, "sha256": sha256_of(source)},
        }

    def _tell(self, notes: list[str]) -> None:
        for note in notes:
            self.reporter.log(note)


def _shape(shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    return {"shape": list(shape), "dtype": str(dtype)}


def _write_array(handle: BinaryIO, array: NDArray[Any]) -> None:
    """Write .npy; unlike `np.save`, which loses the number of the error, this says that the disk is full."""
    _write_header(handle, array.shape, array.dtype)
    handle.write(np.ascontiguousarray(array).tobytes())


def _write_header(handle: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(handle, described)


def _file_stem(name: str) -> str:
    """A name as a file's name: without separators, and not hidden."""
    stem = name.replace("/", "_").replace("\0", "_")
    return f"_{stem}" if stem.startswith(".") else stem


def _cell_files(source: Path, endings: tuple[str, ...], what: str, aliases: dict[str, str]) -> dict[str, Path]:
    """Cell type -> file: from a folder's file names, from a sheet (`cell`, `path`), or one file."""
    if source.is_dir():
        files = [path for path in sorted(source.iterdir()) if path.name.endswith(endings) and path.name[0] != "."]
        if not files:
            raise EbertError(f"{source} holds no {what} file", f"expected files that end in {', '.join(endings)}")
        named = [(canonical_cell(cell_of_file(path), aliases), path) for path in files]
    elif source.is_file() and source.name.endswith((".tsv", ".txt")):
        named = []
        for line, row in read_sheet(source, ("cell", "path")):
            path = source.parent / row["path"]
            if not path.is_file():
                raise InputError(
                    source, f"names {path}, which is not there", "paths are relative to the sheet", line=line
                )
            named.append((canonical_cell(row["cell"], aliases), path))
    elif source.is_file():
        named = [(canonical_cell(cell_of_file(source), aliases), source)]
    else:
        raise EbertError(f"{source} is not there", f"name a folder of {what} files, a sheet, or one file")
    result: dict[str, Path] = {}
    for cell, path in named:
        if cell in result:
            raise InputError(
                path,
                f"is the second file for {cell}",
                f"the first is {result[cell].name}; name both in a sheet (cell, path)",
            )
        result[cell] = path
    return result
