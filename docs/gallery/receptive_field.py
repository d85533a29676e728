"""
A receptive field: what a unit can see, and what it does see
============================================================

The window of a unit follows from kernels and strides, and is often quoted. **What moves
the unit is much less: in the middle of EfficientNet-Lite0 a window that is larger than
the image is used to a tenth.**
"""

# %%
# What it can see
# ---------------
# From the graph alone; no image is needed. The image is 224 x 224.
import itertools

import numpy as np

import gradtap as gt
from gradtap.demo.efficientnet_lite import pretrained_efficientnet_lite0
from gradtap.demo.photographs import load_photograph, network_input

model = pretrained_efficientnet_lite0()
at = ["stem_relu", "block2_2_add", "block3_2_add", "block5_3_add"]
possible = gt.receptive.theoretical(model, at=at)
for tap, field in possible.items():
    print(f"{tap:<14} {field}")
assert [field.size[0] for field in possible.values()] == [3, 19, 67, 339]

# %%
# The same by hand: each kernel adds its size less one, times the strides before it.
# Block 5 is reached through the stem and the depthwise convolutions of eleven inverted
# residual blocks, whose kernels and strides are:
kernels = [3, 3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5]
strides = [2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1]
size, stride = 1, 1
for kernel, step in zip(kernels, strides, strict=True):
    size, stride = size + (kernel - 1) * stride, stride * step
print(size, stride)
assert (size, stride) == (339, 16)

# %%
# What it does see
# ----------------
# The gradient of the unit in the middle of each layer, on twelve images: six
# photographs and their mirror images. ``sigma`` is the deviation of a Gaussian that
# is fitted to it, and ``share`` how much of the window has more than a twentieth of the
# largest gradient.
names = ["astronaut", "camera", "chelsea", "coffee", "motorcycle", "rocket"]
images = np.concatenate([network_input(load_photograph(name)) for name in names])
images = np.concatenate([images, images[:, :, ::-1]])
measured = gt.receptive.effective(model, images, at=at)
for tap, found in measured.items():
    window, sigma = possible[tap].size[0], np.mean(found.sigma)
    print(f"{tap:<14} window {window:>3}, sigma {sigma:4.1f}, in use {found.share:.0%}")

shares = [found.share for found in measured.values()]
assert shares[0] == 1 and all(
    before > after for before, after in itertools.pairwise(shares)
)
assert shares[-1] < 0.15

# %%
# The frame is the window, the dashed ellipse two deviations.
figure = gt.plot.receptive(
    measured, title="EfficientNet-Lite0: the window, and what moves the unit"
)

# %%
# From block 3 to block 5 windows grow fivefold, deviations little more than threefold.
# :doc:`The guide </receptive-fields>` has the laws behind it, and the last layer, where
# the gradient covers the whole image.
