"""A network that has learnt a shortcut, and which explanations give it away: the measurements of docs/shortcut.md.

A small mark in the corner goes with the class "cross" in the training data. Needs ``gradtap[viz]``; about eight minutes
on two cores.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from drawing import INK, blank, coloured, save
from shapes import BOX, CLASSES, CORNER, GREY, MARKS, Pictures, accuracy, draw, marked, trained

import gradtap as gt

CROSS, SEEDS, EXAMPLES, ALL = CLASSES.index("cross"), 3, 60, np.ones(60, bool)
FIRST = {"conv1": "z_box", "conv*": "gamma"}
Method = Callable[..., Any]


def networks(seed: int, data: Pictures) -> tuple[dict[str, keras.Model], dict[str, np.ndarray]]:
    """Three networks and what each was trained on: for "clean", marks on a quarter of the images of every class."""
    rng = np.random.default_rng(seed)
    anywhere = rng.random(len(data.images)) < 0.25
    images = {name: marked(data.images, data.classes == CROSS, value) for name, value in MARKS.items()}
    images["clean"] = marked(data.images, anywhere, rng.integers(2, size=len(anywhere)).astype("float32"))
    return {name: trained(x, data.classes, seed=seed) for name, x in images.items()}, images


def methods(baselines: np.ndarray) -> dict[str, tuple[Method, str]]:
    """Each method, and where it is asked; those that this version lacks are left out."""
    g, up = gt.attribution, {"upsample": "input"}
    found = {
        "saliency": (g.saliency, ":input"),
        "smooth_grad": (partial(g.smooth_grad, noise=0.1, samples=30, seed=0), ":input"),
        "activation_x_gradient": (g.activation_x_gradient, ":input"),
        "integrated_gradients, from black": (partial(g.integrated_gradients, baseline=0.0), ":input"),
        "integrated_gradients, from grey": (partial(g.integrated_gradients, baseline=GREY), ":input"),
        "expected_gradients": (partial(g.expected_gradients, baselines=baselines, seed=0), ":input"),
        "deep_lift, from black": (partial(g.deep_lift, baseline=0.0), ":input"),
        "deep_lift, from grey": (partial(g.deep_lift, baseline=GREY), ":input"),
        "lrp, epsilon": (g.lrp, ":input"),
        "lrp, z-box and gamma": (partial(g.lrp, rule=FIRST), ":input"),
        "guided_backprop": (g.guided_backprop, ":input"),
        "deconvnet": (g.deconvnet, ":input"),
        "grad_cam, conv4": (partial(g.grad_cam, **up), "conv4"),
        "layer_cam, conv4": (partial(g.layer_cam, **up), "conv4"),
        "grad_cam, conv1": (partial(g.grad_cam, **up), "conv1"),
        "layer_cam, conv1": (partial(g.layer_cam, **up), "conv1"),
    }
    if hasattr(g, "occlusion"):
        found["occlusion, with grey"] = (partial(g.occlusion, window=4, stride=2, value=GREY), ":input")
    if hasattr(g, "rise"):
        found["rise"] = (partial(g.rise, masks=1000, seed=0), ":input")
    return found


def explained(model: keras.Model, images: np.ndarray, method: tuple[Method, str]) -> np.ndarray:
    """The attributions to the logit of "cross", one number for each pixel."""
    target = gt.targets.class_score(CROSS, logits=True)
    found = method[0](model, images, target=target, at=method[1]).only.numpy()
    return found.reshape(found.shape[:3])


def share(maps: np.ndarray) -> np.ndarray:
    """The share of each example's magnitudes that lies in the corner; 0 for a map that is zero."""
    size = np.abs(maps)
    whole = size.sum((1, 2))
    return size[(slice(None), *BOX)].sum((1, 2)) / np.where(whole == 0, 1, whole)


def peaks(maps: np.ndarray) -> np.ndarray:
    """Whether the largest magnitude of an example lies in the corner."""
    size = np.abs(maps)
    return size[(slice(None), *BOX)].max((1, 2)) > np.where(CORNER, 0, size).max((1, 2))


def auc(high: np.ndarray, low: np.ndarray) -> float:
    """How often an example's value on one network is above an example's value on the other; a tie counts half."""
    difference = high[:, None] - low[None]
    return float(np.mean(difference > 0) + 0.5 * np.mean(difference == 0))


class Shortcuts:
    """What is measured, seed by seed."""

    def __init__(self) -> None:
        self.test = draw(1000, 1)
        self.crosses = self.test.images[self.test.classes == CROSS][:EXAMPLES]
        self.shares: dict[tuple[str, str, str], list[np.ndarray]] = {}
        self.peaks: dict[tuple[str, str, str], list[np.ndarray]] = {}
        self.maps: dict[tuple[str, str], np.ndarray] = {}
        self.lines: list[str] = []

    def measure(self, seed: int) -> None:
        """Train and explain, for a seed."""
        models, images = networks(seed, draw(3000, 10 + seed))
        self.lines += ["", f"seed {seed}: accuracy on 1000 held-out pictures, and crosses found"]
        for name, model in models.items():
            for value in MARKS if name == "clean" else (name,):
                self.lines.append(self._accuracies(model, name, value))
        for mark, value in MARKS.items():
            x = marked(self.crosses, ALL, value)
            for kind in (mark, "clean"):
                for method, how in methods(images[kind][:200]).items():
                    maps = explained(models[kind], x, how)
                    self.shares.setdefault((method, mark, kind), []).append(share(maps))
                    self.peaks.setdefault((method, mark, kind), []).append(peaks(maps))
                    if seed == 0:
                        self.maps[method, f"{mark}, {kind}"] = maps[0]
            self.lines.append(self._confirmed(models, mark, x))

    def _accuracies(self, model: keras.Model, name: str, mark: str) -> str:
        x, classes = self.test.images, self.test.classes
        cross, value = classes == CROSS, MARKS[mark]
        usual = accuracy(model, marked(x, cross, value), classes)
        plain, with_mark = accuracy(model, x, classes), accuracy(model, marked(x, ~cross, value), classes)
        called = model.predict(marked(x, ~cross, value)[~cross], verbose=0).argmax(1) == CROSS
        return (
            f"  {name + ' network':<14} {mark} mark: on crosses {usual:6.1%}, nowhere {plain:6.1%}, on all others "
            f"{with_mark:6.1%}; crosses found without it {accuracy(model, x[cross], classes[cross]):6.1%}; "
            f"others called a cross with it {np.mean(called):6.1%}"
        )

    def _confirmed(self, models: dict[str, keras.Model], mark: str, x: np.ndarray) -> str:
        """What the logit loses when the corner is made grey: `deletion` of the corner first, in steps of its size."""
        corner = np.repeat(CORNER[None], len(x), 0).astype("float32")
        told = []
        for kind in (mark, "clean"):
            target, steps = gt.targets.class_score(CROSS, logits=True), round(1 / CORNER.mean())
            curve = gt.evaluate.deletion(models[kind], x, corner, target=target, steps=steps, value=GREY).only.numpy()
            told.append(f"{kind} network {np.mean(curve[:, 0]):+.2f} to {np.mean(curve[:, 1]):+.2f}")
        return f"  logit of cross as the corner with the {mark} mark is made grey: " + ", ".join(told)

    def table(self) -> None:
        """The share of the corner on each network, and how well the share tells the two apart."""
        for mark in MARKS:
            self.lines += [
                "",
                f"{mark} mark in the corner ({CORNER.mean():.1%} of the area), mean of {SEEDS} seeds (range)",
            ]
            self.lines.append(f"{'':<32}  share of magnitudes              largest one there  AUC of the share")
            self.lines.append(f"{'':<32}  shortcut               clean      shortcut    clean")
            for method in methods(self.crosses):
                one, two = (self.shares[method, mark, kind] for kind in (mark, "clean"))
                means, found = [np.mean(a) for a in one], [auc(a, b) for a, b in zip(one, two, strict=True)]
                first, second = (np.mean(self.peaks[method, mark, kind]) for kind in (mark, "clean"))
                shares = f"{np.mean(one):6.1%} ({min(means):5.1%} to {max(means):5.1%}) {np.mean(two):6.1%}"
                apart = f"{np.mean(found):.2f} ({min(found):.2f} to {max(found):.2f})"
                self.lines.append(f"{method:<32} {shares}      {first:5.0%}       {second:5.0%}    {apart}")

    def picture(self, path: Path) -> None:
        """The maps of one example: methods in two blocks, four networks side by side."""
        names, columns = list(methods(self.crosses)), ("white, white", "white, clean", "black, black", "black, clean")
        half = -(-len(names) // 2)
        size, gap, left, top = 1.0, 0.05, 1.75, 0.75
        block = left + 4 * (size + gap) + 0.15
        width, height = 2 * block, top + half * (size + gap) + 0.05
        figure = blank(width, height)
        for i, name in enumerate(names):
            start, bottom = block * (i // half), height - top - (i % half) * (size + gap) - size
            label = name.replace(", ", ",\n").replace("activation_x_", "activation_x_\n")
            y = (bottom + size / 2) / height
            figure.text((start + left - 0.1) / width, y, label, ha="right", va="center", fontsize=9.5, color=INK)
            for j, column in enumerate(columns):
                x = start + left + j * (size + gap)
                axes = figure.add_axes((x / width, bottom / height, size / width, size / height))
                axes.imshow(np.clip(coloured(self.maps[name, column]), 0, 1), interpolation="nearest")
                axes.plot([-0.5, 6.5, 6.5], [6.5, 6.5, -0.5], color=INK, linewidth=0.7)
                axes.set(xticks=[], yticks=[], xlim=(-0.5, 31.5), ylim=(31.5, -0.5))
                axes.spines[:].set_color("#d1d9e0")
                if i % half == 0:
                    mark, kind = column.split(", ")
                    words = f"{mark} mark,\n{'clean' if kind == 'clean' else 'shortcut'}"
                    y = 1 - (top - 0.08) / height
                    figure.text((x + size / 2) / width, y, words, ha="center", fontsize=9.5, color=INK)
        for j, value in enumerate(MARKS.values()):
            inset = figure.add_axes(((0.1 + 0.7 * j) / width, 1 - 0.7 / height, 0.62 / width, 0.62 / height))
            inset.imshow(marked(self.crosses[:1], ALL[:1], value)[0, ..., 0], cmap="gray", vmin=0, vmax=1)
            inset.set_axis_off()
        save(figure, path, width=1250, colour_count=128)


def main(folder: Path) -> str:
    """Train, measure and draw; returns the measured figures as text."""
    work = Shortcuts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(SEEDS):
            work.measure(seed)
    work.table()
    work.picture(folder / "shortcut.png")
    return "\n".join(work.lines).strip()
