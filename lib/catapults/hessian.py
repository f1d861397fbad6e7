"""The Hessian's critical learning rate, as public as in the first edition: see :mod:`catapults.tangent.hessian`."""

from .tangent.hessian import TopEigenpair, critical_learning_rate, kernel_direction, top_eigenpair

__all__ = ["TopEigenpair", "critical_learning_rate", "kernel_direction", "top_eigenpair"]
