"""Reports: the data are those of the calls that they stand for, and the page holds them and asks for nothing else."""

from __future__ import annotations

import base64
import dataclasses
import json
import re

import keras
import numpy as np
import pytest
from keras import layers

import gradtap as gt
from command_line import run, save_images, save_models
from gradtap import errors
from gradtap.report.page import page

pytest.importorskip("PIL.Image")


def classifier(channels=3):
    x = image = keras.Input((24, 20, channels), name="image")
    for i, stride in enumerate((1, 2), start=1):
        x = layers.Conv2D(4, 3, strides=stride, padding="same", activation="relu", name=f"conv{i}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="scores")(x), name="net")


@pytest.fixture(scope="module")
def made():
    keras.utils.set_random_seed(0)
    model, images = classifier(), np.random.default_rng(0).random((2, 24, 20, 3)).astype("float32")
    methods = ["grad_cam", "integrated_gradients", "activation_x_gradient"]
    document = gt.report.collect(
        model,
        images,
        at=["conv1", "conv2", "pool"],
        methods=methods,
        names=["one <b>", "two"],
        class_names=["cat", "dog", "</script>"],
        title="A {{data}} title",
    )
    return model, images, document


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def unpacked(packed):
    numbers = np.frombuffer(base64.b64decode(packed["numbers"]), "<i2").reshape(packed["rows"], packed["columns"])
    return numbers / 32767 * packed["largest"]


def test_the_maps_are_those_of_the_calls(made):
    model, images, document = made
    found = gt.gradients(model, images, target="predicted", at=["conv1", "conv2", "pool"])
    paths = gt.attribution.integrated_gradients(model, images, target="predicted", at=["conv1", "conv2", "pool"])
    cam = gt.attribution.grad_cam(model, images, target="predicted", at="conv2").only
    for n, example in enumerate(document.examples):
        look = example.looks["conv2"]
        np.testing.assert_allclose(look.activation.values, np.mean(found.activations["conv2"][n], -1), rtol=1e-5)
        np.testing.assert_allclose(look.gradient.values, np.sum(found["conv2"][n], -1), rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(look.attributions["grad_cam"].values, cam[n], rtol=1e-4, atol=1e-9)
        total = np.sum(paths["conv1"][n], -1)
        np.testing.assert_allclose(example.looks["conv1"].attributions["integrated_gradients"].values, total, atol=1e-7)
        np.testing.assert_allclose(example.looks["pool"].activation.values, found.activations["pool"][n : n + 1])
        assert example.score == pytest.approx(float(found.target[n]))
        for i, address in enumerate(["conv1", "conv2", "pool"]):
            delta = paths.delta[address]
            assert example.errors["integrated_gradients"][address] == pytest.approx(float(delta[n]), abs=1e-6)
    assert [name for name, _ in document.examples[0].prediction] == [
        ["cat", "dog", "</script>"][k] for k in np.argsort(-np.asarray(found.outputs)[0])
    ]


def test_what_cannot_be_computed_is_said(made):
    model, images, document = made
    assert "grad_cam" in document.examples[0].looks["pool"].attributions  # a map of no places is one number
    recorded = gt.report.collect(model, images, at=["conv1", "scores"], methods=["attention_relevance"])
    assert any("attention_relevance" in what for what in recorded.left_out)


def test_the_table_is_that_of_flow(made):
    model, images, document = made
    rows = gt.flow.measure(model, images, target="predicted", at=["conv1", "conv2", "pool"]).rows
    for mine, theirs in zip(document.taps, rows, strict=True):
        assert (mine.address, mine.gradient_norm, mine.dead) == (theirs.address, theirs.gradient_norm, theirs.dead)


def test_the_page_holds_all_and_asks_for_nothing(made):
    _, _, document = made
    text = page(document)
    data = data_of(text)
    for example, there in zip(document.examples, data["examples"], strict=True):
        for address, look in example.looks.items():
            packed = there["looks"][address]["gradient"]
            largest = np.abs(look.gradient.values).max()
            np.testing.assert_allclose(unpacked(packed), look.gradient.values, atol=largest / 60000)
    assert "default-src 'none'" in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", text)
    assert "one &lt;b&gt;" in text or "one <b>" not in text.split('id="data"')[0]
    assert "A {{data}} title" in text
    assert text.count("</script>") == 2
    assert "conv1" in text and "net" in text


def test_a_page_of_eight_photographs_and_six_layers_is_below_three_megabytes(rng):
    convs = [layers.Conv2D(3, 3, padding="same", name=f"c{i}") for i in range(6)]
    model = keras.Sequential([keras.Input((224, 224, 3)), *convs, layers.GlobalAveragePooling2D()])
    images = rng.random((8, 224, 224, 3)).astype("float32")
    methods = ["grad_cam", "saliency", "activation_x_gradient"]
    document = gt.report.collect(model, images, at=[f"c{i}" for i in range(6)], methods=methods, batch_size=1)
    assert len(page(document).encode()) < 3e6
    look = document.examples[0].looks["c0"].gradient
    assert look.shown_of == (224, 224)
    # Means over squares keep the mean of the whole where the squares are of one size, and nearly so else.
    whole = np.sum(gt.gradients(model, images[:1], target="predicted", at="c0").only[0], -1)
    assert look.values.mean() == pytest.approx(whole.mean(), rel=0.05)


def test_reports_of_series_and_of_tokens(rng):
    x = keras.Input((12, 2))
    series = keras.Model(x, layers.Dense(2)(layers.LSTM(3, name="lstm")(layers.Conv1D(3, 3, name="conv")(x))))
    document = gt.report.collect(series, rng.random((2, 12, 2)), at=["conv", "lstm"], methods=["saliency"])
    assert document.examples[0].picture is None
    assert document.examples[0].looks["conv"].activation.values.shape == (1, 10)
    ids = keras.Input((7,), dtype="int32")
    embedded = layers.Embedding(9, 4, name="embedding")(ids)
    attended = layers.MultiHeadAttention(2, 2, name="attention")(embedded, embedded)
    text = keras.Model(ids, layers.Dense(2)(layers.GlobalAveragePooling1D()(attended)))
    at = ["embedding", "attention:attention"]
    document = gt.report.collect(text, rng.integers(0, 9, (2, 7)), at=at, methods=["saliency"])
    assert document.examples[1].looks["attention:attention"].activation.values.shape == (7, 7)
    assert page(document)


def test_every_address_is_shown_or_left_out_with_its_reason(rng):
    x = keras.Input((12, 2))
    model = keras.Model(x, layers.Dense(2)(layers.LSTM(3, name="lstm")(layers.Conv1D(3, 3, name="conv")(x))))
    series = rng.random((2, 12, 2)).astype("float32")
    at = ["conv", "conv:kernel", "lstm", "lstm:hidden"]
    document = gt.report.collect(model, series, at=at, methods=["saliency"])
    found = gt.gradients(model, series, target="predicted", at=at)
    assert [tap.address for tap in document.taps] == [a for a in found if a != "conv:kernel"]
    assert {tap.address for tap in document.taps} == {"conv", "lstm", "lstm:hidden"}
    assert "a weight has no map" in document.left_out["conv:kernel"]
    [state] = [tap for tap in document.taps if tap.address == "lstm:hidden"]
    for said, values in [
        (state.activation_norm, found.activations["lstm:hidden"]),
        (state.gradient_norm, found["lstm:hidden"]),
    ]:
        assert said == pytest.approx(np.linalg.norm(np.asarray(values).reshape(2, -1), axis=1).mean(), rel=1e-5)
    assert set(document.examples[0].looks) == {tap.address for tap in document.taps}
    assert [tap.address for tap in gt.report.collect(model, series, at="lstm:hidden", methods=[]).taps] == [
        "lstm:hidden"
    ]
    with pytest.raises(errors.ArgumentError, match="only weights"):
        gt.report.collect(model, series, at="conv:kernel")


def test_vectors_are_units_with_the_names_of_classes(made):
    model, images, document = made
    assert document.examples[0].looks["pool"].activation.units
    assert document.examples[0].looks["pool"].activation.over == ""
    assert not document.examples[0].looks["conv1"].activation.units
    at, names = ["conv1", "pool", "scores:preactivation", "scores", ":output"], ["cat", "dog", "hen"]
    named = gt.report.collect(model, images, at=at, methods=["channel_importance"], class_names=names)
    assert {tap.address: tap.classes for tap in named.taps} == {
        "conv1": (),
        "pool": (),
        "scores:preactivation": tuple(names),
        "scores": tuple(names),
        ":output": tuple(names),
    }
    assert named.examples[0].looks["conv1"].attributions["channel_importance"].units
    assert [named.examples[0].looks["conv1"].activation.over, named.examples[0].looks["conv1"].gradient.over] == [
        "mean over channels",
        "sum over channels",
    ]


def test_the_target_is_named(made, rng):
    model, images, document = made
    outputs = np.asarray(model(images))
    for n, example in enumerate(document.examples):
        k = int(outputs[n].argmax())
        assert example.target == f"class {k}, {['cat', 'dog', '</script>'][k]} (predicted)"
    k = int(outputs[1].argmin())
    other = gt.report.collect(model, images, at="conv1", methods=[], target=[int(outputs[0].argmax()), k])
    assert [example.target for example in other.examples] == [f"class {outputs[0].argmax()} (predicted)", f"class {k}"]
    x = keras.Input((4,))
    single = keras.Model(x, layers.Dense(1, activation="sigmoid", name="p")(layers.Dense(3, name="d")(x)))
    document = gt.report.collect(single, rng.random((2, 4)).astype("float32"), at="d", methods=[])
    assert document.examples[0].target == "the model's one output"


def test_occlusion_has_windows_of_a_fourth(made):
    model, images, _ = made
    document = gt.report.collect(model, images, at=["conv1", "conv2", "pool"], methods=["occlusion"])
    assert document.left_out == {}
    for at, window in [("conv1", 5), ("conv2", 2), ("pool", 1)]:
        expected = gt.attribution.occlusion(model, images, target="predicted", at=at, window=window).only[1]
        drawn = document.examples[1].looks[at].attributions["occlusion"].values
        np.testing.assert_allclose(drawn, np.reshape(expected, drawn.shape), rtol=1e-4, atol=1e-8)


def test_a_method_that_needs_more_is_refused(made):
    model, images, _ = made
    with pytest.raises(errors.ArgumentError, match="`expected_gradients` needs `baselines`"):
        gt.report.collect(model, images, at="conv1", methods=["expected_gradients"])
    with pytest.raises(errors.ArgumentError, match="`attribution_patching` needs `clean`, `corrupt`"):
        gt.report.collect(model, images, at="conv1", methods=["attribution_patching"])


@pytest.mark.parametrize("names", [["cat", "dog"], ["a", "b", "c", "d"]])
def test_names_that_are_not_one_for_each_class(made, names):
    model, images, _ = made
    with pytest.raises(errors.ArgumentError, match=f"{len(names)} class names, but the model has 3 classes"):
        gt.report.collect(model, images, at="conv1", class_names=names)


def test_no_backtick_is_on_the_page(made):
    model, images, _ = made
    document = gt.report.collect(model, images, at=["conv1", "scores"], methods=["attention_relevance", "saliency"])
    assert "`" in "".join(document.left_out.values())
    text = page(document)
    assert "`" not in text.split("<script")[0] and "`" not in data_of(text)["said"]["saliency"]
    assert data_of(text)["said"]["saliency"].startswith("The gradient of the target")


def test_errors_of_completeness_stand_below_their_layers(made):
    document = dataclasses.replace(made[2])
    for example in document.examples:
        assert list(example.errors["integrated_gradients"]) == ["conv1", "conv2", "pool"]
    some = [dataclasses.replace(e, errors={"integrated_gradients": {"pool": 0.25}}) for e in document.examples]
    text = page(dataclasses.replace(document, examples=some))
    assert "<td>–</td><td>–</td><td>0.25</td>" in text


def test_mistakes(made, tmp_path):
    model, images, _ = made
    with pytest.raises(errors.ArgumentError, match="grad_cam"):
        gt.report.collect(model, images, at="conv1", methods=["gradcam"])
    with pytest.raises(errors.ArgumentError, match="64"):
        gt.report.collect(model, np.zeros((65, 24, 20, 3)), at="conv1")
    with pytest.raises(errors.UnknownTapError):
        gt.report.write(model, images, tmp_path / "report.html", at="nothing")
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_shows_it(made):
    html = made[2]._repr_html_()
    assert html.startswith("<iframe srcdoc=")
    assert "&lt;!doctype html&gt;" in html


def test_the_command(tmp_path):
    (tmp_path / "models").mkdir()
    models, images = save_models(tmp_path / "models"), save_images(tmp_path / "images")
    out = tmp_path / "page.html"
    arguments = ["report", models["colour"], str(images), "--at", "conv1", "--at", "conv2", "--methods", "grad_cam"]
    run(*arguments, "-o", str(out))
    data = data_of(out.read_text(encoding="utf-8"))
    assert [layer["address"] for layer in data["layers"]] == ["conv1", "conv2"]
    assert data["methods"] == ["grad_cam"]
    assert all(example["picture"].startswith("data:image/") for example in data["examples"])
    assert "`grad_cam`" in run(*arguments[:-1], "gradcam", "-o", str(out), code=1).output
