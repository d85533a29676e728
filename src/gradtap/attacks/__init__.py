"""Attacks: small changes of an input, or of the activations at any tap, that change what a model says."""

from gradtap.attacks.features import feature_match
from gradtap.attacks.gradient_steps import fgsm, pgd
from gradtap.attacks.robustness import robust_accuracy

__all__ = ["feature_match", "fgsm", "pgd", "robust_accuracy"]
