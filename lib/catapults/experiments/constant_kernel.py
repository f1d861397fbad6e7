"""SGD whose tangent kernel is the same for every pair of samples: on half of its steps the loss rises.

With ``K = kappa 1 1^T`` a step moves all outputs alike. Of the residual r only the mean m changes, the deviations
d = r - m do not, and the loss is ``m^2 + mean(d^2)``. With a = 2 eta / eta_crit, where eta_crit = n / ||K|| is
1 / kappa,

    m' = (1 - a) m - a xi,    xi = the mean of d over the batch.

For 0 < a < 2 the law of m settles. If xi is Gaussian, (m, m') is then Gaussian with mean zero and equal variances: it
has the law of (m', m). So |m'| > |m| is as probable as |m| > |m'|, which is 1/2 as no two are equal. The loss rises on
half of all steps, at every rate below the critical one, which is that of every batch as well. If xi is not Gaussian,
the share is 1/2 for a = 1, where m' = -a xi are independent, and in the limit of small a, where m is a sum of many;
else it differs.
"""

import numpy as np
from jaxtyping import Float

_FORGOTTEN = 1e-6  # share of the first m that is left when counting begins
_CHAINS = 400  # trainings at once


def share_of_rises(
    deviations: Float[np.ndarray, " n"], multiple: float, batch_size: int, steps: int, seed: int = 0
) -> float:
    """The share of ``steps`` on which the loss rises, once m has become stationary, by simulation.

    ``deviations``: d, of which the mean is taken off; ``multiple``: eta / eta_crit; ``batch_size``: independent draws.

    Raises ``ValueError`` for a multiple that is not between 0 and 1, deviations that are all alike, and fewer than one
    step or sample in a batch.
    """
    d = np.asarray(deviations, float) - np.mean(deviations)
    if not 0 < multiple < 1:
        raise ValueError(f"multiple = {multiple!r}: allowed are numbers between 0 and 1")
    if not d.any():
        raise ValueError("deviations: all are alike; allowed are residuals that differ")
    for name, value in {"batch_size": batch_size, "steps": steps}.items():
        if value < 1:
            raise ValueError(f"{name} = {value!r}: allowed are whole numbers of at least 1")
    a = 2 * multiple
    before = 1 if a == 1 else int(np.ceil(np.log(_FORGOTTEN) / np.log(abs(1 - a))))
    generator, m, rises = np.random.default_rng(seed), np.zeros(_CHAINS), []
    for t in range(before + -(-steps // _CHAINS)):
        after = (1 - a) * m - a * d[generator.integers(len(d), size=(_CHAINS, batch_size))].mean(1)
        if t >= before:
            rises.append(np.abs(after) > np.abs(m))
        m = after
    return float(np.concatenate(rises)[:steps].mean())
