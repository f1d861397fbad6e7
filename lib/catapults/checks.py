"""The one check that arguments of every module need."""

import numpy as np


def whole_number(at_least: int, **values: int) -> None:
    """Raise ``ValueError`` for the first value, passed by the name of its parameter, that is not allowed."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
            raise ValueError(f"{name} = {value!r}: allowed are whole numbers of at least {at_least}")
