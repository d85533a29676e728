"""How curvature at a layer changes with the activation function and with depth: the figure of docs/curvature.md.

Networks of six layers are trained here, eight for each activation. Needs ``gradtap[viz]``; minutes on two cores.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from drawing import FAINT, INK, blank, save

import gradtap as gt

ACTIVATIONS = ("relu", "elu", "silu", "gelu", "softplus", "tanh", "sigmoid")
COLOURS = ("#1f2328", "#0072B2", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#B8860B")
TAPS = [f"layer{number}" for number in range(1, 7)]
SEEDS, EXAMPLES, FEATURES, CLASSES, UNITS = 8, 64, 16, 4, 48
#: Student's t for 95 % with seven degrees of freedom.
T = 2.365


def data(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Clusters, three for each class, at places that are the same for every seed."""
    centres = 1.6 * np.random.default_rng(7).normal(size=(3 * CLASSES, FEATURES))
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, len(centres), count)
    x = centres[cluster] + 1.3 * rng.normal(size=(count, FEATURES))
    return x.astype("float32"), cluster % CLASSES


def network(activation: str) -> keras.Model:
    """Six layers of one width, and a softmax."""
    x = inputs = keras.Input((FEATURES,))
    for tap in TAPS:
        x = keras.layers.Dense(UNITS, activation=activation, name=tap)(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax", name="scores")(x))


class Measured:
    """Of one activation, ``(seeds, taps)`` each: top eigenvalue, trace, and what Gauss and Newton leave out of it."""

    def __init__(self, activation: str) -> None:
        self.accuracy = np.zeros(SEEDS)
        self.top, self.trace, self.beyond = (np.zeros((SEEDS, len(TAPS))) for _ in range(3))
        model = network(activation)
        for seed in range(SEEDS):
            keras.utils.set_random_seed(seed)
            trained = network(activation)
            trained.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
            trained.fit(*data(seed, 3000), batch_size=100, epochs=12, verbose=0)
            x, classes = data(100 + seed, 1000)
            self.accuracy[seed] = trained.evaluate(x, classes, verbose=0)[1]
            model.set_weights(trained.get_weights())  # whose graph is kept
            loss = gt.targets.loss("sparse_categorical_crossentropy", classes[:EXAMPLES])
            ask = {"target": loss, "at": TAPS, "checks": False}
            whole = gt.curvature.hessian(model, x[:EXAMPLES], **ask)
            newton = gt.curvature.hessian_diagonal(model, x[:EXAMPLES], **ask, matrix="gauss_newton")
            activations = gt.activations(model, x[:EXAMPLES], at=TAPS)
            for i, tap in enumerate(TAPS):
                # In units of the activations' own size: the loss along a step that is a share of them.
                scale = float(np.mean(np.sum(np.square(activations[tap]), 1)))
                values = np.linalg.eigvalsh(whole[tap].numpy().astype("float64"))
                self.top[seed, i] = scale * np.mean(values[:, -1])
                self.trace[seed, i] = scale * np.mean(values.sum(1))
                bent = np.abs(values.sum(1) - newton[tap].numpy().sum(1))
                self.beyond[seed, i] = bent.sum() / newton[tap].numpy().sum()


def mean_and_half(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Over seeds: the mean, and half of the 95 % interval of it."""
    return values.mean(0), T * values.std(0, ddof=1) / np.sqrt(len(values))


def picture(found: dict[str, Measured], path: Path) -> None:
    """Two panels: the top eigenvalue, and the part of the trace that the Gauss-Newton matrix lacks."""
    figure = blank(11.5, 4.6)
    panels = (
        ("largest eigenvalue × mean squared norm of the activations", "top"),
        ("trace beyond Gauss-Newton's, as a share of that", "beyond"),
    )
    for i, (title, what) in enumerate(panels):
        axes = figure.add_axes((0.055 + 0.435 * i, 0.13, 0.375, 0.76))
        for (name, measured), colour in zip(found.items(), COLOURS, strict=True):
            values = getattr(measured, what)
            if what == "top":
                values = np.log10(values)
            mean, half = mean_and_half(values)
            axes.plot(range(1, 7), mean, color=colour, linewidth=1.8, marker="o", markersize=3.5, label=name)
            axes.fill_between(range(1, 7), mean - half, mean + half, color=colour, alpha=0.13, linewidth=0)
        axes.set_title(title, fontsize=11, color=INK)
        axes.set_xlabel("layer", fontsize=10, color=FAINT)
        axes.tick_params(labelsize=9, colors=FAINT, length=2)
        axes.grid(axis="y", color="#eaeef2")
        axes.spines[:].set_color("#d1d9e0")
        if what == "top":
            low, high = (round(edge) for edge in axes.get_ylim())
            axes.set_yticks(range(low, high + 1), [f"$10^{{{n}}}$" for n in range(low, high + 1)])
    figure.legend(*axes.get_legend_handles_labels(), loc="center right", frameon=False, fontsize=10)
    save(figure, path, width=1150, colour_count=128)


def main(folder: Path) -> str:
    """Train, measure and draw; returns the measured figures as text."""
    found = {name: Measured(name) for name in ACTIVATIONS}
    picture(found, folder / "curvature-depths.png")
    lines = [f"mean of {SEEDS} trainings ± half of the 95 % interval; {EXAMPLES} held-out examples each"]
    for title, what in (
        ("largest eigenvalue x mean squared norm", "top"),
        ("trace x mean squared norm", "trace"),
        ("trace beyond Gauss-Newton's, as a share", "beyond"),
    ):
        lines += ["", f"{title:<42}" + "".join(f"{f'layer {n}':>18}" for n in (1, 3, 6)) + "   accuracy"]
        for name, measured in found.items():
            mean, half = mean_and_half(getattr(measured, what))
            cells = "".join(f"{f'{mean[i]:.2g} ± {half[i]:.1g}':>18}" for i in (0, 2, 5))
            lines.append(f"{name:<42}{cells}   {measured.accuracy.mean():.1%}")
    return "\n".join(lines)
