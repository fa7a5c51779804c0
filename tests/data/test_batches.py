"""Training batches, against one example at a time in Python's own integers and slices of chromosomes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebert_core.config import PRESETS, EncoderConfig, MaskingConfig, PretrainConfig
from ebert_core.data import batches as batches_module
from ebert_core.data.batches import IGNORED, GenomeStore, MaskedBatch, MaskedBatches
from ebert_core.data.examples import CANDIDATES
from ebert_core.data.masking import gap_table, hidden_count
from ebert_core.data.randomness import step_key
from ebert_core.data.windows import eligible_starts
from ebert_core.errors import EbertError
from ebert_core.genome.regions import whole

CPU = torch.device("cpu")
CELLS = ("GM12878", "HepG2", "MyCell")
STATES = 18
ALL = 2**64 - 1
COMPLEMENT = {0: 3, 1: 2, 2: 1, 3: 0, 4: 4}


def config_of(window_bp=2_000, token_bp=10, seed=3, **masking):
    return PretrainConfig(
        window_bp=window_bp, encoder=EncoderConfig(token_bp=token_bp), masking=MaskingConfig(**masking), seed=seed
    )


@pytest.fixture(scope="module")
def store(toy_dataset):
    return GenomeStore(toy_dataset, CELLS, CPU)


@pytest.fixture(scope="module")
def starts(toy_dataset):
    return eligible_starts(toy_dataset, whole(toy_dataset.assembly), 2_000)


def equal(one: MaskedBatch, other: MaskedBatch) -> bool:
    return all(torch.equal(vars(one)[name], vars(other)[name]) for name in vars(one))


def cut(batch: MaskedBatch, first: int, last: int) -> MaskedBatch:
    """Rows first .. last - 1 of a batch; its places are counted from its own first window."""
    rows = len(batch.bases)
    cut_out = {}
    for name, tensor in vars(batch).items():
        part = len(tensor) // rows
        cut_out[name] = tensor[first * part : last * part].clone()
    tokens = batch.bases.shape[1] // batch.base_targets.shape[1]
    cut_out["base_index"] -= first * tokens
    cut_out["state_index"] -= first * batch.states.shape[1]
    return MaskedBatch(**cut_out)


# --- The oracle: one example at a time, from the words of SplitMix64 by Python's integers


def word_of(key, example, lane):
    z = (key.counter + 0x9E3779B97F4A7C15 * (65_536 * example + lane)) & ALL
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & ALL) ^ (key.mixed & ALL)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & ALL
    return z ^ (z >> 31)


def places_of(words, turn, rate, mean, length):
    table, count = gap_table(mean).tolist(), hidden_count(rate, length)
    gaps = [table[(word >> (12 * part)) % 4_096] for word in words for part in range(5)][:count]
    reached = np.cumsum(gaps).tolist()
    first = turn * length >> 32
    return [(first + k + reached[k] * (length - count) // max(1, reached[-1])) % length for k in range(count)]


def example_of(dataset, starts, config, stream, step, number):
    """(bases, states, hidden tokens, their bases, hidden bins, their states, start, cell) as lists."""
    key, masking = step_key(config.seed, stream, step), config.masking
    pair, turns, drop = (word_of(key, number, lane) for lane in range(3))
    start, cell = int(starts[(pair >> 32) * len(starts) >> 32]), (pair % 2**32) * 3 >> 32
    chrom, position = (int(value) for value in dataset.assembly.locate(start))
    name, bins = dataset.assembly.chroms[chrom], config.window_bp // 200
    bases = dataset.sequence(name)[position : position + config.window_bp].tolist()
    states = dataset.states(CELLS[cell], name)[position // 200 : position // 200 + bins].tolist()
    if (number + step) % 2:
        bases, states = [COMPLEMENT[base] for base in reversed(bases)], states[::-1]
    token_bp = config.encoder.token_bp
    tokens = config.window_bp // token_bp
    words = -(-hidden_count(masking.dna_rate, tokens) // 5)
    lanes = [word_of(key, number, lane) for lane in range(3, 60)]
    hidden = places_of(lanes[:words], turns >> 32, masking.dna_rate, masking.dna_span_tokens, tokens)
    hidden_bins = places_of(lanes[words:], turns % 2**32, masking.state_rate, masking.state_span_bins, bins)
    targets = [[base if base < 4 else -100 for base in bases[t * token_bp : (t + 1) * token_bp]] for t in hidden]
    state_targets = [states[b] - 1 if states[b] else -100 for b in hidden_bins]
    shown = [5 if place // token_bp in hidden else base for place, base in enumerate(bases)]
    shown_states = [STATES + 1 if b in hidden_bins and state else state for b, state in enumerate(states)]
    if (drop >> 32) < masking.state_dropout * 2**32:
        shown_states = [0] * bins
    return shown, shown_states, hidden, targets, hidden_bins, state_targets, start, cell


@pytest.mark.parametrize("token_bp", [5, 10, 50])
@pytest.mark.parametrize("step", [0, 1, 70_001])
def test_equal_to_one_example_at_a_time(toy_dataset, store, starts, step, token_bp):
    config = config_of(token_bp=token_bp, state_rate=0.3, state_dropout=0.3)
    batch = MaskedBatches(store, starts, config).draw(1, step, 5, 40, 64)
    tokens = 2_000 // token_bp
    for row in range(40):
        found = cut(batch, row, row + 1)
        shown, states, hidden, targets, bins, state_targets, start, cell = example_of(
            toy_dataset, starts, config, 1, step, 5 + row
        )
        assert found.bases.tolist() == [shown]
        assert found.states.tolist() == [states]
        assert found.base_index.tolist() == hidden
        assert found.base_targets.tolist() == targets
        assert found.state_index.tolist() == bins
        assert found.state_targets.tolist() == state_targets
        assert (found.starts.item(), found.cells.item()) == (start, cell)
    assert batch.base_index.shape == (40 * hidden_count(0.15, tokens),)
    assert {batch.bases.dtype, batch.states.dtype} == {torch.uint8}
    assert {batch.base_index.dtype, batch.base_targets.dtype, batch.state_targets.dtype} == {torch.int64}
    assert (batch.states == STATES + 1).any()


@settings(deadline=None, max_examples=30)
@given(
    cuts=st.lists(st.integers(0, 24), max_size=6),
    step=st.integers(0, 2**40),
    rare=st.sampled_from([0.0, 0.7]),
    of=st.integers(24, 100),
)
def test_however_the_global_batch_is_cut(store, starts, cuts, step, rare, of):
    batches = MaskedBatches(store, starts, config_of(), rare_states=rare)
    whole_batch = batches.draw(0, step, 0, 24, of)
    edges = [0, *sorted(cuts), 24]
    for first, last in itertools.pairwise(edges):
        if first < last:
            part = MaskedBatches(store, starts, config_of(), rare_states=rare).draw(0, step, first, last - first, of)
            assert equal(part, cut(whole_batch, first, last))


@pytest.mark.parametrize("rare", [0.0, 1.0])
def test_a_gpu_would_draw_the_same(store, starts, monkeypatch, rare):
    def draw():
        batches = MaskedBatches(store, starts, config_of(), rare_states=rare, cell_weights=[1, 2, 3])
        return batches.draw(0, 9, 3, 50, 64)

    by_arrays = draw()
    # On a GPU the numbers are drawn by tensors; the same code, on the CPU's own.
    monkeypatch.setattr(MaskedBatches, "_on_cpu", False)
    assert equal(draw(), by_arrays)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("placement", ["auto", "device", "host"])
def test_on_a_gpu(toy_dataset, store, starts, placement):
    on_gpu = GenomeStore(toy_dataset, CELLS, torch.device("cuda"), placement)
    assert on_gpu.device.type == ("cpu" if placement == "host" else "cuda")
    found = MaskedBatches(on_gpu, starts, config_of(), rare_states=0.5).draw(0, 1, 0, 32, 32)
    assert found.bases.device.type == "cuda"
    expected = MaskedBatches(store, starts, config_of(), rare_states=0.5).draw(0, 1, 0, 32, 32)
    assert equal(found.to(CPU), expected)


def test_streams_steps_and_seeds_differ(store, starts):
    def drawn(seed, stream, step):
        return MaskedBatches(store, starts, config_of(seed=seed)).draw(stream, step, 0, 16, 16)

    first = drawn(0, 0, 0)
    assert equal(first, drawn(0, 0, 0))
    for other in (drawn(1, 0, 0), drawn(0, 1, 0), drawn(0, 0, 2)):
        assert (first.starts != other.starts).float().mean() > 0.7
        assert not torch.equal(first.base_index, other.base_index)


# --- What the model is shown


def altered(store, change):
    """The store with other data in place of some: `change(sequence, states)` writes into copies."""
    changed = object.__new__(GenomeStore)
    changed.__dict__.update(store.__dict__, _sequence=store._sequence.clone(), states=store.states.clone())
    change(changed._sequence, changed.states)
    return changed


@pytest.mark.parametrize("token_bp", [1, 5, 10, 25])
@pytest.mark.parametrize("step", range(6))
def test_what_is_hidden_cannot_be_read(store, starts, step, token_bp):
    config = config_of(token_bp=token_bp, dna_rate=0.3, state_rate=0.4, state_dropout=0)
    truth = MaskedBatches(store, starts, config).draw(0, step, 0, 1, 1)
    start, bins = truth.starts.item(), truth.starts.item() // 200

    def lie(sequence, states):
        hidden = torch.repeat_interleave(torch.zeros(2_000 // token_bp).index_fill(0, truth.base_index, 1), token_bp)
        hidden_bins = torch.zeros(10).index_fill(0, truth.state_index, 1)
        if step % 2:  # read on the other strand
            hidden, hidden_bins = hidden.flip(0), hidden_bins.flip(0)
        window, track = sequence[start : start + 2_000], states[truth.cells.item(), bins : bins + 10]
        window[hidden.bool()] = (window[hidden.bool()] + 1) % 4
        track[hidden_bins.bool() & (track > 0)] = 1 + track[hidden_bins.bool() & (track > 0)] % STATES

    lied = MaskedBatches(altered(store, lie), starts, config).draw(0, step, 0, 1, 1)
    assert torch.equal(lied.bases, truth.bases)
    assert torch.equal(lied.states, truth.states)
    assert (lied.base_targets != truth.base_targets).all()
    known = truth.state_targets != IGNORED
    assert (lied.state_targets != truth.state_targets)[known].all()


def test_what_is_shown_is_the_truth(store, starts):
    batch = MaskedBatches(store, starts, config_of(state_dropout=0.5)).draw(0, 0, 0, 64, 64)
    true = batch.true_bases()
    assert ((batch.bases == 5) | (batch.bases == true)).all()
    assert (batch.bases == 5).sum(dim=1).tolist() == [30 * 10] * 64
    forward = store.windows(2_000)[0][batch.starts // 200]
    assert torch.equal(true[::2], forward[::2])
    assert torch.equal(true[1::2], torch.tensor([3, 2, 1, 0, 4], dtype=torch.uint8)[forward[1::2].long()].flip(1))
    assert (true == 4).any(), "the toy world has an N in some window"
    assert (batch.base_targets == IGNORED).sum() <= (true == 4).sum()


def test_windows_without_states_are_asked_for_them(store, starts):
    batch = MaskedBatches(store, starts, config_of(state_dropout=0.25)).draw(0, 0, 0, 4_000, 4_000)
    dropped = (batch.states == 0).all(dim=1)
    assert dropped.float().mean() == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / 4_000))
    assert (batch.state_targets.view(4_000, -1)[dropped] != IGNORED).all()
    assert not MaskedBatches(store, starts, config_of(state_dropout=1)).draw(0, 0, 0, 9, 9).states.any()
    whole_tracks = MaskedBatches(store, starts, config_of(state_dropout=0, state_rate=0)).draw(0, 0, 0, 9, 9)
    assert whole_tracks.state_targets.shape == (0,)
    assert (whole_tracks.states > 0).float().mean() > 0.9


def test_unknown_states_are_neither_asked_nor_told(store, starts):
    unknown = altered(store, lambda sequence, states: states.zero_())
    batch = MaskedBatches(unknown, starts, config_of(state_dropout=0)).draw(0, 0, 0, 9, 9)
    assert not batch.states.any()
    assert (batch.state_targets == IGNORED).all()
    n = altered(store, lambda sequence, states: sequence.fill_(4))
    batch = MaskedBatches(n, starts, config_of()).draw(0, 0, 0, 9, 9)
    assert (batch.base_targets == IGNORED).all()
    assert torch.equal(batch.true_bases(), torch.full_like(batch.bases, 4))
    assert set(batch.bases.unique().tolist()) == {4, 5}


# --- Which windows are drawn


def counts_of(batches, num_draws=40_000):
    batch = batches.draw(0, 0, 0, num_draws, num_draws)
    return batch, torch.bincount(batch.cells, minlength=len(CELLS)).numpy()


def test_every_pair_equally_often(store, starts):
    few = starts[::9]
    batches = MaskedBatches(store, few, config_of(window_bp=400))
    assert batches.num_pairs == 3 * len(few)
    batch, _ = counts_of(batches)
    pairs = np.searchsorted(few, batch.starts.numpy()) * 3 + batch.cells.numpy()
    counts, expected = np.bincount(pairs, minlength=3 * len(few)), 40_000 / (3 * len(few))
    freedom = 3 * len(few) - 1
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 5 * np.sqrt(2 * freedom)
    # Each window as often on either strand.
    on_other = np.bincount(np.searchsorted(few, batch.starts.numpy())[1::2], minlength=len(few))
    assert abs(on_other / np.maximum(1, counts.reshape(-1, 3).sum(axis=1)) - 0.5).max() < 0.15


def test_weights_of_cell_types(store, starts):
    _, counts = counts_of(MaskedBatches(store, starts, config_of(window_bp=400), cell_weights=[3, 0, 1]))
    assert counts[1] == 0
    assert counts[0] / counts.sum() == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("weights", [[1, 1], [0, 0, 0], [1, -1, 1], [1, float("nan"), 1]])
def test_weights_that_cannot_be(store, starts, weights):
    with pytest.raises(EbertError, match="weights"):
        MaskedBatches(store, starts, config_of(), cell_weights=weights)


def test_rare_states_are_met_more_often(store, starts):
    """State 1 in one bin of a hundred, state 2 elsewhere; windows of one bin, so that the share can be worked out."""

    def two_states(sequence, states):
        states.fill_(2)
        states[:, ::100] = 1

    rare = altered(store, two_states)
    singles = np.arange(0, 60_000, 200)
    shares = []
    for exponent in (0.0, 0.5, 1.0):
        config = config_of(window_bp=200, state_rate=0, state_dropout=0)
        batch = MaskedBatches(rare, singles, config, rare_states=exponent).draw(0, 0, 0, 40_000, 40_000)
        shares.append(float((batch.states == 1).float().mean()))
    plain = 0.01
    expected = [plain]
    for exponent in (0.5, 1.0):
        odds = (plain / (1 - plain)) ** -exponent
        several = np.arange(CANDIDATES + 1)
        chance = np.array([math.comb(CANDIDATES, k) * plain**k * (1 - plain) ** (CANDIDATES - k) for k in several])
        expected.append(float((chance * several * odds / (several * odds + CANDIDATES - several)).sum()))
    assert shares == pytest.approx(expected, rel=0.15)
    assert shares[2] < CANDIDATES * plain


# --- The store


def test_the_sequence_is_mapped_and_states_are_stacked(toy_dataset, store):
    assert store._sequence.data_ptr() == toy_dataset.flat_sequence.ctypes.data
    for row, cell in zip(store.states, CELLS, strict=True):
        np.testing.assert_array_equal(row.numpy(), toy_dataset.flat_states(cell))
    assert store.describe() == "0.1 MB of sequence mapped on the CPU, 3 state tracks (0.0 MB) in its memory"
    assert store.num_bytes == 101_600 + 3 * 508
    assert (store.num_cells, store.num_states) == (3, STATES)


def test_views_of_windows(toy_dataset, store):
    bases, states = store.windows(1_000)
    bins = toy_dataset.assembly.flat_bp // 200
    assert bases.shape == (bins - 4, 1_000)
    assert states.shape == (3 * bins - 4, 5)
    np.testing.assert_array_equal(bases[7], toy_dataset.flat_sequence[1_400:2_400])
    np.testing.assert_array_equal(states[2 * bins + 7], toy_dataset.flat_states("MyCell")[7:12])


def test_what_cannot_be_drawn(toy_dataset, store, starts):
    with pytest.raises(EbertError, match="no window to draw"):
        MaskedBatches(store, starts[:0], config_of())
    with pytest.raises(EbertError, match="are longer than the dataset"):
        MaskedBatches(store, starts, config_of(window_bp=200_000))
    batches = MaskedBatches(store, starts, config_of())
    for first, count, of in [(-1, 2, 8), (7, 2, 8), (0, -1, 8)]:
        with pytest.raises(ValueError, match="global batch of 8"):
            batches.draw(0, 0, first, count, of)
    with pytest.raises(EbertError, match="Nowhere"):
        GenomeStore(toy_dataset, ["Nowhere"], CPU)


@pytest.mark.parametrize("preset", PRESETS.values())
def test_every_preset_can_be_drawn(toy_dataset, store, preset):
    found = eligible_starts(toy_dataset, whole(toy_dataset.assembly), preset.window_bp)
    batch = MaskedBatches(store, found, preset).draw(0, 0, 0, 2, preset.global_batch)
    assert batch.bases.shape == (2, preset.window_bp)
    assert batch.base_targets.shape[1] == preset.encoder.token_bp


@pytest.mark.parametrize(
    ("placement", "free", "expected"),
    [("auto", 301, "cuda"), ("auto", 299, "cpu"), ("device", 299, "cuda"), ("host", 10_000, "cpu")],
)
def test_where_the_arrays_go(monkeypatch, placement, free, expected):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10_000))
    assert batches_module._chosen_place(100, torch.device("cuda"), placement).type == expected
    assert batches_module._chosen_place(100, CPU, placement) == CPU


def test_no_memory_for_the_arrays(toy_dataset, monkeypatch):
    def full(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(EbertError, match=r"no memory on cpu for the sequence and 3 state tracks \(0.1 MB\)") as caught:
        GenomeStore(toy_dataset, CELLS, CPU)
    assert "data_placement=host" in caught.value.hint


def test_batches_may_be_wanted_elsewhere(toy_dataset, store, starts):
    elsewhere = GenomeStore(toy_dataset, CELLS, CPU)
    elsewhere.batch_device = torch.device("meta")
    assert elsewhere.describe().endswith("in its memory, batches copied to meta")
    assert MaskedBatches(elsewhere, starts, config_of()).draw(0, 0, 0, 2, 2).bases.device.type == "meta"
