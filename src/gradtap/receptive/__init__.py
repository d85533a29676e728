"""What the units of a layer see of the input: in theory, as measured, and which parts of images excite them most."""

from gradtap.receptive.measured import effective
from gradtap.receptive.strongest import patches
from gradtap.receptive.theory import theoretical

__all__ = ["effective", "patches", "theoretical"]
