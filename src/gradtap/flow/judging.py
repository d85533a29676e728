"""What is wrong with the flow, from the numbers of the taps: findings with their evidence and a remedy.

The thresholds stand here, each with where it comes from. Where the literature names none, it was chosen so that healthy
networks give no finding; `python -m benchmarks flow_alarms` counts how often one does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gradtap.flow.merging import exponents_of
from gradtap.flow.rows import Array, Finding, FlowRow, TimeProfile

#: Gradients at the two ends of a network differ by more than this. Ours: Glorot & Bengio (2010, figures 7 and 8) and
#: He et al. (2015, section 2.2) call for a ratio near 1; healthy networks of 64 layers were seen within a factor of 30.
FACTOR = 1e3
#: Fewer taps than this are no trend.
_FEWEST = 3
#: The rank correlation of a gradient's size with depth, from which on it is a trend and not a single jump.
_TREND = 0.5
#: Half of a layer's units dead, or of its entries saturated. By symmetry a unit is off for half of all inputs at
#: initialisation, so chance leaves fewer off for all of them (Lu et al., 2020, section 3); the sigmoids of Glorot &
#: Bengio (2010, figure 2) that stop learning are saturated nearly all.
_HALF = 0.5
#: A unit that is silent on fewer samples than this may be silent by chance.
_SAMPLES = 4
#: Where more units than this are on for every example, those that are off are compared with them.
_FEW = 0.125
#: By how many standard deviations they must be more: one layer in 30,000 is by chance.
_DEVIATIONS = 4.0
#: Below this float16 keeps fewer digits, and below 2^-24 none (Micikevicius et al., 2018, section 3.2).
_SMALLEST_NORMAL = -14
#: A gradient through time that falls below a thousandth of its largest carries nothing on beside it; Pascanu et al.
#: (2013) give the geometric law and no threshold.
_LOST = 1e-3


@dataclass
class Evidence:
    """What is known of a measured network beside its numbers.

    Args:
      trunk: Taps that everything flows through.
      bounded: Taps whose activation is bounded on both sides.
      rectified: Taps that are the output of a rectifier, which is dead where it is 0.
      repeated: Taps that hold the very tensor of an earlier one, such as the output of a nested model.
      flat: Of the last tap before an op whose slope is 0 everywhere, that op.
      blocked: Findings that the graph itself shows.
      batch_norm: Whether batch statistics stand still in a network that has them.
      backwards: States of layers that run from the end of the input's time to its beginning.
      handles: Of each weight the identity of its variable's handle.
      samples: How often each unit of a tap was seen.
      always_on: Share of a tap's units that were never 0.
      loss_scale: What the target was multiplied with before it was differentiated.
    """

    trunk: set[str] = field(default_factory=set)
    bounded: set[str] = field(default_factory=set)
    rectified: set[str] = field(default_factory=set)
    repeated: set[str] = field(default_factory=set)
    flat: dict[str, str] = field(default_factory=dict)
    blocked: list[Finding] = field(default_factory=list)
    batch_norm: bool = False
    backwards: set[str] = field(default_factory=set)
    handles: dict[str, int] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    always_on: dict[str, float] = field(default_factory=dict)
    loss_scale: float = 1.0


def judge(rows: Sequence[FlowRow], profiles: Sequence[TimeProfile], known: Evidence) -> list[Finding]:
    """Everything that is wrong, the most telling first.

    Args:
      rows: The taps in forward order.
      profiles: The states of recurrent layers.
      known: What else is known.
    """
    if not rows or not rows[0].examples:
        return list(known.blocked)
    own = [row for row in rows if row.address not in known.repeated]
    dead, stopped, lost = _dead(own, known), [*known.blocked, *_flat(own, known)], _underflow(own, known)
    found = [*stopped, *_not_finite(own), *dead, *_saturated(own), *lost]
    found += [] if lost else _along_the_trunk(own, known, bool(dead or stopped))
    found += [finding for profile in profiles for finding in _through_time(profile, profile.address in known.backwards)]
    return found


def _not_finite(rows: Sequence[FlowRow]) -> list[Finding]:
    """NaN and infinity where they begin: at the first activation, else in the backward pass, at the last tap."""
    forward = [row for row in rows if not math.isfinite(row.activation_norm)][:1]
    back = [row for row in rows if not math.isfinite(row.gradient_norm)][-1:]
    return [
        Finding(
            "exploding",
            row.address,
            f"NaN or infinity in the {'activation' if forward else 'gradient'}, here first.",
            "Clip gradients by their norm (`clipnorm`), take a smaller learning rate or smaller initial weights.",
        )
        for row in forward or back
    ]


def _flat(rows: Sequence[FlowRow], known: Evidence) -> list[Finding]:
    """Ops whose slope is 0 wherever it exists: the gradient is there, and says nothing."""
    return [
        Finding(
            "blocked",
            row.address,
            f"the gradient is exactly 0 for every example: {known.flat[row.address]} has no slope.",
            "A smooth function in its place (tanh for a sign), or a straight-through estimator (tf.custom_gradient).",
        )
        for row in rows
        if row.address in known.flat and row.gradient_zeros == 1.0
    ]


def _dead(rows: Sequence[FlowRow], known: Evidence) -> list[Finding]:
    return [
        Finding(
            "dead",
            row.address,
            f"{row.dead:.0%} of the units are 0 on each of {row.examples} examples, so no gradient reaches their "
            "weights.",
            "A lower learning rate, He initialisation with biases at 0, or an activation with a slope below 0 "
            "(leaky_relu, elu, gelu).",
        )
        for row in rows
        if row.address in known.rectified
        and row.dead >= _HALF
        and known.samples.get(row.address, 0) >= _SAMPLES
        and not _is_collapsed(row, known)
    ]


def _is_collapsed(row: FlowRow, known: Evidence) -> bool:
    """Whether units are silent because all examples look alike here, so that about as many never are.

    Deep in a plain network of rectifiers the activations of different examples come to point one way. By symmetry a
    unit is then as likely to be on for all of them as off, and a layer may have half of its units off by chance.
    """
    on, units = known.always_on.get(row.address, 0.0), int(row.shape[-1] or 1) if row.shape else 1
    return on > _FEW and (row.dead - on) * units < _DEVIATIONS * math.sqrt((row.dead + on) * units)


def _saturated(rows: Sequence[FlowRow]) -> list[Finding]:
    return [
        Finding(
            "saturated",
            row.address,
            f"{row.saturated:.0%} of the activations are within a hundredth of the range from a bound, where the slope "
            "is next to 0.",
            "Smaller initial weights (Glorot for tanh and sigmoid), a normalisation before the activation, inputs of "
            "mean 0 and variance 1.",
        )
        for row in rows
        if row.saturated >= _HALF
    ]


def _underflow(rows: Sequence[FlowRow], known: Evidence) -> list[Finding]:
    """Of the taps in float16 the one where most of the gradient is lost."""
    lost: list[tuple[float, FlowRow]] = []
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        if row.dtype != "float16":
            continue
        sizes, counts = exponents_of(row.gradients)
        sizes = sizes + math.log2(known.loss_scale)
        entries = counts.sum()
        share = float(counts[sizes < _SMALLEST_NORMAL].sum() / entries) if entries else 0.0
        if not entries and after is not None and any(one is after for _, one in lost[-1:]):
            share = 1.0  # nothing is left of what was too small at the next tap
        if share >= _HALF:
            lost.append((share, row))
    if not lost:
        return []
    # The backward pass meets the last one first.
    share, row = lost[-1]
    scaled = f" at a loss scale of {known.loss_scale:g}" if known.loss_scale != 1.0 else ""
    return [
        Finding(
            "underflow",
            row.address,
            f"{share:.0%} of the gradient's entries are below 2^-14{scaled}, where float16 loses digits, and "
            f"{row.gradient_zeros:.0%} are 0; {len(lost)} tap{'s' * (len(lost) > 1)} in all.",
            "Scale the loss (keras.optimizers.LossScaleOptimizer; compile does it under mixed_float16), or compute in "
            "bfloat16.",
        )
    ]


def _along_the_trunk(rows: Sequence[FlowRow], known: Evidence, stopped: bool) -> list[Finding]:
    """Whether gradients shrink or grow from the target down to the first layer."""
    trunk = [row for row in rows if row.on_trunk]
    is_trunk = len(trunk) >= _FEWEST
    trunk = trunk if is_trunk else list(rows)
    trunk = [row for row in trunk if math.isfinite(row.gradient_norm)]
    if len(trunk) < _FEWEST or not trunk[-1].gradient_norm:
        return []
    silent = [i for i, row in enumerate(trunk) if not row.gradient_norm]
    if silent and stopped:
        trunk = trunk[silent[-1] + 1 :]  # what stops it has a finding of its own
        if len(trunk) < _FEWEST:
            return []
    norms = np.array([max(row.gradient_norm, 1e-300) for row in trunk])
    ends = max(1, len(trunk) // 4)
    first, last = float(np.median(norms[:ends])), float(np.median(norms[-ends:]))
    ratio = first / last
    agreement, spread = _rank_correlation(norms), _without_largest_step(norms)
    grows = ratio > FACTOR and agreement < -_TREND and spread < -math.log(FACTOR) / 2
    shrinks = ratio < 1 / FACTOR and agreement > _TREND and spread > math.log(FACTOR) / 2
    if not (grows or shrinks or (silent and is_trunk and not stopped)):
        return []
    worst = trunk[int(np.argmax(norms[:ends]) if grows else np.argmin(norms[:ends]))]
    steps = len(trunk) - 1 - trunk.index(worst)
    rate = (worst.gradient_norm / trunk[-1].gradient_norm) ** (1 / max(steps, 1))
    low = f"{worst.gradient_norm:.2g}" if worst.gradient_norm else "exactly 0"
    verb = "grows" if grows else "falls"
    text = (
        f"|gradient| {verb} from {trunk[-1].gradient_norm:.2g} at `{trunk[-1].address}` to {low} at "
        f"`{worst.address}`, over {steps} taps"
        + (f": by a factor of {rate:.2g} at each." if worst.gradient_norm else ".")
    )
    return [Finding("exploding" if grows else "vanishing", worst.address, text, _remedy(grows, known))]


def _remedy(grows: bool, known: Evidence) -> str:
    still = " Measure with training=True as well: at initialisation batch statistics normalise nothing without it."
    more = still if known.batch_norm else ""
    if grows:
        return "Smaller initial weights, a normalisation, or gradients clipped by their norm (`clipnorm`)." + more
    return "He initialisation with ReLU, Glorot with tanh, no sigmoid between layers, skips, or a normalisation." + more


def _rank_correlation(values: Array) -> float:
    """Spearman's, of values with their positions."""
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return float(np.corrcoef(ranks, np.arange(len(values)))[0, 1]) if len(values) > 1 else 0.0


def _without_largest_step(sizes: Array) -> float:
    """The logarithm of last over first, without the step that does most of it: one layer's scale is no trend."""
    steps = np.diff(np.log(sizes))
    whole = float(steps.sum())
    return whole - float(steps.max() if whole > 0 else steps.min())


def _through_time(profile: TimeProfile, backwards: bool) -> list[Finding]:
    """Whether the gradient of a state dies, or explodes, on its way back through time."""
    norms = profile.gradient_norms
    if len(norms) < _FEWEST or not np.all(np.isfinite(norms)) or not np.any(norms):
        return []
    back = norms if backwards else norms[::-1]  # from the step that was made last on
    back = back[np.argmax(back > 0) :]
    if len(back) < _FEWEST:
        return []
    if back[-1] > FACTOR * back[0] and _rank_correlation(back) > _TREND:
        rate = (back[-1] / back[0]) ** (1 / (len(back) - 1))
        text = f"|dL/dh_t| grows by a factor of {rate:.2g} at each step back, to {back[-1]:.2g} after {len(back) - 1}."
        return [Finding("exploding", profile.address, text, "Clip gradients by their norm (Pascanu et al., 2013).")]
    kept = np.flatnonzero(back >= _LOST * back.max())
    after = int(kept[-1]) + 1
    if after >= len(back) or _rank_correlation(back) > -_TREND:
        return []
    text = (
        f"|dL/dh_t| is below a thousandth of its largest from {after} steps before the end on: what happened in the "
        f"other {len(back) - after} of {len(back)} steps is not learnt from."
    )
    return [
        Finding(
            "vanishing",
            profile.address,
            text,
            "An LSTM with a larger forget bias, a GRU, an orthogonal recurrent kernel, attention over the states, or "
            "shorter sequences.",
        )
    ]
