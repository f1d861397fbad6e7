"""The project's folder, whose book this is, and how commands say what is not allowed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..experiments import ParameterError


@contextmanager
def refusals() -> Iterator[None]:
    """What the library refuses inside is said as a :class:`ParameterError`, of which the command shows the message."""
    try:
        yield
    except ValueError as error:
        raise ParameterError(str(error)) from None


def root() -> Path:
    """This folder or the nearest above it that has chapters/runs.yml. Raises :class:`ParameterError`."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "chapters" / "runs.yml").exists():
            return folder
    raise ParameterError(
        f"{here}: neither this folder nor one above it has chapters/runs.yml; go to the project's folder"
    )
