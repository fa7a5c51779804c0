"""Builds a dataset's arrays and the manifest that describes them; one epigenome, TF or chromosome at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.artifacts import MANIFEST_NAME, file_entry, publish_file, sha256_of, write_json
from ebert_core.config import PrepareConfig
from ebert_core.data.dataset import EXCLUDED_FILE, SEQUENCE_FILE
from ebert_core.epigenome.accessibility import read_accessibility
from ebert_core.epigenome.cell_types import canonical_cell, cell_of_file
from ebert_core.epigenome.state_models import StateModel, detect_state_model, load_state_model
from ebert_core.epigenome.state_tracks import build_state_track, model_mismatch, read_segmentation
from ebert_core.errors import EbertError, InputError
from ebert_core.genome.assembly import Assembly
from ebert_core.genome.bins import benchmark_bin_starts
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
        self._replaced: list[Path] = []

    @property
    def assembly(self) -> Assembly:
        return Assembly.from_sizes((name, length) for name, length in self.manifest["assembly"]["chroms"])

    def finish(self) -> None:
        """Publish the manifest; only now do readers see what was added."""
        write_json(self.folder / MANIFEST_NAME, self.manifest)
        for path in self._replaced:
            path.unlink(missing_ok=True)

    def add_genome(self, config: PrepareConfig) -> None:
        assert config.genome is not None
        with Fasta(config.genome) as fasta:
            chroms = fasta.assembly.require(config.chroms) if config.chroms else list(fasta.assembly.chroms)
            assembly = Assembly.from_sizes((chrom, fasta.assembly.length(chrom)) for chrom in dict.fromkeys(chroms))
            path = self.folder / SEQUENCE_FILE
            flat = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(assembly.flat_bp,))
            flat[:] = BASE_N
            ambiguous = 0
            with self.reporter.task("reading the genome", assembly.flat_bp, "bp") as advance:
                for chrom in assembly.chroms:
                    codes = fasta.codes(chrom)
                    flat[assembly.offset(chrom) :][: len(codes)] = codes
                    ambiguous += count_ambiguous(codes)
                    advance(len(codes), chrom)
            flat.flush()
        self.manifest["assembly"] = assembly.to_json()
        source = {"name": config.genome.name, "sha256": sha256_of(config.genome)}
        self.manifest["sequence"] = {
            **file_entry(path),
            **_shape(flat),
            "ambiguous_bases": ambiguous,
            "source": source,
        }
        self.reporter.log(
            f"genome: {assembly.name}, {len(assembly.chroms)} sequence(s), {sum(assembly.lengths):,} bp, "
            f"of which {ambiguous:,} are N or another ambiguity letter"
        )

    def add_aliases(self, sheet: Path) -> None:
        for _, row in read_sheet(sheet, ("alias", "cell")):
            self.manifest["aliases"][row["alias"]] = row["cell"]

    def same_exclusion(self, paths: tuple[Path, ...]) -> bool:
        known = [source["sha256"] for source in self.manifest["excluded"]["sources"]]
        return known == [sha256_of(path) for path in paths if path.is_file()]

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
        np.save(path, regions)
        sources = [{"name": source.name, "sha256": sha256_of(source)} for source in paths]
        self.manifest["excluded"] = {**file_entry(path), **_shape(regions), "sources": sources}
        if paths:
            self.reporter.log(f"exclusion list: {len(regions):,} regions, {int(np.diff(regions).sum()):,} bp")

    def add_states(self, source: Path, state_model: str | None) -> None:
        files = _cell_files(source, _SEGMENTATION_ENDINGS, "segmentation", self.manifest["aliases"])
        model = self._settle_state_model(files, state_model)
        with self.reporter.task("reading chromatin states", len(files), "epigenomes") as advance:
            for cell, path in files.items():
                if self._is_new("states", self.manifest["states"], cell, path):
                    segmentation = read_segmentation(path, self.assembly)
                    if mismatch := model_mismatch(segmentation, model, next(iter(files.values()))):
                        raise mismatch
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
            names: set[str] = set()
            for path in list(files.values())[:4]:
                names |= set(read_segmentation(path, self.assembly).names)
            model = detect_state_model(names, [path.name for path in files.values()])
        if known is not None and known != model:
            raise EbertError(f"the dataset's state model is {known.name}, not {model.name}", "make another dataset")
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
            for experiment in experiments:
                cell = canonical_cell(experiment.cell, self.manifest["aliases"])
                entries = self.manifest["labels"].setdefault(experiment.tf, {})
                if self._is_new("labels", entries, cell, experiment.conservative, experiment.relaxed):
                    entries[cell] = self._label(experiment, cell, starts)
                advance(1, f"{experiment.tf} {cell}")

    def _assayed_chroms(self, experiments: list[ChipExperiment]) -> list[str]:
        with_peaks: set[str] = set()
        for experiment in experiments:
            if with_peaks == set(self.assembly.chroms):
                break
            with_peaks |= read_peaks(experiment.conservative, self.assembly).chroms
        return [chrom for chrom in self.assembly.chroms if chrom in with_peaks]

    def _label(self, experiment: ChipExperiment, cell: str, starts: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
        conservative = read_peaks(experiment.conservative, self.assembly)
        same = experiment.relaxed == experiment.conservative
        relaxed = conservative if same else read_peaks(experiment.relaxed, self.assembly)
        self._tell(conservative.notes)
        labels = np.zeros(self.assembly.flat_bp // STRIDE_BP, dtype=np.uint8)
        for chrom, bins in starts.items():
            first = self.assembly.offset(chrom) // STRIDE_BP
            labels[first + bins // STRIDE_BP] = label_bins(bins, conservative.on(chrom), relaxed.on(chrom))
        counts = np.bincount(labels, minlength=4)
        entry = self._save(f"labels/{experiment.tf}", cell, pack_labels(labels), experiment.conservative)
        return {
            **entry,
            "source_relaxed": {"name": experiment.relaxed.name, "sha256": sha256_of(experiment.relaxed)},
            "chroms": list(starts),
            "bins": {"unbound": int(counts[1]), "ambiguous": int(counts[2]), "bound": int(counts[3])},
        }

    def _excluded(self, chrom: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        regions = np.load(self.folder / EXCLUDED_FILE)
        offset = self.assembly.offset(chrom)
        here = (regions[:, 0] >= offset) & (regions[:, 0] < offset + self.assembly.length(chrom))
        return regions[here, 0] - offset, regions[here, 1] - offset

    def _is_new(self, kind: str, entries: dict[str, Any], cell: str, path: Path, relaxed: Path | None = None) -> bool:
        """Whether a track must be built; one from the same file is kept, one from another file is an error."""
        old = entries.get(cell)
        if old is None:
            self.added[kind] += 1
            return True
        same = old["source"]["sha256"] == sha256_of(path)
        if relaxed is not None:
            same = same and old["source_relaxed"]["sha256"] == sha256_of(relaxed)
        if same:
            self.kept[kind] += 1
            return False
        if not self.overwrite:
            raise EbertError(
                f"the dataset already holds {kind} of {cell}, from {old['source']['name']}",
                f"pass --overwrite to replace them by {path.name}, or give the cell type another name in a sheet",
            )
        self._replaced.append(self.folder / old["file"])
        self.added[kind] += 1
        return True

    def _save(self, group: str, cell: str, array: NDArray[Any], source: Path) -> dict[str, Any]:
        """Write one array under a name that no file has yet, and describe it."""
        stem = cell.replace("/", "_")
        path = self.folder / group / f"{stem}.npy"
        if path.exists():
            path = path.with_name(f"{stem}.{sha256_of(source)[:8]}.npy")
        with publish_file(path, overwrite=True) as staged, staged.open("wb") as handle:
            np.save(handle, array)
        return {
            "file": path.relative_to(self.folder).as_posix(),
            **file_entry(path),
            **_shape(array),
            "source": {"name": source.name, "sha256": sha256_of(source)},
        }

    def _tell(self, notes: list[str]) -> None:
        for note in notes:
            self.reporter.log(note)


def _shape(array: NDArray[Any]) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": str(array.dtype)}


def _cell_files(source: Path, endings: tuple[str, ...], what: str, aliases: dict[str, str]) -> dict[str, Path]:
    """Cell type -> file: from a folder's file names, from a sheet (`cell`, `path`), or one file."""
    if source.is_dir():
        files = [path for path in sorted(source.iterdir()) if path.name.endswith(endings)]
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
