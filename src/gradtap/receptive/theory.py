"""Theoretical receptive fields: what the units of a layer can see of the input."""

from __future__ import annotations

from collections.abc import Sequence

from gradtap.graph import surgery
from gradtap.receptive.geometry import fields
from gradtap.receptive.results import ReceptiveFields
from gradtap.types import Address, Model, Structure


@surgery.unconverted
def theoretical(
    model: Model, inputs: Structure = None, *, at: Address | Sequence[Address], along: Address = ":input"
) -> ReceptiveFields:
    r"""What the units of a layer can see of the input, from the ops between the two.

    Unit :math:`u` sees the positions from :math:`\text{start} + u \cdot \text{stride}` on, :math:`\text{size}` of them,
    along each axis between batch and channels. Convolutions and transposed ones, pooling, dilation, padding, slices,
    up-sampling and resizing, normalisation, branches and their merging are followed exactly; what mixes all positions,
    attention, a dense layer behind a flattened map, a global pooling, a recurrent layer, shows each unit everything.
    So does an op that is not known: what is said is never too small.

    Args:
      model: See `gradtap.gradients`.
      inputs: One batch, of which the shape alone counts. May be left out for a model that says what it takes, or has
        been called; axes that it leaves free are taken as 256 long, which decides where padding goes.
      at: Addresses of layers, as in `gradtap.gradients`.
      along: Whose positions are counted: an input, or a layer before the others.

    Returns:
      `ReceptiveFields`: a mapping from address to a value with ``.size``, ``.stride`` and ``.start``, one number for
      each axis, in positions, ``.everything``, and ``.region(unit)``, slices of the input. With one tap the mapping
      itself has them too.

    Raises:
      UnconnectedTapError: A tap does not depend on the input.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras
      >>> conv, pool = keras.layers.Conv2D(4, 3, padding="same"), keras.layers.MaxPool2D(name="pool")
      >>> model = keras.Sequential([keras.Input((32, 32, 3)), conv, pool])
      >>> field = gt.receptive.theoretical(model, at="pool")
      >>> field.size, field.stride, field.start
      ((4, 4), (2, 2), (-1, -1))

    References:
      Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, https://doi.org/10.23915/distill.00021,
      2019.
    """
    return fields(model, inputs, at, along)
