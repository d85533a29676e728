"""Watch the flow while a model is trained: a callback for ``fit``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, check_choice
from gradtap.flow.events import EventWriter
from gradtap.flow.measuring import Objective, measured
from gradtap.flow.merging import EMPTY
from gradtap.flow.records import FORMATS, Records, make_records
from gradtap.flow.rows import Finding, FlowMeasurement, FlowRow, TimeProfile, WeightRow
from gradtap.flow.totals import norm_of
from gradtap.graph.model_files import as_trace
from gradtap.graph.weights import variable_of
from gradtap.showing import face
from gradtap.types import Address, Structure


@dataclass(frozen=True)
class FlowMoment:
    """What a monitor saw at one step of a training run.

    Args:
      step: How many training steps had been made.
      epoch: In which epoch, from 0.
      rows: The taps, without their histograms.
      weights: The weights, with the ratio of the step's update.
      profiles: The states of recurrent layers.
      findings: What was wrong at this step.
      target: Mean of the loss over the examples that are watched.
    """

    step: int
    epoch: int
    rows: list[FlowRow]
    weights: list[WeightRow]
    profiles: list[TimeProfile]
    findings: list[Finding]
    target: float


class FlowMonitor(keras.callbacks.Callback):  # type: ignore[misc]
    r"""A Keras callback that measures the flow on a fixed batch every so many steps, and says what goes bad when.

    What is measured is what `measure` measures, of any model that ``fit`` trains, with a ``train_step`` of its own or
    without. Beside it stands the update ratio :math:`|w_{t} - w_{t-1}| / |w_{t-1}|` of each weight over the training
    step before. Training is not touched: with and without the monitor its weights are the same to the last bit. All
    that can be wrong with the arguments is found before the first step.

    Args:
      inputs: A batch that is watched, as `measure` takes it.
      labels: One for each example; may be left out with a target, or for a dataset that brings them.
      every: Training steps between two measurements; the first is before training, the last after it.
      log_dir: A folder for TensorBoard's histograms, scalars and pictures of recurrent states, and for the rows of all
        taps and weights; None writes nothing. It takes no TensorBoard to write them.
      target: See `gradtap.gradients`; in the place of a loss.
      loss: See `measure`.
      at: See `measure`.
      records: ``"csv"`` or ``"parquet"``: the form of the rows in ``log_dir``.
      show: Whether the error stream shows a table while training goes on, and the summary at its end; None for where
        that is a terminal, and the table for ``fit(verbose=0)`` only, since Keras's own bar wants the same lines.
      batch_size: Most examples in flight at once; None for all.
      training: Passed to the model; with True what is seen is what training sees.
      seed: Draws the dropout masks; they are the same at each measurement.

    Raises:
      ArgumentError: A keyword has a value outside of its choices.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> keras.utils.set_random_seed(0)
      >>> deep = [keras.layers.Dense(32, activation="sigmoid", name=f"dense{i}") for i in range(10)]
      >>> model = keras.Sequential([keras.Input((8,)), *deep, keras.layers.Dense(3)])
      >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
      >>> x, y = np.eye(8), np.arange(8) % 3
      >>> monitor = gt.flow.FlowMonitor(x, y, every=5)
      >>> _ = model.fit(x, y, epochs=10, verbose=0, callbacks=[monitor])
      >>> [moment.step for moment in monitor.history], monitor.findings[0].kind, monitor.findings[0].step
      ([0, 5, 10], 'vanishing', 0)
    """

    def __init__(
        self,
        inputs: Structure,
        labels: Structure = None,
        *,
        every: int = 100,
        log_dir: str | Path | None = None,
        target: Any = None,
        loss: Any = None,
        at: Address | Sequence[Address] = "**",
        records: Literal["csv", "parquet"] = "csv",
        show: bool | None = None,
        batch_size: int | None = None,
        training: bool = True,
        seed: int | None = 0,
    ) -> None:
        super().__init__()
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise errors.ArgumentError(f"every={every!r} is not a positive int.", [], "a number of training steps")
        check_choice("records", records, FORMATS)
        check_choice("show", show, (None, True, False))
        self.every = every
        #: What was seen, one `FlowMoment` for each measurement.
        self.history: list[FlowMoment] = []
        #: What went wrong, each finding once, with the step at which it was first seen.
        self.findings: list[Finding] = []
        self._seen: Counter[tuple[str, str]] = Counter()
        self._data = inputs, labels
        self._wanted = Objective(target, loss)
        self._at = at
        self._settings = Settings("error", batch_size, training, seed, checks=False)
        self._folder = None if log_dir is None else Path(log_dir)
        self._records_form, self._show = records, show
        self._events: EventWriter | None = None
        self._records: Records | None = None
        self._table: Any = None
        self._before: dict[int, Any] = {}
        self._step = self._epoch = self._epoch_start = 0
        self._is_stopped = False

    def on_train_begin(self, logs: Any = None) -> None:
        """Measure once: what is wrong with the arguments, the model or the folder is said here."""
        self.history, self.findings, self._seen = [], [], Counter()
        self._step = self._epoch = self._epoch_start = 0
        self._before, self._is_stopped = {}, False
        found = self._measured()
        if self._folder is not None:
            self._open(self._folder)
        self._table = face("gradtap.plot.live_table", "LiveTable")(self._show, (self.params or {}).get("verbose", 0))
        self._keep(found)

    def _open(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._records = make_records(self._records_form, folder)
            self._events = EventWriter(folder)
        except (OSError, tf.errors.OpError) as error:
            raise errors.ArgumentError(
                f"log_dir=`{folder}` cannot be written to.",
                [("why", (str(error).splitlines() or [""])[0])],
                "another folder, or None to write nothing",
            ) from error

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count from where the last epoch ended."""
        self._epoch, self._epoch_start = epoch, self._step

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Hold on to the weights where the coming step is measured. It copies nothing: a step writes a new buffer."""
        ahead = int(getattr(self.model, "steps_per_execution", 1) or 1)
        if not self._is_stopped and self._step // self.every != (self._step + ahead) // self.every:
            weights = [variable_of(weight) for weight in self.model.trainable_weights]
            self._before = {id(weight.handle): tf.convert_to_tensor(weight) for weight in weights}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Measure where the step is a multiple of ``every``, or the first after one."""
        # Where several steps are one execution, Keras counts an epoch's last one as full.
        whole = (self.params or {}).get("steps") or batch + 1
        last, self._step = self._step, self._epoch_start + min(batch + 1, whole)
        if not self._is_stopped and last // self.every != self._step // self.every:
            self._watch()

    def on_train_end(self, logs: Any = None) -> None:
        """Measure once more, and close what is open."""
        if not self._is_stopped and self.history and self.history[-1].step != self._step:
            self._watch()
        self._before = {}
        if self._events is not None:
            self._events.close()
        if self._table is not None:
            self._table.end(self.summary())
        self._events = self._records = self._table = None

    def _watch(self) -> None:
        """Measure in the midst of training, which goes on whatever happens here."""
        try:
            self._keep(self._measured())
        except (errors.GradtapError, OSError, tf.errors.OpError) as error:
            self._is_stopped = True
            said = (str(error).splitlines() or [""])[0]
            errors.warn(
                errors.GradtapWarning(
                    f"FlowMonitor measures no more, from step {self._step} on: {said} Training goes on."
                )
            )
        self._before = {}

    def _measured(self) -> FlowMeasurement:
        trace = as_trace(self.model)
        inputs, labels = self._data
        return measured(
            trace, inputs, labels, self._wanted, self._at, self._settings, judged=True, updates=self._updates()
        )

    def _updates(self) -> dict[int, float]:
        """By how much of itself the step that was just made has changed each weight, by the identity of its handle."""
        found = {}
        for weight in map(variable_of, self.model.trainable_weights if self._before else []):
            old = self._before.get(id(weight.handle))
            if old is not None:
                size, change = norm_of(np.asarray(old)), norm_of(np.asarray(weight) - np.asarray(old))
                found[id(weight.handle)] = change / size if size else float("nan")
        return found

    def _keep(self, found: FlowMeasurement) -> None:
        findings = [replace(finding, step=self._step) for finding in found.findings]
        found = replace(found, findings=findings)
        rows = [replace(row, gradient_norms=np.zeros(0), activations=EMPTY, gradients=EMPTY) for row in found.rows]
        moment = FlowMoment(self._step, self._epoch, rows, found.weights, found.profiles, findings, found.target)
        self.history.append(moment)
        self.findings += [one for one in findings if not self._seen[one.kind, one.tap]]
        self._seen.update({(one.kind, one.tap) for one in findings})
        if self._records is not None:
            self._records.write(self._step, self._epoch, found)
        if self._events is not None:
            self._events.write(self._step, found)
        if self._table is not None:
            self._table.show(moment)

    def summary(self) -> str:
        """Which layer went bad first, when, and what else was seen.

        Returns:
          Lines of text.
        """
        if not self.history:
            return "FlowMonitor has seen nothing: it measures while fit runs."
        count, steps = len(self.history), self.history[-1].step
        head = f"{count} measurement{'s' * (count > 1)} over {steps} step{'s' * (steps != 1)}"
        if not self.findings:
            return f"{head}: nothing was wrong with the flow."
        first = self.findings[0]
        when = "before training" if not first.step else f"at step {first.step}"
        lines = [f"{head}. The first to go bad was `{first.tap}`, {when}: {first.kind}."]
        lines += [f"- {one} Seen {self._seen[one.kind, one.tap]} of {count} times." for one in self.findings]
        return "\n".join(lines)
