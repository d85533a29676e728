"""Evaluate explanations: whether what a method points at is what the model goes by.

Every function takes a method of `gradtap.attribution`, or any function that is called in the same way, and most of them
take attributions that are there already.
"""

from gradtap.evaluate.curves import deletion, insertion
from gradtap.evaluate.perturbed import infidelity, sensitivity
from gradtap.evaluate.sanity import randomization

__all__ = ["deletion", "infidelity", "insertion", "randomization", "sensitivity"]
