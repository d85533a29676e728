"""One computation for the command line: the arrays, their summaries, and how they are written, printed and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradtap.cli.options import Class, as_target, output_of
from gradtap.cli.reading import Inputs
from gradtap.cli.summary import TapSummary, summarise
from gradtap.errors import GradtapError, MissingTargetError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Result:
    """Gradients and what belongs to them, as NumPy arrays.

    Args:
      inputs: What the model was run on.
      target: The target as it was asked for, in words.
      scores: ``(batch,)``, the target of each example.
      classes: The class of each example's score; empty where the target is no class.
      outputs: Name to output of the model, ``(batch, ...)``; one output without a name is called ``output``.
      activations: Address to activation, in forward order.
      gradients: Address to gradient, in forward order.
      skipped: Address to the reason why a pattern left it out.
    """

    inputs: Inputs
    target: str
    scores: Array
    classes: list[int]
    outputs: dict[str, Array]
    activations: dict[str, Array]
    gradients: dict[str, Array]
    skipped: dict[str, str]

    def summaries(self) -> list[TapSummary]:
        """One summary for each tap, in forward order."""
        return [summarise(address, self.activations[address], self.gradients[address]) for address in self.gradients]

    def arrays(self) -> dict[str, Array]:
        """Everything by the names that it has in a ``.npz``."""
        import numpy as np

        return {
            **{f"gradient/{address}": array for address, array in self.gradients.items()},
            **{f"activation/{address}": array for address, array in self.activations.items()},
            **self.outputs,
            "target": self.scores,
            "inputs": np.array(self.inputs.names),
        }

    def lines(self, class_names: Sequence[str] | None = None) -> list[str]:
        """One line for each example: its name, its class and its score."""
        lines = []
        for index, name in enumerate(self.inputs.names[: len(self.scores)]):
            parts = [name]
            if self.classes:
                k = self.classes[index]
                parts.append(f"class {k}" + (f" {class_names[k].split(',')[0]}" if class_names else ""))
            lines.append("  ".join([*parts, f"{self.scores[index]:.4g}"]))
        return lines

    def as_json(self) -> dict[str, Any]:
        """The same without the arrays, for JSON."""
        classes: Sequence[int | None] = self.classes or [None] * len(self.scores)
        return {
            "target": self.target,
            "inputs": [
                {"name": name, "class": k, "score": float(score)}
                for name, k, score in zip(self.inputs.names, classes, self.scores, strict=False)
            ],
            "taps": [summary.as_json() for summary in self.summaries()],
            "skipped": self.skipped,
        }


def compute(
    trace: Any,
    inputs: Inputs,
    at: Sequence[str],
    *,
    target: Class | None = None,
    output: str | None = None,
    logits: bool = False,
    batch_size: int | None = None,
) -> Result:
    """Differentiate and gather everything as NumPy arrays.

    Args:
      trace: A model.
      inputs: What to run it on.
      at: Addresses.
      target: A class, a position, or ``"predicted"``; None means the model's one number per example where it has
        no more than that, else ``"predicted"``.
      output: Name or position of the output that the class belongs to.
      logits: Take the score before a final softmax or sigmoid.
      batch_size: Examples in memory at a time.

    Returns:
      The result.

    Raises:
      GradtapError: Anything that ``gradtap.gradients`` raises.
    """
    import gradtap as gt

    asked: Any = as_target(target, output, logits)
    try:
        found = gt.gradients(trace, inputs.values, target=asked, at=list(at), batch_size=batch_size)
    except GradtapError as error:
        if not any(isinstance(one, MissingTargetError) for one in getattr(error, "errors", [error])):
            raise
        asked = target = "predicted"
        found = gt.gradients(trace, inputs.values, target=asked, at=list(at), batch_size=batch_size)
    outputs = _named_outputs(found.outputs, trace)
    return Result(
        inputs=inputs,
        target="one number per example" if asked is None else asked if isinstance(asked, str) else repr(asked),
        scores=_array(found.target),
        classes=_classes(target, asked, _scored(outputs, output_of(output))),
        outputs=outputs,
        activations={str(address): _array(found.activations[address]) for address in found},
        gradients={str(address): _array(found[address]) for address in found},
        skipped={str(address): str(reason) for address, reason in found.skipped.items()},
    )


def _array(tensor: Any) -> Array:
    import numpy as np

    array = np.asarray(tensor)
    # NumPy cannot store bfloat16: a .npz would hold two nameless bytes for each number.
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _named_outputs(outputs: Any, trace: Any) -> dict[str, Array]:
    if isinstance(outputs, Mapping):
        return {f"output/{name}": _array(value) for name, value in outputs.items()}
    if isinstance(outputs, list | tuple):
        names = trace.source.output_names() or []
        names = names if len(names) == len(outputs) else range(len(outputs))
        return {f"output/{name}": _array(value) for name, value in zip(names, outputs, strict=True)}
    return {"output": _array(outputs)}


def _scored(outputs: Mapping[str, Array], place: int | str | None) -> Array | None:
    """The output that the class belongs to; None where that is not plain."""
    if place is None:
        return next(iter(outputs.values())) if len(outputs) == 1 else None
    if isinstance(place, int) and place < len(outputs):
        return list(outputs.values())[place]
    return outputs.get(f"output/{place}")


def _classes(target: Class | None, asked: Any, scored: Array | None) -> list[int]:
    if scored is None or scored.ndim != 2 or asked is None:
        return []
    if isinstance(target, int):
        return [target % scored.shape[1]] * len(scored)
    return [int(k) for k in scored.argmax(axis=1)]
