"""The bugs: what is changed where, and the tests that must fail of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """One change of the source.

    Args:
      name: What goes wrong.
      file: Where, from the package down.
      old: Text that stands there once.
      new: What takes its place.
      tests: What notices it: pytest's arguments, from `tests` down.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


BUGS = [
    Bug(
        "outputs of layers get no tensor of their own",
        "graph/capture.py",
        "own = [_identity(t) if _is_tensor(t, self._graph) else t for t in flat]",
        "own = flat",
        ("test_inside_layers.py", "-k", "returns_its_input"),
    ),
    Bug(
        "the calls of a shared layer are swapped",
        "graph/resolve.py",
        "index = tap.call or 0\n",
        "index = count - 1 - (tap.call or 0)\n",
        ("test_patch.py", "-k", "shared"),
    ),
    Bug(
        "layers are not put back",
        "graph/capture.py",
        "                _put_back(attributes, name, value)\n",
        "                pass\n",
        ("test_model_untouched.py", "-k", "after_success"),
    ),
    Bug(
        "states of a recurrent layer are not perturbed",
        "graph/recurrent.py",
        "y=state + perturbation)",
        "y=tf.identity(state))",
        ("test_recurrent.py", "-k", "sequences_of_any_length"),
    ),
    Bug(
        "a padded step forgets its state's gradient",
        "graph/recurrent.py",
        "_added(before, added, replaced)",
        "_added(tf.stop_gradient(before), added, replaced)",
        ("test_recurrent.py", "-k", "states_at_every_step"),
    ),
    Bug(
        "states are added to, not replaced",
        "graph/recurrent.py",
        "condition=tf.not_equal(replaced, 0)",
        "condition=tf.not_equal(replaced, replaced)",
        ("test_states_replaced.py", "-k", "array"),
    ),
    Bug(
        "states that a function leaves alone are held",
        "patching.py",
        "changed = tf.not_equal(value, activations)",
        "changed = tf.fill(tf.shape(value), True)",
        ("test_states_replaced.py", "-k", "entries"),
    ),
    Bug(
        "the states of stacked cells are taken for those of one",
        "graph/recurrent.py",
        "_kinds(counts if sum(counts) == len(values) else [len(values)])",
        "_kinds([len(values)])",
        ("test_recurrent.py", "-k", "one_state_each"),
    ),
    Bug(
        "an output's key is taken for the first output",
        "graph/sides.py",
        "return tap.picked(number) if",
        "return tap.picked(0) if",
        ("test_inside_layers.py", "-k", "several_outputs and dict"),
    ),
    Bug(
        "what is fed and fetched loses its place",
        "graph/surgery.py",
        "        fetches = [tf.identity(fetch) for fetch in fetches]\n",
        "        fetches = list(fetches)\n",
        ("test_suffix.py", "-k", "from_the_input"),
    ),
    Bug(
        "a part of a graph reads zeros for a large constant",
        "graph/surgery.py",
        "part.capture(read_instead, name",
        "part.capture(tf.zeros_like(external) if external.dtype != tf.resource else read_instead, name",
        ("test_cut_graphs.py", "-k", "constant"),
    ),
    Bug(
        "control dependencies are not followed",
        "graph/surgery.py",
        "[before for before in op.control_inputs if before not in given] if with_control else []",
        "[]",
        ("test_cut_graphs.py", "-k", "runs_before"),
    ),
    Bug(
        "ops keep the wish to stand beside ops that are gone",
        "graph/surgery.py",
        "        if not beside or not names.issuperset(beside):\n",
        "        if not beside:\n",
        ("test_model_kinds.py",),
    ),
    Bug(
        "what Python knew of a shape is forgotten where a graph is cut",
        "graph/surgery.py",
        "        output.set_shape(fetch.shape)",
        "        pass",
        ("test_cut_graphs.py", "-k", "only_python"),
    ),
    Bug(
        "the target is a mean over the batch",
        "targets/outputs.py",
        "    return tf.gather_nd(scores, rows, batch_dims=1)\n",
        "    return tf.gather_nd(scores, rows, batch_dims=1) / tf.cast(tf.shape(scores)[0], scores.dtype)\n",
        ("test_seed_case.py",),
    ),
    Bug(
        "logits=True is ignored",
        "targets/outputs.py",
        "        if not self.logits:\n",
        "        if True:\n",
        ("test_targets.py", "-k", "logits"),
    ),
    Bug(
        "negative classes count from the front",
        "targets/outputs.py",
        "tf.where(indices < 0, indices + sizes, indices)",
        "tf.abs(indices)",
        ("test_targets.py", "-k", "negative"),
    ),
    Bug(
        "a contrast is a sum",
        "targets/places.py",
        "Score(first.value - second.value,",
        "Score(first.value + second.value,",
        ("test_targets_inside.py", "-k", "contrasts"),
    ),
    Bug(
        "a channel is always averaged",
        "targets/places.py",
        "_REDUCE[self.reduce](value,",
        "tf.reduce_mean(value,",
        ("test_targets_inside.py", "-k", "channels"),
    ),
    Bug(
        "slices of units are averaged",
        "targets/places.py",
        "Score(tf.reduce_sum(value, axis=list(range(1, value.shape.rank))))",
        "Score(tf.reduce_mean(value, axis=list(range(1, value.shape.rank))))",
        ("test_targets_inside.py", "-k", "units"),
    ),
    Bug(
        "the rule for moments is off",
        "graph/moments.py",
        "return None if _FIRST_ORDER.get() else slope",
        "return None",
        ("test_second_derivatives.py", "-k", "moments_by"),
    ),
    Bug(
        "moments inside of branches and loops are missed",
        "graph/bodies.py",
        '_BODIES = ("_body_graph", "_true_graph", "_false_graph")',
        "_BODIES = ()",
        ("test_second_derivatives.py", "-k", "moments"),
    ),
    Bug(
        "every stop_gradient is seen through",
        "graph/moments.py",
        '    return op.inputs[0].op.name == f"{scope}/mean" and f"{scope}/SquaredDifference" in used_by\n',
        "    return True\n",
        ("test_second_derivatives.py", "-k", "stop_gradient"),
    ),
    Bug(
        "a gradient op without a derivative counts as constant",
        "graph/second_rules.py",
        '    "ResizeBilinearGrad": "GradtapResizeBilinearGrad",\n',
        "",
        ("test_second_derivatives.py", "-k", "resizing"),
    ),
    Bug(
        "the second derivative of softsign has the wrong sign",
        "graph/second_rules.py",
        "bent = -2 *",
        "bent = 2 *",
        ("test_second_derivatives.py", "-k", "softsign"),
    ),
    Bug(
        "a tangent is not multiplied",
        "products.py",
        "differentiate_again(slopes, cotangents, along=tangents)",
        "differentiate_again(slopes, cotangents, along=[tf.ones_like(t) for t in tangents])",
        ("test_calculus.py", "-k", "brute_force and dense"),
    ),
    Bug(
        "every chunk of a Jacobian holds its first rows",
        "jacobians.py",
        "np.arange(start, start + len(rows))",
        "np.arange(len(rows))",
        ("test_calculus.py", "-k", "chunks and convolution"),
    ),
    Bug(
        "rows and examples are confused where rows are run as examples",
        "jacobians.py",
        "tf.repeat(rows, batch, axis=0)",
        "tf.tile(rows, [batch] + [1] * (rows.shape.rank - 1))",
        ("test_calculus.py", "-k", "without_vectorising and convolution"),
    ),
    Bug(
        "what bypasses a replaced tap sees zeros",
        "patching.py",
        "fed = dict(zip((tensor.ref() for tensor in graph.all_feeds), inputs, strict=True))",
        "fed = dict(zip((t.ref() for t in graph.all_feeds), map(tf.zeros_like, inputs), strict=True))",
        ("test_patch.py", "-k", "bypasses"),
    ),
    Bug(
        "a function sees the activations before the other replacements",
        "patching.py",
        "activations = stage(count).run(*fed.values())[0]",
        "activations = stage(0).run(*inputs)[0]",
        ("test_patch.py", "-k", "several"),
    ),
    Bug(
        "the prefix of a suffix is not cut away",
        "graph/suffixes.py",
        "walking.ancestors(graph.outputs, up_to=[tap])",
        "walking.ancestors(graph.outputs)",
        ("test_suffix.py", "-k", "is_gone"),
    ),
    Bug(
        "parts of a batch all have its first rows",
        "batching.py",
        "tensor[start:stop] if shape and shape[0] == batch else tensor",
        "tensor[: stop - start] if shape and shape[0] == batch else tensor",
        ("test_targets.py", "-k", "size_of_the_parts"),
    ),
    Bug(
        "targets are not split with the batch",
        "batching.py",
        "[*rows(inputs, start), *seeds, *rows(values, start)]",
        "[*rows(inputs, start), *seeds, *values]",
        ("test_targets.py", "-k", "class_for_each"),
    ),
    Bug(
        "a changed structure goes unnoticed",
        "graph/keeping.py",
        "if self._fingerprint is None or not self._fingerprint.matches(source.kept_with):",
        "if self._fingerprint is None:",
        ("test_model_untouched.py", "-k", "changed_structure"),
    ),
    Bug(
        "a layer's input is shared with others that are given the same",
        "graph/sides.py",
        "[copies.own_copy(graph.graph, t, call.first_op, call.last_op) for t in call.inputs]",
        "list(call.inputs)",
        ("test_inside_layers.py", "-k", "share"),
    ),
    Bug(
        "every draw is the same",
        "graph/randomness.py",
        "return list(state.reshape(-1, 2))",
        "return [state[:2] * 0 for _ in draws]",
        ("test_model_untouched.py", "-k", "dropout"),
    ),
    Bug(
        "the model's next draws are not those of its generators",
        "graph/randomness.py",
        "return np.zeros(2, np.uint32) if generator is None else np.asarray(generator.state.value, np.uint32)",
        "return np.zeros(2, np.uint32)",
        ("test_suffix.py", "-k", "training"),
    ),
]
