"""A run of `ebert explain`: the effects of every base and state of some sites, as tables, a bedGraph and pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from ebert_core.artifacts import (
    MANIFEST_NAME,
    build_manifest,
    exclusive_lock,
    file_entry,
    publish_folder,
    refuse_existing,
    write_json,
)
from ebert_core.data.dataset import Dataset
from ebert_core.errors import EbertError
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.motif_match import MotifMatch, match_motif, pooled_correlation
from ebert_core.inference.mutagenesis import Mutagenesis, Settings, SiteEffects
from ebert_core.inference.picture import Subject, Surroundings, draw_site
from ebert_core.inference.predictor import CellStates, provenance
from ebert_core.inference.rescore import model_rescore
from ebert_core.inference.sites import Site
from ebert_core.inference.windows import ChromReader, Floats
from ebert_core.io.motifs import Motif
from ebert_core.model.device import Device
from ebert_core.reporting import SILENT, Reporter
from ebert_core.vocabulary import BASES, BIN_BP, STATE_BIN_BP, STRIDE_BP

EXPLANATION: Final = "explanation"
EXPLANATION_FORMAT: Final = 1
MAX_WIDTH: Final = 2_000
SITES_FILE, BASES_FILE, STATES_FILE = "sites.tsv", "bases.tsv", "states.tsv"
IMPORTANCE_FILE: Final = "importance.bedGraph"

_SITE_COLUMNS: Final = (
    "site", "chrom", "start", "end", "middle", "bins_start", "bins_end", "logit", "probability", "motif_start",
    "motif_end", "motif_strand", "motif_bits", "motif_share", "motif_correlation", "picture", "skipped",
)  # fmt: skip
_BASE_COLUMNS: Final = ("chrom", "pos", "ref", "alt", "delta_logit", "delta_probability", "site")
_STATE_COLUMNS: Final = (
    "site", "chrom", "start", "end", "accessibility", "state", "logit", "probability", "delta_logit",
    "delta_probability",
)  # fmt: skip


@dataclass(frozen=True)
class ExplainRequest:
    """What to explain.

    Attributes:
        tf: as the model spells it.
        cell: cell type and its states.
        sites: in the order of the tables.
        settings: what is replaced.
        both_strands: average the logits of the two strands.
        motif: of the TF; None compares with none.
        pictures: how many sites, the first ones, get a picture.
    """

    tf: str
    cell: CellStates
    sites: tuple[Site, ...]
    settings: Settings
    both_strands: bool = True
    motif: Motif | None = None
    pictures: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.settings.width <= MAX_WIDTH:
            raise EbertError(f"--width {self.settings.width} bp", f"name 1 to {MAX_WIDTH:,} bp")


@dataclass
class Explained:
    """What a run found.

    Attributes:
        folder: where it lies.
        num_explained: sites with effects.
        skipped: the others, and why.
        matches: of the sites at which the motif fits in, where one was asked for.
        correlation: over the positions and bases of all of these; NaN without any.
    """

    folder: Path
    num_explained: int = 0
    skipped: list[tuple[Site, str]] = field(default_factory=list)
    matches: list[tuple[Site, MotifMatch]] = field(default_factory=list)
    correlation: float = float("nan")


def refuse_target(target: Path, *, overwrite: bool) -> None:
    """Refuse early what `explain` would refuse; `EbertError`."""
    refuse_existing(target, overwrite, kind=EXPLANATION)


def explain(
    dataset: Dataset,
    model: LoadedModel,
    request: ExplainRequest,
    device: Device,
    target: Path,
    *,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> Explained:
    """Explain the sites and write the folder `target`, whole or not at all.

    Raises:
        OutputExistsError: it is there and may not be replaced.
        EbertError: no site has a score; another run is writing it; the model's answer is not a number.
    """
    refuse_target(target, overwrite=overwrite)
    explained = Explained(target)
    with exclusive_lock(target), publish_folder(target, overwrite=overwrite) as staged:
        rescore = model_rescore(model.members, device, both_strands=request.both_strands)
        mutagenesis = Mutagenesis(model, rescore, model.index(request.tf), request.settings)
        readers: dict[str, ChromReader] = {}
        with _Files(staged, dataset, model, request) as files:
            with reporter.task(f"explaining {request.tf} in {request.cell.name}", len(request.sites), "sites") as done:
                for site in request.sites:
                    if site.chrom not in readers:
                        readers[site.chrom] = ChromReader(dataset, model, request.cell, site.chrom)
                    reader = readers[site.chrom]
                    effects = mutagenesis.effects(reader, site)
                    if isinstance(effects, str):
                        explained.skipped.append((site, effects))
                        files.skip(site, effects)
                    else:
                        match = files.add(effects)
                        explained.num_explained += 1
                        explained.matches += [(site, match)] if match else []
                        if files.wants_picture:
                            bins, logits = mutagenesis.profile(reader, site)
                            files.draw(effects, Surroundings(bins, logits, reader.length, reader.states_of), match)
                    done(1, site.chrom)
            if not explained.num_explained:
                (site, reason), num = explained.skipped[0], len(request.sites)
                raise EbertError(
                    f"none of {num:,} site{'s' * (num > 1)} has a score; {site.name}: {reason}",
                    "name sites to which `ebert predict` gives a value",
                )
            files.write_importance()
        explained.correlation = pooled_correlation([match for _, match in explained.matches])
        body = _about(dataset, model, request) | _summary(explained)
        paths = sorted(path for path in staged.rglob("*") if path.is_file())
        body["files"] = {path.relative_to(staged).as_posix(): file_entry(path) for path in paths}
        write_json(staged / MANIFEST_NAME, build_manifest(EXPLANATION, EXPLANATION_FORMAT, body))
    return explained


def _about(dataset: Dataset, model: LoadedModel, request: ExplainRequest) -> dict[str, Any]:
    """What made the effects what they are."""
    return {
        "tf": request.tf,
        **provenance(dataset, model, request.cell, both_strands=request.both_strands),
        "calibration": asdict(model.calibration(request.tf)),
        "settings": asdict(request.settings),
        "motif": request.motif.label if request.motif else None,
    }


def _summary(explained: Explained) -> dict[str, Any]:
    found = np.array([match.correlation for _, match in explained.matches])
    found = found[~np.isnan(found)]
    return {
        "sites": explained.num_explained,
        "skipped": [{"site": site.name, "reason": reason} for site, reason in explained.skipped],
        "motif_correlation": {
            "sites": len(found),
            "all": None if np.isnan(explained.correlation) else explained.correlation,
            "median": float(np.median(found)) if len(found) else None,
        },
    }


class _Files(contextlib.ExitStack):
    """The tables and pictures that are being written."""

    def __init__(self, folder: Path, dataset: Dataset, model: LoadedModel, request: ExplainRequest) -> None:
        super().__init__()
        self._folder, self._request = folder, request
        self._assembly = dataset.assembly
        self._calibration = model.calibration(request.tf)
        states = model.state_model.states
        self._subject = Subject(request.tf, request.cell.name, states, self._calibration)
        self._labels = ["as it is", "unknown", *(state.label for state in states)]
        self._log_odds = None if request.motif is None else request.motif.log_odds()
        self._num_added = 0
        self._importance: dict[str, list[tuple[Site, int, Floats]]] = {}
        self._sites = self._open(SITES_FILE, _SITE_COLUMNS)
        self._bases = self._open(BASES_FILE, _BASE_COLUMNS)
        self._states = self._open(STATES_FILE, _STATE_COLUMNS)

    def _open(self, name: str, columns: Sequence[str]) -> TextIO:
        handle = self.enter_context((self._folder / name).open("w", encoding="utf-8"))
        handle.write("\t".join(columns) + "\n")
        return handle

    def skip(self, site: Site, reason: str) -> None:
        """A row of `sites.tsv` for a site without effects."""
        self._sites.write(f"{site.name}\t{site.chrom}\t{site.start}\t{site.end}\t{site.middle}" + "\t" * 12)
        self._sites.write(f"{reason}\n")

    @property
    def wants_picture(self) -> bool:
        """Whether the site that was added last is to be drawn."""
        return self._num_added <= self._request.pictures

    @staticmethod
    def _picture_of(number: int, site: Site) -> str:
        return f"{number:04d}.{site.chrom}_{site.start}_{site.end}.svg".replace("/", "_")

    def draw(self, effects: SiteEffects, around: Surroundings, match: MotifMatch | None) -> None:
        """The picture of the site that was added last."""
        path = self._folder / self._picture_of(self._num_added, effects.site)
        path.write_text(draw_site(effects, self._subject, around, match), encoding="utf-8")

    def add(self, effects: SiteEffects) -> MotifMatch | None:
        """The rows of a site; returns its motif's hit, where there is one."""
        site = effects.site
        match = None if self._log_odds is None else match_motif(effects, self._log_odds)
        self._num_added += 1
        picture = self._picture_of(self._num_added, site) if self.wants_picture else ""
        probability = float(self._calibration.probabilities(np.array([effects.logit], dtype=np.float32))[0])
        bins = int(effects.bins[0]) * STRIDE_BP, int(effects.bins[-1]) * STRIDE_BP + BIN_BP
        row = [site.name, site.chrom, site.start, site.end, site.middle, *bins, f"{effects.logit:.6g}"]
        hit = [""] * 6
        if match:
            hit = [str(match.start), str(match.end), match.strand, f"{match.bits:.4g}", f"{match.share:.4g}"]
            hit.append("" if np.isnan(match.correlation) else f"{match.correlation:.4g}")
        self._sites.write("\t".join(map(str, [*row, f"{probability:.6g}", *hit, picture, ""])) + "\n")
        self._write_bases(effects)
        self._write_states(effects)
        self._importance.setdefault(site.chrom, []).append((site, effects.first, effects.importance))
        return match

    def _write_bases(self, effects: SiteEffects) -> None:
        site, changes = effects.site, effects.delta_probabilities(self._calibration)
        for place, code in enumerate(effects.bases.tolist()):
            if code >= len(BASES):
                continue
            for alt in range(len(BASES)):
                if alt != code:
                    self._bases.write(
                        f"{site.chrom}\t{effects.first + place}\t{BASES[code]}\t{BASES[alt]}\t"
                        f"{effects.deltas[place, alt]:.6g}\t{changes[place, alt]:.6g}\t{site.name}\n"
                    )

    def _write_states(self, effects: SiteEffects) -> None:
        site, states = effects.site, effects.states
        if states is None:
            return
        length = self._assembly.length(site.chrom)
        where = f"{site.chrom}\t{states.first * STATE_BIN_BP}\t{min(states.last * STATE_BIN_BP, length)}"
        known = len(states.accessible) > 1
        for shown, logits in zip(states.accessible, states.logits, strict=True):
            accessibility = ("shown" if shown else "hidden") if known else "none"
            probabilities = self._calibration.probabilities(logits)
            for label, logit, probability in zip(self._labels, logits, probabilities, strict=True):
                self._states.write(
                    f"{site.name}\t{where}\t{accessibility}\t{label}\t{logit:.6g}\t{probability:.6g}\t"
                    f"{logit - logits[0]:.6g}\t{probability - probabilities[0]:.6g}\n"
                )

    def write_importance(self) -> None:
        """The bedGraph: sorted, a base once; where stretches overlap, of the site whose middle is nearest."""
        with (self._folder / IMPORTANCE_FILE).open("w", encoding="ascii") as handle:
            for chrom in sorted(self._importance):
                parts = self._importance[chrom]
                places = np.concatenate([first + np.arange(len(values)) for _, first, values in parts])
                middles = np.concatenate([np.full(len(values), site.middle) for site, _, values in parts])
                values = np.concatenate([values for *_, values in parts])
                order = np.lexsort((np.abs(places - middles), places))
                places, values = places[order], values[order]
                first_of = np.concatenate([[True], places[1:] != places[:-1]]) & ~np.isnan(values)
                for place, value in zip(places[first_of].tolist(), values[first_of].tolist(), strict=True):
                    handle.write(f"{chrom}\t{place}\t{place + 1}\t{value:.6g}\n")
