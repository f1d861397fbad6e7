"""The folders that environment variables name: of data sets, ``CATAPULTS_DATA``, of what is kept, ``CATAPULTS_CACHE``.

A relative path means one relative to the folder in which the process was started. It is made absolute in the
environment when this module is imported, so that notebooks and other processes, which work elsewhere, find the same.
"""

import os
import tempfile
from pathlib import Path

import platformdirs

DATA = "CATAPULTS_DATA"
CACHE = "CATAPULTS_CACHE"


def named(variable: str) -> Path | None:
    """The absolute path of the folder that an environment variable names; ``None`` when it is not set or empty.

    Where it is relative, the variable itself becomes absolute, for the processes that are started from here.
    """
    folder = os.environ.get(variable)
    if not folder:
        return None
    path = Path(os.path.expanduser(folder)).absolute()  # noqa: PTH111 (Path.expanduser fails without a home)
    if str(path) != folder:
        os.environ[variable] = str(path)
    return path


def data_folder() -> Path | None:
    """The absolute path of the folder ``CATAPULTS_DATA``; ``None`` when this environment variable is not set."""
    return named(DATA)


def cache_folder() -> Path:
    """The absolute path of the folder that keeps downloads: ``CATAPULTS_CACHE``, else the user's cache.

    A user without a home has a folder of their own among the temporary files.
    """
    try:
        folder = named(CACHE) or Path(platformdirs.user_cache_dir("catapults"))
    except RuntimeError:  # no home is known; older versions of platformdirs answer with a tilde instead
        folder = Path("~")
    return folder if folder.is_absolute() else Path(tempfile.gettempdir()) / f"catapults-{os.getuid()}"


for _variable in (DATA, CACHE, "CATAPULTS_RESULTS", "CATAPULTS_RECORD", "CATAPULTS_JOB"):
    named(_variable)
