"""From a model and some inputs to a report's data."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from gradtap import __version__, attribution, errors, flow
from gradtap.differentiate import gradients
from gradtap.graph.model_files import as_trace
from gradtap.listing import taps
from gradtap.plot.maps import as_picture
from gradtap.report.classes import check_class_names, named, target_words
from gradtap.report.document import Array, Document, Example, Look, Map, Row, TapNumbers
from gradtap.report.methods import check_methods, defaults_at, said_of
from gradtap.results import Gradients
from gradtap.staged.progress import tracked
from gradtap.types import Address, Model, Structure

#: All maps together have at most so many numbers, so that a page stays below three megabytes.
_NUMBERS = 700_000
_SIDES = 8, 112
_LIKELIEST = 5
#: Why a weight is left out.
_WEIGHT = "a weight has no map of one example; gradtap.gradients gives its gradient"
#: A page for more than this is a data set; `gradtap.dataset` is for those.
_MOST_EXAMPLES = 64


def collect(
    model: Model,
    inputs: Structure,
    *,
    at: Address | Sequence[Address],
    methods: Sequence[str] = ("grad_cam", "integrated_gradients"),
    target: Any = "predicted",
    names: Sequence[str] | None = None,
    pictures: Sequence[Array] | None = None,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    batch_size: int | None = None,
    command: str | None = None,
) -> Document:
    """Compute what a report shows: activations, gradients and attributions at layers, and what is told of them.

    Args:
      model: See `gradtap.gradients`.
      inputs: One batch of at most 64 examples, as the model takes it.
      at: See `gradtap.gradients`.
      methods: Names of `gradtap.attribution`, each run with its defaults, an occlusion with windows of a fourth of a
        layer's shorter side; where one cannot be computed at a layer, the report says why. The gradient itself is shown
        beside: ``saliency`` would be the same map.
      target: See `gradtap.gradients`.
      names: What the examples are called.
      pictures: ``(height, width, 3)`` each, to be shown; the inputs themselves where they are pictures.
      class_names: What the classes are called.
      title: Heading of the report.
      batch_size: Most examples in flight at once; None for all.
      command: What makes the report again, for the last section.

    Returns:
      `Document`; ``gradtap.report.write`` makes a page of it, and a notebook shows it.

    Raises:
      ArgumentError: There is no such method, there are too many examples, not one name for each class, or nothing but
        weights to show.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> convs = [keras.layers.Conv2D(4, 3, name=name) for name in ["conv1", "conv2"]]
      >>> model = keras.Sequential([keras.Input((16, 16, 3)), *convs, keras.layers.GlobalAveragePooling2D()])
      >>> images = np.random.default_rng(0).random((2, 16, 16, 3))
      >>> gt.report.collect(model, images, at=["conv1", "conv2"], methods=["grad_cam"])
      Document('Sequential', 2 examples, 2 taps, 1 methods)
    """
    check_methods(methods)
    trace = as_trace(model)
    found = gradients(trace, inputs, target=target, at=at, batch_size=batch_size)
    count = _count(found)
    outputs = np.asarray(found.outputs) if hasattr(found.outputs, "shape") else None
    check_class_names(class_names, None if outputs is None else outputs.shape)
    addresses, weights = _layers(found)
    explained = {
        name: _attributed(trace, inputs, name, {a: found.activations[a].shape for a in addresses}, target, batch_size)
        for name in tracked(methods, len(methods), "methods")
    }
    measured = flow.measure(trace, inputs, target=target, at=addresses, batch_size=batch_size)
    rows = {row.address: row for row in measured.rows}
    looks = _looks_of(found, addresses, explained, count)
    shown, predicted = _pictures(inputs, pictures, count), _predictions(outputs, class_names, count)
    examples = [
        Example(
            names[n] if names is not None else f"example {n}",
            shown[n],
            predicted[n],
            target_words(target, outputs, n, class_names),
            float(found.target[n]),
            looks[n],
            {m: {a: float(d[n]) for a, d in e.missed.items()} for m, e in explained.items() if e.missed},
        )
        for n in range(count)
    ]
    kind, own = type(trace.model).__name__, getattr(trace.model, "name", None)
    return Document(
        title or kind,
        f"{kind} {own}" if isinstance(own, str) else kind,
        _rows(trace, inputs, set(addresses)),
        [_numbers(found, a, rows.get(a), _classes_at(trace, found, a, outputs, class_names)) for a in addresses],
        list(methods),
        examples,
        [(f.kind, f.tap, f.evidence, f.remedy) for f in measured.findings],
        {**found.skipped, **weights, **{where: why for e in explained.values() for where, why in e.reasons.items()}},
        _made(at, methods, target, command),
        {name: said_of(name) for name in methods},
    )


def _count(found: Gradients) -> int:
    """How many examples there are, checked."""
    count = int(found.target.shape[0])
    if not 0 < count <= _MOST_EXAMPLES:
        raise errors.ArgumentError(
            f"a report is about 1 to {_MOST_EXAMPLES} examples, not {count}.",
            [],
            ["give some of them", "gradtap.dataset.run works through whole data sets"],
        )
    return count


def _layers(found: Gradients) -> tuple[list[str], dict[str, str]]:
    """The addresses that can be shown, and why the others cannot."""
    weights = {address: _WEIGHT for address, tap in found.taps().items() if tap.is_weight}
    addresses = [address for address in found if address not in weights]
    if not addresses:
        raise errors.ArgumentError("a report shows layers, and there are only weights.", [], "name layers")
    return addresses, weights


def _numbers(found: Gradients, address: str, row: Any, classes: tuple[str, ...]) -> TapNumbers:
    """What is told of a tap; a state of a recurrent layer has no row, and the same is computed of it here."""
    if row is not None:
        norms = row.activation_norm, row.gradient_norm
        return TapNumbers(row.address, row.layer, row.shape, *norms, row.zeros, row.dead, classes)
    here, slope = np.asarray(found.activations[address]), np.asarray(found[address])
    norms = _mean_norm(here), _mean_norm(slope)
    silent = here.reshape(-1, here.shape[-1] if here.ndim > 1 else 1) == 0
    shape = (None, *here.shape[1:])
    layer = found.layers()[address]
    return TapNumbers(address, layer, shape, *norms, float(silent.mean()), float(silent.all(0).mean()), classes)


def _mean_norm(values: Array) -> float:
    return float(np.mean(np.linalg.norm(values.reshape(len(values), -1).astype(np.float64), axis=1)))


def _classes_at(
    trace: Any, found: Gradients, address: str, outputs: Array | None, names: Sequence[str] | None
) -> tuple[str, ...]:
    """Names of a tap's units where they are the classes: at the model's output, and at both sides of the last layer."""
    if (
        outputs is None
        or outputs.ndim != 2
        or outputs.shape[1] < 2
        or found.activations[address].shape != outputs.shape
    ):
        return ()
    last = [layer.name for layer in getattr(trace.model, "layers", [])[-1:]]
    tap = found.taps()[address]
    is_output = not tap.path and tap.face == "output"
    return tuple(named(k, names) for k in range(outputs.shape[1])) if is_output or tap.path in last else ()


class _Explained(NamedTuple):
    """Attributions of one method by address, completeness errors by address, and reasons where there are none."""

    made: dict[str, Array]
    missed: dict[str, Array]
    reasons: dict[str, str]


def _looks_of(
    found: Gradients, addresses: Sequence[str], explained: Mapping[str, _Explained], count: int
) -> list[dict[str, Look]]:
    """For each example what is seen at each layer."""
    side = _side(count * len(addresses) * (2 + len(explained)))
    return [
        {
            address: _look(
                address,
                found.activations[address][n],
                found[address][n],
                {name: one.made[address][n] for name, one in explained.items() if address in one.made},
                side,
            )
            for address in addresses
        }
        for n in range(count)
    ]


def _attributed(
    trace: Any, inputs: Structure, name: str, shapes: Mapping[str, Any], target: Any, batch_size: int | None
) -> _Explained:
    method = getattr(attribution, name)
    made: dict[str, Array] = {}
    missed: dict[str, Array] = {}
    reasons: dict[str, str] = {}

    def run(where: list[str]) -> None:
        beside = defaults_at(name, shapes[where[0]])
        found = method(trace, inputs, target=target, at=where, batch_size=batch_size, **beside)
        deltas = getattr(found, "delta", None)
        for address in where:
            made[address] = np.asarray(found[address])
            if deltas is not None:
                missed[address] = np.asarray(deltas[address] if isinstance(deltas, Mapping) else deltas)

    def run_each() -> None:
        for address in shapes:
            try:
                run([address])
            except errors.GradtapError as error:
                reasons[f"{name} at {address}"] = error.headline
            except TypeError as error:
                reasons[f"{name} at {address}"] = str(error)

    if any(defaults_at(name, shape) for shape in shapes.values()):  # each layer has its own
        run_each()
        return _Explained(made, missed, reasons)
    try:
        run(list(shapes))
    except (errors.GradtapError, TypeError):
        run_each()
    return _Explained(made, missed, reasons)


def _side(maps: int) -> int:
    """The longest side of a map."""
    low, high = _SIDES
    return max(low, min(high, int(sqrt(_NUMBERS / max(maps, 1)))))


def _look(address: str, activation: Any, gradient: Any, attributions: Mapping[str, Any], side: int) -> Look:
    """One example at one layer."""
    like = np.ndim(activation)
    heads = address.rpartition(":")[2].partition(".")[0] == "attention"

    def laid(values: Any, over: Callable[..., Any], name: str = "") -> Map:
        array = np.asarray(values, np.float64)
        how = ""
        if array.ndim == like > 1:
            array = over(array, 0 if heads else -1)
            how = f"{over.__name__} over {'heads' if heads else 'channels'}"
        units = array.ndim < 2 and (like == 1 or name == "channel_importance")
        flat = array.reshape(1, -1) if array.ndim < 2 else array.reshape(array.shape[0], -1)
        small = _smaller(_smaller(flat, side, 0), side if len(flat) > 1 else side * side, 1)
        return Map(small.astype(np.float32), (flat.shape[0], flat.shape[1]), how, units)

    made = {name: laid(values, np.sum, name) for name, values in attributions.items()}
    return Look(laid(activation, np.mean), laid(gradient, np.sum), made)


def _smaller(values: Array, side: int, axis: int) -> Array:
    """Means over runs of equal length, so that at most so many are left."""
    size = values.shape[axis]
    if size <= side:
        return values
    starts = np.linspace(0, size, side + 1).astype(int)
    sums = np.add.reduceat(values, starts[:-1], axis)
    lengths = np.diff(starts).reshape((-1, 1) if axis == 0 else (1, -1))
    return np.asarray(sums / lengths)


def _pictures(inputs: Structure, pictures: Sequence[Array] | None, count: int) -> list[Array | None]:
    given: Any = pictures
    if given is None:
        array = np.asarray(inputs) if hasattr(inputs, "shape") else None
        given = array if array is not None and array.ndim == 4 and array.shape[-1] in (1, 3, 4) else None
    if given is None:
        return [None] * count
    if len(given) != count:
        raise errors.ArgumentError(
            f"there are {count} examples but {len(given)} pictures.", [], "one picture for each example"
        )
    return [(as_picture(np.asarray(picture)) * 255).round().astype(np.uint8) for picture in given]


def _predictions(outputs: Array | None, class_names: Sequence[str] | None, count: int) -> list[list[tuple[str, float]]]:
    if outputs is None or outputs.ndim != 2 or outputs.shape[1] < 2:
        return [[] for _ in range(count)]
    order = np.argsort(-outputs, 1, kind="stable")[:, :_LIKELIEST]
    return [[(named(k, class_names), float(row[k])) for k in best] for row, best in zip(outputs, order, strict=True)]


def _rows(trace: Any, inputs: Structure, tapped: set[str]) -> list[Row]:
    listed = [e for e in taps(trace, inputs) if e.tap.face == "output" or e.address in tapped or not e.tap.path]
    rows = [Row(e.address, e.layer, e.shape, e.parameters, e.tap.path.count("/"), e.address in tapped) for e in listed]
    return rows + [Row(address, "", None, 0, 0, True) for address in sorted(tapped - {row.address for row in rows})]


def _made(at: Any, methods: Sequence[str], target: Any, command: str | None) -> dict[str, str]:
    def release(package: str) -> str:
        try:
            return version(package)
        except Exception:  # tensorflow-cpu goes by another name
            return "?"

    import tensorflow as tf

    made = {
        "gradtap": __version__,
        "TensorFlow": tf.__version__,
        "Keras": release("keras"),
        "Python": platform.python_version(),
        "at": str(at),
        "methods": ", ".join(methods),
        "target": str(target),
    }
    lines = f'gt.report.write(model, inputs, "report.html", at={at!r}, methods={list(methods)!r}, target={target!r})'
    return made | {"again": command or lines}
