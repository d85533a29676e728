"""Activation maximisation: inputs that make a target large."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings
from gradtap.differentiate import gradients
from gradtap.graph.keeping import Trace
from gradtap.graph.model_files import as_trace
from gradtap.staged.noise import generator
from gradtap.staged.progress import tracked
from gradtap.staged.quadrature import check_count
from gradtap.targets import as_target
from gradtap.types import Model, TensorLike

_Array = np.ndarray[Any, Any]

#: Deviation of the noise that a search begins with, as a share of the range.
_NOISE = 0.01


@dataclass(frozen=True)
class Visualisation:
    """Inputs that make a target large.

    Args:
      images: ``(batch, ...)`` as the model takes them, float32, within the bounds; NumPy.
      scores: ``(steps + 1, batch)``, float64, NumPy: the target of what the model was given at each step, rolled where
        there is jitter; the last is that of ``images``.
    """

    images: _Array
    scores: _Array


def visualise(
    model: Model,
    *,
    target: Any = None,
    start: TensorLike | None = None,
    shape: Sequence[int] | None = None,
    steps: int = 256,
    step_size: float = 0.02,
    bounds: tuple[float, float] | None = (0, 1),
    jitter: int = 8,
    frequency: bool = True,
    total_variation: float = 0.0,
    l2: float = 0.0,
    training: bool = False,
    seed: int | None = 0,
    checks: bool = True,
) -> Visualisation:
    r"""Find inputs that make a target large: what a channel, a unit or a class responds to most.

    Ascends, by Adam with a step that falls to zero as a cosine does,

    .. math:: F(x) - \lambda \sum_{i \sim j} |x_i - x_j| - \mu \sum_i (x_i - m)^2, \qquad l \le x \le u,

    over neighbours :math:`i \sim j` along each axis of positions, with :math:`m` the middle of the bounds. What is
    found is one local maximum of many. It shows what drives the target, not what the data that do look like.

    Args:
      model: See `gradtap.gradients`. It takes one input, of floats. Left exactly as found.
      target: See `gradtap.gradients`. A list of classes makes an image for each. Take logits: a probability is flat
        near 0 and 1, and is raised by lowering the other classes as well.
      start: Where to begin: an array ``(batch, ...)``; None for noise around the middle of the bounds.
      shape: The shape of the noise, without the batch axis, where the model does not say it: ``(224, 224, 3)``.
      steps: How many steps.
      step_size: The first step, as a share of the width of the bounds: about how far an entry moves in it.
      bounds: The lowest and the highest value of the inputs as the model takes them; None for no bounds, where the
        width is taken to be 1.
      jitter: Most positions that the input is rolled by along each axis of positions before each gradient, at random;
        the gradient is rolled back. A target that does not depend on the place is not disturbed; what hangs on single
        positions is averaged out.
      frequency: Let Adam work on the spectrum over the positions, amplitudes divided by the frequency, which favours
        large forms over single pixels; False for the entries themselves. Inputs without positions have no spectrum.
      total_variation: :math:`\lambda`, in units of the target for each unit of difference.
      l2: :math:`\mu`, in units of the target for each squared unit.
      training: See `gradtap.gradients`.
      seed: An int makes noise and jitter the same each time; None draws anew. All examples are given the same draws.
      checks: Warn of NaN, infinity and saturation at the start, and of NaN and infinity at the end.

    Returns:
      A `Visualisation`: ``.images`` ``(batch, ...)`` and the history ``.scores`` ``(steps + 1, batch)``.

    Raises:
      IntegerTapError: The model takes integers, such as token ids; those cannot be moved a little.
      InputShapeError: The shape is not known, or ``start`` has another than the model takes.
      ArgumentError: A keyword has a value outside of its choices.
      GradtapError: What `gradtap.gradients` raises; ``docs/errors`` has a page for each.

    Example:
      Of a linear model the largest value lies in a corner of the bounds.

      >>> import gradtap as gt, keras, numpy as np
      >>> dense = keras.layers.Dense(1)
      >>> model = keras.Sequential([keras.Input((4,)), dense])
      >>> found = gt.visualise(model, bounds=(-1, 1), steps=100)
      >>> bool(np.all(found.images[0] == np.sign(dense.kernel[:, 0])))
      True

    References:
      Erhan, Bengio, Courville, Vincent, Visualizing Higher-Layer Features of a Deep Network, Université de Montréal,
      2009. Olah, Mordvintsev, Schubert, Feature Visualization, https://doi.org/10.23915/distill.00007, 2017.
    """
    settings = Settings(training=training, seed=seed, checks=checks)
    search = _Search(bounds, jitter, frequency, total_variation, l2, steps, step_size)
    wanted, trace, draws = as_target(target), as_trace(model), generator(seed, 4)
    first = _start(trace, start, shape, _count(target), search, draws)
    dtype = _dtype(trace, start)

    def at(x: _Array, first: bool) -> tuple[_Array, _Array]:
        watch = checks and first
        found = gradients(
            trace, x.astype(dtype), target=wanted, at=":input", training=training, seed=seed, checks=watch
        )
        return np.asarray(found.only, np.float64), np.asarray(found.target, np.float64)

    x, scores = _climb(first, at, search, draws)
    if settings.checks and not np.isfinite(x).all():
        errors.warn(errors.NonFiniteWarning("NaN or infinity in the images: a smaller step_size may do."))
    return Visualisation(search.within(x.astype(np.float32)), scores)


def _climb(
    x: _Array, at: Callable[[_Array, bool], tuple[_Array, _Array]], search: _Search, draws: np.random.Generator
) -> tuple[_Array, _Array]:
    """Go up from a point.

    Args:
      x: The point.
      at: Gives the gradient and the target of a point, ``(batch,)``; told whether it is the first.
      search: How to go.
      draws: For the jitter.

    Returns:
      Where it leads, and the history of the target, ``(steps + 1, batch)``.
    """
    space, adam, scores = _Space(x.shape, search.frequency), _Adam(), []
    shifts = draws.integers(-search.jitter, search.jitter + 1, (search.steps, len(space.axes)))
    for step in tracked(range(search.steps), search.steps, "steps of activation maximisation"):
        rolls = tuple(shifts[step])
        slope, score = at(np.roll(x, rolls, space.axes), step == 0)
        scores.append(score)
        slope = np.roll(slope, [-roll for roll in rolls], space.axes) - search.penalty_slope(x, space.axes)
        moved = space.forward(x) + search.size_of(step) * adam.direction(space.slope(slope))
        x = search.within(space.back(moved))
    return x, np.stack([*scores, at(x, False)[1]])


@dataclass(frozen=True)
class _Search:
    """How to look for a maximum.

    Raises:
      ArgumentError: A value is outside of its choices.
    """

    bounds: Any
    jitter: int
    frequency: bool
    total_variation: float
    l2: float
    steps: int
    step_size: float

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_count("jitter", self.jitter, 0)
        for name in ("total_variation", "l2", "step_size"):
            value = getattr(self, name)
            if not _is_finite(value) or value < 0:
                raise errors.ArgumentError(f"{name}={value!r} is not a number from 0 up.", [], f"{name}=0.1")
        if not isinstance(self.frequency, bool):
            raise errors.ArgumentError(f"frequency={self.frequency!r} is not a choice.", [], "True or False")
        is_pair = self.bounds is None or (isinstance(self.bounds, (tuple, list)) and len(self.bounds) == 2)
        if not is_pair or (self.bounds and not (all(map(_is_finite, self.bounds)) and self.bounds[0] < self.bounds[1])):
            raise errors.ArgumentError(
                f"bounds={self.bounds!r} are not a lowest and a highest value.",
                [],
                ["bounds=(0, 1), in the units in which the model takes its inputs", "None for no bounds"],
            )

    @property
    def middle(self) -> float:
        """The middle of the bounds."""
        return sum(self.bounds) / 2 if self.bounds else 0.0

    @property
    def width(self) -> float:
        """From the lowest to the highest value."""
        return float(self.bounds[1] - self.bounds[0]) if self.bounds else 1.0

    def size_of(self, step: int) -> float:
        """How large a step is."""
        return self.step_size * self.width * (1 + math.cos(math.pi * step / self.steps)) / 2

    def within(self, x: _Array) -> _Array:
        """The nearest point within the bounds, of the same type."""
        if not self.bounds:
            return x
        low, high = np.asarray(self.bounds, x.dtype)
        return np.clip(x, low, high)

    def penalty_slope(self, x: _Array, axes: Sequence[int]) -> _Array:
        """The derivative of what is subtracted from the target; neighbours that are equal add nothing to it."""
        slope: _Array = 2 * self.l2 * (x - self.middle)
        for axis in axes if self.total_variation else ():
            signs = np.sign(np.diff(x, axis=axis))
            ends = [(0, 0)] * x.ndim
            ends[axis] = (1, 1)
            slope -= self.total_variation * np.diff(np.pad(signs, ends), axis=axis)
        return slope


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.bool_))
    return is_number and bool(np.isfinite(value))


class _Space:
    """The coordinates in which steps are taken: the entries, or their spectrum with a share of each frequency.

    The spectrum is that of Hartley: real like the entries, orthonormal, and its own inverse. With the amplitudes
    divided by the frequency, equal steps in all of them move an image by large forms.

    Args:
      shape: Of the inputs, ``(batch, *positions, channels)``.
      frequency: Whether it is the spectrum.
    """

    def __init__(self, shape: Sequence[int], frequency: bool) -> None:
        self.axes = tuple(range(1, len(shape) - 1))
        self._is_spectrum = frequency and bool(self.axes)
        self._amplitudes: Any = 1.0
        if self._is_spectrum:
            sizes = [shape[axis] for axis in self.axes]
            each = np.meshgrid(*map(np.fft.fftfreq, sizes), indexing="ij")
            amplitudes = 1 / np.maximum(np.sqrt(sum(f**2 for f in each)), 1 / max(sizes))
            self._amplitudes = (amplitudes / np.sqrt(np.mean(amplitudes**2)))[..., None]

    def forward(self, x: _Array) -> _Array:
        """The coordinates of inputs."""
        found: _Array = self._turned(x) / self._amplitudes
        return found

    def back(self, coordinates: _Array) -> _Array:
        """The inputs of coordinates."""
        return self._turned(coordinates * self._amplitudes)

    def slope(self, slope: _Array) -> _Array:
        """The derivative by the coordinates, from the derivative by the inputs."""
        found: _Array = self._turned(slope) * self._amplitudes
        return found

    def _turned(self, x: _Array) -> _Array:
        if not self._is_spectrum:
            return x
        spectrum = np.fft.fftn(x, axes=self.axes, norm="ortho")
        turned: _Array = spectrum.real - spectrum.imag
        return turned


class _Adam:
    """Directions by Kingma and Ba, https://arxiv.org/abs/1412.6980, entry by entry."""

    def __init__(self) -> None:
        self._mean: Any = 0.0
        self._square: Any = 0.0
        self._count = 0

    def direction(self, slope: _Array) -> _Array:
        """Where to go, about one in each entry where slopes agree."""
        self._count += 1
        self._mean = 0.9 * self._mean + 0.1 * slope
        self._square = 0.999 * self._square + 0.001 * slope**2
        mean, square = self._mean / (1 - 0.9**self._count), self._square / (1 - 0.999**self._count)
        found: _Array = mean / (np.sqrt(square) + 1e-12)
        return found


def _count(target: Any) -> int:
    """How many images a target asks for: one for each class of a list, `class_score` of one included."""
    target = getattr(getattr(target, "index", None), "asked", target)
    is_list = isinstance(target, (list, np.ndarray, tf.Tensor, range))
    return len(target) if is_list and np.ndim(target) == 1 else 1


def _start(trace: Trace, start: Any, shape: Any, count: int, search: _Search, draws: np.random.Generator) -> _Array:
    """The first point, ``(batch, ...)``, float64, within the bounds."""
    declared = _declared(trace)
    if start is not None:
        found = np.asarray(start)
        low, high = search.bounds or (-np.inf, np.inf)
        if found.size and found.dtype.kind in "iuf" and (np.min(found) < low or np.max(found) > high):
            raise errors.ArgumentError(
                f"start is outside of bounds={search.bounds}.",
                [("it holds", f"{np.min(found):g} to {np.max(found):g}")],
                "bounds=(lowest, highest) of what the model is given, or None",
            )
        if found.dtype.kind not in "iuf" or not found.ndim or shape is not None:
            raise errors.ArgumentError(
                f"start={errors.received(start)} is no start." if shape is None else "both start and shape are given.",
                [],
                "give an array of numbers (batch, ...), or a shape",
            )
        return search.within(found.astype(np.float64))
    sizes: tuple[Any, ...] = (declared or (None, None))[1:]
    if shape is not None:
        sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (None,)
    if any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 for n in sizes):
        raise errors.InputShapeError(
            "the model does not say the shape of its input." if shape is None else f"shape={shape!r} is not a shape.",
            [("it takes", str(declared))] if declared else [],
            ["shape=(224, 224, 3), without the batch axis", "start= an array to begin with"],
        )
    noise = draws.normal(0.0, _NOISE * search.width, (1, *sizes))
    return search.within(np.repeat(search.middle + _Space((1, *sizes), search.frequency).back(noise), count, 0))


def _dtype(trace: Trace, start: Any) -> Any:
    """What the model is given: that of ``start`` or float32 where nothing says what it takes, else it is converted."""
    if trace.source.declared_inputs() is not None or trace.source.float_dtype() is not None:
        return np.float64
    own = np.float32 if start is None else np.asarray(start).dtype
    return own if own in (np.float16, np.float64) else np.float32


def _declared(trace: Trace) -> tuple[int | None, ...] | None:
    """The shape of the one input, batch axis included, as far as the model says it."""
    if not tf.executing_eagerly():
        raise errors.ArgumentError("visualise goes step by step, and needs values.", [], "call it out of a tf.function")
    declared = trace.source.declared_inputs()
    if declared is None:
        return None
    if len(declared.names) != 1:
        raise errors.InputStructureError(
            f"visualise looks for one input, and the model takes {len(declared.names)}.",
            [("inputs", ", ".join(f"`{name}`" for name in declared.names))],
            "give a function of one of them, with the others held",
        )
    if not tf.as_dtype(declared.dtypes[0]).is_floating:
        raise errors.IntegerTapError(
            f"the model takes {declared.dtypes[0]}, which cannot be moved a little.",
            [("input", f"`{declared.names[0]}`")],
            "give the part of the model behind the embedding: gt.trace(model).suffix(...)",
        )
    return declared.shapes[0]
