"""What a report says, as data: every renderer reads this and computes nothing of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Map:
    """Numbers at places, to be shown as colours.

    Args:
      values: ``(rows, columns)`` float32; a series or a row of units is one row.
      shown_of: The size that the map was made smaller from, by means over squares; the same where it was not.
      over: What became of an axis, such as ``sum over channels``; empty where there was none.
      units: Whether the row is one of units, which lie at no places.
    """

    values: Array
    shown_of: tuple[int, int]
    over: str = ""
    units: bool = False


@dataclass(frozen=True)
class Look:
    """One example at one layer.

    Args:
      activation: Mean over the channels.
      gradient: Sum over the channels.
      attributions: By method, summed over the channels where the method keeps them.
    """

    activation: Map
    gradient: Map
    attributions: Mapping[str, Map]


@dataclass(frozen=True)
class Example:
    """One input.

    Args:
      name: What it is called, such as its file.
      picture: ``(height, width, 3)`` uint8, to be shown; None for what is no picture.
      prediction: The likeliest classes, each with its score; empty where the model has no classes.
      target: What was differentiated, in words.
      score: Its value.
      looks: By address.
      errors: Of methods that are complete, by method and address: by how much the attributions miss the change of
        the target.
    """

    name: str
    picture: Array | None
    prediction: list[tuple[str, float]]
    target: str
    score: float
    looks: Mapping[str, Look]
    errors: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class TapNumbers:
    """One tap over all examples; see `gradtap.flow.measure`.

    ``classes`` are names of its units where they are the model's classes; empty elsewhere.
    """

    address: str
    layer: str
    shape: tuple[int | None, ...]
    activation_norm: float
    gradient_norm: float
    zeros: float
    dead: float
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of the model's tree."""

    address: str
    layer: str
    shape: tuple[int | None, ...] | None
    parameters: int
    depth: int
    tapped: bool


@dataclass(frozen=True)
class Document:
    """A report.

    Args:
      title: Its heading.
      model: Class or file of the model.
      rows: The model's tree.
      taps: What is told of each tap, in forward order.
      methods: Their names, in the order in which they were asked for.
      examples: The inputs.
      findings: What is wrong with the flow of gradients: kind, tap, evidence, remedy.
      left_out: What could not be computed or shown, with the reason.
      made: How it was made: versions, arguments, a command or lines of Python that make it again.
      said: What each method is, in a sentence.
    """

    title: str
    model: str
    rows: list[Row]
    taps: list[TapNumbers]
    methods: list[str]
    examples: list[Example]
    findings: list[tuple[str, str, str, str]]
    left_out: Mapping[str, str]
    made: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = f"{len(self.examples)} examples, {len(self.taps)} taps, {len(self.methods)} methods"
        return f"Document({self.title!r}, {counts})"

    def _repr_html_(self) -> str:
        from html import escape

        from gradtap.report.page import page

        return (
            f'<iframe srcdoc="{escape(page(self))}" style="width:100%;height:48rem;border:0" title="report"></iframe>'
        )
