"""From pixels to what a network was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradtap.errors import InputFileError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

#: Name to what is done, as ``--help`` prints it. ``x`` are pixels from 0 to 255.
PREPROCESSINGS = {
    "none": "x, 0 to 255: models that rescale by themselves (Keras EfficientNet)",
    "unit": "x / 255, 0 to 1",
    "symmetric": "x / 127.5 - 1, -1 to 1 (Keras MobileNet, Inception, Xception, ResNetV2)",
    "tflite": "(x - 127) / 128 (networks of the TF Lite family)",
    "imagenet": "(x / 255 - mean) / deviation of ImageNet (PyTorch, Keras DenseNet)",
    "caffe": "blue, green, red, each less ImageNet's mean (Keras VGG, ResNet)",
}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
CAFFE_MEAN = (103.939, 116.779, 123.68)


def preprocess(pixels: Array, name: str) -> Array:
    """Bring pixels to the range that a network expects.

    Args:
      pixels: ``(..., channels)`` or without a channel axis, from 0 to 255; channels red, green, blue.
      name: A key of ``PREPROCESSINGS``.

    Returns:
      Array of the same shape, float32.

    Raises:
      InputFileError: The preprocessing is defined for colours only and the pixels have another number of channels.
    """
    import numpy as np

    x = pixels.astype(np.float32)
    if name in ("imagenet", "caffe") and x.shape[-1] != 3:
        raise InputFileError(
            f"the preprocessing `{name}` is defined for three colours only.",
            [("images", f"{'x'.join(map(str, pixels.shape[1:]))}, as the model's input asks")],
            "choose another one: " + ", ".join(key for key in PREPROCESSINGS if key not in ("imagenet", "caffe")),
        )
    match name:
        case "unit":
            return x / np.float32(255)
        case "symmetric":
            return x / np.float32(127.5) - np.float32(1)
        case "tflite":
            return (x - np.float32(127)) / np.float32(128)
        case "imagenet":
            return (x / np.float32(255) - np.array(IMAGENET_MEAN, np.float32)) / np.array(
                IMAGENET_DEVIATION, np.float32
            )
        case "caffe":
            return np.asarray(x[..., ::-1] - np.array(CAFFE_MEAN, np.float32))
    return x
