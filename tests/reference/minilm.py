"""A trained sentence transformer from its file: its weights, its embedding in NumPy, and the same network in Keras.

The architecture is BERT's (Devlin et al., https://arxiv.org/abs/1810.04805): post-norm blocks, exact GELU, learned
positions; the embedding is the mean over the tokens, of length one.
"""

from __future__ import annotations

import json
from math import erf
from pathlib import Path

import keras
import numpy as np
from keras import layers

from reference.layers import softmax

BLOCKS, HEADS, WIDTH, HEAD = 6, 12, 384, 32
EPSILON = 1e-12


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of ``model.safetensors``, float64: a length, a JSON table of types and places, raw numbers."""
    content = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    table = json.loads(content[8:start])
    found = {}
    for name, entry in table.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            first, last = entry["data_offsets"]
            flat = np.frombuffer(content[start + first : start + last], "<f4")
            found[name] = flat.reshape(entry["shape"]).astype(np.float64)
    return found


def token_ids(folder: Path, sentences: list[str]) -> np.ndarray:
    """Ids of sentences of whole words, padded with zeros; the vocabulary has one word a line."""
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    known = {word: i for i, word in enumerate(words)}
    rows = [[known["[CLS]"], *(known[w] for w in s.lower().split()), known["[SEP]"]] for s in sentences]
    return np.array([row + [0] * (max(map(len, rows)) - len(row)) for row in rows], np.int32)


def in_numpy(w: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """Embeddings ``(batch, 384)``."""
    on = ids != 0
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: ids.shape[1]] + w["embeddings.token_type_embeddings.weight"][0]
    x = _norm(w, "embeddings.LayerNorm", x)
    for i in range(BLOCKS):
        at = f"encoder.layer.{i}"
        q, k, v = (_heads(_dense(w, f"{at}.attention.self.{name}", x)) for name in ("query", "key", "value"))
        scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(HEAD) + np.where(on, 0, -1e9)[:, None, None]
        mixed = np.einsum("bhqk,bkhd->bqhd", softmax(scores), v).reshape(x.shape)
        x = _norm(w, f"{at}.attention.output.LayerNorm", x + _dense(w, f"{at}.attention.output.dense", mixed))
        wide = _gelu(_dense(w, f"{at}.intermediate.dense", x))
        x = _norm(w, f"{at}.output.LayerNorm", x + _dense(w, f"{at}.output.dense", wide))
    mean = np.sum(x * on[..., None], 1) / np.sum(on, 1, keepdims=True)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)


def in_keras(w: dict[str, np.ndarray]) -> keras.Model:
    """From ids to embeddings, of the dtype that is the default where it is made."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    on = keras.ops.not_equal(ids, 0)
    words = w["embeddings.word_embeddings.weight"]
    embed = layers.Embedding(*words.shape, name="embed")
    positions = layers.Embedding(*w["embeddings.position_embeddings.weight"].shape, name="positions")
    embedded = layers.LayerNormalization(epsilon=EPSILON, name="embedded")
    x = embedded(embed(ids) + positions(keras.ops.cumsum(keras.ops.ones_like(ids), 1) - 1))
    for i in range(BLOCKS):
        attend = layers.MultiHeadAttention(HEADS, HEAD, name=f"attend{i}")
        mixed = attend(x, x, attention_mask=on[:, None, :])
        x = layers.LayerNormalization(epsilon=EPSILON, name=f"attended{i}")(x + mixed)
        wide = layers.Dense(4 * WIDTH, name=f"wide{i}")(x)
        # Keras's own GELU is off by 5e-9 in float64: it rounds the root of one half to float32.
        narrow = layers.Dense(WIDTH, name=f"narrow{i}")(0.5 * wide * (1.0 + keras.ops.erf(wide / np.sqrt(2.0))))
        x = layers.LayerNormalization(epsilon=EPSILON, name=f"block{i}")(x + narrow)
    weight = keras.ops.cast(on, x.dtype)[..., None]
    mean = keras.ops.sum(x * weight, 1) / keras.ops.sum(weight, 1)
    model = keras.Model(ids, mean / keras.ops.norm(mean, axis=-1, keepdims=True))
    embed.set_weights([words])
    types = w["embeddings.token_type_embeddings.weight"][0]
    positions.set_weights([w["embeddings.position_embeddings.weight"] + types])
    embedded.set_weights(_pair(w, "embeddings.LayerNorm"))
    for i in range(BLOCKS):
        at = f"encoder.layer.{i}"
        split = [_pair(w, f"{at}.attention.self.{name}") for name in ("query", "key", "value")]
        inner = [part for m, b in split for part in (m.T.reshape(WIDTH, HEADS, HEAD), b.reshape(HEADS, HEAD))]
        outer, bias = _pair(w, f"{at}.attention.output.dense")
        model.get_layer(f"attend{i}").set_weights([*inner, outer.T.reshape(HEADS, HEAD, WIDTH), bias])
        for name, key in (("wide", "intermediate.dense"), ("narrow", "output.dense")):
            matrix, bias = _pair(w, f"{at}.{key}")
            model.get_layer(f"{name}{i}").set_weights([matrix.T, bias])
        for name, key in (("attended", "attention.output.LayerNorm"), ("block", "output.LayerNorm")):
            model.get_layer(f"{name}{i}").set_weights(_pair(w, f"{at}.{key}"))
    return model


def _pair(w, name):
    return [w[f"{name}.weight"], w[f"{name}.bias"]]


def _dense(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _gelu(x):
    return x * (1 + np.vectorize(erf)(x * 0.5**0.5)) / 2


def _heads(x):
    return x.reshape(*x.shape[:2], HEADS, HEAD)


def _norm(w, name, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, -1, keepdims=True) + EPSILON) * w[f"{name}.weight"] + w[f"{name}.bias"]
