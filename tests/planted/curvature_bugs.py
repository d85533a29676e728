"""Bugs of second derivatives: what is changed where, and the tests that must fail of it."""

from __future__ import annotations

from tests.planted.bugs import Bug

BUGS = [
    Bug(
        "curvature: examples are mixed in a block",
        "curvature/matrices.py",
        "    return tf.transpose(tf.concat(found, 0), [1, 2, 0])\n",
        "    return tf.transpose(tf.concat(found, 0)[:, ::-1], [1, 2, 0])\n",
        ("test_curvature.py", "-k", "columns and dense"),
    ),
    Bug(
        "curvature: the standard error forgets the number of draws",
        "curvature/estimates.py",
        "tf.sqrt(spread / (count - 1) / count)",
        "tf.sqrt(spread / (count - 1))",
        ("test_curvature.py", "-k", "within_their_errors"),
    ),
    Bug(
        "curvature: draws that are no signs",
        "curvature/estimates.py",
        "tf.cast(2 * tf.concat(drawn, 0) - 1, here.dtype)",
        "tf.cast(2 * tf.concat(drawn, 0), here.dtype)",
        ("test_curvature.py", "-k", "within_their_errors"),
    ),
    Bug(
        "curvature: all runs are given the same draw",
        "curvature/estimates.py",
        "[run % _BITS for run in runs]",
        "[0 for run in runs]",
        ("test_curvature.py", "-k", "within_their_errors"),
    ),
    Bug(
        "curvature: draws are made one run at a time",
        "graph/shape_twins.py",
        "    if not op.name.startswith(_SCOPE):\n        return None\n",
        "",
        ("test_curvature.py", "-k", "run_together"),
    ),
    Bug(
        "curvature: a vector is looked for before the tap",
        "graph/cutting.py",
        "walking.descendants([*moved, *further_feeds])",
        "walking.descendants(moved)",
        ("test_curvature.py", "-k", "meets_the_vector"),
    ),
    Bug(
        "curvature: the second derivative of a ReLU network computes the first",
        "graph/surgery.py",
        "                op._update_input(position, twin)\n",
        "                pass\n",
        ("test_curvature.py", "-k", "not_computed"),
    ),
    Bug(
        "curvature: a diagonal of zeros counts as no curvature",
        "curvature/estimates.py",
        "[exact, tf.zeros_like(exact), found]",
        "[exact, tf.zeros_like(exact), exact]",
        ("test_curvature.py", "-k", "no_sign_of_flatness"),
    ),
    Bug(
        "curvature: a Hessian is taken where examples are coupled",
        "curvature/matrices.py",
        "    refuse_coupling(graph, settings)\n    places",
        "    places",
        ("test_eigenpairs.py", "-k", "mistakes"),
    ),
    Bug(
        "Gauss-Newton: the outer function is that of the probabilities",
        "curvature/linearised.py",
        "output if (before := pre_squash(output)) is None else before for output",
        "output for output",
        ("test_gauss_newton.py", "-k", "cross_entropy and dense"),
    ),
    Bug(
        "Gauss-Newton: the inner part bends as well",
        "curvature/linearised.py",
        "    bent = differentiate_again(slopes, inner, along=flow, apart=True)\n",
        "    own = [place.variable for place in places]\n"
        "    return differentiate_again(surgery.differentiate(score, own), own, along=vectors)\n",
        ("test_gauss_newton.py", "-k", "inner_part_is_linear"),
    ),
    Bug(
        "Gauss-Newton: places that depend on each other are not held apart",
        "curvature/linearised.py",
        "along=flow, apart=True",
        "along=flow",
        ("test_gauss_newton.py", "-k", "depend_on_each_other"),
    ),
    Bug(
        "Gauss-Newton: ways around go unnoticed",
        "curvature/linearised.py",
        "    if around or not reached:\n",
        "    if not reached:\n",
        ("test_gauss_newton.py", "-k", "taken_as_a_function"),
    ),
    Bug(
        "eigenpairs: the shift is not taken back",
        "curvature/eigenpairs.py",
        "return (found - shift)[order]",
        "return found[order]",
        ("test_eigenpairs.py", "-k", "any_spectrum"),
    ),
    Bug(
        "eigenpairs: products go to other solvers",
        "curvature/joined.py",
        "zip(asking, found, strict=True)",
        "zip(asking[::-1], found, strict=True)",
        ("test_eigenpairs.py", "-k", "run_together"),
    ),
    Bug(
        "eigenpairs: solvers are left waiting",
        "curvature/joined.py",
        "            answer.put(None)\n"
        "        for thread in (thread for thread in threads if thread.ident is not None):\n"
        "            thread.join()\n",
        "            pass\n",
        ("test_eigenpairs.py", "-k", "ctrl_c"),
    ),
    Bug(
        "eigenpairs: examples that ended are taken for those at work",
        "curvature/eigenpairs.py",
        "[part[i] for i in asking]",
        "part[: len(asking)]",
        ("test_eigenpairs.py", "-k", "any_spectrum or parts_and_datasets or iterated_on_together"),
    ),
    Bug(
        "eigenpairs: no sign of its own",
        "curvature/eigenpairs.py",
        "vectors * np.where(np.take_along_axis(vectors, largest, 2) < 0, -1.0, 1.0)",
        "vectors * 1.0",
        ("test_eigenpairs.py", "-k", "any_spectrum"),
    ),
    Bug(
        "cross derivatives: the transpose",
        "curvature/cross.py",
        "order = [1, 0, 2] if is_first else [1, 2, 0]",
        "order = [1, 2, 0] if is_first else [1, 0, 2]",
        ("test_cross_derivatives.py", "-k", "patched"),
    ),
    Bug(
        "cross derivatives: the slope is that at the same tap",
        "curvature/cross.py",
        "        found = bent_along(graph, slope, vector, kept)\n",
        "        found = bent_along(graph, slope, vector, [along]) * len(kept)\n",
        ("test_cross_derivatives.py", "-k", "two_inputs or patched or shapes"),
    ),
]
