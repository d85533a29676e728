"""The outermost eigenvalues of a matrix at a tap, and the directions that belong to them, example by example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Literal, get_args

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected, check_choice
from gradtap.curvature.joined import Product, Vector, run_together
from gradtap.curvature.matrices import Matrix, block, check_size, measured, products, unit_count
from gradtap.graph import surgery
from gradtap.html_table import html_table
from gradtap.results import TapValues
from gradtap.staged.progress import tracked
from gradtap.staged.quadrature import check_count
from gradtap.staged.stages import Stage
from gradtap.types import Address, Model, Structure, Tensor

Which = Literal["magnitude", "largest", "smallest"]

#: Up to so many units the whole matrix is formed: its products are few, and run at once.
_FEW_UNITS = 64
#: How many examples are iterated on together, where they can be taken apart.
_TOGETHER = 64
#: Of SciPy's own: the first that can run in several threads at once.
_SCIPY = (1, 17)


@dataclass(frozen=True)
class Eigenpairs:
    r"""Eigenvalues and eigenvectors at each tap; see `gradtap.curvature.top_eigenpairs`.

    Args:
      eigenvalues: A mapping from address to ``(batch, k)``.
      eigenvectors: A mapping from address to ``(batch, k, *shape)``, each of norm 1, its largest entry positive.
      residual: A mapping from address to ``(batch, k)``: the norm of :math:`Hv - \lambda v`, by one more product.
    """

    eigenvalues: TapValues
    eigenvectors: TapValues
    residual: TapValues

    def _repr_html_(self) -> str:
        rows = [
            [key, " ".join(f"{v:.4g}" for v in values[0].numpy()), f"{self.residual[key].numpy().max():.2g}"]
            for key, values in self.eigenvalues.items()
            if hasattr(values, "numpy") and len(values)
        ]
        return html_table(["tap", "eigenvalues of the first example", "largest residual"], rows, caption="Eigenpairs")


@surgery.unconverted
def top_eigenpairs(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address],
    k: int = 1,
    which: Which = "magnitude",
    matrix: Matrix = "hessian",
    tolerance: float | None = None,
    restarts: int = 300,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Eigenpairs:
    r"""The top eigenvalues and eigenvectors of the Hessian at a tap, for each example.

    Of :math:`H v = \lambda v` the outermost :math:`\lambda` are found by Lanczos iteration (SciPy's ``eigsh``), which
    needs products with :math:`H` alone. Each example has an iteration of its own, and the products of all of them are
    formed in one run. Up to 64 units the whole matrix is formed instead.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`. Each tap has a matrix of its own.
      k: How many pairs, at most as many as there are units.
      which: ``"magnitude"`` for those of the largest :math:`|\lambda|`, ``"largest"`` or ``"smallest"`` with their
        signs; in this order, the outermost first.
      matrix: ``"hessian"``, or ``"gauss_newton"`` for that of `gauss_newton`.
      tolerance: When an eigenvalue is found: the norm of :math:`Hv - \lambda v` as a share of :math:`|\lambda|`. None
        is 1e-10 in float64, 1e-5 in float32 and 1e-2 in half precision.
      restarts: After so many restarts of the iteration it has failed.
      unconnected: See `gradtap.gradients`.
      batch_size: Most examples in flight at once; None chooses it from the size of the activations.
      training: See `gradtap.gradients`; refused where the examples of a batch have a say in each other.
      seed: See `gradtap.gradients`. The iteration starts from the same vector in each call.
      checks: See `gradtap.gradients`.

    Returns:
      `Eigenpairs`: ``.eigenvalues``, a mapping from address to ``(batch, k)``, ``.eigenvectors`` to ``(batch, k,
      *shape)`` for activations ``(batch, *shape)``, and ``.residual`` to ``(batch, k)``; float32, or float64 at taps of
      float64. Where an eigenvalue is a multiple one the vectors are some basis of its space.

    Raises:
      MissingExtraError: SciPy is not installed, or older than 1.17; the extra ``scale`` has it.
      NotConvergedError: An example's pairs were not found to this tolerance.
      MemoryBudgetError: The vectors of the iteration would take more than half of the free memory.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, numpy as np, tensorflow as tf
      >>> def model(x):
      ...     return 3 * x[:, 0] ** 2 - 2 * x[:, 1] ** 2 + x[:, 2]
      >>> found = gt.curvature.top_eigenpairs(model, np.ones((1, 3)), at=":input", k=2)
      >>> found.eigenvalues.only.numpy()
      array([[ 6., -4.]])
      >>> found.eigenvectors.only.numpy()
      array([[[1., 0., 0.],
              [0., 1., 0.]]])

    References:
      Lehoucq, Sorensen, Yang, ARPACK Users' Guide, https://doi.org/10.1137/1.9780898719628, 1998.
    """
    check_choice("which", which, get_args(Which))
    check_count("k", k)
    check_count("restarts", restarts)
    if tolerance is not None and not (isinstance(tolerance, (int, float)) and 0 <= tolerance < 1):
        raise errors.ArgumentError(f"tolerance={tolerance!r} is not a share.", [], "1e-5, for example")
    if not tf.executing_eagerly():
        raise errors.ArgumentError(
            "top_eigenpairs goes step by step, and needs values.", [], "call it out of a tf.function"
        )
    search = _Search(int(k), which, tolerance, int(restarts))
    settings = Settings(unconnected, batch_size, training, seed, checks)
    places, parts = measured(model, inputs, target, at, settings, search, 3, matrix=matrix)
    vectors, off, values = (TapValues.at(places, part) for part in parts)
    return Eigenpairs(values, vectors, off)


@dataclass(frozen=True)
class _Search:
    """What is looked for; called on a stage it returns eigenvectors, residuals and eigenvalues."""

    k: int
    which: str
    tolerance: float | None
    restarts: int

    def __call__(self, stage: Stage) -> list[Tensor]:
        here, key = stage.here[0], stage.leg.measured[0].key
        size = unit_count(here, key)
        if self.k > size:
            raise errors.ArgumentError(
                f"k={self.k} is more than the {size} units of `{key}`.", [], f"k from 1 to {size}"
            )
        if size <= _FEW_UNITS or self.k >= size - 1:
            values, vectors = self._of_whole(stage, size)
        else:
            values, vectors = self._by_products(stage, size)
        largest = np.argmax(np.abs(vectors), axis=2)[..., None]
        vectors = vectors * np.where(np.take_along_axis(vectors, largest, 2) < 0, -1.0, 1.0)
        kind = here.dtype if here.dtype == tf.float64 else tf.float32
        shaped = tf.reshape(tf.constant(vectors, kind), (-1, self.k, *here.shape[1:]))
        off = self._residuals(stage, values, vectors)
        return [shaped, tf.constant(off, kind), tf.constant(values, kind)]

    def _of_whole(self, stage: Stage, size: int) -> tuple[Vector, Vector]:
        check_size(3 * size**2, stage.here[0], stage.leg.measured[0].key, "the whole matrix", [], ["a smaller k"])
        whole = np.asarray(block(stage, range(size)), np.float64)
        finite: Any = np.isfinite(whole).all((1, 2))
        symmetric: Any = (whole + whole.transpose(0, 2, 1)) / 2
        symmetric[~finite] = 0.0
        found, vectors = np.linalg.eigh(symmetric)
        order = np.argsort(_rank(found, self.which), axis=1, kind="stable")[:, : self.k]
        values = np.where(finite[:, None], np.take_along_axis(found, order, 1), np.nan)
        return values, np.take_along_axis(vectors, order[:, None], 2).transpose(0, 2, 1)

    def _by_products(self, stage: Stage, size: int) -> tuple[Vector, Vector]:
        solve = _eigsh()
        width = min(size, max(2 * self.k + 1, 32))
        check_size(
            2 * width * size, stage.here[0], stage.leg.measured[0].key, "the iteration's vectors", [], ["batch_size=1"]
        )
        start = np.random.default_rng(0).normal(size=size)
        start /= np.linalg.norm(start)
        rows = len(stage.here[0])
        first = _multiply(stage, list(range(rows)), np.broadcast_to(start, (rows, size)))
        values = np.zeros((rows, self.k))
        vectors = np.broadcast_to(np.eye(self.k, size), (rows, self.k, size)).copy()
        values[~np.isfinite(first).all(1)] = np.nan
        # Without curvature every vector is an eigenvector, and there is nothing to iterate on.
        curved = [n for n in range(rows) if np.isfinite(first[n]).all() and np.any(first[n])]
        apart = _TOGETHER if stage.apart else max(len(curved), 1)
        for part in (curved[i : i + apart] for i in range(0, len(curved), apart)):
            solvers = [partial(self._solve, solve, start, float(np.linalg.norm(first[n])), stage) for n in part]
            with closing(tracked(count(), None, f"products at {stage.leg.measured[0].key}")) as rounds:

                def multiply(asking: list[int], given: Vector, part: list[int] = part, rounds: Any = rounds) -> Vector:
                    next(rounds)
                    return _multiply(stage, [part[i] for i in asking], given)

                for n, (found, basis) in zip(part, run_together(solvers, multiply), strict=True):
                    values[n], vectors[n] = found, basis
        return values, vectors

    def _solve(
        self, solve: Callable[..., Any], start: Vector, scale: float, stage: Stage, product: Product
    ) -> tuple[Vector, Vector]:
        """One example's eigenvalues and, in rows, its eigenvectors."""
        # An eigenvalue near zero is never found to a share of itself: it is moved away from there, and back.
        shift = {"magnitude": 0.0, "largest": scale, "smallest": -scale}[self.which]
        try:
            found, basis = solve(
                lambda vector: product(vector) + shift * vector.reshape(-1),
                start,
                k=self.k,
                which={"magnitude": "LM", "largest": "LA", "smallest": "SA"}[self.which],
                ncv=min(len(start), max(2 * self.k + 1, 32)),
                maxiter=self.restarts,
                tol=self._tolerance(stage.here[0].dtype),
            )
        except _NotFound as error:
            raise errors.NotConvergedError(
                f"the eigenpairs at `{stage.leg.measured[0].key}` were not found in {self.restarts} restarts.",
                [("found", f"{error.found} of {self.k} of an example")],
                ["a larger tolerance", "restarts=... for more", 'which="largest" if two of opposite signs are alike'],
            ) from None
        order = np.argsort(_rank(found - shift, self.which), kind="stable")
        return (found - shift)[order], basis.T[order]

    def _tolerance(self, dtype: Any) -> float:
        usual = {tf.float64: 1e-10, tf.float32: 1e-5}.get(dtype, 1e-2)
        return usual if self.tolerance is None else float(self.tolerance)

    def _residuals(self, stage: Stage, values: Vector, vectors: Vector) -> Vector:
        """How far each pair is off, by products that run together."""
        shape = (-1, *stage.here[0].shape[1:])

        def given(part: slice) -> Tensor:
            rows = [tf.reshape(tf.constant(v), shape) for v in vectors[:, part].transpose(1, 0, 2)]
            return tf.cast(tf.stack(rows), stage.here[0].dtype)

        found = np.concatenate([np.asarray(p, np.float64) for _, p in products(stage, given, self.k)])
        apart = found.reshape(self.k, len(vectors), -1).transpose(1, 0, 2) - values[..., None] * vectors
        return np.asarray(np.linalg.norm(apart, axis=2))


def _rank(values: Vector, which: str) -> Vector:
    """What puts eigenvalues in order."""
    return {"magnitude": -np.abs(values), "largest": -values, "smallest": values}[which]


def _multiply(stage: Stage, rows: list[int], vectors: Vector) -> Vector:
    """Products of some examples' matrices with a vector each, ``(rows, n)``."""
    here = stage.here[0]
    taken = stage.of_rows(rows) if stage.apart else None
    if taken is None:
        every = np.zeros((len(here), vectors.shape[1]))
        every[rows] = vectors
        vectors = every
    given = tf.reshape(tf.constant(vectors, tf.float64), (1, -1, *here.shape[1:]))
    used = taken or stage
    [product, _] = used.run([used.here[0][None]], each=[tf.cast(given, here.dtype)])
    found = np.asarray(product[0], np.float64).reshape(len(vectors), -1)
    return found if taken is not None else found[rows]


class _NotFound(Exception):
    """The iteration ended before all pairs were found.

    Args:
      found: How many were.
    """

    def __init__(self, found: int) -> None:
        super().__init__()
        self.found = found


def _eigsh() -> Callable[..., tuple[Vector, Vector]]:
    """SciPy's Lanczos iteration, for a function that multiplies.

    Raises:
      MissingExtraError: SciPy is not installed, or locks the iteration to one thread.
    """
    try:
        import scipy
        from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
    except ImportError:
        raise errors.MissingExtraError.of("scale", "top_eigenpairs") from None
    if tuple(int(part) for part in scipy.__version__.split(".")[:2]) < _SCIPY:
        raise errors.MissingExtraError(
            f"top_eigenpairs needs SciPy 1.17 or newer, and {scipy.__version__} is installed.",
            [("why", "before, only one iteration runs at a time")],
            ['pip install --upgrade "gradtap[scale]"'],
        )

    def solve(multiply: Product, start: Vector, **how: Any) -> tuple[Vector, Vector]:
        operator = LinearOperator((len(start), len(start)), matvec=multiply, dtype=np.float64)
        try:
            found, basis = eigsh(operator, v0=start, rng=np.random.default_rng(0), **how)
        except ArpackNoConvergence as error:
            raise _NotFound(len(error.eigenvalues)) from None
        return found, basis

    return solve
