"""Legs whose suffix returns the slope of a target at the very taps that are moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gradtap.asking import Settings
from gradtap.differentiate import slopes_at
from gradtap.graph import surgery
from gradtap.graph.cutting import cut_at
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.scores import Score
from gradtap.graph.tracing import ForwardGraph
from gradtap.staged.stages import Leg, Legs, refuse_states
from gradtap.targets import Target
from gradtap.types import Tensor


def moving_together(places: Sequence[Place], joint: bool = False) -> dict[str, list[Place]]:
    """Taps that move together, by name: all of them where ``joint``, else those that one address means.

    Calls of a shared layer are apart; the inputs of a model with several, asked for as ``":input"``, are not.
    """
    if joint:
        return {"all": list(places)}
    found: dict[str, list[Place]] = {}
    for place in places:
        name = place.group or place.key
        name = f"{place.tap.path}[{place.tap.call}]" if "[*]" in name else name
        found.setdefault(name, []).append(place)
    return found


def sums_together(places: Sequence[Place], sums: Sequence[Tensor]) -> list[Tensor]:
    """Sums at taps, added up over those that one address means."""
    by_key = {place.key: value for place, value in zip(places, sums, strict=True)}
    return [tf.add_n([by_key[place.key] for place in group]) for group in moving_together(places).values()]


def slope_legs(graph: ForwardGraph, settings: Settings, target: Target, at: Any, *, joint: bool = False) -> Legs:
    """A leg for each group of taps; its suffix returns the slope at each tap of the group, then the target.

    Where taps move together, the slope at each is taken with the others held.
    """
    places = resolve(graph, at)
    with surgery.inside(graph.graph):
        score = target.build(graph)
    kept, slopes, skipped = slopes_at(graph, places, score.value, repr(target), settings.unconnected)
    refuse_states(kept)
    legs = []
    for group in moving_together(places, joint).values():
        members = [place for place in group if place in kept]
        found = [slopes[kept.index(place)] for place in members]
        if len(members) > 1:
            found = surgery.differentiate(score.value, [place.tensor for place in members], apart=True)
            with surgery.inside(graph.graph):
                found = [tf.zeros_like(p.tensor) if s is None else s for p, s in zip(members, found, strict=True)]
        if members:
            legs.append(leg_with(graph, members, members, [*found, score.value], score))
    return Legs(legs, skipped)


def leg_with(
    graph: ForwardGraph,
    moved: list[Place],
    measured: list[Place],
    fetches: Sequence[Tensor],
    score: Score,
    further_feeds: Sequence[Tensor] = (),
) -> Leg:
    """A leg that is cut at the moved taps and fed what the target is fed."""
    cut = cut_at(
        graph,
        [place.tensor for place in moved],
        fetches,
        target_feeds=score.feeds,
        further_feeds=further_feeds,
        held=score.held,
    )
    return Leg(cut, moved, measured, squashed=score.squashed, dtypes=tuple(fetch.dtype for fetch in fetches))
