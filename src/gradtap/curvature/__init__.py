"""Curvature: second derivatives of a target at a tap, and what can be known of them without forming them.

Everything is for each example by itself, at the input or at any tap. Whole matrices where they fit, else their
products with vectors, their diagonals, traces and outermost eigenvalues.
"""

from gradtap.curvature.cross import cross_hessian, cross_hvp
from gradtap.curvature.eigenpairs import top_eigenpairs
from gradtap.curvature.estimates import hessian_diagonal, trace_estimate
from gradtap.curvature.hessians import hessian
from gradtap.curvature.linearised import gauss_newton

__all__ = [
    "cross_hessian",
    "cross_hvp",
    "gauss_newton",
    "hessian",
    "hessian_diagonal",
    "top_eigenpairs",
    "trace_estimate",
]
