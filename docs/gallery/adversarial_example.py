"""
An adversarial example, and where inside it comes about
=======================================================

Two grey levels in each pixel, which nobody sees, and a cat becomes an espresso. **The
change is small in the first layer and grows with every layer, until it is larger than
the features themselves.** Noise of the same size stays small. And Grad-CAM says where
the network now sees its espresso.
"""

# %%
# EfficientNet-Lite0 with its trained weights takes pixels as (x - 127) / 128, so two
# grey levels are 2 / 128.
import itertools

import numpy as np
from matplotlib.figure import Figure

import gradtap as gt
from gradtap.demo.efficientnet_lite import pretrained_efficientnet_lite0
from gradtap.demo.photographs import load_photograph, network_input

TIGER_CAT, ESPRESSO = 282, 967
model = pretrained_efficientnet_lite0()
cat = network_input(load_photograph("chelsea"))
found = gt.attacks.pgd(
    model,
    cat,
    [ESPRESSO],
    targeted=True,
    epsilon=2 / 128,
    step_size=0.5 / 128,
    steps=20,
    stop_early=False,
    bounds=(-127 / 128, 1.0),
)
both = np.concatenate([cat, found.examples])
p = gt.activations(model, both, at=":output").only.numpy()
print("               tiger cat  espresso")
for name, row in zip(["photograph", "after attack"], p, strict=True):
    print(f"{name:<14} {row[TIGER_CAT]:9.3f} {row[ESPRESSO]:9.3f}")
largest = float(np.max(np.abs(both[1] - both[0])))
print(f"largest change of a pixel: {largest * 128:.2f} grey levels of 255")
assert p[0].argmax() == TIGER_CAT and p[1].argmax() == ESPRESSO
assert p[1, ESPRESSO] > 0.9 and largest <= 2 / 128 + 1e-6

# %%
# Before and after
# ----------------
# Grad-CAM of the class that is predicted, at two depths.
target = gt.targets.class_score("predicted", logits=True)
maps = gt.attribution.grad_cam(
    model, both, target=target, at=["block5_3_add", "head_relu"]
)
pictures = np.clip(both * 128 + 127, 0, 255).astype("uint8")
figure_of_maps = gt.plot.layers(
    maps,
    pictures,
    title="Grad-CAM before and after two grey levels",
    captions=["14 × 14 places", "7 × 7 places"],
    image_captions=[
        f"tiger cat, p = {p[0, TIGER_CAT]:.2f}",
        f"espresso, p = {p[1, ESPRESSO]:.2f}",
    ],
)

# %%
# Layer by layer
# --------------
# How far are the activations from those of the photograph, as a share of their size?
# And how far does noise of the same size take them?
rng = np.random.default_rng(0)
noisy = cat + rng.choice([-2, 2], cat.shape).astype("float32") / 128
depths = ["stem_relu", "block1_1_project_norm", "block2_2_add", "block3_2_add"]
depths += ["block4_3_add", "block5_3_add", "block6_4_add", "head_relu"]
a = gt.activations(model, np.concatenate([both, noisy]), at=depths)
attacked, shaken = (
    [
        float(np.linalg.norm(a[tap][i] - a[tap][0]) / np.linalg.norm(a[tap][0]))
        for tap in depths
    ]
    for i in (1, 2)
)
for tap, one, other in zip(depths, attacked, shaken, strict=True):
    print(f"{tap:<22} attack {one:.2f}   noise {other:.2f}")
assert attacked[0] < 0.1 and attacked[-1] > 1 and max(shaken) < 0.5
assert all(before < after for before, after in itertools.pairwise(attacked))

figure_of_growth = Figure(figsize=(7, 4), layout="constrained")
axes = figure_of_growth.add_subplot()
axes.plot(attacked, "o-", color="#d55e00", label="attack")
axes.plot(shaken, "o--", color="#0072b2", label="noise of the same size in each pixel")
axes.set_xticks(range(len(depths)), depths, rotation=35, ha="right", fontsize=8)
axes.set(ylabel="change of the activations / their size", ylim=(0, None))
axes.legend(frameon=False)
