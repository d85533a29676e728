"""Batch by batch over a dataset, with the results in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

from gradtap import errors
from gradtap.batching import dataset_batches, is_dataset
from gradtap.results import TapValues
from gradtap.types import Structure, Tensor

_Result = TypeVar("_Result", bound=TapValues)


def each_batch(
    inputs: Structure,
    explanation: Any,
    one: Callable[[Structure], _Result],
    join: Callable[[_Result, list[Tensor]], _Result],
) -> _Result:
    """One batch, or each batch of a dataset.

    Args:
      inputs: A batch or a `tf.data.Dataset` of batches.
      explanation: A method; attributions that are there already belong to one batch.
      one: What is done with a batch.
      join: Makes a result like the first, of the values of all.

    Raises:
      InputStructureError: The dataset is empty, or there is nothing that would explain each of its batches.
    """
    if not is_dataset(inputs):
        return one(inputs)
    if not callable(explanation):
        raise errors.InputStructureError(
            "with a dataset the explanation is a method; attributions belong to one batch.", [], "give the method"
        )
    results = [one(batch) for batch in dataset_batches(inputs)]
    if not results:
        raise errors.InputStructureError("the dataset holds no batch.", [], "give at least one")
    if len(results) == 1:
        return results[0]
    return join(results[0], [tf.concat([result[key] for result in results], 0) for key in results[0]])
