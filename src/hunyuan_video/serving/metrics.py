"""What Prometheus reads. All but the figures of this very process come from the database, so every API process says the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from hunyuan_video.serving.store import Store
from hunyuan_video.serving.tallies import BOUNDS, Tally

_HISTOGRAMS = {
    "job": ("status", "Seconds from the order to the end, of jobs that were begun"),
    "stage": ("stage", "Seconds of a stage (encode, denoise, decode) in one attempt"),
    "step": ("stage", "Seconds of a step"),
}


class Jobs(Collector):
    """Of a store."""

    def __init__(self, store: Store):
        self._store = store

    def describe(self) -> Iterable[Metric]:
        return []  # else registering asks the database

    def collect(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("hunyuan_video_jobs", "Jobs that are kept, by status", labels=["status"])
        for status, number in self._store.counts().items():
            states.add_metric([status], number)
        yield states
        yield GaugeMetricFamily("hunyuan_video_queue_age_seconds", "For which the first job waits", value=self._store.queue_age())
        workers = self._store.live_workers()
        yield GaugeMetricFamily("hunyuan_video_workers", "Workers that have been heard of", value=len(workers))
        memory = GaugeMetricFamily("hunyuan_video_worker_peak_memory_bytes", "The most that a worker has taken", labels=["worker"])
        for worker in workers:
            if worker.memory is not None:
                memory.add_metric([worker.id], worker.memory)
        yield memory
        found = self._store.tallies()
        for kind, (label, said) in _HISTOGRAMS.items():
            yield _histogram(f"hunyuan_video_{kind}_seconds", said, label, [tally for tally in found if tally.kind == kind])
        errors = CounterMetricFamily("hunyuan_video_errors", "Jobs that have failed, by code", labels=["code"])
        for tally in found:
            if tally.kind == "error":
                errors.add_metric([tally.label], tally.number)
        yield errors


def _histogram(name: str, said: str, label: str, found: list[Tally]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, said, labels=[label])
    for value, group in groupby(found, key=lambda tally: tally.label):
        mine = {tally.bucket: tally for tally in group}
        number, buckets = 0, []
        for bucket, bound in enumerate((*map(str, BOUNDS), "+Inf")):
            number += mine[bucket].number if bucket in mine else 0
            buckets.append((bound, number))
        family.add_metric([value], buckets, sum(tally.total for tally in mine.values()))
    return family


def registry_of(store: Store) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Jobs(store))
    ProcessCollector(registry=registry)
    return registry


def text_of(registry: CollectorRegistry) -> bytes:
    """In Prometheus' text format."""
    return generate_latest(registry)
