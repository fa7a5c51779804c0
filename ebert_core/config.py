"""Everything that can be set, with units and defaults: frozen values that are saved beside each output.

How a user's file and settings change them is in `ebert_core.settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ebert_core.errors import InputError
from ebert_core.vocabulary import STATE_BIN_BP, STRIDE_BP

Schedule = Literal["cosine", "wsd"]
Parallel = Literal["ddp", "fsdp"]
Placement = Literal["auto", "device", "host"]


def _names(value: Any) -> Any:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""Names; also as one text with commas."""
Switch = Annotated[bool | None, BeforeValidator(lambda value: None if value == "auto" else value)]
"""true, false, or auto, which is None."""


# `model.trees.REACH` strides, and what a motif's hit may reach beyond.
_TREES_CONTEXT_BP: Final = 1_200
COMMON_MOTIFS: Final = (
    "CTCF", "REST", "FOS::JUN", "GABPA", "ELF1", "MAX", "USF1", "MYC", "NRF1", "YY1", "SP1", "KLF4", "CREB1", "ATF4",
    "CEBPB", "MAFK", "NFE2L2", "BACH1", "NFYA", "NFIC", "RUNX1", "GATA1", "TEAD1", "SPI1", "IRF1", "RELA", "STAT1",
    "ZNF143", "THAP1", "ZBTB33", "E2F1", "EGR1", "TCF7L2", "FOXA1", "HNF4A", "NR2F2", "SRF", "MEF2A", "RFX5", "EBF1",
    "POU2F2", "PAX5", "TFAP2A", "TP53", "ETS1", "CTCFL",
)  # fmt: skip
"""TFs whose motifs stand for the commonest families of motifs in accessible DNA."""


class Config(BaseModel):
    """A frozen value that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EncoderConfig(Config):
    """Shape of the encoder (docs/model.md says why)."""

    token_bp: int = Field(10, ge=1, description="bases per token; must divide the 50-bp stride")
    width: int = Field(128, ge=1, description="channels of a token")
    num_layers: int = Field(3, ge=1, description="transformer blocks")
    num_heads: int = Field(2, ge=1, description="attention heads")
    mlp_ratio: int = Field(4, ge=1, description="hidden width of a block's feed-forward part, as a multiple of width")
    stem_channels: int = Field(128, ge=1, description="motif detectors at base resolution, before pooling to tokens")
    stem_kernel_bp: int = Field(19, ge=1, description="length of a motif detector, bp; odd")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropped share of each residual branch while training")

    @model_validator(mode="after")
    def _consistent(self) -> EncoderConfig:
        if STRIDE_BP % self.token_bp:
            raise ValueError(f"token_bp = {self.token_bp} does not divide {STRIDE_BP}")
        if self.width % self.num_heads or (self.width // self.num_heads) % 2:
            raise ValueError(f"width = {self.width} must be num_heads = {self.num_heads} times an even number")
        if self.stem_kernel_bp % 2 == 0:
            raise ValueError(f"stem_kernel_bp = {self.stem_kernel_bp} must be odd")
        return self


def encoder_of(manifest: Mapping[str, Any], path: Path) -> EncoderConfig:
    """The encoder's shape in the manifest of a checkpoint (`config.encoder`) or of a model (`encoder`).

    Raises:
        InputError: it names none, or one that cannot be.
    """
    shape = manifest.get("encoder") or dict(manifest.get("config") or {}).get("encoder")
    try:
        return EncoderConfig.model_validate(shape)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'encoder'}: {fault['msg']}" for fault in error.errors()
        )
        raise InputError(path, f"is damaged ({faults})", "the file was changed; make it anew") from None


class MaskingConfig(Config):
    """What the masked language model must fill in."""

    dna_rate: float = Field(0.15, ge=0, lt=1, description="share of tokens whose bases are hidden")
    dna_span_tokens: float = Field(2.0, ge=1, description="mean length of a hidden run, tokens (geometric)")
    state_rate: float = Field(0.15, ge=0, lt=1, description="share of 200-bp bins whose state is hidden")
    state_span_bins: float = Field(2.0, ge=1, description="mean length of a hidden run of states, bins (geometric)")
    state_dropout: float = Field(0.1, ge=0, le=1, description="share of windows shown with all states unknown")
    state_loss_weight: float = Field(0.1, ge=0, description="weight of the states' loss beside the bases' loss")


class OptimizerConfig(Config):
    """AdamW, a linear warm-up, then a schedule down to `final_fraction` of the peak rate."""

    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(0.05, ge=0, description="decoupled weight decay, on matrices only")
    schedule: Schedule = Field("cosine", description="after the warm-up: cosine, or wsd (stable, then a linear decay)")
    warmup_fraction: float = Field(0.05, ge=0, le=1, description="share of the steps spent warming up")
    decay_fraction: float = Field(0.2, ge=0, le=1, description="share of the steps that wsd spends decaying, the last")
    final_fraction: float = Field(0.05, ge=0, le=1, description="last learning rate as a share of the peak")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="evaluate and publish a running average of the weights with this decay; 0 does not"
    )


class PretrainConfig(Config):
    """One pre-training run."""

    encoder: EncoderConfig = EncoderConfig()
    masking: MaskingConfig = MaskingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    window_bp: int = Field(2_000, ge=STATE_BIN_BP, description="stretch the model reads, bp; a multiple of 200")
    use_states: bool = Field(True, description="read chromatin states; off trains on DNA alone, for comparison")
    rare_states: float = Field(0.0, ge=0, le=1, description="how much windows with rare states are favoured; 0 is not")
    global_batch: int = Field(16, ge=1, description="windows per optimiser step")
    micro_batch: int = Field(8, ge=1, description="windows per forward pass at most")
    steps: int = Field(2_000, ge=1, description="optimiser steps")
    valid_windows: int = Field(64, ge=1, description="held-out windows scored at each evaluation")
    evaluate_every: int = Field(200, ge=1, description="steps between evaluations on held-out windows")
    checkpoint_every: int = Field(0, ge=0, description="steps between resume points; 0 goes by the minutes alone")
    checkpoint_minutes: float = Field(
        10.0, ge=0, description="minutes between resume points; 0 goes by the steps alone"
    )
    checkpoints_kept: int = Field(2, ge=1, description="latest resume points that stay")
    parallel: Parallel = Field("ddp", description="on several ranks: ddp, or fsdp (weights and moments shared out)")
    activation_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass: less memory, a third more work"
    )
    data_placement: Placement = Field("auto", description="where the data lie: device, host, or auto by free memory")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of weights, sampling and masking")

    @model_validator(mode="after")
    def _consistent(self) -> PretrainConfig:
        if self.window_bp % STATE_BIN_BP:
            raise ValueError(f"window_bp = {self.window_bp} is not a multiple of {STATE_BIN_BP}")
        if not self.masking.dna_rate and not (self.use_states and self.masking.state_rate):
            raise ValueError("masking hides nothing: dna_rate is 0, and so is state_rate, or states are not used")
        return self


class FeatureConfig(Config):
    """What fine-tuning reads beside the encoder's tokens, at 50-bp strides; each part may be left out."""

    accessibility: bool = Field(True, description="read accessibility, of the cell types that the dataset has it of")
    accessibility_dropout: float = Field(
        0.1, ge=0, le=1, description="share of windows shown without accessibility, so that a cell type may lack it"
    )
    own_accessibility: bool = Field(
        True, description="read the cell type's own accessibility; off reads other cell types' alone, for one without"
    )
    other_states: Switch = Field(
        None,
        description="read how many other cell types are in each chromatin state; auto does where no accessibility is",
    )
    expression: Names = Field(
        (),
        description="genes whose expression in the cell type is read; worth trying with many training cell types only",
    )
    tss: bool = Field(True, description="read distances to transcript starts, where the dataset holds them")
    composition: bool = Field(True, description="read the shares of G or C, and of CpG, of each stride")
    motifs: Names = Field(
        COMMON_MOTIFS, description="motifs read beside those of the TFs, of the file given with --motifs"
    )


class FusionConfig(Config):
    """Layers at 50-bp strides in which the encoder's tokens and the task features meet, before the TFs' outputs."""

    width: int = Field(128, ge=1, description="channels of a stride")
    num_layers: int = Field(
        0, ge=0, description="residual convolutions, of 3 strides, dilated by 1, 2, 4, 8, 16, 1 ..."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropped share of each residual branch while training")
    feature_dropout: float = Field(
        0.15, ge=0, lt=1, description="share of the task features' channels hidden from a window while training"
    )
    encoder_bp: int = Field(
        0, ge=0, description="the encoder reads a window in blocks of so many bp; 0 is the window at once"
    )
    early: bool = Field(False, description="show the task features to the encoder's blocks too")


class FinetuneConfig(Config):
    """One fine-tuning run."""

    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1.5e-3)
    features: FeatureConfig = FeatureConfig()
    fusion: FusionConfig = FusionConfig()
    window_bp: int = Field(1_600, ge=STATE_BIN_BP, description="stretch the model reads, bp; a multiple of 200")
    context_bp: int = Field(
        200, ge=0, description="bp at either end of a window whose bins are not scored; a multiple of 200"
    )
    global_batch: int = Field(8, ge=1, description="windows per optimiser step")
    micro_batch: int = Field(8, ge=1, description="windows per forward pass at most")
    steps: int = Field(4_000, ge=1, description="optimiser steps at most")
    bound_share: float = Field(0.5, ge=0, le=1, description="share of training windows drawn around a bound bin")
    open_share: float = Field(
        0.1, ge=0, le=1, description="share of training windows drawn around open chromatin, bound or not"
    )
    importance: float = Field(
        0.0, ge=0, le=1, description="power of the weights that undo the drawing: 1 trains on the genome's own shares"
    )
    auxiliary_weight: float = Field(
        0.15, ge=0, description="weight of the loss of a TF of --also beside a TF's of --tf"
    )
    state_dropout: float = Field(0.1, ge=0, le=1, description="share of windows shown with all states unknown")
    evaluate_every: int = Field(500, ge=1, description="steps between evaluations on the validation part")
    checkpoint_minutes: float = Field(
        10.0, ge=0, description="minutes between resume points, beside one at each evaluation; 0 leaves it at those"
    )
    valid_bp: int = Field(4_000_000, ge=1, description="base pairs read per evaluation at most, spread evenly")
    patience: int = Field(
        4, ge=1, description="evaluations without a better auPRC before stopping; those of the head alone do not count"
    )
    use_states: bool = Field(True, description="read chromatin states; off shows the model unknown states only")
    encoder_rate: float = Field(1.0, ge=0, le=1, description="encoder's learning rate as a share of the head's")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="learning rate of an encoder's layer as a share of that of the layer above"
    )
    head_share: float = Field(
        0.7, ge=0, le=1, description="share of the steps, the first, that train the head on the task features alone"
    )
    trees: int = Field(
        0, ge=0, description="boosted trees per TF on the task features, in three sets, beside the network"
    )
    members: int = Field(
        1, ge=1, description="models of an ensemble, of seeds one after the other; their logits are averaged"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the head, sampling and strands")

    @model_validator(mode="after")
    def _consistent(self) -> FinetuneConfig:
        if self.window_bp % STATE_BIN_BP:
            raise ValueError(f"window_bp = {self.window_bp} is not a multiple of {STATE_BIN_BP}")
        if self.fusion.encoder_bp and (
            self.fusion.encoder_bp % STATE_BIN_BP or self.window_bp % min(self.fusion.encoder_bp, self.window_bp)
        ):
            raise ValueError(
                f"fusion.encoder_bp = {self.fusion.encoder_bp} must be a multiple of {STATE_BIN_BP} that divides "
                f"window_bp = {self.window_bp}, or 0"
            )
        if self.trees and self.context_bp < _TREES_CONTEXT_BP:
            raise ValueError(
                f"trees, a default of --motifs, take {_TREES_CONTEXT_BP} bp around a bin, and context_bp is "
                f"{self.context_bp}: widen it, or set trees=0"
            )
        if self.bound_share + self.open_share > 1:
            raise ValueError("bound_share and open_share add up to more than 1")
        if self.context_bp % STATE_BIN_BP or 2 * self.context_bp + 2 * STATE_BIN_BP > self.window_bp:
            raise ValueError(
                f"context_bp = {self.context_bp} must be a multiple of {STATE_BIN_BP} and leave 400 bp of the window"
            )
        return self


_WITH_MOTIFS: Final = FinetuneConfig(
    optimizer=OptimizerConfig(learning_rate=2e-3, ema_decay=0.998),
    fusion=FusionConfig(num_layers=5, dropout=0.4, encoder_bp=1_600),
    window_bp=12_800,
    context_bp=1_200,
    global_batch=16,
    micro_batch=2,
    steps=1_000,
    evaluate_every=250,
    valid_bp=20_000_000,
    trees=450,
)


def finetune_defaults(encoder: EncoderConfig, *, motifs: bool = False) -> FinetuneConfig:
    """The settings to start from for an encoder: the learning rate falls as the width grows.

    With motifs, the head has much to learn before the encoder has: it reads long windows through layers of its own, and
    the encoder joins in the second half of the steps (docs/model.md).

    Steps of Adam change each weight by about the learning rate, and a layer's output by that times its width, so the
    rate that suits `tiny` is divided by how much wider the encoder is (Yang et al. 2022).
    """
    base = _WITH_MOTIFS if motifs else FinetuneConfig()
    rate = base.optimizer.learning_rate * EncoderConfig().width / encoder.width
    return base.model_copy(update={"optimizer": base.optimizer.model_copy(update={"learning_rate": rate})})


class PrepareConfig(Config):
    """What goes into a dataset; None leaves a kind of input out."""

    output: Path = Field(Path("dataset"), description="dataset folder to make or to extend")
    genome: Path | None = Field(None, description="FASTA, plain or bgzip; or chromosome sizes, or the name hg19")
    states: Path | None = Field(None, description="folder or sheet of segmentations, or one file")
    state_model: str | None = Field(None, description="name of a built-in state model, or a TSV; None detects it")
    chip: Path | None = Field(None, description="folder of ChIP-seq peaks or label tables, sheet of peaks, or one file")
    accessibility: Path | None = Field(
        None, description="folder or sheet of accessibility peaks, bigWigs or BAMs, or one file"
    )
    tss: Path | None = Field(None, description="BED file of transcript starts")
    expression: Path | None = Field(None, description="table of gene expression, or a folder of such")
    gene_names: Path | None = Field(None, description="sheet (id, symbol) of what the genes are called")
    exclude: tuple[Path, ...] = Field((), description="BED files of regions never used")
    regions: Path | None = Field(None, description="BED file whose intervals the benchmark's bins tile")
    chroms: tuple[str, ...] = Field((), description="chromosomes to take; empty takes all of the genome")
    aliases: Path | None = Field(None, description="sheet (alias, cell) of further cell-type names")
    write_labels: Path | None = Field(None, description="folder to write the dataset's label tables to")
    overwrite: bool = Field(False, description="replace what is there")


_TINY: Final = PretrainConfig()
_SMALL: Final = PretrainConfig(
    encoder=EncoderConfig(width=256, num_layers=6, num_heads=4, stem_channels=256),
    optimizer=OptimizerConfig(learning_rate=6e-4),
    window_bp=5_000,
    global_batch=64,
    micro_batch=4,
    steps=50_000,
    evaluate_every=1_000,
)
PRESETS: Final = {
    "tiny": _TINY,
    "small": _SMALL,
    # 12 x 768 with 12 heads: the size of BERT-base (Devlin et al. 2019).
    "base": _SMALL.model_copy(
        update={
            "encoder": EncoderConfig(width=768, num_layers=12, num_heads=12, stem_channels=512, dropout=0.1),
            "optimizer": OptimizerConfig(learning_rate=4e-4, warmup_fraction=0.01),
            "global_batch": 512,
            "micro_batch": 32,
            "steps": 200_000,
        }
    ),
    # 24 x 1024 with 16 heads: the size of BERT-large.
    "large": _SMALL.model_copy(
        update={
            "encoder": EncoderConfig(width=1024, num_layers=24, num_heads=16, stem_channels=512, dropout=0.1),
            "optimizer": OptimizerConfig(learning_rate=2e-4, warmup_fraction=0.01),
            "global_batch": 1_024,
            "micro_batch": 16,
            "steps": 200_000,
            "parallel": "fsdp",
        }
    ),
}
PresetName = Literal["tiny", "small", "base", "large"]
