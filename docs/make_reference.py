"""Write ``docs/reference.md`` from the docstrings of the public names.

Run ``python docs/make_reference.py`` after a public docstring or signature has changed; a test compares the page.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import gradtap

PAGE = Path(__file__).with_name("reference.md")

#: What calls return, and a module that knows it. Nobody has to import these classes, so they are no top-level names.
RETURNED = {
    "TapValues": "gradtap.results",
    "Gradients": "gradtap.results",
    "Activations": "gradtap.results",
    "PatchingEffects": "gradtap.results",
    "AttentionRelevance": "gradtap.results",
    "Curves": "gradtap.evaluate.curves",
    "Randomization": "gradtap.evaluate.sanity",
    "RandomizedLayer": "gradtap.evaluate.sanity",
    "Estimates": "gradtap.curvature.estimates",
    "Eigenpairs": "gradtap.curvature.eigenpairs",
    "Adversarial": "gradtap.attacks.results",
    "Matched": "gradtap.attacks.features",
    "RobustAccuracy": "gradtap.attacks.robustness",
    "FlowMeasurement": "gradtap.flow.rows",
    "FlowRow": "gradtap.flow.rows",
    "WeightRow": "gradtap.flow.rows",
    "TimeProfile": "gradtap.flow.rows",
    "Finding": "gradtap.flow.rows",
    "Histogram": "gradtap.flow.rows",
    "FlowMoment": "gradtap.flow.monitor",
    "Comparison": "gradtap.flow.comparison",
    "ComparedModel": "gradtap.flow.comparison",
    "ComparedTap": "gradtap.flow.comparison",
    "Interval": "gradtap.flow.intervals",
    "ConceptVectors": "gradtap.concepts.activation_vectors",
    "ConceptVector": "gradtap.concepts.activation_vectors",
    "ConceptTest": "gradtap.concepts.scores",
    "ConceptScore": "gradtap.concepts.scores",
    "Stored": "gradtap.dataset.stored",
    "StoredArray": "gradtap.dataset.stored",
    "Progress": "gradtap.dataset.progress",
    "ReceptiveFields": "gradtap.receptive.results",
    "ReceptiveField": "gradtap.receptive.results",
    "EffectiveFields": "gradtap.receptive.results",
    "EffectiveField": "gradtap.receptive.results",
    "StrongestPatches": "gradtap.receptive.results",
    "Patch": "gradtap.receptive.results",
    "Document": "gradtap.report.document",
    "TapList": "gradtap.listing",
    "TapEntry": "gradtap.listing",
    "Trace": "gradtap.graph.model_files",
    "Visualisation": "gradtap.activation_maximisation",
}

SECTIONS = ("Args", "Returns", "Yields", "Raises", "Example", "References")

HEAD = """# Reference

Made by `python docs/make_reference.py` from the docstrings; a test compares the two. Do not edit this page.
"""

WORDS = """
Shapes are written as `(batch, ...)`. `Model`, `Structure`, `Address` and `Tensor` are names for what cannot be typed
more closely: a model as [how it works](how-it-works.md#what-a-model-may-be) lists them, a nest of arrays, an address as
the [tutorial](tutorial.md#addresses) shows it, and a `tf.Tensor`.
"""


@dataclass(frozen=True)
class Entry:
    """A public name and what stands behind it."""

    name: str
    value: Any


def entries() -> dict[str, list[Entry]]:
    """Every public name, by the heading it stands under."""
    named = {name: getattr(gradtap, name) for name in gradtap.__all__}
    top = [Entry(f"gradtap.{n}", v) for n, v in named.items() if not inspect.ismodule(v) and not _is_error(v)]
    found = {"gradtap": sorted(top, key=lambda e: e.name.lower())}
    found["What calls return"] = [Entry(n, getattr(importlib.import_module(m), n)) for n, m in RETURNED.items()]
    for name, module in sorted(named.items()):
        if inspect.ismodule(module):
            found[f"gradtap.{name}"] = list(_module_entries(module))
    return found


def _module_entries(module: ModuleType) -> Iterator[Entry]:
    if hasattr(module, "__all__"):
        for name in sorted(module.__all__):
            value = getattr(module, name)
            yield from (
                _module_entries(value) if inspect.ismodule(value) else [Entry(f"{module.__name__}.{name}", value)]
            )
        return
    # A module without a list of its own offers its exceptions.
    for name, value in vars(module).items():
        if _is_error(value) and value.__module__ == module.__name__:
            yield Entry(f"{module.__name__}.{name}", value)


def _is_error(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


# -- docstrings --------------------------------------------------------------------------------------------------------


def sections(value: Any) -> dict[str, str]:
    """A docstring by section; the text before the first one, and after the last one, under ``""``."""
    found: dict[str, list[str]] = {"": []}
    current = ""
    for line in (inspect.getdoc(value) or "").splitlines():
        heading = line[:-1] if line.endswith(":") else ""
        if heading in SECTIONS:
            current = heading
            found[current] = []
        elif current and line and not line.startswith(" "):
            current = ""
            found[""] += ["", line]
        else:
            found[current].append(line)
    texts = {name: inspect.cleandoc("\n" + "\n".join(lines)) for name, lines in found.items()}
    return {name: re.sub(r"\n{3,}", "\n\n", text) for name, text in texts.items()}


def items(section: str) -> dict[str, str]:
    """The entries ``name: text`` of a section, by name."""
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        match = re.match(r"(\*{0,2}\w+): (.*)", line)
        if match:
            name = match[1]
            found[name] = match[2]
        elif name:
            found[name] += " " + line.strip()
    return found


#: What results are made by, inside of gradtap.
INTERNAL = ("at",)


def members(value: type) -> dict[str, Any]:
    """The public methods and properties that a class defines itself or takes over from gradtap's own classes."""
    found: dict[str, Any] = {}
    for owner in reversed(value.__mro__):
        if owner.__module__.startswith("gradtap"):
            found |= {n: m for n, m in vars(owner).items() if not n.startswith("_") and _is_member(m)}
    return {n: m for n, m in found.items() if not (n in INTERNAL and isinstance(m, classmethod))}


def _is_member(member: Any) -> bool:
    return isinstance(member, (property, classmethod, staticmethod)) or inspect.isfunction(member)


# -- markdown ----------------------------------------------------------------------------------------------------------


def render() -> str:
    """The whole page."""
    return "\n".join([HEAD + WORDS, *parts().values()]).rstrip() + "\n"


def parts() -> dict[str, str]:
    """The page below its head, by heading; the site has a page for each."""
    found = {}
    for heading, named in entries().items():
        lines = [f"## {heading if ' ' in heading else f'`{heading}`'}\n"]
        if heading.startswith("gradtap."):
            lines += [_text(sections(importlib.import_module(heading))[""]), ""]
        if all(_is_error(entry.value) for entry in named):
            lines += _error_table(named)
        else:
            lines += [line for entry in named for line in _entry(entry)]
        found[heading] = "\n".join(lines)
    return found


def _entry(entry: Entry) -> list[str]:
    said = sections(entry.value)
    returned = entry.name in RETURNED
    lines = [f"### `{entry.name}`\n"]
    if not returned:
        lines += ["```py", signature(entry), "```\n"]
    lines += [_text(said[""]), ""]
    for name in SECTIONS:
        if name == "Args" and returned:
            lines += _attributes(entry.value, said.get(name, ""))
        elif said.get(name):
            lines += [f"**{name}**\n", _section(name, said[name]), ""]
    if inspect.isclass(entry.value):
        lines += _members(entry.value)
    return lines


def _section(name: str, text: str) -> str:
    if name in ("Args", "Raises"):
        return "\n".join(f"- `{item}`: {_text(said)}" for item, said in items(text).items())
    if name == "Example":
        text = re.sub(r" *# doctest: .*", "", _text(text))
        return re.sub(r"(?ms)^>>> .*?(?=^\s*$|\Z)", lambda m: f"```pycon\n{m[0].rstrip()}\n```\n", text).rstrip()
    return _text(text)


def _attributes(value: type, arguments: str) -> list[str]:
    """What can be read from a result: the arguments that it keeps under their own names."""
    source = inspect.getsource(value)
    kept = {n: t for n, t in items(arguments).items() if is_dataclass(value) or f"self.{n} = " in source}
    return [*(f"- `.{name}`: {_text(said)}" for name, said in kept.items()), ""] if kept else []


def _members(value: type) -> list[str]:
    rows = []
    for name, member in members(value).items():
        called = "" if isinstance(member, property) else _method_signature(member)
        rows.append(f"- `.{name}{called}`: {_text(_first_line(member))}")
    return [*rows, ""] if rows else []


def _method_signature(member: Any) -> str:
    """How a method is called, on one line, without what it is bound to."""
    function = getattr(member, "__func__", member)
    parameters = list(inspect.signature(function).parameters.values())
    bound = parameters if isinstance(member, staticmethod) else parameters[1:]
    returned = inspect.signature(function).return_annotation
    end = "" if returned in (inspect.Signature.empty, "None") else f" -> {_annotation(returned)}"
    return f"({', '.join(_called(bound))}){end}"


def _called(parameters: list[inspect.Parameter]) -> list[str]:
    """Parameters as they are written in a signature."""
    texts: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not any(text.startswith("*") for text in texts):
            texts.append("*")
        texts.append(_parameter(parameter))
    return texts


def _error_table(found: list[Entry]) -> list[str]:
    lines = ["| class | what happened | is also |", "|---|---|---|"]
    for entry in found:
        parents = [b for b in entry.value.__mro__[1:] if b not in (Exception, BaseException, object)]
        names = ", ".join(f"`{b.__name__}`" for b in parents if b.__module__ == "builtins" or b in _values(found))
        lines.append(f"| `{entry.value.__name__}` | {_text(_first_line(entry.value))} | {names} |")
    return [*lines, ""]


def _values(found: list[Entry]) -> list[Any]:
    return [entry.value for entry in found]


def signature(entry: Entry) -> str:
    """How a name is called, with annotations as they are written in the source."""
    short = entry.name.rsplit(".", 1)[-1]
    try:
        parameters = list(inspect.signature(entry.value).parameters.values())
        returned = inspect.signature(entry.value).return_annotation
    except ValueError:
        return short
    if inspect.isclass(entry.value) and getattr(entry.value, "_is_protocol", False):
        return f"class {short}(Protocol)"
    texts = _called(parameters)
    end = "" if inspect.isclass(entry.value) or returned is inspect.Signature.empty else f" -> {_annotation(returned)}"
    line = f"{short}({', '.join(texts)}){end}"
    return line if len(line) <= 100 else f"{short}(\n    " + ",\n    ".join(texts) + f",\n){end}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = stars + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        text += f" = {_default(parameter.default)}"
    return text


def _default(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    # A class is written as in the source; what a dataclass makes anew each time has no value to show.
    shown = value.__name__ if inspect.isclass(value) else repr(value)
    return "..." if shown == "<factory>" else shown


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _first_line(value: Any) -> str:
    return (inspect.getdoc(value) or "").split("\n", 1)[0]


def _text(text: str) -> str:
    """Docstring markup as Markdown: double backquotes, and formulas."""
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    text = re.sub(r"(?m)^\.\. math:: (.*(?:\n +\S.*)*)$", lambda m: f"$${' '.join(m[1].split())}$$", text)
    return text.replace("``", "`")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    PAGE.write_text(render(), encoding="utf-8")
