"""The model a user hands over is left exactly as it was found, whatever happens, and never kept alive."""

import gc
import threading
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradtap as gt
from states import assert_same, everything

layers = keras.layers


class Net(keras.Model):
    """A subclassed model with everything that a careless trace would disturb."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(4, 3, activation="relu", activity_regularizer="l2")
        self.norm = layers.BatchNormalization()
        self.drop = layers.Dropout(0.5, seed=1)
        self.flat = layers.Flatten()
        self.head = layers.Dense(3, activation="softmax")
        self.runs = []
        self.last_features = None
        self.on_call = lambda: None

    def call(self, x, training=False):
        RUNS.append(1)
        self.on_call()
        h = self.drop(self.norm(self.conv(x), training=training), training=training)
        self.last_features = h
        return self.head(self.flat(h))


RUNS = []


@pytest.fixture
def model():
    RUNS.clear()
    keras.utils.set_random_seed(0)
    net = Net()
    net(np.zeros((1, 8, 8, 1), "float32"))
    net.last_features = None
    return net


@pytest.fixture
def x():
    return np.random.default_rng(0).random((2, 8, 8, 1), dtype="float32")


@pytest.mark.parametrize("training", [False, True])
def test_after_success(model, x, training):
    before = everything(model)
    gt.gradients(model, x, target=1, at=["conv", "head:preactivation", ":input"], training=training)
    gt.activations(model, x, at="**", training=training)
    assert_same(before, everything(model))
    assert all(isinstance(loss, tf.Tensor) and hasattr(loss, "numpy") for loss in model.losses), (
        "a symbolic loss is left"
    )


def test_after_an_error(model, x):
    before = everything(model)
    with pytest.raises(gt.errors.UnknownTapError):
        gt.gradients(model, x, target=1, at="cnov")
    with pytest.raises(gt.GradtapError):
        gt.gradients(model, np.zeros((2, 9, 9, 1)), target=1, at="conv")
    assert_same(before, everything(model))


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_after_an_interrupt_in_the_middle_of_the_trace(model, x, interrupt):
    def stop():
        raise interrupt

    model.on_call = stop
    before = everything(model)
    with pytest.raises(gt.errors.ModelCallError if interrupt is RuntimeError else interrupt):
        gt.gradients(model, x, target=1, at="conv")
    assert_same(before, everything(model))
    model.on_call = lambda: None
    assert gt.gradients(model, x, target=1, at="conv").only.shape == (2, 6, 6, 4)


def test_outputs_are_bit_identical_with_and_without_taps(model, x):
    plain = gt.gradients(model, x, target=1, at=":input").outputs
    tapped = gt.gradients(model, x, target=1, at="**").outputs
    np.testing.assert_array_equal(plain, tapped)
    compiled = tf.function(lambda inputs: model(inputs, training=False))
    np.testing.assert_array_equal(compiled(tf.constant(x)), tapped)


def test_python_runs_once_per_signature_and_training_flag(model, x):
    RUNS.clear()
    for k in range(3):
        gt.gradients(model, x, target=k, at="conv")
        gt.gradients(model, x[:1], target="predicted", at=["norm", "head"])
        gt.activations(model, x, at="**")
    assert len(RUNS) == 1
    gt.gradients(model, x, target=0, at="conv", training=True)
    gt.gradients(model, x, target=1, at="norm", training=True)
    assert len(RUNS) == 2


def gradient(model, x):
    return gt.gradients(model, x, target=1, at="conv").only.numpy()


def test_new_weights_are_seen_without_a_new_trace(model, x):
    gradient(model, x)
    RUNS.clear()
    model.head.kernel.assign(model.head.kernel * 2.0)
    after = gradient(model, x)
    assert len(RUNS) == 0
    gt.forget(model)
    np.testing.assert_array_equal(gradient(model, x), after)
    assert len(RUNS) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m.conv, "activation", keras.activations.tanh),
        lambda m: setattr(m.conv, "activation", lambda z: z * 3.0),
        lambda m: object.__setattr__(m, "head", replaced_head()),
        lambda m: setattr(m.norm, "epsilon", 0.7),
        lambda m: (
            setattr(m.conv, "padding", "same")
            or object.__setattr__(m, "flat", layers.GlobalMaxPooling2D())
            or object.__setattr__(m, "head", replaced_head(4))
        ),
    ],
    ids=["activation", "lambda", "layer", "number", "layers"],
)
def test_a_changed_structure_is_traced_anew(model, x, change):
    before = gradient(model, x)
    change(model)
    after = gradient(model, x)
    assert after.shape != before.shape or np.abs(after - before).max() > 1e-7
    gt.forget(model)
    np.testing.assert_array_equal(gradient(model, x), after)


def replaced_head(features=144):
    head = layers.Dense(3, activation="tanh")
    head.build((None, features))
    return head


def test_a_lambda_in_the_place_of_a_dead_one_is_seen(model, x):
    seen = []
    for factor in range(1, 6):
        model.conv.activation = None
        gc.collect()
        model.conv.activation = eval(f"lambda z: z * {factor}.0")
        seen.append(float(np.abs(gradient(model, x)).max()))
        gt.forget(model)
        assert float(np.abs(gradient(model, x)).max()) == seen[-1]
    assert len(set(seen)) > 1


def test_sequential_add_and_pop_and_trainable_and_rate(x):
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, 3, name="c"), layers.Flatten(), layers.Dense(2)])
    first = gt.gradients(model, x, target=0, at="c").only.numpy()
    model.add(layers.Dense(2, activation="tanh"))
    second = gt.gradients(model, x, target=0, at="c").only.numpy()
    assert np.abs(first - second).max() > 1e-6
    model.pop()
    np.testing.assert_array_equal(gt.gradients(model, x, target=0, at="c").only, first)

    norm = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, name="d"), layers.BatchNormalization(), layers.Dense(1)]
    )
    rows = np.random.default_rng(1).normal(size=(5, 3))
    trained = gt.gradients(norm, rows, at="d", training=True).only.numpy()
    norm.layers[1].trainable = False
    frozen = gt.gradients(norm, rows, at="d", training=True).only.numpy()
    assert np.abs(trained - frozen).max() > 1e-3


@pytest.mark.parametrize("explicit", [False, True])
def test_trace_and_model_die_together(x, explicit):
    net = Net()
    trace = gt.trace(net) if explicit else net
    result = gt.gradients(trace, x, target=lambda outputs: outputs[:, 0], at=["conv", net.norm])
    gt.gradients(trace, x, target=gt.targets.loss("mse", np.zeros((2, 3))), at=net.head)
    gone = [weakref.ref(net), weakref.ref(net.conv), weakref.ref(net.conv.kernel)]
    del net, trace
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3
    assert result["conv"].shape == (2, 6, 6, 4)


def test_dropout_is_drawn_as_the_model_would_draw_it_next_and_by_seed(x):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(64, name="d"), layers.Dropout(0.5), layers.Dense(1)])
    shared = layers.Dropout(0.5)
    inputs = keras.Input((6,))
    twice = keras.Model(inputs, layers.Dense(1)(shared(shared(layers.Dense(64, name="d")(inputs)))))
    rows = np.random.default_rng(1).normal(size=(4, 6)).astype("float32")
    for net in (model, twice):
        first = gt.gradients(net, rows, at="d", training=True)
        np.testing.assert_array_equal(gt.gradients(net, rows, at="d", training=True)["d"], first["d"])
        np.testing.assert_allclose(net(rows, training=True), first.outputs, rtol=1e-5)
        after = gt.gradients(net, rows, at="d", training=True)["d"]
        assert np.abs(after - first["d"]).max() > 1e-3, "the generator has moved on, so has the mask"
        one, same, other = (gt.gradients(net, rows, at="d", training=True, seed=s)["d"] for s in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert np.abs(one - other).max() > 1e-3


def test_nothing_is_kept_of_models_that_are_gone(x):
    from gradtap.graph import keeping

    gc.collect()
    before = len(keeping._KEPT._entries)
    for _ in range(3):
        net = Net()
        gt.gradients(net, x, target=0, at="conv")
        gt.gradients(net.call, x, target=0, at="conv")
    del net
    gc.collect()
    assert len(keeping._KEPT._entries) == before


def test_threads_differentiate_trace_and_call_one_model_at_once(x):
    net = Net()
    net(x)
    net.last_features = None
    expected = gt.gradients(net, x, target=1, at="conv").only.numpy()
    eager = net(x).numpy()
    failures = []
    stop = threading.Event()

    def differentiate(retrace):
        for _ in range(12):
            if retrace:
                gt.forget(net)
            found = gt.gradients(net, x, target=1, at=["conv", "head"])["conv"].numpy()
            if not np.array_equal(found, expected):
                failures.append("a thread got another gradient")

    def call():
        while not stop.is_set():
            if np.abs(net(x).numpy() - eager).max() > 1e-6:
                failures.append("an eager call gave something else")

    workers = [threading.Thread(target=differentiate, args=(i % 2 == 0,)) for i in range(4)]
    caller = threading.Thread(target=call)
    caller.start()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    stop.set()
    caller.join()
    assert failures == []
    for layer in net._flatten_layers():
        assert "call" not in vars(layer)
    assert net.conv.activation is keras.activations.relu


def test_a_model_that_was_never_called_leaves_keras_fit_for_the_next(x):
    gt.gradients(Net(), x, target=0, at="conv")
    after = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    assert after(np.ones((1, 3))).shape == (1, 2)
    Net()(x)
