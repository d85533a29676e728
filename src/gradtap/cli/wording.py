"""The library's messages in the words of the command: options for keywords, commands for calls.

The library says `target=gt.targets.class_score(3, output="p")`; whoever stands in a shell needs
`--target 3 --target-output p`. What has no option is left out.
"""

from __future__ import annotations

import re

from gradtap.errors import GradtapError, SeveralErrors

_QUOTED = r"[\"']([^\"']+)[\"']"
#: What the library writes, and what it is called in a shell; None where it has no option.
_WORDS: tuple[tuple[str, str | None], ...] = (
    (r"^unconnected=", None),
    (r"^training=", None),
    (r"^batch_size=None\b", None),
    (r"^(a mask|a list of such tuples|a list of ints)$", None),
    (r"^for an op's name with a colon use Tap\.op", None),
    (r"; Tap\.op\(name\) taps an op by its name", ""),
    (r", or give a callable of all outputs", ""),
    (r"^(if you trust where it comes from): gt\.trace\(path, safe_mode=False\)", r"--unsafe, \1"),
    (r"gt\.taps\(model(?:, inputs)?\)", "gradtap taps MODEL"),
    (r"^pass a (?:list in this order, or a dict with these names|dict with these names, or a list in this order)",
     "give one .npz with an array under each of these names"),
    (r"^give a tuple for the position and the class", "--target with the position and the class, such as 12,40,3"),
    (r"^give a tuple \(([^()]+)\)", r"--target (\1)"),
    (r"target=\(([^()]+)\)", r"--target (\1)"),
    (rf"target={_QUOTED}", r"--target \1"),
    (r"target=(-?\w+)(?![\w.(\[])", r"--target \1"),
    (r"batch_size=(\d+)", r"--batch-size \1"),
    (r"logits=True", "--logits"),
    (r"gt\.dataset\.run, which", "gradtap run, which"),
    (r"target=3 for all examples, or an array with one class for each",
     "--target 3 for all examples, or a .npy with one class for each"),
    (r"retry=True", "--retry"),
    (r'engine="local"', "--engine local"),
    (r"columns=\[\.\.\.\]", "--column NAME"),
    (r"leave image_size= out", "leave --size out"),
    (r"leave (workers|block|dtype)= out", r"leave --\1 out"),
    (r"^give one of them, or a function like them$", "give one of them"),
    (r"^method=gt\.dataset\.(\w+)\((.*)\)$", r"--method \1"),
    (r"^give (\w+)=\.\.\.", r"--option \1=..."),
    (r", (\w+)=\.\.\.", r" --option \1=..."),
    (r"^(edges|q|k|accuracy|reduce|per)=[\"']?([^ \"']+)[\"']?$", r"--option \1=\2"),
)  # fmt: skip
#: Keywords as headlines and facts name them, and their options.
_OPTIONS = {"columns": "column", "image_size": "size", "batch_size": "batch-size"} | {
    name: name
    for name in ("at", "block", "compression", "dtype", "preprocess", "retry", "scheduler", "target", "workers")
}
_KEYWORD = re.compile(rf"\b({'|'.join(_OPTIONS)})=(?:'([^']*)'|\((\d+), (\d+)\)|(-?\w+(?:\.\d+)?))?(?![\w(\[])")
_PATH = re.compile(r"\b(?:Posix|Windows)Path\('([^']*)'\)")
_STATISTIC = re.compile(r"\bgt\.dataset\.(\w+)\(\)")
_CLASS_SCORE = re.compile(r"(?:target=)?gt\.targets\.class_score\((\([^()]*\)|[^(),]+)((?:, \w+=[^(),]+)*)\)")
#: Whatever still speaks of Python's side of the library is of no use in a shell.
_PYTHON = re.compile(
    r"\bgt\.|\b(?:target|at|of|training|unconnected|safe_mode|batch_size|columns|image_size|preprocess|dtype)=|\bcallable\b|\blambda\b"
)


def for_a_shell(error: GradtapError) -> GradtapError:
    """The same error, with remedies that can be typed into a shell.

    Args:
      error: An error of the library; it is changed.
    """
    for one in error.errors if isinstance(error, SeveralErrors) else [error]:
        one.headline = _stated(one.headline)
        one.facts[:] = [(label, _stated(text)) for label, text in one.facts]
        one.do[:] = dict.fromkeys(said for remedy in one.do if (said := _remedy(remedy)))
    return error


def sentence_for_a_shell(text: str) -> str:
    """A warning's text with options for keywords."""
    text = text.replace("gt.targets.class_score(k, logits=True) differentiates", "--logits differentiates")
    return text.replace("logits=True", "--logits")


def _stated(text: str) -> str:
    """A headline or a fact with options for keywords, and paths as they are typed."""
    return _STATISTIC.sub(r"\1", _PATH.sub(r"\1", _KEYWORD.sub(_option, text)))


def _option(match: re.Match[str]) -> str:
    """`columns=` as `--column`, `image_size=(32, 48)` as `--size 32x48`."""
    size = f"{match[3]}x{match[4]}" if match[3] else None
    value = next((value for value in (match[2], size, match[5]) if value is not None), "")
    return f"--{_OPTIONS[match[1]]} {value}".rstrip()


def _remedy(text: str) -> str:
    """A remedy in the words of the command; empty where there are none for it."""
    text = _CLASS_SCORE.sub(_options, text)
    for pattern, words in _WORDS:
        found = re.search(pattern, text)
        if found and words is None:
            return ""
        text = re.sub(pattern, words or "", text)
    if _PYTHON.search(text):
        return ""
    return re.sub(r"--target \(([^()]+)\)", lambda found: f"--target {found[1].replace(' ', '')}", text)


def _options(match: re.Match[str]) -> str:
    """`class_score(k, output="p", logits=True)` as options."""
    k = match[1].strip("()\"'").replace(" ", "")
    output = re.search(rf"output={_QUOTED}", match[2])
    options = [f"--target {k}", *([f"--target-output {output[1]}"] if output else [])]
    return " ".join([*options, *(["--logits"] if "logits=True" in match[2] else [])])
