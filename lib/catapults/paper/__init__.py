"""What the paper states about an experiment, each statement checked against the results with a stated tolerance.

A module for each page's claims, to be imported by its name; here is what they share. Nothing here imports PyTorch.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from ..experiments import Experiment, Page
from .claims import (
    COMPARED,
    GIVEN,
    NOT_COMPARED,
    NOT_REPRODUCED,
    OURS,
    PARTLY,
    REPRODUCED,
    VERDICTS,
    Claim,
    Claims,
    of_share,
    over_seeds,
)

__all__ = [
    "COMPARED", "GIVEN", "NOT_COMPARED", "NOT_REPRODUCED", "OURS", "PARTLY", "REPRODUCED", "VERDICTS", "Claim",
    "Claims", "judge", "of_share", "over_seeds",
]  # fmt: skip


def judge(page: Page, results: Mapping[Experiment, Any]) -> Claims:
    """What the paper states about what a page shows, judged by the results. A page on no statement of the paper, or
    without experiments, has no claims; on data that the paper does not have they hold "here". Raises ``KeyError`` for a
    result that is not there.
    """
    if not page.experiments():
        return Claims({})
    module = importlib.import_module(f"{__name__}.{type(page).__module__.rpartition('.')[2]}")
    claims = module.claims(page.runs(results)) if hasattr(module, "claims") else Claims({})
    return Claims(dict(claims), here=page.has_own_data)
