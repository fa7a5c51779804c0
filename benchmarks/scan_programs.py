"""The programs that benchmarks/scan.py times beside the scan: a window per bin, Hugging Face's BERT, parts of the scan.

Each is a function that does some work and gives the bins it answered, or 0 where it only takes time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from ebert_core.config import EncoderConfig
from ebert_core.data.dataset import Dataset
from ebert_core.data.windows import Batch
from ebert_core.genome.regions import Region
from ebert_core.inference.models import LoadedModel
from ebert_core.inference.packed import packed
from ebert_core.inference.pieces import Piece, make_plan
from ebert_core.inference.predictor import CellStates, Request, chrom_tracks
from ebert_core.inference.scan import ScanGeometry, gather, model_score, scan
from ebert_core.inference.scorer import piece_values
from ebert_core.model.device import Device
from ebert_core.vocabulary import STATE_BIN_BP, STRIDE_BP

WINDOW_BP: Final = 1_000
PER_BIN_AT_ONCE: Final = 51
# BERT's own window.
THEIR_TOKENS: Final = 512
# The vocabulary of benchmarks/pretrain.py: all 6-mers and five special tokens.
VOCABULARY: Final = 4**6 + 5

Program = Callable[[], int]


@dataclass(frozen=True)
class Scene:
    """What is scanned."""

    dataset: Dataset
    model: LoadedModel
    request: Request
    device: Device

    @classmethod
    def of(cls, dataset: Dataset, model: LoadedModel, device: Device, region: Region) -> Scene:
        cell = model.manifest["data"]["cells"][0]
        states = CellStates(cell, dataset.flat_states(cell), "dataset")
        return cls(dataset, model, Request(tuple(model.tfs), states, (region,)), device)

    @property
    def geometry(self) -> ScanGeometry:
        """The long windows."""
        return self.model.scan_geometries()[0]

    @property
    def piece(self) -> Piece:
        """The whole request as one piece."""
        (piece,) = make_plan(self.dataset, self.request.regions, self.geometry.core_bins, 10**9).pieces
        return piece

    def batch(self, start: int, window_bp: int, windows: int = 1) -> Batch:
        """Windows from `start` on, side by side, with all their features."""
        chrom, cell = self.request.regions[0].chrom, self.request.cell
        length = self.dataset.assembly.length(chrom)
        starts = start + window_bp * np.arange(windows)
        assert self.model.tracks is not None
        tracks = chrom_tracks(self.model.tracks, cell.name, (0, length), window_bp)(starts)
        batch = gather(self.dataset.sequence(chrom), cell.flat, starts, window_bp)
        return Batch(batch.bases, batch.states, tracks)


def dense(scene: Scene) -> Program:
    """The scan itself: gathered, scored on both strands, calibrated."""
    values, piece = piece_values(scene.dataset, scene.model, scene.request, scene.device), scene.piece
    return lambda: len(values(piece, lambda amount, note="": None).probabilities)


def per_bin(scene: Scene) -> Program:
    """The same model, packed as in the scan, on a window of 1 kb for each bin, some at once."""
    score = model_score(packed(scene.model.module, scene.device), scene.device, both_strands=True)
    first = scene.request.regions[0].start // STATE_BIN_BP * STATE_BIN_BP
    assert scene.model.tracks is not None
    chrom, cell = scene.request.regions[0].chrom, scene.request.cell
    tracks = chrom_tracks(scene.model.tracks, cell.name, (0, scene.dataset.assembly.length(chrom)), WINDOW_BP)
    # A window begins with a state bin: 400 to 550 bp before its bin.
    bins = first + STRIDE_BP * np.arange(PER_BIN_AT_ONCE)
    starts = bins // STATE_BIN_BP * STATE_BIN_BP - 2 * STATE_BIN_BP
    place = (bins - starts) // STRIDE_BP
    sequence = scene.dataset.sequence(chrom)

    def program() -> int:
        batch = gather(sequence, cell.flat, starts, WINDOW_BP)
        logits = score(Batch(batch.bases, batch.states, tracks(starts)))
        return len(logits[np.arange(len(place)), place])

    return program


def hugging_face(config: EncoderConfig, geometry: ScanGeometry, tokens_at_once: int) -> Program:
    """The encoder's shape as `BertModel` in fp32, on as many tokens as a long window has, both strands; nothing else.

    Raises:
        ImportError: there is no transformers.
    """
    from transformers import BertConfig, BertModel

    shape: Any = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=config.width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.mlp_ratio * config.width,
        max_position_embeddings=THEIR_TOKENS,
    )
    module = BertModel(shape, add_pooling_layer=False).eval()
    tokens = torch.randint(5, VOCABULARY, (geometry.window_bp // config.token_bp // tokens_at_once, tokens_at_once))

    def program() -> int:
        with torch.inference_mode():
            for _ in range(2):
                module(input_ids=tokens)
        return geometry.core_bins

    return program


def parts(scene: Scene) -> dict[str, Program]:
    """The parts of the scan on one long window: what is done once, and what each strand costs."""
    module, device, geometry = packed(scene.model.module, scene.device), scene.device, scene.geometry
    batch = scene.batch(scene.request.regions[0].start // geometry.grid_bp * geometry.grid_bp, geometry.window_bp)
    bases, states = torch.from_numpy(batch.bases), torch.from_numpy(batch.states)
    assert batch.tracks is not None
    tracks = torch.from_numpy(batch.tracks)

    def inference(work: Callable[[], object]) -> Program:
        def program() -> int:
            with torch.inference_mode(), device.autocast():
                work()
            return 0

        return program

    with torch.inference_mode(), device.autocast():
        features, tokens = module.features(bases, tracks), module.tokens_of(bases, states, None)
        logits = module.head.network(tokens, features, states)
    return {
        "encoder of one strand": inference(lambda: module.tokens_of(bases, states, None)),
        "motifs and composition": inference(lambda: module.features(bases, tracks)),
        "layers at strides, one strand": inference(lambda: module.head.network(tokens, features, states)),
        "boosted trees": inference(lambda: module.head.with_trees(logits, features, states)),
        "reading": reading(scene, geometry.core_bins),
    }


def reading(scene: Scene, num_bins: int) -> Program:
    """Gathering bases, states and tracks of so many bins of the request, for a model that takes no time."""
    chrom, cell, geometry = scene.request.regions[0].chrom, scene.request.cell, scene.geometry
    length, tfs = scene.dataset.assembly.length(chrom), len(scene.request.tfs)
    assert scene.model.tracks is not None
    tracks = chrom_tracks(scene.model.tracks, cell.name, (0, length), geometry.window_bp)
    wanted = np.zeros(int(scene.piece.bins[-1]) + 1, dtype=bool)
    wanted[scene.piece.bins[:num_bins]] = True
    answer = np.zeros((1, (geometry.window_bp - 150) // STRIDE_BP, tfs), dtype=np.float32)

    def program() -> int:
        found = scan(lambda batch: answer, scene.dataset.sequence(chrom), cell.flat, wanted, geometry, 1, tracks)
        return sum(len(bins) for bins, _ in found)

    return program


def peers(scene: Scene) -> dict[str, Program]:
    """The scan and what it is compared with; without transformers, all but that."""
    programs = {"dense": dense(scene), "windows": per_bin(scene)}
    try:
        config, geometry = scene.model.module.encoder.config, scene.geometry
        programs["hf_fp32"] = hugging_face(config, geometry, THEIR_TOKENS)
        programs["hf_fp32 in our blocks"] = hugging_face(config, geometry, geometry.grid_bp // config.token_bp)
    except ImportError as error:
        print(f"Hugging Face left out: {error}; to have it: pip install transformers", file=sys.stderr)
    return programs
