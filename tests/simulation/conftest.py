"""One small demo world for all tests of this folder."""

from __future__ import annotations

import dataclasses

import pytest

from ebert_core.simulation.config import WorldConfig
from ebert_core.simulation.genome import build_genome
from ebert_core.simulation.world import build_world

# The third length is a multiple of 200 bp, the fourth holds few elements, the fifth no bin.
SMALL = WorldConfig(
    seed=5,
    chrom_lengths=(("chr1", 700_417), ("chr2", 400_863), ("chr3", 250_000), ("chrUn_1", 6_337), ("chrUn_2", 150)),
    cells=("SimBlood", "SimLiver", "SimBrain"),
    cells_without_accessibility=("SimLiver",),
    test_chrom="chr1",
    validation_chrom="chr2",
    marginal_cells=24,
)


@pytest.fixture(scope="session")
def small_config():
    return SMALL


@pytest.fixture(scope="session")
def small_world(tmp_path_factory):
    """Files of the small world; do not change them."""
    return build_world(SMALL, tmp_path_factory.mktemp("simulated") / "world")


@pytest.fixture(scope="session")
def small_genome():
    return build_genome(SMALL)


@pytest.fixture(scope="session")
def tiny_config():
    """For tests that build whole worlds."""
    return dataclasses.replace(
        SMALL, chrom_lengths=(("chr1", 90_417), ("chr2", 60_000), ("chrUn_2", 150)), marginal_cells=3
    )
