"""Pictures of what gradients say about places in an image.

Every function returns a ``matplotlib.figure.Figure`` and touches no global state of matplotlib: nothing pops up,
nothing has to be closed, and any thread may draw. matplotlib is imported by the first call, not by this package.

Example:
  >>> import gradtap as gt
  >>> g = gt.gradients(model, images, target="predicted", at=["conv1", "conv2"])
  >>> maps = {tap: (g[tap] * g.activations[tap]).numpy().sum(-1) for tap in g}
  >>> gt.plot.layers(maps, images).savefig("layers.png")
"""

from gradtap.plot.figures import heatmap, layers
from gradtap.plot.maps import PictureError, robust_scale

__all__ = ["PictureError", "heatmap", "layers", "robust_scale"]
