"""
Grad-CAM inside a pretrained network that is a layer of another model
=====================================================================

A trained network is seldom used as it came. It is a layer of a larger model, behind
preprocessing, and the usual recipe for Grad-CAM, a second model from the input to the
last convolution, does not reach in there. With gradtap the layer is an address, and
**the map is that of the network alone**.
"""

# %%
# EfficientNet-Lite0, trained on ImageNet, behind a layer that takes whole numbers from
# 0 to 255. The network is one of the three layers of the model; what is inside of it is
# not a layer of the model at all.
import keras
import numpy as np

import gradtap as gt
from gradtap.demo.efficientnet_lite import pretrained_efficientnet_lite0
from gradtap.demo.photographs import class_names, load_photograph, network_crop

network = pretrained_efficientnet_lite0()
pixels = keras.Input((224, 224, 3), name="pixels")
scaled = keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="scale")(pixels)
model = keras.Model(pixels, network(scaled), name="classifier")
print([layer.name for layer in model.layers])

# %%
# The usual recipe asks for a model that has the inner layer as an output. Keras has no
# way from the outer input to it:
inner = model.get_layer("efficientnet_lite0").get_layer("head_relu")
refused = ""
try:
    keras.Model(model.input, [inner.output, model.output])
except ValueError as error:
    refused = str(error)
print(refused[:160])
assert refused

# %%
# As an address
# -------------
# ``gt.taps(model)`` lists what there is. The inner layer can be named with its path, or
# by its own name alone, since no other layer has it.
names = ["coffee", "chelsea", "motorcycle"]
photographs = np.stack(
    [np.asarray(network_crop(load_photograph(name))) for name in names]
).astype("float32")
at = ["block3_2_add", "block5_3_add", "efficientnet_lite0/head_relu"]
target = gt.targets.class_score("predicted", logits=True)
maps = gt.attribution.grad_cam(model, photographs, target=target, at=at)
for tap, found in maps.items():
    print(tap, found.shape)

# %%
# Is it the map of the network alone? The same photographs, scaled by hand, with the
# network in the place of the model:
by_itself = (photographs - 127) / 128
alone = gt.attribution.grad_cam(
    network, by_itself, target=target, at="head_relu"
).only.numpy()
nested = maps["efficientnet_lite0/head_relu"].numpy()
apart = float(np.max(np.abs(nested - alone)) / np.max(np.abs(alone)))
print(f"largest difference, as a share of the largest value: {apart:.1e}")
assert apart < 1e-5

# %%
# What is seen
# ------------
# Orange raises the score of the class that is predicted. The middle layers see parts,
# the last one the whole thing.
p = gt.activations(model, photographs, at=":output").only.numpy()
words = [class_names()[k].split(",")[0] for k in p.argmax(1)]
assert words == ["espresso", "tiger cat", "moped"]
figure = gt.plot.layers(
    maps,
    photographs.astype("uint8"),
    title="Grad-CAM at three layers of a network inside a model",
    captions=[" × ".join(map(str, found.shape[1:])) for found in maps.values()],
    image_captions=[f"{w}, p = {q:.2f}" for w, q in zip(words, p.max(1), strict=True)],
)
