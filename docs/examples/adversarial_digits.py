"""A network that falls to small changes, and one trained to stand them: the measurements of docs/attacks.md.

Digits of 8 x 8 pixels. Needs ``gradtap[viz]`` and scikit-learn; about two minutes on two cores.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from drawing import INK, save
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import gradtap as gt

EPSILON, TRAINED_ON = 0.3, 1400
EPSILONS = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
Data = tuple[np.ndarray, np.ndarray]


def digits() -> tuple[Data, Data]:
    """The digits to train on and those to test on, in [0, 1]."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images, classes = (data.images[order] / 16).astype("float32")[..., None], data.target[order]
    return (images[:TRAINED_ON], classes[:TRAINED_ON]), (images[TRAINED_ON:], classes[TRAINED_ON:])


def network(seed: int = 0) -> keras.Model:
    """A small CNN."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv1"),
            keras.layers.Conv2D(64, 3, strides=2, padding="same", activation="relu", name="conv2"),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu", name="hidden"),
            keras.layers.Dense(10, activation="softmax", name="scores"),
        ]
    )


def trained(data: Data, stages: list[tuple[float, int]], *, seed: int = 0, batch: int = 64) -> keras.Model:
    """A network trained on what PGD makes of the data at each step; on the data as they are where epsilon is 0.

    Args:
      data: Images and classes.
      stages: Pairs of an epsilon and a number of epochs, one after the other.
      seed: Draws the weights and the batches.
      batch: How many images at a time.
    """
    model, rng = network(seed), np.random.default_rng(seed)
    trace = gt.trace(model)
    images, classes = (tf.constant(values) for values in data)
    steps = sum(epochs for _, epochs in stages) * (len(images) // batch)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps))

    for epsilon, epochs in stages:
        attack = partial(gt.attacks.pgd, epsilon=epsilon, step_size=epsilon / 4, steps=7, stop_early=False)

        @tf.function
        def step(x, y, attack=attack if epsilon else None):
            if attack is not None:
                x = attack(trace, x, y).examples
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, model(x, training=True)))
            slopes = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(slopes, model.trainable_variables, strict=True))

        for _ in range(epochs):
            order = rng.permutation(len(images))
            for start in range(0, len(order) - batch + 1, batch):
                rows = order[start : start + batch]
                step(tf.gather(images, rows), tf.gather(classes, rows))
    return model


def natural(data: Data, seed: int = 0) -> keras.Model:
    """Trained on the digits as they are."""
    return trained(data, [(0.0, 20)], seed=seed)


def hardened(data: Data, seed: int = 0) -> keras.Model:
    """Trained on attacked digits, of an epsilon that rises to 0.3."""
    return trained(data, [(0.1, 10), (0.2, 10), (EPSILON, 80)], seed=seed)


def pgd(model, x, y, epsilon):
    """Forty steps of a tenth of epsilon."""
    return gt.attacks.pgd(model, x, y, epsilon=epsilon, step_size=epsilon / 10, steps=40)


def attacks() -> dict[str, tuple]:
    """By name: an attack of a given size, and the sizes at which it is asked."""
    g, tenth = gt.attacks, 0.1

    def restarted(model, x, y, epsilon):
        sized = {"epsilon": epsilon, "step_size": epsilon / 10, "steps": 40, "restarts": 5, "seed": 0}
        return g.pgd(model, x, y, random_start=True, **sized)

    def far(model, x, y, epsilon):
        return g.pgd(model, x, y, epsilon=epsilon, step_size=epsilon / 10, steps=40, norm="l2")

    return {
        "fgsm, linf": (g.fgsm, (tenth, EPSILON)),
        "pgd, 40 steps, linf": (pgd, (tenth, EPSILON)),
        "pgd, 40 steps, 5 restarts": (restarted, (tenth, EPSILON)),
        "auto_pgd, 100 steps": (g.auto_pgd, (tenth, EPSILON)),
        "auto_pgd, 100 steps, dlr": (partial(g.auto_pgd, loss="dlr"), (tenth, EPSILON)),
        "pgd, 40 steps, l2": (far, (0.5, 1.5)),
        "auto_pgd, 100 steps, l1": (partial(g.auto_pgd, norm="l1"), (1.0, 4.0)),
    }


def smallest(model: keras.Model, data: Data) -> dict[str, str]:
    """The median change that is enough, by attack, and how many fall to it."""
    searches = {
        "deep_fool, linf": partial(gt.attacks.deep_fool, norm="linf"),
        "deep_fool, l2": gt.attacks.deep_fool,
        "carlini_wagner_l2": partial(gt.attacks.carlini_wagner_l2, steps=300, constant=0.1, step_size=0.02),
    }
    found = {}
    for name, search in searches.items():
        result = search(model, *data)
        distance = np.where(result.success, result.distance, np.inf)
        found[name] = f"{np.median(distance):.3f} ({np.mean(result.success):.0%} fall)"
    return found


def drawn(models: dict[str, keras.Model], curves: dict[str, object], data: Data, path: Path) -> None:
    """The curves, and five digits with what PGD makes of them for each network."""
    figure = Figure(figsize=(11, 4.2), dpi=120, facecolor="white", layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.15, 1))
    gt.plot.curve(curves, title="Accuracy under PGD, 40 steps", ax=left.subplots())
    x, y = data[0][:5], data[1][:5]
    rows = {"as it is": (x, models["natural"])}
    rows |= {f"attacked, {name}": (pgd(m, x, y, EPSILON).examples.numpy(), m) for name, m in models.items()}
    panels = right.subplots(len(rows), 5)
    for line, (name, (images, model)) in zip(panels, rows.items(), strict=True):
        said = np.argmax(model(images), 1)
        for panel, image, label, true in zip(line, images, said, y, strict=True):
            panel.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
            panel.set_xticks([])
            panel.set_yticks([])
            panel.set_xlabel(f"said {label}", color=INK if label == true else "#d55e00", fontsize=9, labelpad=2)
        line[0].set_ylabel(name.replace(", ", ",\n"), fontsize=9, color=INK)
    save(figure, path)


def main(images: Path) -> str:
    """Train both, attack both, write the figure; the figures as text."""
    train, test = digits()
    models = {"natural": natural(train), "trained adversarially": hardened(train)}
    head = f"accuracy of {len(test[1])} digits under attack"
    lines = [f"{head:<41}{'natural':>12}{'trained adversarially':>24}"]
    for name, (attack, sizes) in attacks().items():
        for size in sizes:
            shares = [gt.attacks.robust_accuracy(m, test, attack, [size]).accuracy[0] for m in models.values()]
            lines.append(f"{name:<26} epsilon {size:<6g}{shares[0]:>12.1%}{shares[1]:>24.1%}")
    lines += ["", f"{'median change that is enough':<41}{'natural':>12}{'trained adversarially':>24}"]
    changes = [smallest(model, test) for model in models.values()]
    lines += [f"{name:<26}{one:>27}{changes[1][name]:>24}" for name, one in changes[0].items()]
    curves = {name: gt.attacks.robust_accuracy(model, test, pgd, EPSILONS) for name, model in models.items()}
    for name, curve in curves.items():
        points = (f"{e:g}: {a:.1%}" for e, a in zip(curve.epsilons, curve.accuracy, strict=True))
        lines += ["", f"pgd, 40 steps, {name}", "  " + ", ".join(points)]
    drawn(models, curves, test, images / "robust-accuracy.png")
    return "\n".join(lines)
