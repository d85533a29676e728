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
from gradtap.app.python_lines import READINGS, Picked, image_lines, map_lines, model_lines, whole
from gradtap.cli.arrays import Declared, shape_text
from gradtap.cli.model_file import declared_inputs
from gradtap.cli.options import Size
from gradtap.cli.reading import default_preprocessing, find_files, image_layout, read_inputs
from gradtap.differentiate import activations, gradients
from gradtap.listing import taps
from gradtap.plot.maps import Array, as_picture, colours, enlarge, faded_grey, robust_scale
from gradtap.report.classes import check_class_names
from gradtap.report.methods import defaults_at
from gradtap.report.page import write

#: Methods with a map for each channel, and those with one for all of them together.
_CHANNELWISE = ("saliency", "guided_backprop", "deconvnet", "guided_grad_cam", "lrp", "deep_lift")
_SLOW_CHANNELWISE = ("integrated_gradients", "conductance", "internal_influence", "smooth_grad")
_CAMS = ("grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam", "xgrad_cam")
#: What can be asked for at a layer of an image network; the second ones take seconds.
METHODS = (*READINGS, *_CAMS, *_CHANNELWISE)
SLOW = (*_SLOW_CHANNELWISE, "ablation_cam", "score_cam", "occlusion", "rise")
#: The address of the model's input.
_INPUT = ":input"
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
      path: Its file.
      added: Whether it was added on the page: the file is then a copy of somebody's own.
    """

    name: str
    values: Array
    picture: Array
    path: Path
    added: bool = False


@dataclass(frozen=True)
class View:
    """A map and what is told of it.

    Args:
      image: ``(height, width, 3)`` uint8: the map on the picture.
      values: The map itself, ``(rows, columns)``.
      words: What it is, in a line.
      legend: What its colours mean.
      seconds: What it took.
    """

    image: Array
    values: Array
    words: str
    legend: str
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
      paths: The files of the models, by what they are called.
      unsafe: Whether the files hold code that is run.

    Raises:
      InputFileError: The model takes no images, or a file cannot be read.
      InputShapeError: The models take different inputs.
      ArgumentError: There is not one name for each class.
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
        paths: Mapping[str, str] | None = None,
        unsafe: bool = False,
    ) -> None:
        self.models = dict(models)
        self.class_names = list(class_names or ())
        self._declared = declared
        try:
            self._layout = image_layout(declared)
        except errors.InputFileError as error:
            error.do = ["the explorer shows images; a report shows other inputs as well: gradtap report"]
            raise
        self._preprocessing = preprocessing
        self._size = size
        self._paths = dict(paths or {})
        self._unsafe = unsafe
        self._scores: WeakKeyDictionary[Shown, dict[str, Array]] = WeakKeyDictionary()
        self._layers: dict[str, list[tuple[str, str]]] = {}
        self._check_alike()
        for trace in self.models.values():
            check_class_names(class_names, getattr(trace.model, "output_shape", None))
        self.examples = [self.read(file) for file in files]

    def _check_alike(self) -> None:
        (first, _), *others = self.models.items()
        mine = [spec.shape[1:] for spec in self._declared.values()]
        for name, trace in others:
            declared = declared_inputs(trace)
            theirs = [spec.shape[1:] for spec in declared.values()]
            if mine and theirs and not _fit(mine, theirs):
                takes = [
                    (who, ", ".join(shape_text(spec.shape) for spec in of.values()))
                    for who, of in ((first, self._declared), (name, declared))
                ]
                raise errors.InputShapeError(
                    f"`{first}` and `{name}` take different inputs, and one image is shown to both.",
                    takes,
                    "look at them one at a time",
                )

    def read(self, path: Path, *, added: bool = False) -> Shown:
        """An image file as an example.

        Args:
          path: The file.
          added: Whether it is a copy of a file that was added on the page.

        Raises:
          InputFileError: It is no image, damaged, or does not fit the model.
        """
        [file] = find_files([path])
        found = read_inputs([file], self._declared, self._preprocessing, self._size)
        if not found.pictures:
            raise errors.InputShapeError(
                f"`{path.name}` holds no image.", [("holds", found.description)], "the explorer shows images"
            )
        return Shown(path.name, np.asarray(found.values), as_picture(found.pictures[0]), path, added)

    def layers(self, model: str) -> list[tuple[str, str]]:
        """What can be clicked on, in forward order: an indented label and the address; looked up once."""
        if model not in self._layers:
            self._layers[model] = self._listed(model)
        return self._layers[model]

    def _listed(self, model: str) -> list[tuple[str, str]]:
        found = []
        if self._layout.channel_axis != 1:  # places first, as the layers have them
            takes = next((spec.shape[1:] for spec in self._declared.values()), ())
            found.append((f"{_INPUT}  {_shape(takes)}".rstrip(), _INPUT))
        for entry in taps(self.models[model]):
            spatial = entry.shape is not None and len(entry.shape) == 4 and _places(entry.shape) >= _FEWEST_PLACES
            if spatial and entry.reached and entry.tap.face == "output":
                depth = entry.tap.path.count("/")
                name = entry.address if not depth else entry.address.rsplit("/", 1)[1]
                shape = _shape((entry.shape or ())[1:])
                found.append((f"{'  ' * depth}{name}  {entry.layer} {shape}", entry.address))
        return found

    def counterpart(self, model: str, at: str) -> str:
        """The layer of a model that stands for one of the first: of the same name, else as far down the network."""
        own = [address for _, address in self.layers(model)]
        if at in own or not own:
            return at
        first = [address for _, address in self.layers(next(iter(self.models)))]
        if at not in first:
            return at
        part = first.index(at) / max(len(first) - 1, 1)
        return own[round(part * (len(own) - 1))]

    def likeliest(self, model: str, example: Shown, count: int = 5) -> list[tuple[int, str, float]]:
        """The likeliest classes of an example: number, name and score; empty where the model has no classes."""
        scores = self._outputs(model, example)
        if scores.ndim != 2 or scores.shape[1] < 2:
            return []
        check_class_names(self.class_names, scores.shape)
        order = np.argsort(-scores[0], kind="stable")[:count]
        return [(int(k), self.class_name(int(k)), float(scores[0, k])) for k in order]

    def _outputs(self, model: str, example: Shown) -> Array:
        known = self._scores.setdefault(example, {})
        if model not in known:
            known[model] = np.asarray(activations(self.models[model], example.values, at=":output").only)
        return known[model]

    def class_name(self, k: int) -> str:
        """What a class is called."""
        return self.class_names[k].split(",")[0] if k < len(self.class_names) else f"class {k}"

    def target_words(self, model: str, example: Shown, target: Any) -> str:
        """What is differentiated and its value, such as ``class 7: 0.0002``; empty where the model has no classes."""
        scores = self._outputs(model, example)
        if scores.ndim != 2:
            return ""
        if scores.shape[1] == 1:
            return f"the model's one output: {scores[0, 0]:.3g}"
        predicted = int(scores[0].argmax())
        k = predicted if target == "predicted" else int(target)
        name = self.class_name(k) if k >= len(self.class_names) else f"class {k}, {self.class_name(k)}"
        return f"{name}{' (predicted)' if k == predicted else ''}: {scores[0, k]:.3g}"

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
        over = _over(values.ndim, method, channel)
        if isinstance(over, int) and not 0 <= over < values.shape[-1]:
            raise errors.ClassRangeError(
                f"channel {channel} is out of range: `{at}` has {values.shape[-1]}.",
                [],
                f"give a number from 0 to {values.shape[-1] - 1}",
            )
        flat = values[..., over] if isinstance(over, int) else values if over is None else getattr(values, over)(-1)
        low, high = float(flat.min()), float(flat.max())
        where = f"channel {channel} of `{at}`" if channel is not None else f"`{at}`"
        how = f", {over} over the channels" if isinstance(over, str) else ""
        words = f"{method} at {where}{how}, {flat.shape[0]} × {flat.shape[1]}, from {low:.3g} to {high:.3g}"
        seconds = time.perf_counter() - start
        return View(_drawn(flat, example.picture), flat, words, _legend(flat, method), seconds)

    def lines(self, model: str, example: Shown, at: str, method: str, target: Any, channel: int | None) -> str:
        """The lines of Python that give the same numbers; they stand on their own."""
        over = _over(3 if _channelwise(method) and self._has_channels(at) else 2, method, channel)
        picked = Picked(at, method, target, self._keywords(model, example, at, method), over)
        height, width = example.picture.shape[:2]
        image = image_lines(
            example.path,
            example.name if example.added else str(example.path),
            self._layout,
            (height, width),
            self._preprocessing or default_preprocessing(self._declared),
        )
        return whole(
            model_lines(self._paths.get(model), model, unsafe=self._unsafe),
            ["# the file that was added on the page", *image] if example.added else image,
            map_lines(picked),
        )

    def _has_channels(self, at: str) -> bool:
        return at != _INPUT or self._layout.channel_axis is not None

    def _keywords(self, model: str, example: Shown, at: str, method: str) -> dict[str, Any]:
        if method in READINGS or not defaults_at(method, ()):
            return {}
        shapes = {entry.address: entry.shape for entry in taps(self.models[model])}
        shape = list(example.values.shape if at == _INPUT else shapes.get(at) or ())
        # Where a layer takes any size, only the example tells.
        if None in shape[1:]:
            shape = list(activations(self.models[model], example.values, at=at).only.shape)
        return defaults_at(method, shape if len(shape) > 3 else [*shape, 1])

    def report(self, model: str, example: Shown, at: str, method: str, target: Any, path: Path) -> Path:
        """Write a report of an example at a layer, and the layers about it."""
        addresses = [address for _, address in self.layers(model)]
        at = at if at in addresses else addresses[-1]
        position = addresses.index(at)
        several = addresses[max(0, position - 2) : position + 3]
        methods = [method if method not in READINGS[:2] else "activation_x_gradient"]
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
        beside = self._keywords(model, example, at, method)
        call = getattr(attribution, method)
        made: Array = np.asarray(call(trace, example.values, target=target, at=at, **beside).only)[0]
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


def _channelwise(method: str) -> bool:
    return method in (*READINGS, *_CHANNELWISE, *_SLOW_CHANNELWISE)


def _over(rank: int, method: str, channel: int | None) -> str | int | None:
    """How the channels become one map: ``mean``, ``sum``, the number of the one asked for, or None without channels."""
    if channel is not None and rank != 3:
        raise errors.ArgumentError(f"`{method}` has one map for all channels together.", [], "leave the channel out")
    if channel is not None or rank != 3:
        return channel
    return "mean" if method == "activation" else "sum"


def _legend(values: Array, method: str) -> str:
    """What the colours of a map mean."""
    if not values.any():
        return "The map is 0 everywhere."
    meaning = (
        "orange is above zero, blue below; an activation tells nothing of the target"
        if method == "activation"
        else "orange raises the target, blue lowers it"
    )
    return f"Colours: {meaning}; strongest from ±{robust_scale(values):.3g} on, the 99th percentile."


def _fit(mine: Sequence[Sequence[int | None]], theirs: Sequence[Sequence[int | None]]) -> bool:
    return len(mine) == len(theirs) and all(
        len(a) == len(b) and all(x == y or x is None or y is None for x, y in zip(a, b, strict=True))
        for a, b in zip(mine, theirs, strict=True)
    )


def _shape(sizes: Sequence[int | None]) -> str:
    return "×".join("·" if n is None else str(n) for n in sizes)


def _places(shape: Sequence[int | None]) -> int:
    rows, columns = (32 if n is None else n for n in shape[1:3])
    return rows * columns


def _drawn(values: Array, picture: Array) -> Array:
    """A map on its picture, of the size of the page."""
    times = max(1, -(-_SIDE // max(picture.shape[:2])))
    large = picture.repeat(times, 0).repeat(times, 1)
    shown = enlarge(values, large.shape[0], large.shape[1], "bilinear")
    return (255 * colours(shown, robust_scale(values), faded_grey(large))).round().astype(np.uint8)
