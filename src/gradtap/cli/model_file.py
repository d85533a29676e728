"""A model file, loaded once, and what it says it takes."""

from __future__ import annotations

from typing import Any

from gradtap.cli.arrays import Declared, InputSpec


def load_model(path: str, *, safe_mode: bool = True) -> Any:
    """Load a model file as a `Trace`, so that it is read and traced once however often it is used.

    Args:
      path: ``.keras``, ``.h5``, ``.hdf5`` or a SavedModel folder.
      safe_mode: Refuse a file that holds code.

    Returns:
      What is accepted wherever a model is.
    """
    import gradtap as gt
    from gradtap.cli.quiet import start_tensorflow

    start_tensorflow()
    return gt.trace(path, safe_mode=safe_mode)


def declared_inputs(trace: Any) -> Declared:
    """Tell what a model takes.

    Args:
      trace: A `Trace`.

    Returns:
      Name of each input to what it takes; empty where the model does not say.
    """
    from gradtap.graph.keras_internals import built_shapes

    declared = trace.source.declared_inputs()
    if declared is not None:
        specs = map(InputSpec, declared.shapes, declared.dtypes)
        return dict(zip(declared.names, specs, strict=True))
    # A subclassed model declares nothing, but its file keeps the shape that it was built with.
    shape = built_shapes(trace.model)
    if isinstance(shape, tuple | list) and shape and all(size is None or isinstance(size, int) for size in shape):
        return {"inputs": InputSpec((None, *shape[1:]), "float32")}
    return {}
