"""From experiments to results: those that are stored or recorded are reused, the rest is computed.

Nothing here imports PyTorch before something has to be computed.
"""

from collections.abc import Sequence

from ..experiments import Experiment, Page
from .sweep import ComputationFailed, Results, sweep

__all__ = ["ComputationFailed", "Results", "obtain", "sweep"]


def obtain(
    what: Page | Sequence[Experiment], *, device: str = "auto", scheduler: str | None = None, progress: bool = True
) -> Results:
    """The results of all experiments of a page, or of those listed; arguments as in :func:`sweep`.

    Raises :class:`ComputationFailed`, once all others have been computed, where some have failed.
    """
    experiments = what.experiments() if isinstance(what, Page) else what
    return sweep(experiments, device=device, scheduler=scheduler, progress=progress).complete()
