"""What in a sound makes a network hear a note: basic-pitch, a SavedModel of audio to notes.

The network and the recording are those of the package ``basic-pitch`` (Apache-2.0; the recording, a voice, is
CC BY 4.0, from the vocadito set). ``pip install --no-deps basic-pitch==0.4.0`` gives the network. The recording is in
its source: ``pip download --no-deps --no-binary :all: basic-pitch==0.4.0``, unpacked, and the environment variable
``BASIC_PITCH_SOURCE`` names the folder.
"""

from __future__ import annotations

import importlib.util
import os
import wave
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from drawing import FAINT, INK, blank, coloured, save
from scipy.signal import resample_poly

import gradtap as gt

RATE, SAMPLES, FRAMES = 22050, 43844, 172
START = 4.0  # of the two seconds that are looked at
SPECTROGRAM = "normalized_log_1/Reshape_2:0"
INNER = "re_lu_1/Relu:0"
LOWEST = 21  # MIDI, the lowest key of a piano
NAMES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")
BINS_PER_SEMITONE = 3
BOX: dict[str, Any] = {"color": "#333333", "lw": 0.8, "ls": (0, (3, 2))}


def saved_model() -> Path:
    """The folder of the SavedModel. The package itself is not imported: it asks for an old TensorFlow."""
    found = importlib.util.find_spec("basic_pitch")
    if found is None or found.origin is None:
        raise SystemExit("not installed: basic-pitch")
    return Path(found.origin).parent / "saved_models/icassp_2022/nmp"


def recording() -> np.ndarray:
    """Two seconds of the recording, as the network takes them: ``(1, 43844, 1)``, 22050 samples a second."""
    source = os.environ.get("BASIC_PITCH_SOURCE")
    if source is None:
        raise SystemExit("BASIC_PITCH_SOURCE does not name the folder of the unpacked source")
    with wave.open(str(Path(source) / "tests/resources/vocadito_10.wav")) as file:
        rate, frames = file.getframerate(), file.readframes(file.getnframes())
    sound = np.frombuffer(frames, "<i2").astype("float32") / 32768
    sound = resample_poly(sound, 1, rate // RATE).astype("float32")
    first = int(START * RATE)
    return sound[None, first : first + SAMPLES, None]


def longest_note(salience: np.ndarray) -> tuple[int, int, int]:
    """The key and the first and last frame of the longest run above one half in ``(frames, keys)``."""
    best = (0, 0, 0)
    for key, line in enumerate(salience.T > 0.5):
        edges = np.flatnonzero(np.diff(np.r_[0, line.astype(int), 0]))
        for first, stop in zip(edges[::2], edges[1::2], strict=True):
            if stop - first > best[2] - best[1]:
                best = key, int(first), int(stop)
    return best


def main(folder: Path) -> str:
    """Draw the picture; returns the measured figures as text."""
    model, sound = gt.trace(str(saved_model())), recording()
    heard = gt.activations(model, sound, at=[":output", SPECTROGRAM])
    salience = heard[":output.note"][0].numpy()
    key, first, stop = longest_note(salience)
    note = f"{NAMES[(key + LOWEST) % 12]}{(key + LOWEST) // 12 - 1}"

    def held(outputs: Any) -> Any:
        return tf.reduce_mean(outputs["note"][:, first:stop, key], axis=1)

    at = [SPECTROGRAM, INNER]
    found = gt.attribution.integrated_gradients(model, sound, target=held, at=at, baseline=0.0, steps=200)
    zeros = gt.attribution.at_tap(0.0)
    other = gt.attribution.integrated_gradients(model, sound, target=held, at=INNER, baseline=zeros, steps=200)
    spectrum, inner = found[SPECTROGRAM][0].numpy(), found[INNER][0].numpy().sum(-1)
    lines = [
        f"the note {note} (key {key + LOWEST}), {first / FRAMES * 2:.2f} to {stop / FRAMES * 2:.2f} s of the excerpt, "
        f"mean salience {float(salience[first:stop, key].mean()):.4f}"
    ]
    told = [(SPECTROGRAM, "from silence", found[SPECTROGRAM], found.delta[SPECTROGRAM])]
    told += [(INNER, "from silence", found[INNER], found.delta[INNER]), (INNER, "from zeros", other.only, other.delta)]
    for place, words, values, delta in told:
        total, error = float(np.sum(values)), float(np.asarray(delta)[0])
        lines.append(
            f"{place} {words}: sum {total:.4f}, change of the salience {total - error:.4f}, "
            f"completeness error {error:+.1e}"
        )
    lines += _by_harmonic(spectrum, key, first, stop)
    _draw(folder / "notes.png", heard[SPECTROGRAM][0].numpy(), spectrum, inner, (key, first, stop, note))
    return "\n".join(lines)


def _by_harmonic(spectrum: np.ndarray, key: int, first: int, stop: int) -> list[str]:
    """How much of the attribution lies within a semitone of each multiple of the note's frequency."""
    own = key * BINS_PER_SEMITONE
    lines, bands = [], np.zeros(spectrum.shape[1], bool)
    shares = []
    for n in range(1, 8):
        centre = own + round(12 * BINS_PER_SEMITONE * np.log2(n))
        band = slice(max(centre - BINS_PER_SEMITONE, 0), centre + BINS_PER_SEMITONE + 1)
        bands[band] = True
        shares.append(f"{n}: {spectrum[:, band].sum():+.3f}")
    lines.append("sum within a semitone of the n-th harmonic, " + ", ".join(shares))
    rest = spectrum[:, ~bands]
    lines.append(f"everywhere else {rest.sum():+.3f} (of {rest[rest > 0].sum():+.3f} and {rest[rest < 0].sum():+.3f})")
    inside = np.abs(spectrum[first:stop]).sum() / np.abs(spectrum).sum()
    lines.append(f"share of the magnitudes that lies in the note's own time: {inside:.0%}")
    return lines


def _draw(
    path: Path, heard: np.ndarray, spectrum: np.ndarray, inner: np.ndarray, note: tuple[int, int, int, str]
) -> None:
    key, first, stop, name = note
    figure = blank(12.2, 4.6)
    figure.text(0.045, 0.945, f"What makes basic-pitch hear {name}", fontsize=13, color=INK)
    titles = ("the spectrogram", "integrated gradients at the spectrogram", f"… at {INNER}, over the channels")
    own = key * BINS_PER_SEMITONE
    for i, (values, title) in enumerate(zip((heard, spectrum, inner), titles, strict=True)):
        axes = figure.add_axes((0.045 + 0.322 * i, 0.12, 0.3, 0.7))
        if i == 0:
            axes.imshow(1 - values.T / values.max(), cmap="gray", aspect="auto", origin="lower", vmin=0, vmax=1)
        else:
            axes.imshow(coloured(values.T), aspect="auto", origin="lower", interpolation="nearest")
        axes.set_title(title, fontsize=10, color=INK)
        low, high = own - 6.5, own + 7.5
        axes.plot([first - 2, stop + 1, stop + 1, first - 2, first - 2], [low, low, high, high, low], **BOX)
        axes.set(xlim=(-3, FRAMES), ylim=(-0.5, 263.5))
        axes.set_xticks([0, 43, 86, 129, 171], ["0", "0.5", "1", "1.5", "2 s"])
        ticks = range(0, 88, 12)
        axes.set_yticks([k * BINS_PER_SEMITONE for k in ticks], [f"A{k // 12}" for k in ticks])
        axes.tick_params(labelsize=8.5, colors=FAINT, length=2)
        axes.spines[:].set_color("#d1d9e0")
    save(figure, path, width=1250, colour_count=96)
