"""What the explorer shows, without the page: a model, its layers, examples, and the map of one layer by one method."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from gradtap import attribution, errors
from gradtap.cli.arrays import Declared
from gradtap.cli.options import Size
from gradtap.cli.reading import find_files, read_inputs
from gradtap.differentiate import activations, gradients
from gradtap.listing import taps
from gradtap.plot.maps import Array, as_picture, colours, enlarge, faded_grey, robust_scale
from gradtap.report.page import write

#: What is read off one forward and one backward pass.
READINGS = ("activation", "gradient", "activation_x_gradient")
#: What can be asked for at a layer of an image network; those behind the line take seconds.
METHODS = (*READINGS, "grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam", "xgrad_cam", "guided_backprop")
SLOW = ("integrated_gradients", "smooth_grad", "ablation_cam", "score_cam", "occlusion")
#: Pixels of a map's longer side on the page.
_SIDE = 448
#: A layer is shown as places where it has at least so many.
_FEWEST_PLACES = 4


@dataclass(frozen=True, eq=False)
class Shown:
    """One input.

    Args:
      name: What it is called.
      values: ``(1, ...)`` as the model takes it.
      picture: ``(height, width, 3)`` to draw on.
    """

    name: str
    values: Array
    picture: Array


@dataclass(frozen=True)
class View:
    """A map and what is told of it.

    Args:
      image: ``(height, width, 3)`` uint8: the map on the picture.
      values: The map itself, ``(rows, columns)``.
      words: What it is, in a line.
      seconds: What it took.
    """

    image: Array
    values: Array
    words: str
    seconds: float


class Explorer:
    """A model with examples, asked for one map after the other.

    Args:
      models: What each model is called, and the model as a `Trace`; the first is shown first.
      declared: What the models say that they take.
      files: Examples to begin with.
      preprocessing: What is done to pixels; see `gradtap gradients --help`.
      size: What images are resized to where the model takes any size.
      class_names: What the classes are called.

    Raises:
      InputFileError: The model takes no images, or a file cannot be read.
    """

    def __init__(
        self,
        models: Mapping[str, Any],
        declared: Declared,
        files: Sequence[Path],
        *,
        preprocessing: str | None = None,
        size: Size | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.models = dict(models)
        self.class_names = list(class_names or ())
        self._declared = declared
        self._preprocessing = preprocessing
        self._size = size
        self._scores: WeakKeyDictionary[Shown, dict[str, Array]] = WeakKeyDictionary()
        self.examples = [self.read(file) for file in files]

    def read(self, path: Path) -> Shown:
        """An image file as an example.

        Raises:
          InputFileError: It is no image, damaged, or does not fit the model.
        """
        [file] = find_files([path])
        found = read_inputs([file], self._declared, self._preprocessing, self._size)
        if not found.pictures:
            raise errors.InputShapeError(
                f"`{path.name}` holds no image.", [("holds", found.description)], "the explorer shows images"
            )
        return Shown(path.name, np.asarray(found.values), as_picture(found.pictures[0]))

    def layers(self, model: str) -> list[tuple[str, str]]:
        """What can be clicked on, in forward order: an indented label and the address."""
        found = []
        for entry in taps(self.models[model]):
            spatial = entry.shape is not None and len(entry.shape) == 4 and _places(entry.shape) >= _FEWEST_PLACES
            if spatial and entry.reached and entry.tap.face == "output":
                depth = entry.tap.path.count("/")
                shape = "×".join("·" if n is None else str(n) for n in (entry.shape or ())[1:])
                name = entry.address if not depth else entry.address.rsplit("/", 1)[1]
                found.append((f"{'  ' * depth}{name}  {entry.layer} {shape}", entry.address))
        return found

    def likeliest(self, model: str, example: Shown, count: int = 5) -> list[tuple[int, str, float]]:
        """The likeliest classes of an example: number, name and score; empty where the model has no classes."""
        known = self._scores.setdefault(example, {})
        if model not in known:
            known[model] = np.asarray(activations(self.models[model], example.values, at=":output").only)
        scores = known[model]
        if scores.ndim != 2 or scores.shape[1] < 2:
            return []
        order = np.argsort(-scores[0], kind="stable")[:count]
        return [(int(k), self.class_name(int(k)), float(scores[0, k])) for k in order]

    def class_name(self, k: int) -> str:
        """What a class is called."""
        return self.class_names[k].split(",")[0] if k < len(self.class_names) else f"class {k}"

    def view(self, model: str, example: Shown, at: str, method: str, target: Any, channel: int | None) -> View:
        """The map of one layer.

        Args:
          model: Which model.
          example: The input.
          at: Address of the layer.
          method: One of `METHODS` or `SLOW`.
          target: See `gradtap.gradients`.
          channel: Of the layer's feature maps only this one; None for all of them together.

        Raises:
          GradtapError: One class for each cause.
        """
        start = time.perf_counter()
        values = self._values(model, example, at, method, target)
        if channel is not None:
            if values.ndim != 3:
                raise errors.ArgumentError(
                    f"`{method}` has one map for all channels together.", [], "leave the channel out"
                )
            if not 0 <= channel < values.shape[-1]:
                raise errors.ClassRangeError(
                    f"channel {channel} is out of range: `{at}` has {values.shape[-1]}.",
                    [],
                    f"give a number from 0 to {values.shape[-1] - 1}",
                )
            flat = values[..., channel]
        elif values.ndim == 3:
            flat = values.mean(-1) if method == "activation" else values.sum(-1)
        else:
            flat = values
        low, high = float(flat.min()), float(flat.max())
        where = f"channel {channel} of `{at}`" if channel is not None else f"`{at}`"
        words = f"{method} at {where}, {flat.shape[0]} × {flat.shape[1]}, from {low:.3g} to {high:.3g}"
        return View(_drawn(flat, example.picture), flat, words, time.perf_counter() - start)

    def lines(self, model: str, example: Shown, at: str, method: str, target: Any, channel: int | None) -> str:
        """The lines of Python that give the same numbers."""
        call = f'model, inputs, target={target!r}, at="{at}"'
        if method in READINGS:
            read = {"activation": "g.activations.only", "gradient": "g.only"}.get(method, "g.only * g.activations.only")
            body = f"g = gt.gradients({call})\nvalues = {read}"
        else:
            body = f"values = gt.attribution.{method}({call}).only"
        pick = f"[..., {channel}]" if channel is not None else ""
        given = f"# model: {model}; inputs: {example.name}, {example.values.shape}, {self._preprocessing or 'unit'}"
        return f"import gradtap as gt\n\n{given}\n{body}{pick}\n"

    def report(self, model: str, example: Shown, at: str, method: str, target: Any, path: Path) -> Path:
        """Write a report of an example at a layer, and the layers about it."""
        addresses = [address for _, address in self.layers(model)]
        position = addresses.index(at)
        several = addresses[max(0, position - 2) : position + 3]
        methods = [method] if method not in READINGS[:2] else ["activation_x_gradient"]
        write(
            self.models[model],
            example.values,
            path,
            at=several,
            methods=methods,
            target=target,
            names=[example.name],
            pictures=[example.picture],
            class_names=self.class_names or None,
            title=f"{model}, {example.name}",
            command=self.lines(model, example, at, method, target, None),
        )
        return path

    def _values(self, model: str, example: Shown, at: str, method: str, target: Any) -> Array:
        trace = self.models[model]
        if method in READINGS:
            found = gradients(trace, example.values, target=target, at=at)
            slope, here = np.asarray(found.only)[0], np.asarray(found.activations.only)[0]
            read: Array = {"activation": here, "gradient": slope}.get(method, here * slope)
            return read
        if method not in (*METHODS, *SLOW):
            raise errors.ArgumentError(f"there is no method {method!r}.", [], f"one of {', '.join(METHODS + SLOW)}")
        made: Array = np.asarray(getattr(attribution, method)(trace, example.values, target=target, at=at).only)[0]
        return made


def read_class(text: str) -> Any:
    """What stands in the field of the target: a class's number or ``predicted``.

    Raises:
      TargetTypeError: It is neither.
    """
    word = str(text or "predicted").split(" ")[0].strip()
    if word == "predicted":
        return "predicted"
    try:
        return int(word)
    except ValueError:
        raise errors.TargetTypeError(
            f"{text!r} is neither `predicted` nor the number of a class.", [], "such as 281"
        ) from None


def _places(shape: Sequence[int | None]) -> int:
    rows, columns = (32 if n is None else n for n in shape[1:3])
    return rows * columns


def _drawn(values: Array, picture: Array) -> Array:
    """A map on its picture, of the size of the page."""
    times = max(1, -(-_SIDE // max(picture.shape[:2])))
    large = picture.repeat(times, 0).repeat(times, 1)
    shown = enlarge(values, large.shape[0], large.shape[1], "bilinear")
    return (255 * colours(shown, robust_scale(values), faded_grey(large))).round().astype(np.uint8)
