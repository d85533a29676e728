"""The callback: training is not touched, everything is said before it begins, and what is written can be read."""

from __future__ import annotations

import csv
import glob
import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors, flow
from gradtap.flow.events import EventWriter
from reference.models import draws, policy

X, Y = draws(64, 8).astype("float32"), np.arange(64) % 4
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def stack(activation="relu", depth=2):
    hidden = [layers.Dense(8, activation=activation, name=f"dense{i}") for i in range(depth)]
    odd = [layers.BatchNormalization(name="norm"), layers.Dropout(0.3, name="drop")]
    return keras.Sequential([keras.Input((8,)), *hidden, *odd, layers.Dense(4, name="logits")])


def small():
    return keras.Sequential([keras.Input((8,)), layers.Dense(8, activation="tanh"), layers.Dense(4)])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(8, activation="tanh")
        self.drop = layers.Dropout(0.3)
        self.head = layers.Dense(4)

    def call(self, x, training=False):
        return self.head(self.drop(self.hidden(x), training=training))


class OwnStep(Subclassed):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                keras.losses.sparse_categorical_crossentropy(y, self(x, training=True), from_logits=True)
            )
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def recurrent():
    return keras.Sequential(
        [keras.Input((8,)), layers.Reshape((8, 1)), layers.LSTM(6, name="lstm"), layers.Dense(4, name="logits")]
    )


def half():
    with policy("mixed_float16"):
        return keras.Sequential(
            [keras.Input((8,)), layers.Dense(8, activation="relu"), layers.Dense(4, dtype="float32")]
        )


KINDS = {
    "sequential": (stack, {}),
    "compiled by XLA": (small, {"jit_compile": True}),
    "several steps in one": (stack, {"steps_per_execution": 3}),
    "eager": (stack, {"run_eagerly": True}),
    "subclassed": (Subclassed, {}),
    "a train_step of its own": (OwnStep, {"loss": None}),
    "recurrent": (recurrent, {}),
    "mixed precision": (half, {}),
}


def trained(make, options, monitor=None, **fit):
    keras.utils.set_random_seed(3)
    model = make()
    model.compile(keras.optimizers.Adam(0.01), **({"loss": CROSS_ENTROPY} | options))
    callbacks = [monitor] if monitor else []
    history = model.fit(
        X,
        Y,
        batch_size=16,
        epochs=2,
        verbose=0,
        callbacks=callbacks,
        validation_data=(X[:16], Y[:16]) if "loss" not in options else None,
        **fit,
    )
    return model, history.history


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_to_the_last_bit(kind):
    make, options = KINDS[kind]
    plain, without = trained(make, options)
    monitor = flow.FlowMonitor(X[:16], Y[:16], every=2, loss=CROSS_ENTROPY)
    watched, with_monitor = trained(make, options, monitor)
    assert with_monitor == without
    for a, b in zip(plain.variables, watched.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(plain.optimizer.variables, watched.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    steps = [0, 4, 8] if kind == "several steps in one" else [0, 2, 4, 6, 8]
    seen = [moment.step for moment in monitor.history]
    assert seen[0] == 0 and seen[-1] == 8 and (kind == "several steps in one" or seen == steps)
    assert [moment.epoch for moment in monitor.history if moment.step == 8] == [1]


def test_what_is_seen_is_what_measure_sees_at_the_end():
    monitor = flow.FlowMonitor(X[:16], Y[:16], every=3)
    model, _ = trained(stack, {}, monitor)
    last = flow.measure(model, X[:16], labels=Y[:16], training=True, seed=0)
    for a, b in zip(monitor.history[-1].rows, last.rows, strict=True):
        np.testing.assert_allclose(a.gradient_norm, b.gradient_norm, rtol=1e-6)
    np.testing.assert_allclose(monitor.history[-1].target, last.target, rtol=1e-6)


def test_the_update_ratio_is_that_of_the_step_before():
    """Plain gradient descent on the watched batch itself: the step is known."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(6, activation="tanh", name="hidden"), layers.Dense(4, name="logits")]
    )
    model.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY)
    monitor = flow.FlowMonitor(X, Y, every=1)
    model.fit(X, Y, batch_size=64, epochs=3, verbose=0, shuffle=False, callbacks=[monitor])
    assert all(np.isnan(row.update_ratio) for row in monitor.history[0].weights)
    for before, after in zip(monitor.history[:-1], monitor.history[1:], strict=True):
        for old, new in zip(before.weights, after.weights, strict=True):
            expected = 0.1 * old.gradient_norm / old.weight_norm if old.weight_norm else np.nan
            np.testing.assert_allclose(new.update_ratio, expected, rtol=1e-3)


def test_no_second_trace_while_training():
    monitor = flow.FlowMonitor(X[:16], Y[:16], every=1)
    calls = []

    class Counting(Subclassed):
        def call(self, x, training=False):
            calls.append(type(x).__name__)
            return super().call(x, training=training)

    without = []
    trained(Counting, {})
    without, calls[:] = list(calls), []
    trained(Counting, {}, monitor)
    assert len(calls) <= len(without) + 2, "one trace of ours, and one where it builds"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"labels": None}, errors.MissingTargetError),
        ({"labels": Y[:5]}, errors.TargetCountError),
        ({"at": "nothing"}, errors.UnknownTapError),
        ({"inputs": X[:16, :3]}, errors.InputShapeError),
        ({"log_dir": "/proc/nothing"}, errors.ArgumentError),
    ],
)
def test_what_is_wrong_is_said_before_the_first_step(options, error):
    arguments = {"inputs": X[:16], "labels": Y[:16]} | options
    model = stack()
    model.compile("sgd", CROSS_ENTROPY)
    before = [np.array(weight) for weight in model.weights]
    with pytest.raises(error):
        model.fit(
            X, Y, verbose=0, callbacks=[flow.FlowMonitor(arguments.pop("inputs"), arguments.pop("labels"), **arguments)]
        )
    for a, b in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"every": 2.5}, {"every": True}, {"records": "xlsx"}, {"show": "yes"}, {"training": 3}]
)
def test_keywords_are_checked_where_they_are_given(options):
    with pytest.raises(errors.ArgumentError):
        flow.FlowMonitor(X, Y, **options)


def test_what_fails_in_the_midst_of_training_does_not_stop_it(tmp_path, monkeypatch):
    monitor = flow.FlowMonitor(X[:16], Y[:16], every=2, log_dir=tmp_path)
    count = iter(range(100))
    original = EventWriter.write

    def write(self, step, found):
        if next(count) == 2:
            raise OSError("No space left on device.")
        return original(self, step, found)

    monkeypatch.setattr(EventWriter, "write", write)
    with pytest.warns(errors.GradtapWarning, match=r"from step 4 on: No space left on device\. Training goes on"):
        _, history = trained(stack, {}, monitor)
    assert len(history["loss"]) == 2
    assert [moment.step for moment in monitor.history] == [0, 2, 4]


def test_an_interrupted_run_leaves_what_was_seen(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    keras.utils.set_random_seed(0)
    model = stack()
    model.compile("sgd", CROSS_ENTROPY)
    monitor = flow.FlowMonitor(X[:16], Y[:16], every=1, log_dir=tmp_path, show=True)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, batch_size=16, verbose=0, callbacks=[monitor, Interrupt()])
    assert [moment.step for moment in monitor.history] == [0, 1, 2, 3]
    with open(tmp_path / "taps.csv", newline="", encoding="utf-8") as file:
        assert {row["step"] for row in csv.DictReader(file)} == {"0", "1", "2", "3"}
    assert "4 measurements over 3 steps" in monitor.summary()


# -- files -------------------------------------------------------------------------------------------------------------


def events(folder):
    found = {}
    [file] = glob.glob(str(folder / "*.flow"))
    for record in tf.data.TFRecordDataset(file):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            found[event.step, value.tag] = value
    return found


def test_events_hold_scalars_histograms_and_pictures(tmp_path):
    monitor = flow.FlowMonitor(X[:16], Y[:16], every=4, log_dir=tmp_path / "logs")
    trained(recurrent, {}, monitor)
    found = events(tmp_path / "logs")
    last = monitor.history[-1]
    for row in last.rows:
        value = found[8, f"gradient_norm/{row.address}"]
        assert value.metadata.plugin_data.plugin_name == "scalars"
        np.testing.assert_allclose(tf.make_ndarray(value.tensor), row.gradient_norm, rtol=1e-6)
        bins = found[8, f"gradients/{row.address}"]
        assert bins.metadata.plugin_data.plugin_name == "histograms"
        counts = tf.make_ndarray(bins.tensor)
        assert counts[:, 2].sum() == 16 * np.prod(row.shape[1:])
        assert np.all(counts[:, 0] < counts[:, 1]) and np.all(counts[1:, 0] == counts[:-1, 1])
    assert found[8, "weights/update_ratio/logits:kernel"].tensor.float_val[0] > 0
    picture = found[8, "through_time/lstm:hidden"]
    assert picture.metadata.plugin_data.plugin_name == "images"
    width, height, png = tf.make_ndarray(picture.tensor)
    assert tf.io.decode_png(png).shape == (int(height), int(width), 3)


def test_rows_are_written_as_text(tmp_path):
    monitor = flow.FlowMonitor(X[:16], Y[:16], every=4, log_dir=tmp_path)
    trained(stack, {}, monitor)
    with open(tmp_path / "taps.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(moment.rows) for moment in monitor.history)
    last = [row for row in rows if row["step"] == "8"]
    for written, row in zip(last, monitor.history[-1].rows, strict=True):
        assert written["address"] == row.address and float(written["gradient_norm"]) == row.gradient_norm
    with open(tmp_path / "weights.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == sum(len(moment.weights) for moment in monitor.history)


def test_rows_are_written_as_parquet(tmp_path):
    if importlib.util.find_spec("pyarrow") is None:
        pytest.skip("pyarrow is not installed")
    from pyarrow import parquet

    monitor = flow.FlowMonitor(X[:16], Y[:16], every=4, log_dir=tmp_path, records="parquet")
    trained(stack, {}, monitor)
    rows = parquet.read_table(tmp_path / "taps.parquet").to_pylist()
    assert len(rows) == sum(len(moment.rows) for moment in monitor.history)
    assert {row["step"] for row in rows} == {0, 4, 8}


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    model = stack()
    model.compile("sgd", CROSS_ENTROPY)
    with pytest.raises(errors.MissingExtraError, match=r"store"):
        model.fit(X, Y, verbose=0, callbacks=[flow.FlowMonitor(X, Y, log_dir=tmp_path, records="parquet")])


# -- what is said ------------------------------------------------------------------------------------------------------


class Kill(keras.callbacks.Callback):
    """At a step, what a step that is far too large does: all units of a layer fall silent."""

    def __init__(self, step):
        super().__init__()
        self.step, self.count = step, 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count == self.step:
            layer = self.model.get_layer("dense1")
            layer.bias.assign(np.full(8, -1e3))


def test_the_summary_names_the_first_layer_that_went_bad_and_when():
    keras.utils.set_random_seed(0)
    model = stack(depth=3)
    model.compile("sgd", CROSS_ENTROPY)
    monitor = flow.FlowMonitor(X[:32], Y[:32], every=2)
    model.fit(X, Y, batch_size=16, epochs=3, verbose=0, callbacks=[Kill(5), monitor])
    first = monitor.findings[0]
    assert (first.kind, first.tap, first.step) == ("dead", "dense1", 6)
    assert "The first to go bad was `dense1`, at step 6: dead." in monitor.summary()
    assert "Seen 4 of 7 times" in monitor.summary()
    assert len([f for f in monitor.findings if f.tap == "dense1"]) == 1


def test_a_healthy_run_is_called_one_and_nothing_is_printed(capfd):
    monitor = flow.FlowMonitor(X[:16], Y[:16], every=4)
    assert "seen nothing" in monitor.summary()
    trained(stack, {}, monitor)
    assert monitor.summary() == "3 measurements over 8 steps: nothing was wrong with the flow."
    out, err = capfd.readouterr()
    assert not out and "measurement" not in err
    loud = flow.FlowMonitor(X[:16], Y[:16], every=4, show=True)
    trained(stack, {}, loud)
    assert "nothing was wrong" in capfd.readouterr().err


def test_a_dataset_and_a_target_are_watched_as_well():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).take(2)
    by_data, by_target = flow.FlowMonitor(data, every=8), flow.FlowMonitor(X[:16], target=0, every=8)
    keras.utils.set_random_seed(0)
    model = stack()
    model.compile("sgd", CROSS_ENTROPY)
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0, callbacks=[by_data, by_target])
    assert by_data.history[-1].rows[0].examples == 32 and by_target.history[-1].rows[0].examples == 16
    scores = gt.activations(model, X[:16], at=":output", training=True, seed=0).only
    np.testing.assert_allclose(by_target.history[-1].target, np.mean(scores[:, 0]), rtol=1e-5)


def test_a_second_run_begins_anew():
    monitor = flow.FlowMonitor(X[:16], Y[:16], every=4)
    trained(stack, {}, monitor)
    trained(stack, {}, monitor)
    assert [moment.step for moment in monitor.history] == [0, 4, 8]
