"""
The gradient at a layer, and the tape that it replaces
======================================================

By how much does the probability of class 3 change with each activation of the first
convolution? A tape answers, but it knows only the tensors that someone hands to it. So
the forward pass has to be written a second time, in two halves. gradtap leaves the
model as it is, and **the numbers are the same**.
"""

# %%
# The model is a subclass: there is no graph of layers to cut, only a ``call``. It
# learns scikit-learn's handwritten digits, 8 x 8 pixels each.
import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import gradtap as gt

layers = keras.layers


class CNN(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv1 = layers.Conv2D(32, 3, activation="relu", padding="same")
        self.pool1 = layers.MaxPool2D()
        self.conv2 = layers.Conv2D(64, 3, activation="relu", padding="same")
        self.pool2 = layers.MaxPool2D()
        self.flatten = layers.Flatten()
        self.dense1 = layers.Dense(10, activation="softmax")

    def call(self, x):
        return self.dense1(
            self.flatten(self.pool2(self.conv2(self.pool1(self.conv1(x)))))
        )


digits = load_digits()
images = (digits.images / 16.0).astype("float32")[..., None]
keras.utils.set_random_seed(0)
model = CNN()
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images[:1500], digits.target[:1500], epochs=15, verbose=0)
accuracy = model.evaluate(images[1500:], digits.target[1500:], verbose=0)[1]
print(f"share that is right of the 297 digits that it has not seen: {accuracy:.3f}")
assert accuracy > 0.9

# %%
# With gradtap
# ------------
# One call, with the layer's name:
threes = images[1500:][digits.target[1500:] == 3][:3]
g = gt.gradients(model, threes, target=3, at="conv1")
print(g["conv1"].shape)

# %%
# By hand
# -------
# The first half runs before the tape looks on, the second half under it. Both repeat
# what ``call`` says, and have to be changed whenever it is.
hidden = model.conv1(threes)
with tf.GradientTape() as tape:
    tape.watch(hidden)
    outputs = model.dense1(model.flatten(model.pool2(model.conv2(model.pool1(hidden)))))
    score = outputs[:, 3]
by_hand = tape.gradient(score, hidden)

apart = float(np.max(np.abs(g["conv1"] - by_hand)) / np.max(np.abs(by_hand)))
print(f"largest difference, as a share of the largest gradient: {apart:.1e}")
assert apart < 1e-5

# %%
# What is more
# ------------
# The activations come from the same run, so gradient times activation is a product of
# two entries. Summed over the 32 channels it is a map: orange places speak for a 3,
# blue ones against it. Further layers cost no further pass.
g = gt.gradients(
    model, threes, target=gt.targets.class_score(3, logits=True), at=["conv1", "conv2"]
)
maps = {tap: np.sum(g[tap] * g.activations[tap], axis=-1) for tap in g}
figure = gt.plot.layers(
    maps,
    list(threes),
    title="Gradient × activation of “this is a 3”",
    captions=["8 × 8 places, 32 channels", "4 × 4 places, 64 channels"],
    interpolation="nearest",
)

# %%
# The score here is the logit, before the softmax. After ``conv2`` the network is made
# of maxima and sums and has one bias, that of the class; so the last map adds up to the
# logit but for this bias. It is a sum with its parts laid out.
total = maps["conv2"].sum((1, 2))
logits = gt.activations(model, threes, at="dense1:preactivation").only.numpy()[:, 3]
bias = float(model.dense1.bias[3])
print("logits:         ", np.round(logits, 3))
print("sums of the map:", np.round(total, 3), f"and the bias {bias:.3f}")
assert np.allclose(total + bias, logits, atol=1e-4)
