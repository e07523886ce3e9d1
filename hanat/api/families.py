"""Families of Prometheus metrics, made of samples: the labels' values and a number each."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

Samples = Iterable[tuple[tuple[str, ...], float]]


def gauge(name: str, text: str, samples: Samples, *, labels: tuple[str, ...] = ()) -> Metric:
    """Return a family of gauges."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def counter(name: str, text: str, samples: Samples, *, labels: tuple[str, ...] = ()) -> Metric:
    """Return a family of counters; its samples' names end with ``_total``."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
