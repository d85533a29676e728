"""Gradient flow: how activations and gradients fare on their way through a network, and why training goes wrong.

`measure` looks at every layer once and says what is wrong; `FlowMonitor` watches a training run; `compare` sets
activation functions and architectures beside each other. `gradtap.flow.architectures` has small networks of each kind.
"""

from gradtap.flow import architectures
from gradtap.flow.comparing import compare
from gradtap.flow.measuring import measure
from gradtap.flow.monitor import FlowMonitor

__all__ = ["FlowMonitor", "architectures", "compare", "measure"]
