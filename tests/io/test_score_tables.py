"""Score tables beyond what the predictions' tests show: huge chromosomes, rows in any order, bins asked in any way."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebert_core.genome.assembly import Assembly
from ebert_core.io import portions
from ebert_core.io.score_tables import read_score_table

ASSEMBLY = Assembly.from_sizes([("chr1", 20_000), ("chr2", 20_000), ("chrHuge", 5_000_000_000)])


def write(path, rows):
    path.write_bytes(gzip.compress("".join(f"{c}\t{s}\t{e}\t{v!r}\n" for c, s, e, v in rows).encode()))
    return path


@pytest.mark.parametrize("start", [1_000, 4_999_999_600])
def test_chromosomes_beyond_32_bits(tmp_path, start):
    rows = [("chrHuge", start + 50 * n, start + 50 * n + 200, n / 8) for n in range(3)]
    bins = read_score_table(write(tmp_path / "a.tab.gz", rows), ASSEMBLY).chroms["chrHuge"]
    assert bins.at_bins(np.array([start, start + 50, start + 100])).tolist() == [0, 0.125, 0.25]
    signal = read_score_table(write(tmp_path / "b.tab.gz", rows[:1]), ASSEMBLY).chroms["chrHuge"]
    assert signal.mean_over(np.array([start]), np.array([start + 50])).tolist() == [0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["chr1", "2", "chrQ"]), st.integers(0, 390)), st.floats(-9, 9, width=32), min_size=2
    ),
    st.randoms(),
    st.integers(1, 300),
)
def test_bins_in_any_order_over_many_portions(tmp_path, scores, random, portion_bytes):
    rows = [(chrom, 50 * place, 50 * place + 200, value) for (chrom, place), value in scores.items()]
    rows += [("chr1", 19_700, 19_900, 0.5), ("chr1", 19_750, 19_950, 0.25), ("2", 19_700, 19_900, 1.5)]
    scores |= {("chr1", 394): 0.5, ("chr1", 395): 0.25, ("2", 394): 1.5}
    random.shuffle(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portions, "_PORTION_BYTES", portion_bytes)
        table = read_score_table(write(tmp_path / "a.tab.gz", rows), ASSEMBLY)
    every = np.arange(0, 19_801, 50)
    for name, chrom in (("chr1", "chr1"), ("2", "chr2")):
        expected = np.array([scores.get((name, place), np.nan) for place in range(len(every))], np.float32)
        found = table.chroms[chrom].at_bins(every)
        given = np.isin(every, table.chroms[chrom].bins)
        np.testing.assert_array_equal(found[given], expected[given])
        assert np.isnan(found[~given]).all()
        if len(table.chroms[chrom].bins):
            assert given.sum() == np.isfinite(expected).sum()
            np.testing.assert_array_equal(table.chroms[chrom].at_bins(every[given]), expected[given])
    assert table.dropped == ({"chrQ": count} if (count := sum(chrom == "chrQ" for chrom, _ in scores)) else {})
