"""Results: read-only mappings from addresses to tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Self, TypeVar

import tensorflow as tf

from gradtap import errors
from gradtap.graph.resolve import Place
from gradtap.html_table import Cell, Picture, html_table
from gradtap.showing import face
from gradtap.tap import Tap
from gradtap.types import Layer, Structure, Tensor

_Values = TypeVar("_Values", bound="TapValues")

#: An estimate that is off by more than this share of what it estimates has failed.
_FAILED = 0.5


class TapValues(Mapping[str, Tensor]):
    """A read-only mapping from address to tensor, in forward order; it never holds None.

    It can be indexed by the address as it was written, by the canonical address, and by the `Tap` or the layer that
    was asked for. Where one address means several tensors, each has a key of its own, and the address itself gives
    them all, as a dict.

    A result may be returned from a `tf.function`; what comes out has the values under their keys, and nothing else.

    Args:
      values: Pairs of a key and a tensor.
      places: Where each value belongs; None where only the keys are known.
    """

    def __init__(self, values: Iterable[tuple[str, Tensor]], places: Sequence[Place] | None = None) -> None:
        self._values = dict(values)
        known = {place.key: place for place in places or ()}
        found = {key: known.get(key) or Place(key, Tap(key), None) for key in self._values}
        # Only what is needed to find a value: a result outlives the graph that it was made with.
        self._places = {key: replace(place, tensor=None, state=None, weight=None) for key, place in found.items()}

    def __getstate__(self) -> dict[str, Any]:
        """All but the layers themselves, which belong to a model: what is read back is indexed by address."""
        apart = {
            key: replace(place, layer=place.layer and replace(place.layer, layer=None, classes=()))
            for key, place in self._places.items()
        }
        return vars(self) | {"_places": apart}

    @classmethod
    def at(cls, places: Sequence[Place], tensors: Sequence[Tensor], **more: Any) -> Self:
        """One tensor for each place, and what else the class takes."""
        return cls(zip((place.key for place in places), tensors, strict=True), places, **more)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str) and key in self._values:
            return self._values[key]
        found = self._find(key)
        if len(found) == 1 and self._places[found[0]].group != key:
            return self._values[found[0]]
        if found:
            picks = [self._places[name].tap.pick or name for name in found]
            labels = picks if len(set(picks)) == len(picks) else found
            return {label: self._values[name] for label, name in zip(labels, found, strict=True)}
        raise errors.MissingResultError(
            f"the result holds nothing under {key!r}."[:300],
            [("it holds", ", ".join(f"`{name}`" for name in list(self._values)[:12]))],
            "index it by an address that was asked for",
        )

    def _find(self, key: Any) -> list[str]:
        if isinstance(key, str):
            in_group = [name for name, place in self._places.items() if place.group == key]
            return in_group or [n for n, place in self._places.items() if str(place.tap) == _canonical(key)]
        if isinstance(key, Tap):
            written = str(key)
            return [n for n, place in self._places.items() if place.tap == key or written in (n, place.group)]
        of_layer = [n for n, place in self._places.items() if place.layer is not None and place.layer.is_layer(key)]
        # A layer stands for its output; where that was not asked, for whatever of it was.
        return [n for n in of_layer if self._places[n].tap.face == "output"] or of_layer

    def __contains__(self, key: object) -> bool:
        return key in self._values if isinstance(key, str) and key in self._values else bool(self._find(key))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def only(self) -> Tensor:
        """The value, where there is just one.

        Raises:
          MissingResultError: There are several.
        """
        if len(self._values) != 1:
            raise errors.MissingResultError(
                f"`.only` needs one value, this holds {len(self)}.",
                [("it holds", ", ".join(f"`{name}`" for name in list(self)[:12]))],
                "index it by address",
            )
        return next(iter(self._values.values()))

    def taps(self) -> dict[str, Tap]:
        """The canonical tap of each key."""
        return {key: place.tap for key, place in self._places.items()}

    def layers(self) -> dict[str, Layer]:
        """The class name of the layer of each key; empty for an op."""
        return {key: place.layer.kind if place.layer else "" for key, place in self._places.items()}

    def alike(self, kind: type[_Values], tensors: Iterable[Tensor], **more: Any) -> _Values:
        """Other values at the same places."""
        return kind(zip(self, tensors, strict=True), list(self._places.values()), **more)

    def __repr__(self) -> str:
        rows = [f"  {key!r}: {_describe(value)}" for key, value in self._values.items()]
        return f"{type(self).__name__}({{\n" + ",\n".join(rows) + "\n})" if rows else f"{type(self).__name__}({{}})"

    def _repr_html_(self) -> str:
        rows = [self._html_row(key, value) for key, value in self.items()]
        more = ["", "smallest", "mean", "largest", "first example"][: max(map(len, rows), default=1) - 1]
        return html_table(["tap", *more], rows, caption=type(self).__name__, below=self._html_below())

    def _html_row(self, key: str, value: Any) -> list[Cell]:
        """The cells of one tap in a notebook."""
        return [key, _describe(value), *_extent(value)]

    def _html_below(self) -> list[str]:
        """What a notebook says below the table."""
        return []


class Gradients(TapValues):
    """Gradients of a target with respect to activations; see `gradtap.gradients`.

    Args:
      values: Pairs of a key and a gradient.
      places: Where each gradient belongs.
      activations: The activations at the same taps.
      outputs: The model's outputs, nested as the model returns them.
      target: What was differentiated, ``(batch,)``.
      skipped: Places that a pattern fits and that have no gradient, with the reason.
    """

    def __init__(
        self,
        values: Iterable[tuple[str, Tensor]],
        places: Sequence[Place] | None = None,
        *,
        activations: Activations | None = None,
        outputs: Structure = None,
        target: Tensor = None,
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(values, places)
        self._beside = {"activations": activations, "outputs": outputs, "target": target}
        self.skipped = dict(skipped or {})

    @property
    def activations(self) -> Activations:
        """The activations at the same taps."""
        found: Activations = self._of_the_run("activations")
        return found

    @property
    def outputs(self) -> Structure:
        """The model's outputs, nested as the model returns them."""
        return self._of_the_run("outputs")

    @property
    def target(self) -> Tensor:
        """What was differentiated, ``(batch,)``."""
        return self._of_the_run("target")

    def _of_the_run(self, name: str) -> Any:
        if self._beside[name] is None:
            raise errors.MissingResultError(
                f"this result has no `.{name}`: of what a tf.function returns, TensorFlow keeps the gradients alone.",
                [],
                f"return g.{name} beside g from the tf.function",
            )
        return self._beside[name]


class Activations(TapValues):
    """Activations at taps; see `gradtap.activations`."""


class Attributions(TapValues):
    """Attributions at taps; see the methods of `gradtap.attribution`.

    Args:
      values: Pairs of a key and an attribution.
      places: Where each attribution belongs.
      skipped: Places that a pattern fits and that have no gradient, with the reason.
    """

    def __init__(
        self,
        values: Iterable[tuple[str, Tensor]],
        places: Sequence[Place] | None = None,
        *,
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(values, places)
        self.skipped = dict(skipped or {})

    def _html_row(self, key: str, value: Any) -> list[Cell]:
        row = super()._html_row(key, value)
        if isinstance(value, tf.Tensor) and value.shape.rank in (3, 4) and len(row) > 2:
            source = face("gradtap.report.pictures", "of_map")(value[0].numpy())
            row += [Picture(source, f"map at {key}")] if source else []
        return row

    def _html_below(self) -> list[str]:
        return [f"{key} was skipped: {why}" for key, why in self.skipped.items()]


class AttentionRelevance(Attributions):
    """Relevance of tokens for each other; see `gradtap.attribution.attention_relevance`.

    Args:
      values: Pairs of a key and an attribution.
      places: Where each attribution belongs.
      skipped: Places that a pattern fits and that have no gradient, with the reason.
      blocks: What each block adds, by its address, ``(batch, tokens, tokens)``.
    """

    def __init__(
        self,
        values: Iterable[tuple[str, Tensor]],
        places: Sequence[Place] | None = None,
        *,
        skipped: Mapping[str, str] | None = None,
        blocks: TapValues | None = None,
    ) -> None:
        super().__init__(values, places, skipped=skipped)
        self.blocks = blocks if blocks is not None else TapValues([])


class PatchingEffects(Attributions):
    """Effects of clean activations in a corrupt run; see `gradtap.attribution.attribution_patching`.

    Args:
      values: Pairs of a key and the estimated effect of each unit.
      places: Where each of them belongs.
      skipped: Places that a pattern fits and that have no gradient, with the reason.
      estimate: The sum at each tap, ``(batch,)``.
      exact: What patching the tap was found to change, ``(batch,)``; None where it was not looked at.
    """

    def __init__(
        self,
        values: Iterable[tuple[str, Tensor]],
        places: Sequence[Place] | None = None,
        *,
        skipped: Mapping[str, str] | None = None,
        estimate: TapValues | None = None,
        exact: TapValues | None = None,
    ) -> None:
        super().__init__(values, places, skipped=skipped)
        self.estimate = estimate if estimate is not None else TapValues([])
        self._exact = exact

    @property
    def exact(self) -> TapValues:
        """What patching each tap alone was found to change, ``(batch,)``.

        Raises:
          MissingResultError: It was not looked at.
        """
        if self._exact is None:
            raise errors.MissingResultError("no tap was patched by itself.", [], "call it with exact=True")
        return self._exact

    @property
    def has_exact(self) -> bool:
        """Whether each tap was patched by itself as well."""
        return self._exact is not None

    def relative_errors(self) -> dict[str, float]:
        """How far the estimate is off at each tap: the sum of its errors over that of the effects, of all examples."""
        found = {}
        for key, exact in self.exact.items():
            off = float(tf.reduce_sum(tf.abs(self.estimate[key] - tf.cast(exact, self.estimate[key].dtype))))
            size = float(tf.reduce_sum(tf.abs(exact)))
            found[key] = off / size if size else (float("inf") if off else 0.0)
        return found

    @property
    def failures(self) -> list[str]:
        """The taps where the linear estimate is off by more than half of the effect."""
        return [key for key, error in self.relative_errors().items() if error > _FAILED]


class PathAttributions(Attributions):
    """Attributions that were summed along a path; see `gradtap.attribution.integrated_gradients`.

    Args:
      values: Pairs of a key and an attribution.
      places: Where each attribution belongs.
      skipped: Places that a pattern fits and that have no gradient, with the reason.
      delta: Computes the completeness error.
      steps: How many points of the path were looked at.
    """

    def __init__(
        self,
        values: Iterable[tuple[str, Tensor]],
        places: Sequence[Place] | None = None,
        *,
        skipped: Mapping[str, str] | None = None,
        delta: Callable[[], Any] | None = None,
        steps: int = 0,
    ) -> None:
        super().__init__(values, places, skipped=skipped)
        self.steps = steps
        self._delta = delta

    def __getstate__(self) -> dict[str, Any]:
        """The completeness error is computed first: what computes it cannot be stored."""
        found = {} if self._delta is None else {"delta": self.delta}
        return super().__getstate__() | found | {"_delta": None}

    @cached_property
    def delta(self) -> Any:
        """The sum of the attributions less the change of the target along the path, ``(batch,)``; computed when asked.

        With the weights that the model then has: ask before it is trained on.

        Zero where the attributions account for all of it. For one tap, and for several on one path, a tensor; for
        several taps apart a mapping with one for each.

        Raises:
          MissingResultError: This result has none.
        """
        if self._delta is None:
            raise errors.MissingResultError(
                "this result has no completeness error.",
                [
                    (
                        "why",
                        "the method has none, or a tf.function returned the result: it keeps values alone",
                    )
                ],
                "integrated_gradients, conductance and deep_lift have one",
            )
        return self._delta()


def _canonical(key: str) -> str | None:
    try:
        return str(Tap.parse(key))
    except errors.AddressSyntaxError:
        return None


def _describe(value: Any) -> str:
    return f"{value.dtype.name} {tuple(value.shape)}" if isinstance(value, tf.Tensor) else str(value)


def _extent(value: Any) -> list[Cell]:
    """The smallest, the mean and the largest entry of a tensor of numbers, as text."""
    if not hasattr(value, "numpy") or not value.dtype.is_floating or not tf.size(value):
        return []
    array = tf.cast(value, tf.float64)
    return [f"{float(found(array)):.4g}" for found in (tf.reduce_min, tf.reduce_mean, tf.reduce_max)]
