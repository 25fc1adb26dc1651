"""How many operations a function's products have, counted in what JAX has traced.

XLA's own estimate counts the body of a loop once, however often it runs.
"""

import math
from collections.abc import Iterator
from typing import Any


def of(jaxpr: Any) -> float:
    """FLOPs of matrix products and convolutions, a multiplication and an addition each.

    Of a `cond` the dearer branch counts, of a `while`, which nothing here multiplies matrices in,
    one round. Other operations do not count: a machine's FLOP/s are those of products, too.

    Args:
      jaxpr: closed or not, as `jax.jit(function).trace(...).jaxpr`.
    """
    return float(sum(_of_equation(equation) for equation in jaxpr.eqns))


def _of_equation(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name in ("dot_general", "conv_general_dilated"):
        outputs = math.prod(equation.outvars[0].aval.shape)
        left, right = (variable.aval.shape for variable in equation.invars[:2])
        if name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            return 2.0 * outputs * math.prod(left[axis] for axis in contracted)
        kernels = right[parameters["dimension_numbers"].rhs_spec[0]]
        return 2.0 * outputs * math.prod(right) / kernels
    inner = [of(jaxpr) for value in parameters.values() for jaxpr in _jaxprs(value)]
    if name == "cond":
        return max(inner)
    return sum(inner) * (parameters["length"] if name == "scan" else 1)


def _jaxprs(value: Any) -> Iterator[Any]:
    """The programs among an equation's parameters."""
    for each in value if isinstance(value, tuple | list) else (value,):
        each = getattr(each, "jaxpr", each)  # of a closed one
        if hasattr(each, "eqns"):
            yield each
