"""Bugs of rules, perturbation and evaluation: what is changed where, and the tests that must fail of it."""

from __future__ import annotations

from tests.planted.bugs import Bug

BUGS = [
    Bug(
        "lrp begins with ones and not with the target",
        "attribution/lrp.py",
        "tf.reduce_sum(score.value * tf.stop_gradient(score.value))",
        "tf.reduce_sum(score.value)",
        ("test_lrp.py", "-k", "captums"),
    ),
    Bug(
        "lrp forgets the bias",
        "rules/layer_rules.py",
        "self.output, self.slopes = output, slopes",
        "self.output, self.slopes = slopes * op.outputs[0], slopes",
        ("test_lrp.py", "-k", "papers and epsilon"),
    ),
    Bug(
        "lrp favours the wrong sign",
        "rules/layer_rules.py",
        "meant = tf.cast(layer.output < 0 if sign < 0 else",
        "meant = tf.cast(layer.output < 0 if sign > 0 else",
        ("test_lrp.py", "-k", "papers and gamma"),
    ),
    Bug(
        "lrp adds the negative contributions",
        "rules/layer_rules.py",
        "found - rule.beta * part(-1)",
        "found + rule.beta * part(-1)",
        ("test_lrp.py", "-k", "papers and alpha_beta"),
    ),
    Bug(
        "lrp takes a normalisation behind a layer as a layer of its own",
        "rules/relevance.py",
        "            found.append((takers[0], at))",
        "            return found",
        ("test_lrp.py", "-k", "folded and alpha_beta and Conv2D"),
    ),
    Bug(
        "lrp takes a negative scale for a positive one",
        "rules/layer_rules.py",
        "        if layer.scaled:",
        "        if not layer.scaled:",
        ("test_lrp.py", "-k", "folded and alpha_beta and Conv2D"),
    ),
    Bug(
        "lrp gives relevance to a gate",
        "rules/relevance.py",
        "            if gates[0] != gates[1]:",
        "            if False:",
        ("test_lrp.py", "-k", "gates_and_states"),
    ),
    Bug(
        "lrp goes through an op without a rule",
        "attribution/lrp.py",
        "        _refuse(flow.lacking(",
        "        (lambda lacking: None)(flow.lacking(",
        ("test_lrp.py", "-k", "is_named"),
    ),
    Bug(
        "lrp: a later key of a composite holds",
        "attribution/lrp.py",
        "found.setdefault((op.graph.name, op.name), rule)",
        "found[op.graph.name, op.name] = rule",
        ("test_lrp.py", "-k", "composites"),
    ),
    Bug(
        "a tolerance is given up before the points are close",
        "staged/integrals.py",
        "if error < rounding else 6",
        "if error < rounding else 3",
        ("test_paths.py", "-k", "narrow_step"),
    ),
    Bug(
        "attention relevance rolls out in the wrong order",
        "attribution/attention.py",
        "        for block in blocks:\n",
        "        for block in blocks[::-1]:\n",
        ("test_attention_relevance.py", "-k", "of_the_paper"),
    ),
    Bug(
        "attention relevance keeps what speaks against the target",
        "attribution/attention.py",
        "tf.nn.relu(widen(place.tensor) * widen(slope))",
        "widen(place.tensor) * widen(slope)",
        ("test_attention_relevance.py", "-k", "of_the_paper"),
    ),
    Bug(
        "attention relevance crosses from one sequence to another",
        "attribution/attention.py",
        "    if len(given) > 1:",
        "    if len(given) > 9:",
        ("test_attention_relevance.py", "-k", "no_stack"),
    ),
    Bug(
        "attribution patching takes the slope of the clean run",
        "attribution/activation_patching.py",
        "slopes = gradients(model, corrupt,",
        "slopes = gradients(model, clean,",
        ("test_activation_patching.py", "-k", "formula and dense"),
    ),
    Bug(
        "patching one by one starts from the clean run",
        "attribution/activation_patching.py",
        "    _, parts = ask(model, corrupt, question, settings)",
        "    _, parts = ask(model, tf.zeros_like(corrupt), question, settings)",
        ("test_activation_patching.py", "-k", "formula and dense"),
    ),
]
