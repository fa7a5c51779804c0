"""Effects of bases and states: those of the ordinary scan over a genome in which they were changed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from ebert_core.artifacts import sha256_of
from ebert_core.config import FusionConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.task_features import TrackReader, TrackSpec
from ebert_core.epigenome.normalisation import Quantiles, reference_of
from ebert_core.errors import EbertError, OutputExistsError
from ebert_core.genome.regions import Region
from ebert_core.inference import explain
from ebert_core.inference.drawing import Scale, ticks
from ebert_core.inference.explain import ExplainRequest
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.mutagenesis import NO_BIN, Mutagenesis, Settings, SiteEffects
from ebert_core.inference.predictor import CellStates, Request
from ebert_core.inference.rescore import Changes, model_rescore
from ebert_core.inference.scan import ScanGeometry, model_score, scan, scan_geometries
from ebert_core.inference.sites import Site
from ebert_core.inference.windows import ChromReader
from ebert_core.io.motifs import Motif
from ebert_core.model.device import Device
from ebert_core.model.encoder import Encoder
from ebert_core.model.fusion import BindingModel, BindingShape
from ebert_core.model.stride_features import MotifScan
from ebert_core.vocabulary import reverse_complement
from tests.conftest import TOY_MOTIFS

MOTIF = Motif("M1", "CTCF", np.float32([np.eye(4)["ACGT".index(base)] for base in TOY_MOTIFS["CTCF"]]))


@pytest.fixture(scope="module")
def cell(toy_dataset: Dataset) -> CellStates:
    return CellStates("HepG2", toy_dataset.flat_states("HepG2"), "dataset")


@pytest.fixture(scope="module")
def featured(model: LoadedModel, toy_dataset: Dataset) -> LoadedModel:
    """A model that reads motifs, composition and accessibility too, with random weights."""
    torch.manual_seed(5)
    scanned = MotifScan([MOTIF.log_odds()])
    shape = BindingShape(FusionConfig(width=16, num_layers=2), True, (1, scanned.kernels.shape[2]), 5)
    module = BindingModel(Encoder(model.module.encoder.config, 18), 2, shape, scanned)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)
        module.head.out.weight.mul_(10)
    cells = toy_dataset.accessibility_cells
    reference = reference_of([Quantiles.of(toy_dataset.flat_accessibility(each)) for each in cells])
    tracks = TrackReader(toy_dataset, TrackSpec(reference, cells))
    return replace(model, members=(module.eval(),), tracks=tracks)


@pytest.fixture(scope="module")
def blocky(featured: LoadedModel) -> LoadedModel:
    """The same, but its encoder reads blocks, so that its windows may begin at any of them."""
    own = featured.module
    shape = replace(own.shape, fusion=own.shape.fusion.model_copy(update={"encoder_bp": 400}))
    module = BindingModel(own.encoder, 2, shape, own.motifs)
    module.head = own.head
    return replace(featured, members=(module.eval(),))


@pytest.fixture(params=["model", "featured", "blocky"])
def any_model(request: pytest.FixtureRequest) -> LoadedModel:
    return request.getfixturevalue(request.param)


class Slow:
    """Scores bins of a chromosome through the ordinary scan, after something was changed in it."""

    def __init__(self, dataset: Dataset, model: LoadedModel, device: Device, chrom: str) -> None:
        self.score = model_score(model.module, device, both_strands=True)
        self.bases, self.states = np.array(dataset.sequence(chrom)), np.array(dataset.states("HepG2", chrom))
        self.geometry, self.model = scan_geometries(model.module, model.geometry())[0], model
        offset = dataset.assembly.offset(chrom)
        self.span = offset, offset + dataset.assembly.length(chrom)

    def tracks(self, hidden: bool, starts: np.ndarray) -> np.ndarray:
        found = self.model.tracks.read("HepG2", starts + self.span[0], self.geometry.window_bp, span=self.span)
        # Hidden are the cell type's own signal, its difference from the mean, and that it is known.
        found[..., [0, 2, 3]] *= not hidden
        return found

    def __call__(self, bins: np.ndarray, *, hidden: bool = False) -> float:
        wanted = np.zeros((len(self.bases) - 200) // 50 + 1, dtype=bool)
        wanted[bins] = True
        tracks = None if self.model.tracks is None else lambda starts: self.tracks(hidden, starts)
        found = scan(self.score, self.bases, self.states, wanted, self.geometry, 4, tracks)
        return float(np.concatenate([logits[:, 1] for _, logits in found]).max())


# The second lies across two windows of the scan, the third at a chromosome's beginning, the last at its end.
SITES = [("chr1", 5_110, 5_330), ("chr1", 6_860, 7_190), ("chr2", 90, 180), ("chr2", 41_150, 41_250)]


def effects_of(
    dataset: Dataset, model: LoadedModel, device: Device, cell: CellStates, site: Site, settings: Settings
) -> SiteEffects:
    rescore = model_rescore(model.members, device, both_strands=True)
    reader = ChromReader(dataset, model, cell, site.chrom)
    found = Mutagenesis(model, rescore, 1, settings).effects(reader, site)
    assert isinstance(found, SiteEffects)
    return found


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("where", SITES)
def test_base_effects_are_those_of_a_changed_genome(
    toy_dataset: Dataset, any_model: LoadedModel, device: Device, cell: CellStates, where: tuple, whole: bool
) -> None:
    site = Site.of(Region(*where))
    found = effects_of(toy_dataset, any_model, device, cell, site, Settings(41, whole))
    slow = Slow(toy_dataset, any_model, device, site.chrom)
    assert found.logit == pytest.approx(slow(found.bins), abs=1e-4)
    assert found.first == max(0, site.middle - 20)
    assert found.bases.tolist() == slow.bases[found.first : found.first + len(found.bases)].tolist()
    for place in range(3, len(found.bases), 16):
        own = slow.bases[found.first + place]
        for base in range(4):
            slow.bases[found.first + place] = base
            expected = slow(found.bins) - found.logit if base != own else 0
            assert found.deltas[place, base] == pytest.approx(expected, abs=1e-4)
        slow.bases[found.first + place] = own
    assert np.abs(found.deltas).max() > 5e-3
    np.testing.assert_allclose(found.importance, -found.deltas.sum(axis=1) / 3)


@pytest.mark.parametrize("reach", [0, 2])
@pytest.mark.parametrize("where", SITES)
def test_state_effects_are_those_of_changed_states(
    toy_dataset: Dataset, any_model: LoadedModel, device: Device, cell: CellStates, where: tuple, reach: int
) -> None:
    site = Site.of(Region(*where))
    found = effects_of(toy_dataset, any_model, device, cell, site, Settings(1, True, reach))
    states, slow = found.states, Slow(toy_dataset, any_model, device, site.chrom)
    low, high = found.bins[0] * 50, found.bins[-1] * 50 + 200
    own = [b for b in range(len(slow.states)) if b * 200 < high and b * 200 + 200 > low]
    assert states.first == max(0, own[0] - reach)
    assert states.last == min(len(slow.states), own[-1] + 1 + reach)
    assert states.accessible == ((True, False) if any_model.tracks else (False,))
    assert states.logits.shape == (len(states.accessible), 20)
    as_it_is = slow.states[states.first : states.last].copy()
    assert states.shown.tolist() == as_it_is.tolist()
    for row, shown in enumerate(states.accessible):
        hidden = any_model.tracks is not None and not shown
        assert states.logits[row, 0] == pytest.approx(slow(found.bins, hidden=hidden), abs=1e-4)
        for code in (0, 9, 18):
            slow.states[states.first : states.last] = code
            assert states.logits[row, 1 + code] == pytest.approx(slow(found.bins, hidden=hidden), abs=1e-4)
        slow.states[states.first : states.last] = as_it_is
    assert np.abs(states.deltas).max() > 5e-3


def test_the_score_is_that_of_predict(
    toy_dataset: Dataset,
    any_model: LoadedModel,
    device: Device,
    cell: CellStates,
    predict_whole: Callable[..., dict[str, np.ndarray]],
) -> None:
    request = Request(("MAX",), cell, (Region("chr1", 0, 60_000),))
    whole = predict_whole(toy_dataset, any_model, request, device)["chr1"]
    for start in (1_000, 23_050, 39_777, 41_100):
        site = Site.of(Region("chr1", start, start + 240))
        found = effects_of(toy_dataset, any_model, device, cell, site, Settings(5))
        calibration = any_model.calibration("MAX")
        own = calibration.probabilities(np.array([found.logit], np.float32))[0]
        assert own == pytest.approx(whole[found.bins, 0].max(), rel=1e-4)
        rescore = model_rescore(any_model.members, device, both_strands=True)
        reader = ChromReader(toy_dataset, any_model, cell, "chr1")
        bins, logits = Mutagenesis(any_model, rescore, 1, Settings()).profile(reader, site)
        assert len(bins) > 15
        np.testing.assert_allclose(calibration.probabilities(logits), whole[bins, 0], rtol=1e-4)
        changes = found.delta_probabilities(calibration)
        after = calibration.probabilities(found.logit + found.deltas)
        np.testing.assert_allclose(changes, after - own, atol=1e-6)


def test_bases_that_are_not_known_have_no_effect(
    toy_dataset: Dataset, model: LoadedModel, device: Device, cell: CellStates
) -> None:
    site = Site.of(Region("chr1", 19_890, 20_111))
    found = effects_of(toy_dataset, model, device, cell, site, Settings(200))
    unknown = found.bases == 4
    assert unknown.sum() == 100
    assert np.isnan(found.deltas[unknown]).all()
    assert not np.isnan(found.deltas[~unknown]).any()
    assert (np.isnan(found.importance) == unknown).all()
    assert (found.deltas[~unknown, found.bases[~unknown]] == 0).all()


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (("chr1", 21_000, 21_200), "the genome has only N here"),
        (("chr1", 40_400, 40_500), "on the exclusion list"),
        (("chrShort", 0, 150), NO_BIN),
        (("chr2", 0, 60), NO_BIN),
        (("chr2", 41_320, 41_330), NO_BIN),
    ],
)
def test_sites_without_a_score_say_why(
    toy_dataset: Dataset, model: LoadedModel, device: Device, cell: CellStates, where: tuple, says: str
) -> None:
    reader = ChromReader(toy_dataset, model, cell, where[0])
    rescore = model_rescore(model.members, device, both_strands=True)
    assert Mutagenesis(model, rescore, 0, Settings()).effects(reader, Site.of(Region(*where))) == says


class Strip(ChromReader):
    """A reader of a chromosome made of arrays."""

    def __init__(self, bases: np.ndarray, states: np.ndarray) -> None:
        self.chrom, self.bases, self.length = "strip", bases, len(bases)
        self.num_bins = (len(bases) - 200) // 50 + 1
        self._states, self._offset, self._tracks, self._cell = states, 0, None, "X"
        self._excluded = (np.empty(0, np.int64), np.empty(0, np.int64))


def test_the_other_strand_gives_the_mirror_image(model: LoadedModel, device: Device) -> None:
    geometry = model.geometry()
    assert geometry == ScanGeometry(2_000, 400)
    # So long that the windows of the scan lie on the same bases of either strand.
    length, rng = 11_200, np.random.default_rng(4)
    bases, states = rng.integers(0, 4, length).astype(np.uint8), rng.integers(0, 19, length // 200).astype(np.uint8)
    one, other = Strip(bases, states), Strip(reverse_complement(bases), states[::-1].copy())
    mutagenesis = Mutagenesis(model, model_rescore(model.members, device, both_strands=True), 0, Settings(21))
    for middle in (1_300, 4_444, 6_789):
        here = mutagenesis.effects(one, Site("strip", middle, middle + 1, middle))
        back = length - 1 - middle
        there = mutagenesis.effects(other, Site("strip", back, back + 1, back))
        assert isinstance(here, SiteEffects)
        assert isinstance(there, SiteEffects)
        assert here.bins[0] % geometry.core_bins
        assert here.logit == pytest.approx(there.logit, abs=1e-4)
        np.testing.assert_allclose(there.deltas[::-1, ::-1], here.deltas, atol=1e-4)


# --- the folder


def request_for(cell: CellStates, *sites: tuple, **more: object) -> ExplainRequest:
    values = {"settings": Settings(30), "motif": MOTIF, **more}
    return ExplainRequest("CTCF", cell, tuple(Site.of(Region(*each)) for each in sites), **values)


def rows_of(path: Path) -> list[dict[str, str]]:
    head, *rows = (line.split("\t") for line in path.read_text().splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


THREE = (("chr1", 5_000, 5_300), ("chr1", 21_000, 21_200), ("chr1", 5_010, 5_310), ("chr2", 9_500, 9_501))


def test_the_folder(
    toy_dataset: Dataset, featured: LoadedModel, device: Device, cell: CellStates, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "CTCF.HepG2"
    done = explain.explain(toy_dataset, featured, request_for(cell, *THREE, pictures=2), device, target)
    assert (done.num_explained, [reason for _, reason in done.skipped]) == (3, ["the genome has only N here"])
    sites, bases = rows_of(target / "sites.tsv"), rows_of(target / "bases.tsv")
    assert [bool(row["skipped"]) for row in sites] == [False, True, False, False]
    pictures = [row["picture"] for row in sites]
    assert pictures == ["0001.chr1_5000_5300.svg", "", "0002.chr1_5010_5310.svg", ""]
    assert len(bases) == 3 * 30 * 3
    expected = effects_of(toy_dataset, featured, device, cell, Site.of(Region(*THREE[0])), Settings(30))
    own = [row for row in bases if row["site"] == "chr1:5000-5300"]
    # The request asks for CTCF, `effects_of` for the model's second output.
    assert {(row["ref"], row["alt"]) for row in own} <= set(itertools.permutations("ACGT", 2))
    assert [int(row["pos"]) for row in own[::3]] == list(range(expected.first, expected.first + 30))
    lines = [line.split("\t") for line in (target / "importance.bedGraph").read_text().splitlines()]
    assert lines == sorted(lines, key=lambda line: (line[0], int(line[1])))
    places = [(line[0], int(line[1])) for line in lines]
    assert len(set(places)) == len(places) == 40 + 30
    for chrom, start, end, value in lines:
        assert int(end) == int(start) + 1
        there = [row for row in bases if (row["chrom"], row["pos"]) == (chrom, start)]
        middles = {row["site"]: int(row["middle"]) for row in sites}
        near = min((row["site"] for row in there), key=lambda name: abs(int(start) - middles[name]))
        deltas = [float(row["delta_logit"]) for row in there if row["site"] == near]
        assert float(value) == pytest.approx(-sum(deltas) / 3, rel=1e-4, abs=1e-6)
    states = rows_of(target / "states.tsv")
    assert len(states) == 3 * 2 * 20
    assert {row["accessibility"] for row in states} == {"shown", "hidden"}
    assert [row["state"] for row in states[:3]] == ["as it is", "unknown", "1_TssA"]
    for row in states:
        first = next(r for r in states if (r["site"], r["accessibility"]) == (row["site"], row["accessibility"]))
        difference = float(row["logit"]) - float(first["logit"])
        assert float(row["delta_logit"]) == pytest.approx(difference, abs=1e-4)
    told = json.loads((target / "ebert.json").read_text())
    assert (told["kind"], told["tf"], told["cell"], told["sites"]) == ("explanation", "CTCF", "HepG2", 3)
    assert told["motif"] == "CTCF (M1)"
    assert told["motif_correlation"]["sites"] == 3
    assert told["motif_correlation"]["all"] == pytest.approx(done.correlation)
    assert set(told["files"]) == {path.name for path in target.iterdir()} - {"ebert.json"}
    for name, entry in told["files"].items():
        assert sha256_of(target / name) == entry["sha256"]


def test_pictures_are_whole(
    toy_dataset: Dataset, any_model: LoadedModel, device: Device, cell: CellStates, tmp_path: Path
) -> None:
    sites = (("chr1", 19_890, 20_111), ("chr2", 90, 180), ("chr2", 41_100, 41_300))
    named = replace(cell, name="<a&b>")
    explain.explain(toy_dataset, any_model, request_for(named, *sites, settings=Settings(60)), device, tmp_path / "x")
    for picture in sorted((tmp_path / "x").glob("*.svg")):
        text = picture.read_text()
        root = ElementTree.fromstring(text)
        assert "nan" not in text
        assert "inf" not in text
        width, height = float(root.get("width")), float(root.get("height"))
        for each in root.iter("{http://www.w3.org/2000/svg}rect"):
            x, y = float(each.get("x", 0)), float(each.get("y", 0))
            assert -1 <= x <= x + float(each.get("width")) <= width + 1
            assert -1 <= y <= y + float(each.get("height")) <= height + 1
        for each in root.iter("{http://www.w3.org/2000/svg}text"):
            # Of a sans serif, a character is about 0.55 of the size wide.
            long = 0.55 * float(each.get("font-size", 12)) * len(each.text)
            left = float(each.get("x")) - long * {"start": 0, "middle": 0.5, "end": 1}[each.get("text-anchor")]
            if each.get("transform") is None:
                assert -2 <= left <= left + long <= width + 2, each.text
        letters = list(root.iter("{http://www.w3.org/2000/svg}use"))
        assert len(letters) >= 29
        words = {each.text for each in root.iter("{http://www.w3.org/2000/svg}text")}
        assert "TssA" in words
        assert any(word.startswith("CTCF in <a&b> at chr") for word in words)


def test_all_or_nothing(
    toy_dataset: Dataset,
    model: LoadedModel,
    device: Device,
    cell: CellStates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    digest_tree: Callable[[Path], dict[str, str]],
) -> None:
    target, request = tmp_path / "e" / "x", request_for(cell, THREE[0])
    with pytest.raises(EbertError, match="none of 1 site has a score; chr1:21000-21200: the genome has only N"):
        explain.explain(toy_dataset, model, request_for(cell, THREE[1]), device, target)
    assert list(tmp_path.iterdir()) == []
    explain.explain(toy_dataset, model, request, device, target)
    before = digest_tree(tmp_path)
    with pytest.raises(OutputExistsError):
        explain.explain(toy_dataset, model, request, device, target)

    def broken(changes: Changes) -> tuple[np.ndarray, np.ndarray]:
        found = np.full((*changes.bins.shape, 2), np.nan, np.float32)
        return found, found

    monkeypatch.setattr(explain, "model_rescore", lambda *_, **__: broken)
    with pytest.raises(EbertError, match="the model gives no number for some bins of chr1"):
        explain.explain(toy_dataset, model, request, device, target, overwrite=True)
    assert digest_tree(tmp_path) == before
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("x")
    with pytest.raises(EbertError, match="mine exists and is not a"):
        explain.explain(toy_dataset, model, request, device, other, overwrite=True)


@pytest.mark.parametrize("width", [0, 2_001])
def test_a_width_that_makes_no_sense(cell: CellStates, width: int) -> None:
    with pytest.raises(EbertError, match=f"--width {width} bp"):
        request_for(cell, THREE[0], settings=Settings(width))


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [(0, 1, 4, [0, 0.5, 1]), (-0.7, 0.2, 4, [-0.5, 0]), (3, 3, 4, [3]), (19_001, 19_799, 4, [19_200, 19_400, 19_600])],
)
def test_ticks(low: float, high: float, most: int, expected: list[float]) -> None:
    assert ticks(low, high, most) == pytest.approx(expected)
    scale = Scale(low, high, 100, 0)
    assert scale(low) == 100
    assert scale(high) == pytest.approx(0 if high > low else 100)
