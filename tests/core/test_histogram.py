"""Each duration falls into one class."""

from __future__ import annotations

import pytest

from hanat.core.histogram import Histogram


def test_bounds_belong_to_the_class_below_them() -> None:
    histogram = Histogram((0.001, 0.002, 0.1))
    for duration_s in (-1e-9, 0.0, 0.001, 0.0011, 0.1, 0.3):
        histogram.observe(duration_s)
    status = histogram.status()
    assert status.counts == (3, 1, 1, 1)
    assert len(status.counts) == len(status.bounds_s) + 1
    assert status.max_s == 0.3
    assert status.sum_s == pytest.approx(0.4021)
