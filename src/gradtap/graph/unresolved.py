"""What is said of an address that means nothing in a model: what is near it, what it holds, what would match."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from gradtap import errors
from gradtap.graph.tracing import ForwardGraph, TracedLayer
from gradtap.tap import Tap, path_matches


def unknown_layer(layers: Sequence[TracedLayer], tap: Tap, written: str) -> errors.UnknownTapError:
    """No layer has this path: it is misspelt, or the name of a list or dict of layers."""
    held = dict(_held(layers, tap.path))
    known = [s for layer in layers if layer.path for s in spellings(layer)]
    do = ["gt.taps(model) lists every address"]
    entry = f"{tap.path}/{tap.call}"
    if isinstance(tap.call, int) and entry in known:
        do.insert(0, f"`{replace(tap, path=entry, call=None)}`: an item of a list is a name of the path")
    if held:
        flat = all("/" not in below for below in held.values())
        pattern = replace(tap, path=f"{tap.path}/{'*' if flat else '**'}", call=None)
        if not any(path_matches(pattern.path, spelling) for spelling in known):
            pattern = replace(pattern, path=f"**/{pattern.path}")
        do.insert(-1, f"`{pattern}` for {'every one of them' if len(held) > 1 else 'it'}")
        count = f"{len(held)} layers" if len(held) > 1 else "one layer"
        return errors.UnknownTapError(f"`{tap.path}` holds {count}: {some(list(held))}, and is none itself.", [], do)
    close = errors.nearest(tap.path, known)
    return errors.UnknownTapError(
        f"no layer `{tap.path}`" + (f" (asked as `{written}`)" if written != tap.path else "") + " in the model.",
        [("nearest", close)] if close else [("layers", some(known) or "none that can be named")],
        do,
    )


def no_match(graph: ForwardGraph, tap: Tap, what: str, fitting: Sequence[TracedLayer]) -> errors.NoMatchError:
    """A pattern or a class matches nothing that can be tapped.

    Args:
      graph: A traced forward pass.
      tap: The pattern; `**` for a class.
      what: What it is called in messages.
      fitting: The layers that the path or the class fits.
    """
    layers = [layer for layer in graph.layers if layer.path]
    do = ["gt.taps(model) lists every address, with the class of each layer"]
    if fitting:
        facts = [("it fits", some([layer.path for layer in fitting]))]
        if any(layer.path in graph.calls for layer in fitting):
            return errors.NoMatchError(f"no layer that {what} matches has that side or that call.", facts, do)
        ran = f"training={graph.training}"
        return errors.NoMatchError(f"no layer that {what} matches ran in this forward pass ({ran}).", facts, do)
    deeper = replace(tap, path=f"**/{tap.path}")
    found = [] if tap.path.startswith("**") else [layer.path for layer in layers if fits(deeper.path, layer)]
    if found:
        facts = [("deeper", some(found))]
        do.insert(0, f"`{deeper}` matches {len(found)}: `**/` looks at every depth, and `*` stays within one name")
    else:
        facts = [("layers", some([t.path for t in layers])), ("classes", some([t.kind for t in layers]))]
        do.insert(0, "`*` stays within one name; `**/name` looks at every depth")
    return errors.NoMatchError(f"{what} matches no layer of the model.", facts, do)


def _held(layers: Sequence[TracedLayer], name: str) -> Iterator[tuple[str, str]]:
    """The layers in a list or dict of this name: the path of each, and what of it stands below the name."""
    outermost: set[str] = set()
    for layer in layers:
        for spelling in spellings(layer):
            _, found, below = f"/{spelling}".partition(f"/{name}/")
            if name and found and not any(layer.path.startswith(f"{outer}/") for outer in outermost):
                outermost.add(layer.path)
                yield layer.path, below
                break


def spellings(layer: TracedLayer) -> list[str]:
    """Every full path that stands for a layer, the canonical one first."""
    return ["/".join(choice) for choice in product(*layer.steps)]


def fits(pattern: str, layer: TracedLayer) -> bool:
    """Whether a layer goes by a path that fits a glob."""
    return any(path_matches(pattern, spelling) for spelling in spellings(layer))


def some(names: Sequence[str], limit: int = 8) -> str:
    """The first of some names, quoted, and how many more there are."""
    shown = ", ".join(f"`{name}`" for name in list(dict.fromkeys(names))[:limit])
    more = len(dict.fromkeys(names)) - limit
    return shown + (f" and {more} more" if more > 0 else "")


def hints(asked: Any) -> list[str]:
    """What may have been meant by something that is no address."""
    made_by = getattr(getattr(asked, "_keras_history", None), "operation", None)
    if made_by is not None:
        return [f"the tensor is what the layer `{made_by.name}` returns: address it by that name"]
    if hasattr(asked, "assign"):
        return [f"a weight is addressed by its layer and its name there: `dense:{asked.name.rpartition('/')[2]}`"]
    return []


def no_weight(key: str) -> errors.GradtapError:
    """What is said to a question about each example that names a weight."""
    return errors.SideError(
        f"`{key}` is a weight, which has nothing for each example.",
        [],
        ["gt.gradients gives its gradient, that of the sum over the batch", "tap what the layer returns"],
    )
