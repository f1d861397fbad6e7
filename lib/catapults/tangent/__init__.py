"""The tangent kernel of a network, its split of the loss and the critical learning rate (section 2 of the paper).

:mod:`~catapults.tangent.trial` finds out once which parameters of a model take which route,
:mod:`~catapults.tangent.linearization` forms J J^T, J^T v and J w from the parts of its layers. The
critical rate is in :mod:`~catapults.tangent.kernel`, the split of the loss in :mod:`~catapults.tangent.loss`, the top
eigenspace in :mod:`~catapults.tangent.eigenspace`, the Hessian's critical rate in :mod:`~catapults.tangent.hessian`.
:mod:`~catapults.tangent.extended` linearizes networks with norms, positions and class tokens several times as fast.
"""

from .kernel import critical_learning_rate, critical_rate, tangent_kernel
from .linearization import Linearization, linearize
from .loss import residual_of, split_by_eigenvectors, split_loss
from .trial import Layers, layers

__all__ = [
    "Layers",
    "Linearization",
    "critical_learning_rate",
    "critical_rate",
    "layers",
    "linearize",
    "residual_of",
    "split_by_eigenvectors",
    "split_loss",
    "tangent_kernel",
]
