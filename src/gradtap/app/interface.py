"""The explorer's page, made with Gradio; every event asks the explorer and shows what it says, or why it cannot."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from gradtap import errors
from gradtap.app.explorer import METHODS, SLOW, Explorer, Shown, read_class
from gradtap.errors import MissingExtraError

_STYLE = """
#layers { max-height: 32rem; overflow-y: auto; }
#layers label { font: 12px ui-monospace, monospace; padding: 2px 6px; white-space: pre; width: 100%; }
#layers .wrap { gap: 1px; flex-direction: column; flex-wrap: nowrap; }
"""
#: Uploads beyond this are refused before they are read.
MOST_BYTES = "20mb"
#: The layer of a second model, unless another of its own is chosen.
CLICKED = "the layer that is clicked on, or the one as far down"


def interface(explorer: Explorer) -> Any:
    """The page as Gradio's blocks.

    Args:
      explorer: What is shown.

    Raises:
      MissingExtraError: Gradio is not installed.
    """
    gradio = _gradio()
    models = list(explorer.models)
    reports = Path(tempfile.mkdtemp(prefix="reports-", dir=_folder()))
    layers = explorer.layers(models[0])
    start = layers[-1][1] if layers else None
    targets = _targets(explorer, models[0])
    with gradio.Blocks(title=f"gradtap: {models[0]}", analytics_enabled=False) as blocks:
        own = gradio.State([])
        chosen = gradio.State(0)
        gradio.Markdown(f"# {', '.join(models)}\nPick an image, click a layer, choose a method.")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=280):
                gallery = gradio.Gallery(
                    [(example.picture, example.name) for example in explorer.examples],
                    label="Images",
                    columns=2,
                    height=220,
                    allow_preview=False,
                    interactive=False,
                    selected_index=0 if explorer.examples else None,
                    buttons=[],
                    elem_id="images",
                )
                upload = gradio.UploadButton("Add an image", file_types=["image"], elem_id="upload")
                refused = gradio.Markdown(elem_id="said")
                where = gradio.Radio(layers, value=start, label="Layers", elem_id="layers")
            with gradio.Column(scale=3):
                with gradio.Row():
                    sides = [_side(gradio, explorer, targets, name, first=i == 0) for i, name in enumerate("AB")]
                with gradio.Accordion("Take it with you", open=False):
                    lines = gradio.Code(language="python", label="The same in Python", elem_id="lines")
                    report = gradio.Button("Write a report", elem_id="report")
                    # A click on it saves the value that it has: it is shown once there is one.
                    saved = gradio.DownloadButton("Save the report", visible=False, elem_id="saved")
                    said = gradio.Markdown(elem_id="report-said")
        known: list[Any] = [own, chosen, where]
        shared = [blocks.load, chosen.change, where.change]
        shows = [
            {
                "fn": partial(_show, explorer),
                "inputs": [*known, *side.asked],
                "outputs": [side.image, side.words],
                "show_progress": "minimal",
                "concurrency_limit": 4,
            }
            for side in sides
        ]
        for side, show in zip(sides, shows, strict=True):
            gradio.on([part.change for part in side.asked], **show)
        # One after the other: both want the same processor, and the first map is there in half the time.
        gradio.on(shared, **shows[0]).then(**shows[1])
        gradio.on(
            [*shared, *(part.change for part in sides[0].asked)],
            partial(_lines, explorer),
            [*known, *sides[0].asked],
            [lines, said, saved],
        )
        # Gradio hands over the event where the annotation asks for it, and reads annotations as they are.
        _picked.__annotations__["event"] = gradio.SelectData
        gallery.select(_picked, None, chosen)
        # Gradio itself refuses a file that is too large, and asks nobody: what was said of the last one goes before.
        upload.click(lambda: "", None, refused)
        upload.upload(partial(_added, explorer), [upload, own], [own, gallery, chosen, refused])
        report.click(partial(_report, explorer, reports), [*known, *sides[0].asked], [saved, said])
    return blocks


class _Side:
    """One of the two maps beside each other.

    Args:
      asked: What is chosen for it: the model, its layer, the method, the target, the channel.
      image: Where the map is shown.
      words: What is told of it.
    """

    def __init__(self, asked: list[Any], image: Any, words: Any) -> None:
        self.asked = asked
        self.image = image
        self.words = words


def _side(gradio: Any, explorer: Explorer, targets: list[str], name: str, *, first: bool) -> _Side:
    models = list(explorer.models)
    methods = [*METHODS, *((f"{method} (takes seconds)", method) for method in SLOW)]
    with gradio.Column(min_width=260):
        model = gradio.Dropdown(
            models,
            value=models[0 if first else -1],
            label=f"Model {name}",
            visible=len(models) > 1,
            elem_id=f"model{name}",
        )
        other = not first and len(models) > 1
        layer = gradio.Dropdown(
            [CLICKED, *(explorer.layers(models[-1]) if other else [])],
            value=CLICKED,
            label=f"Layer {name}",
            visible=other,
            elem_id=f"layer{name}",
        )
        method = gradio.Dropdown(
            methods,
            value="grad_cam" if first else "activation_x_gradient",
            label=f"Method {name}",
            elem_id=f"method{name}",
        )
        target = gradio.Dropdown(
            targets,
            value="predicted",
            label="Target: predicted, or the number of a class",
            allow_custom_value=True,
            elem_id=f"target{name}",
        )
        channel = gradio.Textbox(label="Channel (empty: all)", elem_id=f"channel{name}", max_lines=1)
        image = gradio.Image(
            label=f"Map {name}",
            interactive=False,
            elem_id=f"map{name}",
            format="png",
            buttons=["download", "fullscreen"],  # not the one that shares, which has nowhere to send it
        )
        words = gradio.Markdown(elem_id=f"words{name}")
    return _Side([model, layer, method, target, channel], image, words)


def _targets(explorer: Explorer, model: str) -> list[str]:
    """The likeliest classes of the examples, to choose from."""
    found: dict[int, str] = {}
    for example in explorer.examples[:8]:
        found |= {k: name for k, name, _ in explorer.likeliest(model, example, 3)}
    return ["predicted", *(f"{k} {name}" for k, name in sorted(found.items()))]


def _example(explorer: Explorer, own: list[Shown], chosen: int) -> Shown:
    all_of_them = [*explorer.examples, *own]
    if not all_of_them:
        raise errors.ArgumentError("there is no image yet.", [], "add one")
    return all_of_them[min(chosen, len(all_of_them) - 1)]


def _read_channel(text: str) -> int | None:
    word = str(text or "").strip()
    if not word:
        return None
    if not word.isdigit():
        raise errors.ArgumentError(f"{text!r} is no channel.", [], "a number from 0 on, or nothing")
    return int(word)


def _told(act: Callable[[], Any]) -> tuple[Any, str]:
    """What comes of something, or what is wrong, as a message and not as a dead page."""
    try:
        return act(), ""
    except errors.GradtapError as error:
        why = [text for label, text in error.facts if label == "why"]
        return None, f"**{error.headline}** {'; '.join([*why, *error.do])}"
    except Exception as error:  # whatever it is, the page goes on, and no map of before stands beside it
        return None, f"**{type(error).__name__}** {error}"


@dataclass(frozen=True)
class _Asked:
    """What one side shows, read from its fields."""

    example: Shown
    at: str
    model: str
    method: str
    target: Any
    channel: int | None

    @classmethod
    def read(cls, explorer: Explorer, own: list[Shown], chosen: int, clicked: str, *fields: str) -> _Asked:
        model, layer, method, target, channel = fields
        at = explorer.counterpart(model, clicked) if layer == CLICKED else layer
        example = _example(explorer, own, chosen)
        return cls(example, at, model, method, read_class(target), _read_channel(channel))


def _show(explorer: Explorer, *fields: Any) -> tuple[Any, str]:
    def act() -> Any:
        asked = _Asked.read(explorer, *fields)
        model, example = asked.model, asked.example
        view = explorer.view(model, example, asked.at, asked.method, asked.target, asked.channel)
        best = ", ".join(f"{name}: {score:.3g}" for _, name, score in explorer.likeliest(model, example, 3))
        target = explorer.target_words(model, example, asked.target)
        return example.name, view, target, best

    found, wrong = _told(act)
    if found is None:
        return None, wrong
    example_name, view, target, best = found
    told = [f"{example_name}: {view.words}; {view.seconds:.2f} s", target and f"Target: {target}", view.legend]
    return view.image, "\n\n".join(filter(None, [*told, best and f"The model says: {best}"]))


def _lines(explorer: Explorer, *fields: Any) -> tuple[Any, ...]:
    """The lines of what is chosen now; a report that was written of something else is no longer offered."""

    def act() -> str:
        asked = _Asked.read(explorer, *fields)
        return explorer.lines(asked.model, asked.example, asked.at, asked.method, asked.target, asked.channel)

    found, wrong = _told(act)
    return found or "", wrong, _gradio().DownloadButton(value=None, visible=False)


def _picked(event: Any) -> int:
    return int(event.index)


def _added(explorer: Explorer, path: str, own: list[Shown]) -> tuple[Any, ...]:
    found, wrong = _told(lambda: explorer.read(Path(path), added=True))
    gradio = _gradio()
    if found is None:
        # Its name is what somebody knows it by, and not where Gradio keeps its copy.
        return own, gradio.skip(), gradio.skip(), wrong.replace(path, Path(path).name)
    own = [*own, found]
    shown = [(example.picture, example.name) for example in [*explorer.examples, *own]]
    return own, gradio.Gallery(value=shown, selected_index=len(shown) - 1), len(shown) - 1, ""


def _report(explorer: Explorer, folder: Path, *fields: Any) -> tuple[Any, str]:
    def act() -> str:
        asked = _Asked.read(explorer, *fields)
        path = Path(tempfile.mkdtemp(dir=folder)) / "report.html"
        return str(explorer.report(asked.model, asked.example, asked.at, asked.method, asked.target, path))

    path, wrong = _told(act)
    return _gradio().DownloadButton(value=path, visible=path is not None), wrong


def serve(
    explorer: Explorer,
    *,
    port: int | None = None,
    open_browser: bool = False,
    wait: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Any:
    """Serve the page on this machine alone.

    Args:
      explorer: What is shown.
      port: On which port; None for the first free one.
      open_browser: Whether to open it in a browser.
      wait: Until it is interrupted.
      say: What is told the address, where it waits.

    Returns:
      Gradio's blocks, to close.
    """
    try:
        blocks = interface(explorer)
        blocks.launch(
            server_name="127.0.0.1",
            server_port=port,
            inbrowser=open_browser,
            share=False,
            max_file_size=MOST_BYTES,
            css=_STYLE,
            show_error=True,
            footer_links=[],
            prevent_thread_lock=True,
            quiet=True,  # it would offer a public link
        )
        if wait:
            # A service ends a program so; what Gradio wrote is removed then as after Ctrl-C.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            say(f"the explorer is at {blocks.local_url} (Ctrl-C ends it)")
            blocks.block_thread()
    finally:
        if wait:
            _forget_files()
    return blocks


@cache
def _files() -> tempfile.TemporaryDirectory[str]:
    """Of one process: pictures, uploads and reports. It is removed with the process at the latest."""
    return tempfile.TemporaryDirectory(prefix="gradtap-", ignore_cleanup_errors=True)


def _folder() -> str:
    return _files().name


def _forget_files() -> None:
    _files().cleanup()
    _files.cache_clear()


def _gradio() -> Any:
    # The first two are read when Gradio is imported: it would report its use, and look for newer versions.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Gradio leaves its files where they are, in a folder that all of its pages on a machine share.
    os.environ["GRADIO_TEMP_DIR"] = _folder()
    try:
        import gradio
    except ImportError:
        raise MissingExtraError.of("app", "the explorer") from None
    return gradio
