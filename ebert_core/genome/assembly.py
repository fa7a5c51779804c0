"""Named chromosome sizes, and the flat axis on which a dataset lays them end to end.

The flat axis: chromosomes follow each other, each beginning at a multiple of 200 bp (the tail of a chromosome is padded
with N). So flat position p lies in state bin p // 200 and in stride p // 50, for every chromosome alike, and a batch of
windows from anywhere in the genome is one gather with no lookup per chromosome.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ebert_core.artifacts import digest_of
from ebert_core.errors import EbertError, UnknownNameError
from ebert_core.vocabulary import STATE_BIN_BP

# UCSC's hg19.chrom.sizes: the chromosomes of the ENCODE-DREAM challenge.
_HG19: Final = {
    "chr1": 249250621, "chr2": 243199373, "chr3": 198022430, "chr4": 191154276, "chr5": 180915260, "chr6": 171115067,
    "chr7": 159138663, "chr8": 146364022, "chr9": 141213431, "chr10": 135534747, "chr11": 135006516,
    "chr12": 133851895, "chr13": 115169878, "chr14": 107349540, "chr15": 102531392, "chr16": 90354753,
    "chr17": 81195210, "chr18": 78077248, "chr19": 59128983, "chr20": 63025520, "chr21": 48129895, "chr22": 51304566,
    "chrX": 155270560,
}  # fmt: skip
# Lengths (bp) of a few chromosomes tell the common assemblies apart (UCSC chrom.sizes).
_FINGERPRINTS: Final = {
    "hg19": _HG19,
    "hg38": {"chr1": 248956422, "chr8": 145138636, "chr20": 64444167, "chr21": 46709983, "chr22": 50818468},
    "T2T-CHM13v2": {"chr1": 248387328, "chr8": 146259331, "chr20": 66210255, "chr21": 45090682, "chr22": 51324926},
    "mm10": {"chr1": 195471971, "chr8": 129401213, "chr18": 90702639, "chr19": 61431566},
    "mm39": {"chr1": 195154279, "chr8": 130127694, "chr18": 90720763, "chr19": 61420004},
}
BUILT_IN_ASSEMBLIES: Final = {"hg19": _HG19}


def synonyms(chrom: str) -> tuple[str, ...]:
    """The other spellings of a chromosome's name: with and without `chr`, and M for MT."""
    bare = chrom[3:] if chrom.startswith("chr") else chrom
    bares = {"M": ("M", "MT"), "MT": ("MT", "M")}.get(bare, (bare,))
    return tuple(name for other in bares for name in (f"chr{other}", other) if name != chrom)


@dataclass(frozen=True)
class Assembly:
    """Chromosome names and lengths in bp, in the order of the reference file.

    Raises:
        EbertError: a name given twice or a length below 1.
    """

    chroms: tuple[str, ...]
    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(set(self.chroms)) != len(self.chroms):
            twice = next(chrom for chrom in self.chroms if self.chroms.count(chrom) > 1)
            raise EbertError(f"chromosome {twice} is given twice", "keep one sequence per name")
        if any(length < 1 for length in self.lengths):
            raise EbertError("an assembly needs chromosomes of at least 1 bp", "remove the empty sequences")

    @classmethod
    def from_sizes(cls, sizes: Iterable[tuple[str, int]]) -> Assembly:
        """An assembly from (name, length in bp) pairs."""
        pairs = list(sizes)
        return cls(tuple(name for name, _ in pairs), tuple(int(length) for _, length in pairs))

    @classmethod
    def built_in(cls, name: str) -> Assembly:
        """An assembly that needs no file: `hg19`, chr1 to chr22 and chrX; `UnknownNameError` for any other name."""
        if name not in BUILT_IN_ASSEMBLIES:
            raise UnknownNameError("built-in assembly", name, BUILT_IN_ASSEMBLIES)
        return cls.from_sizes(BUILT_IN_ASSEMBLIES[name].items())

    @functools.cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the names and lengths: equal where two files lie on the same coordinates."""
        return digest_of([list(pair) for pair in zip(self.chroms, self.lengths, strict=True)])

    @functools.cached_property
    def name(self) -> str:
        """The assembly's common name, told from its lengths, or 'custom'."""
        for name, known in _FINGERPRINTS.items():
            shared = [chrom for chrom in self.chroms if chrom in known]
            if shared and all(self.length(chrom) == known[chrom] for chrom in shared):
                return name
        return "custom"

    @functools.cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Flat start of every chromosome, int64 of shape (number of chromosomes + 1,); the last entry is the end."""
        padded = [-(-length // STATE_BIN_BP) * STATE_BIN_BP for length in self.lengths]
        return np.concatenate([[0], np.cumsum(padded, dtype=np.int64)])

    @property
    def flat_bp(self) -> int:
        """Length of the flat axis in bp: a multiple of 200."""
        return int(self.offsets[-1])

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {chrom: index for index, chrom in enumerate(self.chroms)}

    def __contains__(self, chrom: object) -> bool:
        return chrom in self._index

    def index(self, chrom: str) -> int:
        """Position of a chromosome in the assembly; `UnknownNameError` where there is none of that name."""
        try:
            return self._index[chrom]
        except KeyError:
            raise UnknownNameError("chromosome", chrom, self.chroms) from None

    def length(self, chrom: str) -> int:
        """Length in bp."""
        return self.lengths[self.index(chrom)]

    def offset(self, chrom: str) -> int:
        """Flat position of the chromosome's first base."""
        return int(self.offsets[self.index(chrom)])

    def resolve(self, chrom: str) -> str | None:
        """This assembly's spelling of a name (`1` and `chr1` meet), or None where nothing fits."""
        if chrom in self:
            return chrom
        return next((name for name in synonyms(chrom) if name in self), None)

    def require(self, chroms: Sequence[str]) -> list[str]:
        """Each asked name in this assembly's spelling; `UnknownNameError` for the first that does not exist."""
        return [self.resolve(chrom) or self.chroms[self.index(chrom)] for chrom in chroms]

    def locate(self, flat: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Flat positions -> (chromosome index, 0-based position on it), both of the input's shape."""
        index = np.searchsorted(self.offsets, flat, side="right") - 1
        return index, flat - self.offsets[index]

    def to_json(self) -> dict[str, object]:
        """For manifests: name, digest and chromosomes."""
        chroms = [list(pair) for pair in zip(self.chroms, self.lengths, strict=True)]
        return {"name": self.name, "digest": self.digest, "chroms": chroms}

    def clash(self, other: Assembly) -> str:
        """Why positions on the two assemblies cannot mean the same, or ''.

        One may hold fewer chromosomes than the other; those that both hold must have one length.
        """
        shared = [chrom for chrom in self.chroms if chrom in other]
        for chrom in shared:
            if self.length(chrom) != other.length(chrom):
                return f"{chrom} has {self.length(chrom):,} bp in one and {other.length(chrom):,} bp in the other"
        if not shared and (self.name != other.name or self.name == "custom"):
            return "they share no chromosome"
        return ""


def likely_assembly(lengths: dict[str, int]) -> str:
    """The common assembly that the most of these chromosome lengths agree with, or ''."""
    votes = {
        name: sum(lengths.get(chrom) == length for chrom, length in known.items())
        for name, known in _FINGERPRINTS.items()
    }
    best = max(votes, key=lambda name: votes[name])
    return best if votes[best] else ""
