"""Bugs of whole data sets: what is changed where, and the tests that must fail of it."""

from __future__ import annotations

from tests.planted.bugs import Bug

RUNS, STATISTICS, DATA = "test_dataset_runs.py", "test_dataset_statistics.py", "test_dataset_data.py"

CHANGES = "test_dataset_changes.py"

BUGS = [
    Bug(
        "dataset: of several inputs the first alone is in the digest",
        "dataset/reading.py",
        "for leaf in leaves:\n                plain",
        "for leaf in leaves[:1]:\n                plain",
        (CHANGES, "-k", "every_value_apart"),
    ),
    Bug(
        "dataset: a retry looks at what failed alone",
        "dataset/running.py",
        "if failed or (changed and done and not _as_before(store, worker, task)):",
        "if failed:",
        (CHANGES, "-k", "computes_what_has_changed"),
    ),
    Bug(
        "dataset: a retry computes everything anew",
        "dataset/running.py",
        "if failed or (changed and done and not _as_before(store, worker, task)):",
        "if failed or changed:",
        (CHANGES, "-k", "nothing_that_is_as_it_was"),
    ),
    Bug(
        "dataset: what is too small for its type becomes zero",
        "dataset/working.py",
        "(sizes > 0) & (sizes < limits.smallest_normal)",
        "sizes < 0",
        (CHANGES, "-k", "no_zero"),
    ),
    Bug(
        "dataset: the last axis of a map is taken for its channels",
        "dataset/axes.py",
        'axes[-1] not in ("time", "width", "height")',
        "True",
        (CHANGES, "-k", "places_and_no_channels"),
    ),
    Bug(
        "dataset: what a function finds beside it does not count",
        "dataset/fingerprints.py",
        "_globals_of(function, code).items()]",
        "{}.items()]",
        (CHANGES, "-k", "finds_beside_it"),
    ),
    Bug(
        "dataset: a tuple of two inputs is an example and its label",
        "dataset/sequences.py",
        "len(element) == inputs > 1",
        "False",
        (DATA, "-k", "two_inputs"),
    ),
    Bug(
        "dataset: a block is done before its data are written",
        "dataset/local_engine.py",
        "    job.kept.write(outcome.task, kept)\n    commit(outcome)",
        "    commit(outcome)\n    job.kept.write(outcome.task, kept)",
        (RUNS, "-k", "after_the_data"),
    ),
    Bug(
        "dataset: what is done is done again",
        "dataset/blocks.py",
        "if not all(done[block] for block in task.blocks):",
        "if True:",
        (RUNS, "-k", "goes_on or computes_nothing"),
    ),
    Bug(
        "dataset: every example has the target of the first ones",
        "dataset/working.py",
        "self._targets[group.ids]",
        "self._targets[: len(group.ids)]",
        (RUNS, "-k", "target_of_its_own"),
    ),
    Bug(
        "dataset: rows of a block with a bad example move up",
        "dataset/working.py",
        "        values[ids - rows.start] =",
        "        values[: len(ids)] =",
        (RUNS, "-k", "take_its_block or any_length"),
    ),
    Bug(
        "dataset: NaN in the input is not looked for",
        "dataset/working.py",
        "return usable(self.source.read(rows.start, rows.stop))",
        "return self.source.read(rows.start, rows.stop)",
        (RUNS, "-k", "recorded_and_retried"),
    ),
    Bug(
        "dataset: a failed example counts in a statistic",
        "dataset/working.py",
        "value = results[key] if good.all() else results[key][good]",
        "value, good = results[key], np.ones(len(ids), bool)",
        (RUNS, "-k", "leaves_bad_results_out"),
    ),
    Bug(
        "dataset: retry computes nothing",
        "dataset/running.py",
        "store.mark(task.blocks, done=False)",
        "store.mark(task.blocks, done=True)",
        (RUNS, "-k", "recorded_and_retried"),
    ),
    Bug(
        "dataset: the weights are no part of the model",
        "dataset/fingerprints.py",
        'weights.update(np.ascontiguousarray(value).view(np.uint8).data if value.size else b"")',
        'weights.update(b"")',
        (RUNS, "-k", "another_model"),
    ),
    Bug(
        "dataset: activations are no part of the model",
        "dataset/fingerprints.py",
        "        found.update(node.op.encode())\n",
        "",
        (RUNS, "-k", "another_model"),
    ),
    Bug(
        "dataset: arguments are not compared",
        "dataset/comparing.py",
        '_PARTS = ("run", "model", "data", "arguments")',
        '_PARTS = ("run", "model", "data")',
        (RUNS, "-k", "another_run"),
    ),
    Bug(
        "dataset: nobody minds a lock",
        "locking.py",
        "fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        (RUNS, "-k", "two_runs"),
    ),
    Bug(
        "dataset: a layer takes the place of the record",
        "dataset/names.py",
        "if parts[0] in RESERVED:",
        "if parts[0] in ():",
        (RUNS, "-k", "nested_addresses"),
    ),
    Bug(
        "dataset: two means are merged as if their counts were equal",
        "dataset/statistics.py",
        'apart, share = b["mean"] - a["mean"], b["count"] / count',
        'apart, share = b["mean"] - a["mean"], 0.5',
        (STATISTICS, "-k", "any_split"),
    ),
    Bug(
        "dataset: equal values come as they like",
        "dataset/statistics.py",
        "np.lexsort((ids, -values), axis=1)",
        "np.lexsort((-ids, -values), axis=1)",
        (STATISTICS, "-k", "order_of_the_data"),
    ),
    Bug(
        "dataset: a quantile is one value too low",
        "dataset/sketches.py",
        'np.searchsorted(row, at, side="right")',
        'np.searchsorted(row, at, side="left")',
        (STATISTICS, "-k", "any_split and quantiles"),
    ),
    Bug(
        "dataset: a stream forgets what is left of a batch",
        "dataset/sequences.py",
        "_part(self._waiting, taken, rows)",
        "None",
        (DATA, "-k", "any_kind and tf"),
    ),
    Bug(
        "dataset: padding is kept",
        "dataset/stored.py",
        "return self[(i, *(slice(int(size)) for size in self._lengths[i]))]",
        "return self[i]",
        (RUNS, "-k", "any_length"),
    ),
]
