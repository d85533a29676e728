"""Pictures of what gradients say about places in an image, and curves.

Every function returns a ``matplotlib.figure.Figure`` and touches no global state of matplotlib: nothing pops up,
nothing has to be closed, and any thread may draw. matplotlib is imported by the first call, not by this package.

Example:
  >>> import gradtap as gt, keras, numpy as np
  >>> conv1, conv2 = (keras.layers.Conv2D(4, 3, activation="relu", name=name) for name in ["conv1", "conv2"])
  >>> model = keras.Sequential([keras.Input((16, 16, 3)), conv1, conv2, keras.layers.GlobalAveragePooling2D()])
  >>> images = np.random.default_rng(0).uniform(size=(2, 16, 16, 3))
  >>> g = gt.gradients(model, images, target="predicted", at=["conv1", "conv2"])
  >>> maps = {tap: (g[tap] * g.activations[tap]).numpy().sum(-1) for tap in g}
  >>> gt.plot.layers(maps, images).savefig("layers.png")
"""

from gradtap.plot.attention_heads import attention
from gradtap.plot.curves import curve
from gradtap.plot.feature_maps import channels
from gradtap.plot.fields import patches, receptive
from gradtap.plot.figures import heatmap, layers
from gradtap.plot.flow_figures import flow
from gradtap.plot.maps import PictureError, robust_scale
from gradtap.plot.sequences import tokens
from gradtap.plot.time_series import series

__all__ = [
    "PictureError",
    "attention",
    "channels",
    "curve",
    "flow",
    "heatmap",
    "layers",
    "patches",
    "receptive",
    "robust_scale",
    "series",
    "tokens",
]
