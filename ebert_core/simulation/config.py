"""What can be set of the demo world."""

from __future__ import annotations

from dataclasses import dataclass

from ebert_core.errors import EbertError, UnknownNameError


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """A demo world; two equal values give the same files, byte for byte.

    Attributes:
        seed: of every random choice.
        chrom_lengths: (name, length in bp) of each sequence, in file order. Odd lengths on purpose.
        cells: names of the cell types.
        cells_without_accessibility: cell types that get no DNase peaks.
        test_cell: cell type suggested to be held out.
        test_chrom: chromosome suggested to be held out.
        validation_chrom: chromosome suggested for choosing the best checkpoint.
        markov_order: bases that the background's next base depends on.
        element_spacing_bp: mean distance between regulatory elements (promoters and enhancers).
        element_least_spacing_bp: smallest such distance.
        promoter_share: share of the elements that are promoters.
        island_share: share of the promoters that lie in a CpG island.
        repeat_share: share of the genome that repeats cover (soft-masked).
        stray_sites_per_mb: planted motif instances per Mb and TF outside the elements.
        site_sharpness: power on the motif matrix before instances are drawn; above 1 gives strong sites.
        peak_width_bp: narrowest and widest ChIP peak.
        summit_jitter_bp: standard deviation of a peak's summit around its site.
        relaxed_margin: how far below the conservative threshold a relaxed peak still shows, in units of the logit.
        false_peaks: chance of a false ChIP peak per 200-bp bin in (open, closed) chromatin; half of them pass only
            the relaxed threshold in open chromatin, all of them in closed.
        marginal_cells: hypothetical cell types averaged over for the best predictor that sees no states.

    Raises:
        EbertError: a name that does not occur or is given twice, or distances that cannot be met.
    """

    seed: int = 1
    chrom_lengths: tuple[tuple[str, int], ...] = (
        ("chr1", 3_300_417),
        ("chr2", 2_700_863),
        ("chr3", 1_200_731),
        ("chr4", 2_200_090),
        ("chrUn_1", 13_337),
    )
    cells: tuple[str, ...] = ("SimBlood", "SimLiver", "SimSkin", "SimBrain")
    cells_without_accessibility: tuple[str, ...] = ("SimSkin",)
    test_cell: str = "SimBrain"
    test_chrom: str = "chr4"
    validation_chrom: str = "chr3"
    markov_order: int = 4
    element_spacing_bp: int = 4_500
    element_least_spacing_bp: int = 2_600
    promoter_share: float = 0.35
    island_share: float = 0.75
    repeat_share: float = 0.1
    stray_sites_per_mb: float = 120.0
    site_sharpness: float = 2.0
    peak_width_bp: tuple[int, int] = (160, 300)
    summit_jitter_bp: float = 12.0
    relaxed_margin: float = 0.7
    false_peaks: tuple[float, float] = (0.005, 0.0003)
    marginal_cells: int = 48

    def __post_init__(self) -> None:
        chroms = [name for name, _ in self.chrom_lengths]
        for what, name in (("chromosome", self.test_chrom), ("chromosome", self.validation_chrom)):
            if name not in chroms:
                raise UnknownNameError(what, name, chroms)
        for cell in (self.test_cell, *self.cells_without_accessibility):
            if cell not in self.cells:
                raise UnknownNameError("cell type", cell, self.cells)
        if len(set(self.cells)) != len(self.cells):
            raise EbertError("a cell type is named twice", "give every cell type of the world its own name")
        if self.element_spacing_bp <= self.element_least_spacing_bp:
            raise EbertError(
                f"element_spacing_bp {self.element_spacing_bp} is not above element_least_spacing_bp "
                f"{self.element_least_spacing_bp}",
                "raise the mean distance or lower the smallest",
            )
