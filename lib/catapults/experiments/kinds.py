"""Every kind of experiment by its name, for files that hold some."""

from typing import Any

from .base import Experiment
from .causes import Fork, Intervened
from .descent import GradientDescent, Restart
from .expansion import ExpandedDescent
from .fits import Fit, StrongModel
from .recurrence import Recurrence
from .scaling import Scaling
from .stochastic import StochasticDescent

KINDS: dict[str, type[Experiment]] = {
    kind.__name__: kind
    for kind in (
        *(GradientDescent, Restart, StochasticDescent, Fit, StrongModel, Scaling),
        *(ExpandedDescent, Intervened, Fork, Recurrence),
    )
}


def restored(kind: str, fields: dict[str, Any]) -> Experiment:
    """The experiment of which a file holds the fields: taken as they are, since it was valid where it was written.

    Raises ``ValueError`` for a kind that is not known.
    """
    if kind not in KINDS:
        raise ValueError(f"class = {kind!r}: allowed are {', '.join(KINDS)}")
    if kind == "Restart":
        fields = fields | {"of": restored("GradientDescent", fields["of"])}
    return KINDS[kind].model_construct(**fields)
