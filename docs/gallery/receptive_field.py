"""
A receptive field: what a unit can see, and what it does see
============================================================

The window of a unit follows from kernels and strides, and is often quoted. **What moves the unit is much less: in the
middle of EfficientNet-Lite0 a window that is larger than the image is used to a tenth.**
"""

# %%
# What it can see
# ---------------
# From the graph alone; no image is needed. The image is 224 x 224.
import numpy as np

import gradtap as gt
from gradtap.demo.efficientnet_lite import pretrained_efficientnet_lite0
from gradtap.demo.photographs import load_photograph, network_input

model = pretrained_efficientnet_lite0()
at = ["stem_relu", "block2_2_add", "block3_2_add", "block5_3_add"]
possible = gt.receptive.theoretical(model, at=at)
for tap, field in possible.items():
    print(f"{tap:<14} {field}")
assert [field.size for field in possible.values()] == [(3, 3), (19, 19), (67, 67), (339, 339)]

# %%
# The same by hand: each kernel adds its size less one, times the strides before it. Block 5 is reached through the stem
# and the depthwise convolutions of eleven inverted residual blocks, whose kernels and strides are:
stem_and_blocks = [(3, 2), (3, 1), (3, 2), (3, 1), (5, 2), (5, 1), (3, 2), (3, 1), (3, 1), (5, 1), (5, 1), (5, 1)]
size, stride = 1, 1
for kernel, step in stem_and_blocks:
    size, stride = size + (kernel - 1) * stride, stride * step
print(size, stride)
assert (size, stride) == (339, 16)

# %%
# What it does see
# ----------------
# The gradient of the unit in the middle of each layer, on twelve images: six photographs and what their mirrors show.
# ``sigma`` is the deviation of a Gaussian that is fitted to it, and ``share`` how much of the window has more than a
# twentieth of the largest gradient.
names = ["astronaut", "camera", "chelsea", "coffee", "motorcycle", "rocket"]
images = np.concatenate([network_input(load_photograph(name)) for name in names])
images = np.concatenate([images, images[:, :, ::-1]])
measured = gt.receptive.effective(model, images, at=at)
for tap, found in measured.items():
    print(f"{tap:<14} window {possible[tap].size[0]:>3}, sigma {np.mean(found.sigma):4.1f}, in use {found.share:.0%}")

shares = [found.share for found in measured.values()]
assert shares[0] == 1 and all(before > after for before, after in zip(shares, shares[1:], strict=False))
assert shares[-1] < 0.15

# %%
# The frame is the window, the dashed ellipse two deviations.
figure = gt.plot.receptive(measured, title="EfficientNet-Lite0: the window, and what moves the unit")

# %%
# Windows grow sixfold from block 3 to block 5 here, deviations not even fourfold. `The guide </receptive-fields>`_ has
# the laws behind it, and the last layer, where the gradient covers the whole image.
