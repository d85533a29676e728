"""Attribution: how much each unit at a tap, or each entry of the input, has to do with a target.

The input is one more tap: each method takes ``at=":input"`` as it takes any layer. Every method is
``method(model, inputs, *, target=None, at=":input", ...)``, ends in the keywords of `gradtap.gradients`, and returns a
mapping from address to attribution.
"""

from gradtap.attribution.paths import conductance, integrated_gradients, internal_influence
from gradtap.baselines import at_tap

__all__ = [
    "at_tap",
    "conductance",
    "integrated_gradients",
    "internal_influence",
]
