"""Figures as the text that Prometheus reads: https://prometheus.io/docs/instrumenting/exposition_formats/."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import msgspec

from celeriac.node.tally import BOUNDS_SECONDS, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = dict[str, str]


class Sample(msgspec.Struct):
    """One figure."""

    value: float
    labels: Labels = {}
    suffix: str = ""  # of the family's name


class Family(msgspec.Struct):
    """Figures of one meaning, told apart by their labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: list[Sample]


def single(name: str, kind: Literal["counter", "gauge"], help: str, value: float) -> Family:
    """Return a family of one figure."""
    return Family(name, kind, help, [Sample(value)])


def histogram(name: str, help: str, of: Iterable[tuple[Labels, Histogram]]) -> Family:
    """Return a family of histograms of seconds."""
    samples = []
    for labels, figures in of:
        total = 0
        for bound, count in zip((*BOUNDS_SECONDS, math.inf), figures.counts, strict=True):
            total += count
            samples.append(Sample(total, {**labels, "le": _number(bound)}, "_bucket"))
        samples.append(Sample(figures.seconds, labels, "_sum"))
        samples.append(Sample(total, labels, "_count"))
    return Family(name, "histogram", help, samples)


def render(families: Iterable[Family]) -> str:
    """Return the text."""
    lines = []
    for family in families:
        lines.append(f"# HELP {family.name} {family.help}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines.extend(
            f"{family.name}{sample.suffix}{_labels(sample.labels)} {_number(sample.value)}"
            for sample in family.samples
        )
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else f"{value:.12g}"
