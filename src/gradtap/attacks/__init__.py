"""Attacks: small changes of an input, or of the activations at any tap, that change what a model says."""

from gradtap.attacks.automatic_steps import auto_pgd
from gradtap.attacks.features import feature_match
from gradtap.attacks.gradient_steps import fgsm, pgd
from gradtap.attacks.least_change import carlini_wagner_l2
from gradtap.attacks.linear_boundaries import deep_fool
from gradtap.attacks.robustness import robust_accuracy

__all__ = ["auto_pgd", "carlini_wagner_l2", "deep_fool", "feature_match", "fgsm", "pgd", "robust_accuracy"]
