"""What is said of two arrays."""

from __future__ import annotations

import numpy as np

from benchmarks.values import EQUAL, difference


def apart(theirs: np.ndarray, ours: np.ndarray, what: str = "values") -> str:
    """How far ours is from theirs, of the largest of theirs."""
    if theirs.shape != ours.shape:
        return f"{what}: the shapes are {theirs.shape} and {ours.shape}"
    if np.array_equal(theirs, ours):
        return f"{what}: the same to the last bit"
    found = difference(ours, theirs)
    verdict = "equal" if found <= EQUAL else "different"
    return f"{what}: {verdict}, the largest difference is {found:.1e} of the largest value"


def nearest(theirs: np.ndarray, ours: dict[str, np.ndarray]) -> str:
    """Which of ours theirs is."""
    found = {name: difference(each, theirs) for name, each in ours.items()}
    name = min(found, key=lambda key: found[key])
    if found[name] > EQUAL:
        return "other numbers than ours" + (", at either call" if len(ours) > 1 else "")
    return "equal" if len(ours) == 1 else f"one call alone, {name}"


def correlation(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Pearson's, over all entries."""
    return float(np.corrcoef(theirs.ravel(), ours.ravel())[0, 1])


def ratio(theirs: np.ndarray, ours: np.ndarray) -> str:
    """Theirs over ours where one factor explains all of it."""
    factor = float(np.vdot(theirs, ours) / np.vdot(ours, ours))
    left = difference(factor * ours, theirs)
    return f"theirs = {factor:.6g} x ours, but for {left:.1e} of the largest value"


def scaled(maps: np.ndarray, more: float = 0.0) -> np.ndarray:
    """Each example's from 0 to 1, or a little less where `more` is added to the range."""
    axes = tuple(range(1, maps.ndim))
    low, high = maps.min(axes, keepdims=True), maps.max(axes, keepdims=True)
    return (maps - low) / (high - low + more)


def sums(maps: np.ndarray) -> str:
    """Of each example, as a page shows them."""
    return " ".join(f"{value:.4f}" for value in maps.reshape(len(maps), -1).sum(axis=1))
