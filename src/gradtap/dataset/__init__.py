"""Whole data sets: streamed through a model block by block, into a store that a later run goes on with."""

from gradtap.dataset.running import run
from gradtap.dataset.sketches import quantiles
from gradtap.dataset.statistics import Statistic, histogram, mean, top_examples, variance
from gradtap.dataset.stored import open

__all__ = ["Statistic", "histogram", "mean", "open", "quantiles", "run", "top_examples", "variance"]
