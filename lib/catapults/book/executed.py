"""What is read from an executed notebook: its figures, and the cells that its page shows."""

import copy
from typing import Any

import nbformat

from ..display import MIME, Figure


def shown(notebook: nbformat.NotebookNode, is_main: bool) -> nbformat.NotebookNode:
    """A copy with the cells of the run's page: pages other than the chapter's own leave out those for it alone."""
    left_out = {"injected-parameters"} if is_main else {"injected-parameters", "main-page"}
    page = copy.copy(notebook)
    page.cells = [copy.deepcopy(cell) for cell in notebook.cells if not left_out & set(cell.metadata.get("tags", []))]
    return page


def figures(notebook: nbformat.NotebookNode) -> list[Figure]:
    """The figures of an executed notebook."""
    outputs = (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
    found: list[tuple[Any, dict[str, Any]]] = [(data, data.get(MIME, {})) for data in outputs]
    return [
        Figure(data["image/svg+xml"], content["name"], content["caption"], content["alt"])
        for data, content in found
        if content.get("kind") == "figure"
    ]
