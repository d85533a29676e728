"""Do explanations change where what the network has learnt is destroyed? The measurements of docs/evaluation.md.

After Adebayo et al., Sanity Checks for Saliency Maps, https://arxiv.org/abs/1810.03292, on a small network that is
trained here. Needs ``gradtap[viz]``; two to five minutes on two cores.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from drawing import FAINT, INK, blank, coloured, save
from shapes import CLASSES, GREY, draw, network, trained

import gradtap as gt
from gradtap.evaluate.similarity import absolute_spearman, spearman, structural

EXAMPLES, DRAWS = 48, 5
FIRST = {"conv1": "z_box", "conv*": "gamma"}
#: Each method, and where it is asked.
METHODS: dict[str, tuple[Callable[..., Any], str]] = {
    "saliency": (gt.attribution.saliency, ":input"),
    "grad_cam": (partial(gt.attribution.grad_cam, upsample="input"), "conv4"),
    "guided_backprop": (gt.attribution.guided_backprop, ":input"),
    "guided_grad_cam": (gt.attribution.guided_grad_cam, "conv4"),
    "activation_x_gradient": (gt.attribution.activation_x_gradient, ":input"),
    "integrated_gradients": (partial(gt.attribution.integrated_gradients, baseline=GREY), ":input"),
    "lrp": (partial(gt.attribution.lrp, rule=FIRST), ":input"),
}
LAYERS = ("scores", "hidden", "conv4", "conv3", "conv2", "conv1")
MEASURES = {"Spearman": spearman, "Spearman of magnitudes": absolute_spearman, "SSIM of magnitudes": structural}
COLOURS = dict(zip(METHODS, ("#0072B2", "#D55E00", "#1f2328", "#8c959f", "#009E73", "#CC79A7", "#B8860B"), strict=True))
Maps = list[np.ndarray]


def permuted(model: keras.Model, images: np.ndarray, target: Any, name: str, seed: int) -> tuple[np.ndarray, Maps]:
    """The map of the trained network, and those along the cascade of permuted weights."""
    method, at = METHODS[name]
    found = gt.evaluate.randomization(model, images, method, target=target, at=at, seed=seed)
    assert [row.layer for row in found.rows] == list(LAYERS)
    return found.original.only.numpy(), [row.attributions.only.numpy() for row in found.rows]


def redrawn(model: keras.Model, images: np.ndarray, target: Any, name: str, seed: int) -> Maps:
    """The maps along a cascade of weights drawn as before training, as in the paper."""
    method, at = METHODS[name]
    keras.utils.set_random_seed(100 + seed)
    fresh, other = network(), network()
    other.set_weights(model.get_weights())
    maps = []
    for layer in LAYERS:
        other.get_layer(layer).set_weights(fresh.get_layer(layer).get_weights())
        maps.append(method(other, images, target=target, at=at).only.numpy())
    return maps


class Checks:
    """Similarities, ``(draws, layers, examples)``, by measure, method and way of randomizing."""

    def __init__(self) -> None:
        data, held_out = draw(3000, 0), draw(1000, 1)
        self.model = trained(data.images, data.classes, seed=0)
        self.second = trained(data.images, data.classes, seed=1)
        right = [m.predict(held_out.images, verbose=0).argmax(1) == held_out.classes for m in (self.model, self.second)]
        self.lines = [
            f"3000 pictures to train on, 1000 held out: accuracy {right[0].mean():.1%}, "
            f"of a second training {right[1].mean():.1%}"
        ]
        agreed = right[0] & right[1]
        self.images, classes = held_out.images[agreed][:EXAMPLES], held_out.classes[agreed][:EXAMPLES]
        self.target = gt.targets.class_score(classes, logits=True)
        self.example = int(np.flatnonzero(classes == CLASSES.index("cross"))[0])
        self.alike: dict[tuple[str, str, str], np.ndarray] = {}
        self.pictures: dict[str, Maps] = {}
        self.zeros: list[str] = []

    def measure(self, name: str) -> None:
        """Fill in a method."""
        method, at = METHODS[name]
        ways: dict[str, list[Maps]] = {"permuted": [], "redrawn": []}
        for seed in range(DRAWS):
            original, maps = permuted(self.model, self.images, self.target, name, seed)
            ways["permuted"].append(maps)
            ways["redrawn"].append(redrawn(self.model, self.images, self.target, name, seed))
        ways["trained again"] = [[method(self.second, self.images, target=self.target, at=at).only.numpy()]]
        for measure, similarity in MEASURES.items():
            for way, runs in ways.items():
                self.alike[measure, name, way] = np.array([[similarity(original, m) for m in maps] for maps in runs])
        self.pictures[name] = [m[self.example] for m in (original, *ways["permuted"][0], ways["redrawn"][0][-1])]
        third = [maps[3] for maps in ways["permuted"]]
        if name in ("saliency", "guided_backprop"):
            both = [(original[i] != 0) & (m[i] != 0) for m in third for i in range(EXAMPLES)]
            pairs = [(original[i], m[i]) for m in third for i in range(EXAMPLES)]
            alike = [absolute_spearman(a[b][None], c[b][None]) for b, (a, c) in zip(both, pairs, strict=True)]
            self.zeros.append(
                f"{name}: {np.mean(original == 0):.0%} of the entries are zero; Spearman of magnitudes down to conv3, "
                f"of entries that are not zero before nor after: {np.mean(alike):.2f}"
            )
        empty = np.mean([np.max(np.abs(m), axis=tuple(range(1, m.ndim))) == 0 for m in third])
        if empty:
            self.zeros.append(f"{name}: {empty:.0%} of the maps are zero everywhere, down to conv3")

    def tables(self) -> None:
        """The numbers of the page: the mean, 95 % intervals over examples, and how far the draws differ."""
        for measure in MEASURES:
            self.lines += ["", f"{measure}, weights permuted from `scores` down to"]
            self.lines.append(f"{'':<22}" + "".join(f"{layer:>8}" for layer in LAYERS) + "   at conv3: 5 draws")
            for name in METHODS:
                found = self.alike[measure, name, "permuted"]
                means = "".join(f"{value:8.2f}" for value in np.nanmean(found, (0, 2)))
                by_example, by_draw = np.nanmean(found[:, 3], 0), np.nanmean(found[:, 3], 1)
                half = 1.96 * np.nanstd(by_example, ddof=1) / np.sqrt(len(by_example))
                self.lines.append(f"{name:<22}{means}   ± {half:.2f}, {by_draw.min():+.2f} to {by_draw.max():+.2f}")
        self.lines += [
            "",
            "Spearman, of magnitudes, SSIM: weights redrawn down to conv3; all redrawn; trained a second time",
        ]
        for name in METHODS:
            ways = (("redrawn", 3), ("redrawn", -1), ("trained again", 0))
            cells = ["".join(f"{np.nanmean(self.alike[m, name, way][:, i]):7.2f}" for m in MEASURES) for way, i in ways]
            self.lines.append(f"{name:<22}" + "   ".join(cells))
        self.lines += ["", *self.zeros]

    def maps(self, path: Path) -> None:
        """One picture: a row for each method, a column for each stage of the cascade."""
        titles = ["trained", "scores", *(f"+ {layer}" for layer in LAYERS[1:]), "all redrawn"]
        size, gap, left, top = 1.12, 0.06, 1.75, 0.62
        width = left + len(titles) * (size + gap) + 0.1
        height = top + len(METHODS) * (size + gap) + 0.05
        figure = blank(width, height)
        for column, title in enumerate(titles):
            x = left + column * (size + gap) + size / 2
            figure.text(x / width, 1 - 0.46 / height, title, ha="center", fontsize=10, color=INK)
        x = left + 4 * (size + gap) - gap / 2
        figure.text(
            x / width, 1 - 0.2 / height, "weights permuted, layer after layer →", ha="center", fontsize=10, color=FAINT
        )
        for row, (name, maps) in enumerate(self.pictures.items()):
            bottom = height - top - row * (size + gap) - size
            words = name.replace("activation_x_", "activation_x_\n").replace("integrated_", "integrated_\n")
            y = (bottom + size / 2) / height
            figure.text((left - 0.12) / width, y, words, ha="right", va="center", fontsize=10, color=INK)
            for column, values in enumerate(maps):
                spot = ((left + column * (size + gap)) / width, bottom / height, size / width, size / height)
                axes = figure.add_axes(spot)
                axes.imshow(np.clip(coloured(values.reshape(32, 32)), 0, 1), interpolation="nearest")
                if not np.any(values):
                    axes.text(15.5, 15.5, "zero", ha="center", va="center", fontsize=9, color=FAINT)
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_color("#d1d9e0")
        inset = figure.add_axes((0.1 / width, 1 - 0.58 / height, 0.5 / width, 0.5 / height))
        inset.imshow(self.images[self.example][..., 0], cmap="gray", vmin=0, vmax=1)
        inset.set_axis_off()
        save(figure, path, width=1150, colour_count=128)

    def curves(self, path: Path) -> None:
        """Similarity against how far down the weights are random."""
        figure = blank(13, 4.6)
        for i, measure in enumerate(MEASURES):
            axes = figure.add_axes((0.035 + 0.327 * i, 0.21, 0.29, 0.71))
            for name in METHODS:
                draws = np.concatenate([np.ones((DRAWS, 1)), np.nanmean(self.alike[measure, name, "permuted"], 2)], 1)
                main = name in ("saliency", "grad_cam", "guided_backprop")
                axes.plot(np.nanmean(draws, 0), color=COLOURS[name], linewidth=2.8 if main else 1.3, label=name)
                if main:
                    axes.fill_between(
                        range(7), draws.min(0), draws.max(0), color=COLOURS[name], alpha=0.13, linewidth=0
                    )
            axes.set_title(measure, fontsize=11, color=INK)
            axes.set_xticks(range(7), ["none", *LAYERS])
            axes.set_xlabel("weights random from the output down to", fontsize=9.5, color=FAINT)
            axes.set(ylim=(-0.35, 1.03), xlim=(-0.05, 6.05))
            axes.tick_params(labelsize=9, colors=FAINT, length=2)
            axes.grid(axis="y", color="#eaeef2")
            axes.spines[:].set_color("#d1d9e0")
        figure.legend(
            *axes.get_legend_handles_labels(), loc="lower center", ncols=len(METHODS), frameon=False, fontsize=10
        )
        save(figure, path, width=1250, colour_count=128)


def main(folder: Path) -> str:
    """Train, measure and draw; returns the measured figures as text."""
    work = Checks()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in METHODS:
            work.measure(name)
    work.tables()
    work.maps(folder / "sanity-maps.png")
    work.curves(folder / "sanity-curves.png")
    return "\n".join(work.lines)
