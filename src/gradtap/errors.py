"""Every way a call can go wrong, one class per cause.

A message is built from facts: what was asked, what is there, why, what to do. Each class has a page of its own
under ``docs/errors``; the last line of a message names it.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from types import FrameType
from typing import Self

Facts = Iterable[tuple[str, str]]

#: Keras colours its messages, which are quoted in ours.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _Documented:
    """What errors and warnings share: a page of the documentation for each class."""

    @classmethod
    def page(cls) -> str:
        """Name of the documentation page of this class, relative to the project's root."""
        stem = re.sub(r"(Error|Warning)$", "", cls.__name__)
        return f"docs/errors/{re.sub(r'(?<=[a-z])(?=[A-Z])', '-', stem).lower()}.md"


class GradtapError(_Documented, Exception):
    """Root of every error that gradtap raises on purpose.

    Args:
      headline: One sentence, complete on its own.
      facts: Pairs of a short label and a text, printed one to a line under the headline.
      do: What the reader can do about it; one remedy per item.

    Example:
      >>> print(GradtapError("no.", [("asked", "a")], ["ask `b`"]))
      no.
        asked       a
        do          ask `b`
        more        docs/errors/gradtap.md
    """

    #: AutoGraph wraps what is raised inside of a `tf.function` in an error of its own, but for errors with this mark.
    ag_pass_through = True

    def __init__(self, headline: str, facts: Facts = (), do: str | Sequence[str] = ()) -> None:
        self.headline = headline
        self.facts = [(str(label), _COLOUR.sub("", str(text))) for label, text in facts]
        self.do = [do] if isinstance(do, str) else list(do)
        # OSError would take more arguments for an error number and a file name.
        super().__init__(headline)

    def __str__(self) -> str:
        rows = [*self.facts, *(("do" if i == 0 else "or", remedy) for i, remedy in enumerate(self.do))]
        rows.append(("more", self.page()))
        return "\n".join([self.headline, *(_row(label, text) for label, text in rows)])


def _row(label: str, text: str) -> str:
    return f"  {label:<11} " + text.replace("\n", "\n" + " " * 14)


class SeveralErrors(GradtapError):
    """Independent mistakes in one call, reported together; ``.errors`` holds each of them."""

    def __init__(self, headline: str, facts: Facts = (), do: str | Sequence[str] = ()) -> None:
        super().__init__(headline, facts, do)
        self.errors: list[GradtapError] = []

    def __str__(self) -> str:
        listed = (f"- {type(e).__name__}: {e}".replace("\n", "\n  ") for e in self.errors)
        return "\n".join([self.headline, *listed])


# -- addresses ---------------------------------------------------------------------------------------------------------


class AddressSyntaxError(GradtapError, ValueError):
    """The address is not of the form ``PATH[CALL]:SIDE``."""


class UnknownTapError(GradtapError, LookupError):
    """No layer or op of the model has this address."""


class AmbiguousTapError(GradtapError, LookupError):
    """The address fits more than one layer."""


class SharedLayerError(AmbiguousTapError):
    """The layer runs more than once in a forward pass and the address does not say which call is meant."""


class CallRangeError(GradtapError, LookupError):
    """The layer runs fewer times than the asked call."""


class NoMatchError(GradtapError, LookupError):
    """A pattern or a class matches no layer that can be tapped."""


class SideError(GradtapError, LookupError):
    """The layer exists, but has no such side."""


class MissingResultError(GradtapError, KeyError):
    """The result holds nothing under this key."""


# -- no path from the tap to the target --------------------------------------------------------------------------------


class UnconnectedTapError(GradtapError, ValueError):
    """The target does not depend on the tap: it is on another branch, comes after the target, or is not used."""


class TapNotRunError(UnconnectedTapError):
    """The layer did not run in this forward pass, or ran where it cannot be reached."""


class NonDifferentiableError(UnconnectedTapError):
    """A path exists, but it is cut at an op that has no gradient."""


class NoRuleError(GradtapError, NotImplementedError):
    """A method that goes op by op, such as DeepLIFT, has no rule for an op on its way."""


class IntegerTapError(UnconnectedTapError):
    """The tapped tensor holds integers or booleans, which have no gradient."""


# -- targets -----------------------------------------------------------------------------------------------------------


class MissingTargetError(GradtapError, ValueError):
    """The model has more than one number per example and no target was given."""


class ClassRangeError(GradtapError, IndexError):
    """The class index is outside of the output."""


class TargetShapeError(GradtapError, ValueError):
    """The target is not one number per example."""


class TargetCountError(GradtapError, ValueError):
    """There are not as many targets as examples."""


class TargetTypeError(GradtapError, TypeError):
    """The target is of a kind that is not understood, or of a type that has no gradient."""


class OutputChoiceError(GradtapError, ValueError):
    """The model has several outputs and the target does not name one that exists."""


# -- inputs and arguments ----------------------------------------------------------------------------------------------


class ArgumentError(GradtapError, ValueError):
    """A keyword has a value outside of its choices."""


class InputStructureError(GradtapError, ValueError):
    """The inputs are not the arrays that the model takes: too many, too few, other names."""


class InputShapeError(GradtapError, ValueError):
    """An input has another shape than the model takes."""


class InputDtypeError(GradtapError, TypeError):
    """An input has a type that cannot be fed to the model."""


class StringInputError(InputDtypeError):
    """An input holds text."""


class RaggedInputError(InputDtypeError):
    """An input is ragged or sparse: its rows differ in length."""


class SymbolicInputError(InputDtypeError):
    """An input is a symbolic Keras tensor, which holds no numbers."""


class MemoryBudgetError(GradtapError, MemoryError):
    """The result would take more than half of the free memory."""

    def __new__(cls, *_: object) -> Self:
        """Make one: that of `MemoryError` refuses a class with other bases where it is called by name, as Dask does."""
        return Exception.__new__(cls)


class InputFileError(GradtapError):
    """An image or an array file cannot be read, or does not fit the model."""


class NotConvergedError(GradtapError, ArithmeticError):
    """An iteration did not reach its tolerance in the steps that it was given."""


class MissingExtraError(GradtapError, ImportError):
    """A package of an optional extra is not installed."""

    @classmethod
    def of(cls, extra: str, what: str) -> MissingExtraError:
        """The error for ``what``, which needs the extra named ``extra``."""
        return cls(f"{what} needs the extra `{extra}`.", [], [f'pip install "gradtap[{extra}]"'])


# -- models ------------------------------------------------------------------------------------------------------------


class ModelTypeError(GradtapError, TypeError):
    """What was given as a model is not one."""


class BackendError(GradtapError, RuntimeError):
    """Keras runs on another backend than TensorFlow."""


class ModelCallError(GradtapError, RuntimeError):
    """The model's own code raised while its forward pass was traced, or its backward pass built."""


class ModelRunError(GradtapError, RuntimeError):
    """TensorFlow failed while the traced model ran on these inputs."""


class ModelFileError(GradtapError, OSError):
    """A model file cannot be loaded."""


class MissingModelFileError(ModelFileError, FileNotFoundError):
    """There is no model file at this path."""


class BrokenModelFileError(ModelFileError):
    """The file is there, but it is no model, it is damaged, or it needs what is not there."""


class NewerModelFileError(ModelFileError):
    """The file was written by a newer version than the one installed."""


class UnsafeModelFileError(ModelFileError):
    """The file holds code that loading it would run."""


# -- stores of whole datasets ------------------------------------------------------------------------------------------


class StoreError(GradtapError, OSError):
    """A store cannot be made, read or written."""


class StoreMismatchError(StoreError, ValueError):
    """The store holds a run of another model, other data or other arguments."""


class StoreLockedError(StoreError, BlockingIOError):
    """Another run is at work on the store."""


# -- warnings ----------------------------------------------------------------------------------------------------------


class GradtapWarning(_Documented, UserWarning):
    """Root of every warning that gradtap issues."""

    def __str__(self) -> str:
        return f"{super().__str__()} More: {self.page()}"


class NonFiniteWarning(GradtapWarning):
    """NaN or infinity in the inputs, the activations or the gradients."""


class SaturatedTargetWarning(GradtapWarning):
    """A softmax or sigmoid is at its limit, where every gradient is zero."""


class NoLogitsWarning(GradtapWarning):
    """``logits=True`` was asked of an output that does not end in a softmax or sigmoid."""


class BatchCouplingWarning(GradtapWarning):
    """The examples of a batch share statistics or random draws, so the result depends on how the batch is split."""


class NoCurvatureWarning(GradtapWarning):
    """Every second derivative is zero: from the tap to the target all is linear, or linear in pieces."""


class ConceptWarning(GradtapWarning):
    """A concept cannot be told from the contrast, or a test of concepts has too few random sets to find any."""


# -- raising and warning -----------------------------------------------------------------------------------------------


def raise_all(errors: Sequence[GradtapError]) -> None:
    """Raise what was collected: nothing, the one error, one error of a shared class, or `SeveralErrors`."""
    each = [one for error in errors for one in (error.errors if isinstance(error, SeveralErrors) else [error])]
    if not each:
        return
    if len(each) == 1:
        raise each[0]
    if len({type(error) for error in each}) == 1:
        raise _as_one(each)
    several = SeveralErrors(f"{len(each)} things are wrong with this call.")
    several.errors = each
    raise several


def _as_one(errors: Sequence[GradtapError]) -> GradtapError:
    """One error that says what several of its class say, each fact and each remedy once."""
    first = errors[0]
    facts = list(first.facts)
    for error in errors[1:]:
        facts += [("also", error.headline), *(fact for fact in error.facts if fact not in facts)]
    remedies = dict.fromkeys(remedy for error in errors for remedy in error.do)
    return type(first)(first.headline, facts, list(remedies))


def kind_of(value: object) -> str:
    """The kind of a value, with its article.

    Example:
      >>> kind_of(3), kind_of([]), kind_of(None)
      ('an int', 'a list', 'None')
    """
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0].lower() in 'aeiou' or name == 'ndarray' else 'a'} {name}"


def received(value: object) -> str:
    """A value as messages show it: arrays by type and shape, all else by its text, on one line, never too long.

    Example:
      >>> received([1, 2])
      '[1, 2]'
    """
    try:
        shape: tuple[object, ...] = tuple(getattr(value, "shape", ()))
        text = f"{type(value).__name__} {shape} {_dtype_name(value)}" if shape else repr(value)
    except Exception:  # what an object of the user's does when it is looked at is not ours to pass on
        text = object.__repr__(value)
    text = " ".join(text.split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def _dtype_name(value: object) -> str:
    dtype = getattr(value, "dtype", "")
    return "text" if getattr(dtype, "kind", "") in ("U", "S") else str(getattr(dtype, "name", dtype))


def warn(warning: GradtapWarning) -> None:
    """Warn at the line of the caller's own code that led here, whatever lies between."""
    frame, depth = sys._getframe(1), 2
    while frame.f_back is not None and _package(frame) in ("gradtap", "tensorflow"):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(warning, stacklevel=depth)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def nearest(name: str, names: Iterable[str], limit: int = 3) -> str:
    """The names closest to a misspelt one, quoted and joined; empty where nothing is close.

    Example:
      >>> nearest("cnv1", ["conv1", "dense"])
      '`conv1`'
    """
    known = list(dict.fromkeys(names))
    by_case = {n.lower(): n for n in known}
    close = get_close_matches(name.lower(), list(by_case), n=limit, cutoff=0.5)
    tails = [n for n in known if n.rsplit("/", 1)[-1].lower() == name.rsplit("/", 1)[-1].lower()]
    chosen = list(dict.fromkeys([*tails[:limit], *(by_case[c] for c in close)]))[:limit]
    return ", ".join(f"`{c}`" for c in chosen)
