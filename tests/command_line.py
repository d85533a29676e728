"""What the tests of the command line share: small models and images in files, and a way to run a command."""

from __future__ import annotations

import warnings

import numpy as np
from click.testing import CliRunner

from gradtap.cli.main import cli


def save_model(model, path):
    """Keras saves a variable through NumPy in a way that NumPy 2 warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        model.save(path)


def save_models(folder):
    """Write small models into files; name to path."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers

    def save(name, inputs, outputs):
        save_model(keras.Model(inputs, outputs), folder / f"{name}.keras")

    def classifier(x, **last):
        x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv1")(x)
        x = layers.Conv2D(5, 3, strides=2, activation="relu", name="conv2")(x)
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        return layers.Dense(3, activation="softmax", name="scores", **last)(x)

    x = keras.Input((8, 10, 3), name="image")
    save("colour", x, classifier(x))
    saturated = keras.initializers.Constant([200.0, 0.0, 0.0])
    save("saturated", x, classifier(x, bias_initializer=saturated))
    free = keras.Input((None, None, 3), name="image")
    save("free", free, classifier(free))
    grey = keras.Input((8, 10, 1), name="image")
    save("grey", grey, classifier(grey))
    whole = keras.Input((8, 10, 3), dtype="uint8", name="image")
    save("whole", whole, classifier(layers.Rescaling(1 / 255, name="rescaled")(whole)))
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    both = layers.Dense(3, activation="tanh", name="hidden")(layers.Concatenate(name="both")([a, b]))
    save("two", [a, b], layers.Dense(1, name="number")(both))
    y = layers.Dense(4, activation="relu", name="trunk")(a)
    heads = {"left": layers.Dense(2, activation="softmax", name="left")(y), "right": layers.Dense(3, name="right")(y)}
    save("heads", a, heads)
    return {file.stem: str(file) for file in folder.iterdir()}


def save_images(folder):
    """Make a folder with two photographs of other sizes than any model's, and a text."""
    from PIL import Image

    folder.mkdir()
    random = np.random.default_rng(1)
    for name, size in [("b.png", (20, 16, 3)), ("a.jpg", (31, 40, 3))]:
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def run(*arguments, code=0):
    """Run the command and check its exit status."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    if code in (1, 2):
        assert "Traceback" not in result.output
    return result


def loaded(path):
    """The arrays of a `.npz`."""
    with np.load(path) as file:
        return dict(file)
