"""Attacks: small changes of an input, or of the activations at any tap, that change what a model says."""

from gradtap.attacks.gradient_steps import fgsm, pgd

__all__ = ["fgsm", "pgd"]
