"""The one check that arguments of every module need."""

import math

import numpy as np


def whole_number(at_least: int, at_most: int | float = math.inf, /, **values: int) -> None:
    """Raise ``ValueError`` for the first value, passed by the name of its parameter, that is not allowed."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not at_least <= value <= at_most:
            limits = f"of at least {at_least}" if at_most == math.inf else f"from {at_least} to {at_most}"
            raise ValueError(f"{name} = {value!r}: allowed are whole numbers {limits}")
