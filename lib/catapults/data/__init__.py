"""The paper's data: its synthetic tasks with their exact EGOP, and real data sets (appendix F).

Names, files and their checks need no PyTorch; what draws tasks is imported when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from .dataset import DataCorrupt, DataError, DataUnavailable
from .finding import DatasetStatus, fetch, identity, status
from .folders import cache_folder, data_folder
from .names import ALIASES, DATASETS, available_names, check_name, is_synthetic, n_outputs

if TYPE_CHECKING:
    from .tasks import Split, Task, load

__all__ = [
    "ALIASES",
    "DATASETS",
    "DataCorrupt",
    "DataError",
    "DataUnavailable",
    "DatasetStatus",
    "Split",
    "Task",
    "available_names",
    "cache_folder",
    "check_name",
    "data_folder",
    "fetch",
    "identity",
    "is_synthetic",
    "load",
    "n_outputs",
    "status",
]


def __getattr__(name: str) -> Any:
    if name in ("Split", "Task", "load"):
        from . import tasks

        return getattr(tasks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
