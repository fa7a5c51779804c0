"""The probability that a bin is called bound, for somebody who knows the world's rules, its sequence and its states.

For every bin we need P(bound) and P(unbound); the rest is ambiguous, and no measure counts it. What a predictor should
say is P(bound | not ambiguous) = P(bound) / (P(bound) + P(unbound)): it orders the bins as well as can be.

A site (chance p of a conservative peak, q >= p of a relaxed one) touches a bin with probability q * touch(d) and
qualifies there (half-overlap, see `ebert_core.genome.labels`) with p * bound(d), d being the distance of their middles.
The three functions of distance are measured once on many drawn peak shapes. Then, over the sites near a bin,

    P(unbound) = prod (1 - q touch)
    P(bound)   = sum_i [site i alone touches, and qualifies]
               + sum_ij [i and j touch, their peaks merged into one, and one of them qualifies],

where three touching sites are left out, and that merged peaks are wider than others (between two strong sites 250 bp
apart this makes P(bound) up to 0.08 too low; elsewhere the formula meets brute force within 0.02).
Letters: N strides of the flat axis, R reach of the templates in bp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ebert_core.simulation.chip import Array, Positions, peak_shape
from ebert_core.simulation.config import WorldConfig
from ebert_core.vocabulary import BIN_BP, STATE_BIN_BP, STRIDE_BP, STRIDES_PER_BIN

_SHAPES: Final = 20_000
_LEAST_CHANCE: Final = 1e-5
_MOST_TOUCH: Final = 1 - 1e-9


@dataclass(frozen=True)
class Template:
    """What one peak does to the bins around its site.

    Attributes:
        reach: R; nothing happens further out.
        bound: P(peak covers half of the bin, or has half of itself in it), by distance d = bin middle - site in
            -R..R, shape (2 R + 1,).
        touch: P(peak overlaps the bin), likewise.
        merged: P(the peaks of two sites overlap or touch), by the sites' distance 0..R, shape (R + 1,).
    """

    reach: int
    bound: Array
    touch: Array
    merged: Array


def measure_template(rng: np.random.Generator, config: WorldConfig) -> Template:
    """Measure the template on 20,000 drawn peak shapes."""
    start, end = peak_shape(rng, _SHAPES, config)
    half = BIN_BP // 2
    reach = int(max(end.max(), -start.min())) * 2 + STRIDE_BP
    distance = np.arange(-reach, reach + 1)
    # The rule of `genome.labels`, doubled to stay in integers: 2 start + t <= 2 bin end, 2 bin start <= 2 end - t.
    needed = np.minimum(BIN_BP, end - start)
    bound = _share_below(2 * start + needed, 2 * (distance + half)) - _share_below(
        2 * end - needed + 1, 2 * (distance - half)
    )
    touch = _share_below(start + 1, distance + half) - _share_below(end, distance - half)
    # The left site's peak ends at `end`, the right site's begins at D + `start`; they merge where these meet.
    merged = 1 - _share_below(end - rng.permutation(start) + 1, np.arange(reach + 1))
    return Template(reach, bound, touch, merged)


def _share_below(values: Positions, limits: Positions) -> Array:
    """Share of values that are <= each limit."""
    return np.searchsorted(np.sort(values), limits, side="right") / len(values)


@dataclass(frozen=True)
class Chances:
    """Two of a bin's three outcomes, float64 of shape (N,); bin i starts at flat position 50 i."""

    bound: Array
    unbound: Array

    @property
    def given_labelled(self) -> Array:
        """P(bound | bound or unbound), shape (N,): the best score, and a calibrated one."""
        return self.bound / (self.bound + self.unbound)


def bin_chances(
    num_strides: int,
    sites: tuple[Positions, Array, Array],
    false_rates: tuple[Array, Array],
    template: Template,
) -> Chances:
    """The outcome of every bin.

    Args:
        num_strides: N.
        sites: sorted flat position, p and q of each site.
        false_rates: chance of a false (conservative, relaxed-only) peak per state bin, each of shape (N / 4,).
        template: from `measure_template`.
    """
    keep = sites[2] > _LEAST_CHANCE
    place, strict, loose = sites[0][keep], sites[1][keep], sites[2][keep]
    strides, distance = _bins_near(place, template.reach, num_strides)
    index = distance + template.reach
    touches = np.minimum(loose[:, None] * template.touch[index], _MOST_TOUCH)
    qualifies = strict[:, None] * template.bound[index]
    none = np.exp(_sum_at(strides, np.log1p(-touches), num_strides))
    single = none * _sum_at(strides, qualifies / (1 - touches), num_strides)
    double = none * _pairs(place, strict, loose, template, num_strides)

    false_bound, false_none = _false_chances(false_rates, template)
    return Chances(np.minimum((single + double) * false_none + none * false_bound, 1.0), none * false_none)


def _bins_near(place: Positions, reach: int, num_strides: int) -> tuple[Positions, Positions]:
    """Strides whose bins may meet each site, and the distances of their middles; shape (sites, bins)."""
    span = reach // STRIDE_BP
    first = (place - BIN_BP // 2) // STRIDE_BP - span + 1
    strides = first[:, None] + np.arange(2 * span - 1)
    distance = np.clip(strides * STRIDE_BP + BIN_BP // 2 - place[:, None], -reach, reach)
    # Off the axis there is no bin: give it the distance at which nothing happens.
    distance[(strides < 0) | (strides >= num_strides)] = reach
    return np.clip(strides, 0, num_strides - 1), distance


def _sum_at(strides: Positions, values: Array, num_strides: int) -> Array:
    return np.bincount(strides.ravel(), weights=values.ravel(), minlength=num_strides).astype(np.float64, copy=False)


def _pairs(place: Positions, strict: Array, loose: Array, template: Template, num_strides: int) -> Array:
    """Sum over pairs of P(both touch, are merged, one qualifies) / P(neither touches), per bin; shape (N,)."""
    total = np.zeros(num_strides)
    for step in range(1, len(place)):
        apart = place[step:] - place[:-step]
        left = np.flatnonzero(apart <= template.reach)
        if len(left) == 0:
            break
        left = left[template.merged[apart[left]] * loose[left] * loose[left + step] > _LEAST_CHANCE]
        right = left + step
        strides, distance = _bins_near(place[left], template.reach, num_strides)
        other = np.clip(distance - apart[left, None], -template.reach, template.reach)
        bound, touch = template.bound[distance + template.reach], template.touch[distance + template.reach]
        bound_, touch_ = template.bound[other + template.reach], template.touch[other + template.reach]
        p, p_, q, q_ = strict[left, None], strict[right, None], loose[left, None], loose[right, None]
        either = p * p_ * (touch * touch_ - (touch - bound) * (touch_ - bound_))
        either += p * bound * (q_ - p_) * touch_ + p_ * bound_ * (q - p) * touch
        neither = (1 - np.minimum(q * touch, _MOST_TOUCH)) * (1 - np.minimum(q_ * touch_, _MOST_TOUCH))
        total += _sum_at(strides, template.merged[apart[left], None] * either / neither, num_strides)
    return total


def _false_chances(false_rates: tuple[Array, Array], template: Template) -> tuple[Array, Array]:
    """(P(a false peak makes the bin bound), P(no false peak touches it)) per bin, each of shape (N,)."""
    strict, loose = false_rates
    either = strict + loose
    around = template.reach // STATE_BIN_BP + 1
    bound = np.zeros((len(strict), STRIDES_PER_BIN))
    log_none = np.zeros_like(bound)
    for phase in range(STRIDES_PER_BIN):
        middle = phase * STRIDE_BP + BIN_BP // 2
        for shift in range(-around, around + 1):
            # The false peak's site is uniform over the state bin `shift` bins further on.
            distance = middle - (shift * STATE_BIN_BP + np.arange(STATE_BIN_BP))
            index = np.clip(distance, -template.reach, template.reach) + template.reach
            touch = template.touch[index].mean()
            if touch > 0:
                bound[:, phase] += _shifted(strict, shift) * template.bound[index].mean()
                log_none[:, phase] += np.log1p(-_shifted(either, shift) * touch)
    return bound.ravel(), np.exp(log_none).ravel()


def _shifted(values: Array, shift: int) -> Array:
    """values[i + shift] at i, 0 beyond the ends."""
    moved = np.zeros_like(values)
    if shift >= 0:
        moved[: len(values) - shift] = values[shift:]
    else:
        moved[-shift:] = values[:shift]
    return moved
