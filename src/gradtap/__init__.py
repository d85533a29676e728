"""Gradients of any model output with respect to the activations of any layer, for TensorFlow 2 and Keras 3.

Nothing heavy is imported until it is used, so that the command line answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Where each public name lives.
_HOMES = {
    "GradtapError": "gradtap.errors",
    "Tap": "gradtap.tap",
    "activations": "gradtap.differentiate",
    "forget": "gradtap.graph.model_files",
    "gradients": "gradtap.differentiate",
    "hvp": "gradtap.second_order",
    "jacobian": "gradtap.jacobians",
    "jvp": "gradtap.products",
    "patch": "gradtap.patching",
    "taps": "gradtap.listing",
    "trace": "gradtap.graph.model_files",
    "visualise": "gradtap.activation_maximisation",
    "vjp": "gradtap.products",
}
_MODULES = (
    "attacks",
    "attribution",
    "concepts",
    "curvature",
    "dataset",
    "errors",
    "evaluate",
    "flow",
    "plot",
    "receptive",
    "report",
    "targets",
)

__all__ = [
    "GradtapError",
    "Tap",
    "activations",
    "attacks",
    "attribution",
    "concepts",
    "curvature",
    "dataset",
    "errors",
    "evaluate",
    "flow",
    "forget",
    "gradients",
    "hvp",
    "jacobian",
    "jvp",
    "patch",
    "plot",
    "receptive",
    "report",
    "taps",
    "targets",
    "trace",
    "visualise",
    "vjp",
]

if TYPE_CHECKING:
    from gradtap import (
        attacks,
        attribution,
        concepts,
        curvature,
        dataset,
        errors,
        evaluate,
        flow,
        plot,
        receptive,
        report,
        targets,
    )
    from gradtap.activation_maximisation import visualise
    from gradtap.differentiate import activations, gradients
    from gradtap.errors import GradtapError
    from gradtap.graph.model_files import forget, trace
    from gradtap.jacobians import jacobian
    from gradtap.listing import taps
    from gradtap.patching import patch
    from gradtap.products import jvp, vjp
    from gradtap.second_order import hvp
    from gradtap.tap import Tap


def __getattr__(name: str) -> Any:
    if name not in _HOMES and name not in _MODULES:
        raise AttributeError(f"module 'gradtap' has no attribute {name!r}")
    try:
        home = import_module(_HOMES.get(name, f"gradtap.{name}"))
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        from gradtap.errors import MissingExtraError

        raise MissingExtraError(
            "gradtap needs TensorFlow, which is not installed.",
            [],
            ['pip install "gradtap[cpu]" for tensorflow-cpu', 'pip install "gradtap[tf]" for tensorflow'],
        ) from error
    value = home if name in _MODULES else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
