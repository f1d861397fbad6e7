"""Long curves with as many points as a plot can show."""

import numpy as np
from jaxtyping import Float, Int

SHOWN = 1000  # points of a curve that are kept: more than a plot can show


def thinned(
    values: Float[np.ndarray, " T"], other: Float[np.ndarray, " T"], most: int = SHOWN
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Positions, and both curves there: of each of ``most`` / 4 stretches the first, the last and both extremes of
    ``values``, so that no peak is lost."""
    if len(values) <= most:
        chosen = np.arange(len(values))
    else:
        edges = np.linspace(0, len(values), most // 4 + 1).astype(int)
        finite = np.nan_to_num(values, nan=0.0)
        kept = {
            int(t)
            for a, b in zip(edges[:-1], edges[1:], strict=True)
            for t in (a, b - 1, a + finite[a:b].argmin(), a + finite[a:b].argmax())
        }
        chosen = np.array(sorted(kept))
    return chosen, values[chosen], other[chosen]
