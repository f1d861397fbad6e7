"""A tiny book of its own for tests: the project's configuration, and notebooks that take seconds."""

import shutil
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[1]

PARAMETERS = """
dataset: str = "rank-2"  # the task
architecture: str = "fcn"  # the network
depth: int = 2  # weight layers
width: int = 16  # neurons
norm: Optional[str] = None  # none
image_size: Optional[int] = None  # none
n_train: int = 8  # samples
labels: str = "zero-one"  # targets
parameterization: str = "ntk"  # or pytorch
gain: float = 1.0  # of hidden layers
bias: bool = False  # or not
learning_rate: Union[float, str] = "1.5 eta_crit"  # the rate
steps: int = 3  # iterations
top: Union[int, list] = 2  # s, or several
hessian_every: Optional[int] = None  # iterations
seed: int = 0  # the seed
seeds: int = 1  # how many
device: str = "cpu"  # where
scheduler: Optional[str] = None  # of a cluster
"""

IMPORTS = """
from catapults.compute import obtain
from catapults.experiments.gd_catapult import GDCatapult
from catapults.figures import gd_catapult as figures
from catapults.paper.gd_catapult import claims
"""

RUN = """page = GDCatapult.from_namespace(globals())
runs = page.runs(obtain(page, device=device, scheduler=scheduler))
run = runs[0]"""
CURVE, CLAIMS = "figures.loss_curve(run)", "claims(runs)"


def notebook(*cells: str, parameters: str = PARAMETERS, imports: str = IMPORTS) -> nbformat.NotebookNode:
    """A chapter with these code cells after the parameters cell."""
    result = new_notebook(
        cells=[
            new_markdown_cell("# A title"),
            new_code_cell(f"from typing import Optional, Union\n\n{imports.strip()}"),
            new_code_cell(parameters.strip(), metadata={"tags": ["parameters"]}),
            *(new_code_cell(cell) for cell in cells),
        ],
        metadata={
            "catapults": {"page": "gd_catapult.GDCatapult"},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        },
    )
    for number, cell in enumerate(result.cells):
        cell["id"] = f"cell-{number}"
    return result


def project(folder: Path, chapters: dict[str, nbformat.NotebookNode], runs: dict | None = None) -> Path:
    """A project with these chapters; ``runs`` as in runs.yml, by default one run a chapter."""
    shutil.copy(ROOT / "_config.yml", folder)
    (folder / "book").mkdir()
    shutil.copytree(ROOT / "book" / "_static", folder / "book" / "_static")
    shutil.copy(ROOT / "book" / "references.bib", folder / "book")
    (folder / "book" / "welcome.md").write_text("# Welcome\n\n<!-- catapults:run-sheets -->\n", encoding="utf-8")
    (folder / "chapters").mkdir()
    for name, content in chapters.items():
        nbformat.write(content, folder / "chapters" / f"{name}.ipynb")
    runs = runs or {name: {} for name in chapters}
    entries = {
        n: {"chapter": n, "title": f"Run {n}", "figures": ["3"], "smoke": {"steps": 2}} | r for n, r in runs.items()
    }
    (folder / "chapters" / "runs.yml").write_text(yaml.safe_dump(entries), encoding="utf-8")
    toc = {"format": "jb-book", "root": "book/welcome"}
    toc["parts"] = [{"caption": "Chapters", "numbered": 2, "chapters": [{"file": f"chapters/{n}"} for n in runs]}]
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    return folder
