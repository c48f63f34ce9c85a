"""Histograms of ages: every age has its bucket, and percentiles are near the exact ones."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovpipe.transport.ages import BUCKETS, bounds_ns, bucket, minus, percentile_ns, plus, trimmed


@given(st.integers(0, 1 << 64))
def test_every_age_is_within_the_bounds_of_its_bucket(age: int) -> None:
    index = bucket(age)
    low, high = bounds_ns(index)
    assert 0 <= index < BUCKETS
    assert low <= age
    assert age < high or index == BUCKETS - 1


def test_buckets_follow_each_other_without_a_gap_and_are_narrow() -> None:
    edges = [bounds_ns(index) for index in range(BUCKETS)]
    assert edges[0][0] == 0
    for (_, high), (low, _) in itertools.pairwise(edges):
        assert high == low
    assert all(high / low <= 1.25 for low, high in edges[1:])
    assert edges[-1][0] > 9 * 60 * 10**9


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_percentiles_are_near_the_exact_ones_of_random_ages(seed: int, share: float) -> None:
    chance = random.Random(seed)
    middle = chance.uniform(0.0005, 0.5) * 1e9
    ages = [round(chance.lognormvariate(0, 0.8) * middle) for _ in range(5000)]
    counts = [0] * BUCKETS
    for age in ages:
        counts[bucket(age)] += 1
    exact = float(np.quantile(ages, share))
    found = percentile_ns(counts, share)
    assert found is not None
    assert abs(found - exact) <= 0.15 * exact


def test_of_nothing_there_is_no_percentile_and_of_one_it_is_in_its_bucket() -> None:
    assert percentile_ns([], 0.5) is None
    assert percentile_ns([0] * BUCKETS, 0.5) is None
    counts = [0] * BUCKETS
    counts[bucket(10**7)] = 1
    low, high = bounds_ns(bucket(10**7))
    for share in (0.0, 0.5, 1.0):
        found = percentile_ns(counts, share)
        assert found is not None
        assert low <= found <= high


def test_histograms_add_up_and_come_apart_whatever_their_length() -> None:
    a, b = (1, 0, 2), (0, 3, 0, 1)
    assert plus(a, b) == (1, 3, 2, 1)
    assert minus(plus(a, b), a) == (0, 3, 0, 1)
    assert minus(plus(a, b), b) == (1, 0, 2, 0)
    assert trimmed([1, 0, 2, 0, 0]) == (1, 0, 2)
    assert trimmed([0, 0]) == ()
