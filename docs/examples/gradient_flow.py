"""Three published laws of gradient flow, measured: geometric decay with depth, shattering, decay through time.

Needs matplotlib and pillow. The networks are random, so nothing is trained; every number is a mean over seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from drawing import FAINT, INK, blank, save
from keras import layers

from gradtap import flow

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
SEEDS, WIDTH, EXAMPLES = 5, 128, 64
RNG = np.random.default_rng(0)
X = RNG.normal(size=(EXAMPLES, WIDTH)).astype("float32")


def main(images: Path) -> str:
    """Measure, draw, and say what came out."""
    depth, shattered, through_time = by_depth(), shattering(), over_time()
    draw(images / "flow-depth.png", depth, "blocks from the input", "|gradient|", log_x=False)
    draw(images / "flow-shattered.png", shattered, "rectified layers above", "mean cosine of two gradients", log_x=True)
    draw(images / "flow-time.png", through_time, "steps back", "|dL/dh_t| over the last", log_x=False)
    return "\n".join([*_said_of_depth(depth), "", *_said_of_shattering(shattered), "", *_said_of_time(through_time)])


# -- depth -------------------------------------------------------------------------------------------------------------


def by_depth() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The gradient's norm block by block, of plain networks of 64 layers."""
    y, found = np.arange(EXAMPLES) % 10, {}
    for activation in ("relu", "tanh", "sigmoid"):
        norms = []
        for seed in range(SEEDS):
            keras.utils.set_random_seed(seed)
            model = flow.architectures.plain(WIDTH, 10, activation=activation, depth=64, width=WIDTH)
            rows = flow.measure(model, X, labels=y, at="block_*").rows
            norms.append([row.gradient_norm for row in rows])
        found[activation] = np.arange(1, 65), np.exp(np.mean(np.log(np.maximum(norms, 1e-300)), 0))
    return found


def _said_of_depth(found: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[str]:
    lines = ["plain networks of 64 layers: change of |gradient| at each layer on its way back"]
    for name, (_, norms) in found.items():
        known = norms > 1e-37  # below that float32 has none
        steps = int(known.sum()) - 1
        rate = (norms[known][0] / norms[known][-1]) ** (1 / steps)
        lines.append(
            f"  {name:<8} {rate:.3f} over {steps} layers: {norms[-1]:.2g} at the last, "
            f"{norms[known][0]:.2g} at the first"
        )
    return lines


# -- shattering --------------------------------------------------------------------------------------------------------


def normalised(depth: int) -> keras.Model:
    """Dense, batch normalisation, ReLU: of two examples a unit is active for both with a chance of a quarter."""
    x = inputs = keras.Input((WIDTH,))
    for _ in range(depth):
        x = layers.Dense(WIDTH, kernel_initializer="he_normal", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.0, epsilon=1e-6)(x))
    return keras.Model(inputs, layers.Dense(1)(x))


def plain(depth: int) -> keras.Model:
    """The same without a normalisation."""
    x = inputs = keras.Input((WIDTH,))
    for _ in range(depth):
        x = layers.Dense(WIDTH, kernel_initializer="he_normal", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(1)(x))


def skipping(depth: int) -> keras.Model:
    """x + W relu(BN(x)), block after block."""
    x = inputs = keras.Input((WIDTH,))
    for _ in range(depth):
        y = layers.ReLU()(layers.BatchNormalization(momentum=0.0, epsilon=1e-6)(x))
        x = layers.Add()([x, layers.Dense(WIDTH, kernel_initializer="he_normal", use_bias=False)(y)])
    return keras.Model(inputs, layers.Dense(1)(x))


NETWORKS: dict[str, tuple[Callable[[int], keras.Model], tuple[int, ...]]] = {
    "plain, batch norm": (normalised, (1, 2, 3, 4, 5, 6)),
    "plain": (plain, (1, 2, 4, 8, 16, 32)),
    "skips, batch norm": (skipping, (1, 2, 4, 8, 16, 32)),
}


def shattering() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The mean cosine between the gradients at the inputs of pairs of independent examples."""
    found = {}
    for name, (build, depths) in NETWORKS.items():
        means = []
        for depth in depths:
            cosines = []
            for seed in range(SEEDS):
                keras.utils.set_random_seed(seed)
                model = build(depth)
                model(X, training=True)  # with a momentum of 0 the statistics are now those of these examples
                cosines.append(flow.measure(model, X, at=":input").rows[0].cosine)
            means.append(np.mean(cosines))
        found[name] = np.array(depths), np.array(means)
    return found


def _said_of_shattering(found: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[str]:
    lines = ["mean cosine between the input gradients of two examples, by the number of rectified layers"]
    for name, (depths, means) in found.items():
        lines.append(f"  {name:<18} " + "  ".join(f"{d}: {m:.3f}" for d, m in zip(depths, means, strict=True)))
    depths, means = found["plain, batch norm"]
    halving = np.exp(np.polyfit(depths, np.log(means), 1)[0])
    lines.append(f"  plain, batch norm: times {halving:.2f} at each layer; the law is 0.50")
    depths, means = found["plain"]
    lines.append(f"  plain: times {(means[-1] / means[0]) ** (1 / (depths[-1] - depths[0])):.2f} at each layer")
    depths, means = found["skips, batch norm"]
    power = np.polyfit(np.log(depths), np.log(means), 1)[0]
    lines.append(f"  skips, batch norm: depth to the power {power:.2f}; the law is -0.50")
    return lines


# -- time --------------------------------------------------------------------------------------------------------------

STEPS = 100


def over_time() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """|dL/dh_t|, or |dL/dc_t|, over that of the last step, with the loss a random direction of the last state."""
    x = np.random.default_rng(1).normal(size=(16, STEPS, 8)).astype("float32")
    found = {}
    for gain in (0.5, 0.9):
        name = f"SimpleRNN, |U| = {gain}"
        found[name] = _profile(lambda gain=gain: _rnn(gain), "state:hidden", x)
    for bias in (1.0, 5.0):
        found[f"LSTM, forget bias {bias:g}"] = _profile(lambda bias=bias: _lstm(bias), "state:cell", x)
    return found


def _rnn(gain: float) -> keras.Model:
    start = keras.initializers.Orthogonal(gain)
    return keras.Sequential(
        [keras.Input((STEPS, 8)), layers.SimpleRNN(64, recurrent_initializer=start, name="state"), layers.Dense(1)]
    )


def _lstm(bias: float) -> keras.Model:
    model = keras.Sequential(
        [keras.Input((STEPS, 8)), layers.LSTM(64, unit_forget_bias=False, name="state"), layers.Dense(1)]
    )
    values = np.zeros(256, "float32")
    values[64:128] = bias
    model.get_layer("state").cell.bias.assign(values)
    return model


def _profile(build: Callable[[], keras.Model], address: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logarithms = []
    for seed in range(SEEDS):
        keras.utils.set_random_seed(seed)
        profiles = {p.address: p.gradient_norms for p in flow.measure(build(), x).profiles}
        back = profiles[address][::-1]
        logarithms.append(np.log(np.maximum(back, 1e-300)) - np.log(back[0]))
    return np.arange(STEPS), np.exp(np.mean(logarithms, 0))


def _said_of_time(found: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[str]:
    lines = [f"|dL/dh_t| (of an LSTM |dL/dc_t|) at each step back, over {STEPS} steps"]
    for name, (steps, norms) in found.items():
        known = norms > 1e-36
        rate = (norms[known][-1]) ** (1 / steps[known][-1])
        lines.append(
            f"  {name:<22} times {rate:.3f}: {norms[20]:.2g} after 20 steps, "
            f"{norms[known][-1]:.2g} after {steps[known][-1]}"
        )
    return lines


# -- pictures ----------------------------------------------------------------------------------------------------------


def draw(path: Path, found: dict[str, tuple[np.ndarray, np.ndarray]], below: str, beside: str, *, log_x: bool) -> None:
    """Curves on a logarithmic scale, with the laws they are held against; what float32 cannot hold is left out."""
    figure = blank(7, 4)
    axes = figure.add_axes((0.12, 0.14, 0.85, 0.82))
    for (name, (x, y)), colour in zip(found.items(), COLOURS, strict=False):
        axes.plot(x, np.where(y > 1e-37, y, np.nan), marker="o" if len(x) < 10 else None, color=colour, label=name)
    if log_x:
        axes.set_xscale("log", base=2)
        depths = np.array([1, 2, 3, 4, 5, 6])
        axes.plot(depths, 0.5**depths, ":", color=FAINT, label="1/2 at each layer")
        depths = np.array([1, 32])
        start = found["skips, batch norm"][1][0]
        axes.plot(depths, start * depths**-0.5, "--", color=FAINT, label="root of depth")
    axes.set_yscale("log")
    axes.set_xlabel(below, color=INK)
    axes.set_ylabel(beside, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=FAINT, labelsize=9)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path, width=900)


if __name__ == "__main__":
    print(main(Path(__file__).parent.parent / "images"))
