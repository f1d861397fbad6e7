"""Training under the MSE of eq. (1), with measurements: one loop for gradient descent, SGD and other optimisers."""

from ..history import History
from .descent import gradient_descent
from .evaluation import mean_squared_error, performance, predictions
from .fitting import Optimizer, fit
from .loop import Checkpoint, Diverged, Loop
from .probes import SUBSET, Probe, Quantity
from .run import DIVERGED, Batches, Point, Rate, Run
from .steps import MOMENTUM, Step

__all__ = [
    "DIVERGED",
    "MOMENTUM",
    "SUBSET",
    "Batches",
    "Checkpoint",
    "Diverged",
    "History",
    "Loop",
    "Optimizer",
    "Point",
    "Probe",
    "Quantity",
    "Rate",
    "Run",
    "Step",
    "fit",
    "gradient_descent",
    "mean_squared_error",
    "performance",
    "predictions",
]
