"""Why does my loss spike? The critical rate of each batch in a training loop of your own.

:class:`Monitor` reads it, :class:`CriticalRate` keeps to it. :mod:`~catapults.monitor.thresholds` says from which rate
on each optimiser's step is unstable, :mod:`~catapults.monitor.curvature` measures what that depends on, and
:mod:`~catapults.monitor.diagnosis` reads off both why a loss has risen.
"""

from .curvature import Curvature, Sharpness
from .diagnosis import Diagnosis
from .limit import CriticalRate
from .monitor import Monitor
from .readings import Reading, Readings
from .thresholds import Threshold, Unknown, threshold

__all__ = [
    "CriticalRate",
    "Curvature",
    "Diagnosis",
    "Monitor",
    "Reading",
    "Readings",
    "Sharpness",
    "Threshold",
    "Unknown",
    "threshold",
]
