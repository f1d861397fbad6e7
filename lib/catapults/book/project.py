"""The project's folder, whose book this is."""

from pathlib import Path

from ..experiments import ParameterError


def root() -> Path:
    """This folder or the nearest above it that has chapters/runs.yml. Raises :class:`ParameterError`."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "chapters" / "runs.yml").exists():
            return folder
    raise ParameterError(
        f"{here}: neither this folder nor one above it has chapters/runs.yml; go to the project's folder"
    )
