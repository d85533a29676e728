"""
Which heads of a transformer matter
===================================

Attention can be read off a transformer, and shows where a head looks. Whether anything
follows from it is another question. **The gradient with respect to the attention tells
which heads the answer depends on; how sharply a head looks does not.**
"""

# %%
# MiniLM, a trained sentence encoder with six blocks of twelve heads, runs on two
# sentences, and the model returns the cosine of the two vectors. ``minilm`` is
# ``docs/examples/minilm.py``, which builds it in plain Keras.
import minilm
import numpy as np
from matplotlib.figure import Figure

import gradtap as gt

sentences = (
    "The cat sat quietly on the warm windowsill.",
    "A kitten rested by the sunny window.",
)
model, ids, words = minilm.pair(sentences)
cosine = float(gt.activations(model, ids, at=":output").only[0, 0])
print(f"cosine {cosine:.3f}")

# %%
# Which words
# -----------
# Integrated gradients at the word embeddings, from the same sentences without their
# words. The encoder runs twice, so its calls have numbers.
texts = ["encoder/words[0]", "encoder/words[1]"]
path = gt.attribution.integrated_gradients(
    model, ids, at=texts, baseline=minilm.without_words(ids), steps=50
)
values = [np.sum(path[text], axis=-1)[0] for text in texts]
figure_of_words = gt.plot.tokens(
    list(words.values()), values, title=f"What makes them similar (cosine {cosine:.2f})"
)

by_value = sorted(zip(values[1], words["second"], strict=True), reverse=True)
print([f"{word} {value:+.2f}" for value, word in by_value[:3]])
assert by_value[0][1] == "kitten"
assert max(abs(float(path.delta[text][0])) for text in texts) < 1e-2

# %%
# Which heads
# -----------
# The attention of all blocks, and its gradients, from one pass: ``:attention`` is a
# side of the layer, of the shape (batch, heads, queries, keys). Attention times
# gradient, in the fourth block, for the first sentence:
blocks = [f"encoder/attention{i}[0]:attention" for i in range(6)]
g = gt.gradients(model, ids, target=0, at=blocks)
attention = np.stack([g.activations[block][0] for block in blocks])
product = attention * np.stack([g[block][0] for block in blocks])
print(attention.shape)
figure_of_heads = gt.plot.attention(
    product[3], words["first"], title="Attention × gradient, the heads of block 3"
)

# %%
# To first order the cosine loses the sum of such a matrix when its head attends to
# nothing. Is it so? ``gt.patch`` runs the model with other values at a tap, and here
# does so for each head in turn.
exact = np.zeros((6, 12))
for i, block in enumerate(blocks):
    for head in range(12):
        silent = g.activations[block].numpy().copy()
        silent[:, head] = 0
        exact[i, head] = cosine - float(gt.patch(model, ids, {block: silent})[0, 0])
estimate = product.sum((2, 3))
sharpness = attention.max(-1).mean(-1)


def ranks_agree(one, two):
    """Spearman's rank correlation of magnitudes."""
    one, two = (np.argsort(np.argsort(np.abs(values).ravel())) for values in (one, two))
    return float(np.corrcoef(one, two)[0, 1])


by_gradient, by_attention = ranks_agree(exact, estimate), ranks_agree(exact, sharpness)
print(f"rank correlation with what the cosine really loses, over {exact.size} heads")
print(f"  attention x gradient         {by_gradient:+.2f}")
print(f"  how sharply the head looks   {by_attention:+.2f}")
assert by_gradient > 0.8 and by_attention < 0.1

# %%
# What is on the dotted line is estimated exactly. The last block has heads that the
# estimate misses: the largest loss of all is seven times as large. A gradient is a
# slope, and a whole head is not a small change.
figure_of_losses = Figure(figsize=(6.4, 4.4), layout="constrained")
axes = figure_of_losses.add_subplot()
colours = ["#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7"]
for i, colour in enumerate(colours):
    axes.scatter(estimate[i], exact[i], s=28, color=colour, label=f"block {i}")
axes.axline((0, 0), slope=1, color="#59636e", linewidth=0.8, linestyle=":")
axes.set(
    xlabel="attention × gradient, summed over the head",
    ylabel="what the cosine loses without the head",
)
axes.legend(frameon=False, fontsize=9)

largest = np.unravel_index(np.argmax(np.abs(exact)), exact.shape)
print("block {} head {}:".format(*largest), end=" ")
print(f"loses {exact[largest]:+.3f}, estimate {estimate[largest]:+.3f}")
assert largest == (5, 11) and 6 < exact[largest] / estimate[largest] < 8
# sphinx_gallery_thumbnail_number = 2
