"""What is trained or measured, as typed values with their results; and what a page reads off them.

:mod:`.descent`, :mod:`.expansion`, :mod:`.stochastic` and :mod:`.fits` have the experiments, the other modules a page
each. Nothing here imports PyTorch.
"""

from .base import Experiment, Page, ParameterError, Parameters
from .network import Network

__all__ = ["Experiment", "Network", "Page", "ParameterError", "Parameters"]
