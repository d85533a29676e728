"""Xplique's lines."""

from __future__ import annotations

from typing import Any

VERSIONS = ("xplique", "tensorflow-cpu", "keras", "numpy")


def saliency(model, images):
    import numpy as np
    from xplique.attributions import Saliency

    wanted = np.eye(10, dtype="float32")[[3, 3]]
    maps = Saliency(model)(images, wanted)
    channels = Saliency(model, reducer=None)(images, wanted)
    return maps, channels


def integrated_gradients(model, images):
    import numpy as np
    from xplique.attributions import IntegratedGradients

    wanted = np.eye(10, dtype="float32")[[3, 3]]
    maps = IntegratedGradients(model, steps=50)(images, wanted)
    channels = IntegratedGradients(model, steps=50, reducer=None)(images, wanted)
    return maps, channels


def grad_cam(model, images):
    import numpy as np
    from xplique.attributions import GradCAM, GradCAMPP

    wanted = np.eye(10, dtype="float32")[[3, 3]]
    maps = GradCAM(model, conv_layer="conv3")(images, wanted)
    plus_plus = GradCAMPP(model, conv_layer="conv3")(images, wanted)
    return maps, plus_plus


def logits(model, images):
    import keras
    import numpy as np
    from xplique.attributions import Saliency

    wanted = np.eye(10, dtype="float32")[[3, 3]]
    asked = Saliency(model, output_layer="logits", reducer=None)(images, wanted)
    cut = keras.Model(model.inputs, model.get_layer("logits").output)
    by_hand = Saliency(cut, reducer=None)(images, wanted)
    return asked, by_hand


def smooth_grad(model, images):
    import numpy as np
    from xplique.attributions import SmoothGrad, VarGrad

    wanted = np.eye(10, dtype="float32")[[3, 3]]
    smooth = SmoothGrad(model, nb_samples=400, noise=0.1, reducer=None)(images, wanted)
    variance = VarGrad(model, nb_samples=400, noise=0.1, reducer=None)(images, wanted)
    return smooth, variance


def guided(model, images):
    import numpy as np
    from xplique.attributions import DeconvNet, GuidedBackprop

    wanted = np.eye(10, dtype="float32")[[3, 3]]
    guided = GuidedBackprop(model, reducer=None)(images, wanted)
    deconvolved = DeconvNet(model, reducer=None)(images, wanted)
    return guided, deconvolved


def occlusion(model, images):
    import numpy as np
    from xplique.attributions import Occlusion

    wanted = np.eye(10, dtype="float32")[[3, 3]]
    apart = Occlusion(model, patch_size=8, patch_stride=8, occlusion_value=0.0)(images, wanted)
    overlapping = Occlusion(model, patch_size=8, patch_stride=4, occlusion_value=0.0)(images, wanted)
    return apart, overlapping


def deletion(model, images):
    import numpy as np
    from xplique.attributions import Saliency
    from xplique.metrics import Deletion

    wanted = np.eye(10, dtype="float32")[[3, 3]]
    maps = Saliency(model)(images, wanted)
    theirs = Deletion(model, images, wanted, steps=16, baseline_mode=0.0)(maps)
    return theirs


def _on_kind(model, images):
    return grad_cam(model, images)[0]


def _input_on_kind(model, images):
    return saliency(model, images)[1]


def _given(folder: str, name: str) -> dict[str, Any]:
    from benchmarks.migration.networks import images, network

    return {"model": network(), "images": images}
