"""Concepts: directions at a tap that examples define, and whether a target rises along them.

A concept is given by examples, not by weights: images of stripes, sentences with a negation. `concept_vector` finds the
direction that tells their activations from those of other examples; `tcav` asks whether a target of the model goes up
along it, for which share of inputs, and whether that is more than random examples give.
"""

from gradtap.concepts.activation_vectors import concept_vector
from gradtap.concepts.testing import tcav

__all__ = ["concept_vector", "tcav"]
