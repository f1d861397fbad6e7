"""The paper's figures as the paper shows them: all panels side by side, each with its verdict and its run sheet."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import resvg_py

from ..display import Figure, table
from ..paper.items import TITLES, number_of
from .executed import figures
from .report import OUTCOMES, Row, anchor_of, count, counted, not_run, rows, target
from .sheets import Sheet

FOLDER = "panels"  # of the staged tree, with the pictures
_WIDTH = 260  # of a thumbnail, in pixels

_NORM_AND_SPLIT = dict.fromkeys((14, 15, 16, 23), {"a": "norm", "b": "split", "c": "norm", "d": "split"})
_IN_PANELS: Mapping[int, Mapping[str, str]] = _NORM_AND_SPLIT | {6: {"a": "critical-rates calm", "b": "split"}}
_IN_FIGURES = {
    "catapult": (2,),
    "split": (3, 33),
    "norm": (13,),
    "norm split": (7, 19, 20, 21, 22),
    "critical-rates": (5,),
    "hessian": (12,),
    "paper": (4,),
    "paper-split": (17,),
    "restarts": (18,),
    "catapults": (8, 25, 27, 28),
    "batch-sizes": (9, 10, 29, 32),
    "optimizers": (11,),
    "validation": (24, 30, 31),
    "validation-small": (34,),
    "pictures": (26,),
}
_LEGENDS = {
    "catapult": "The training loss; shaded where the rate exceeds the critical one.",
    "split": "The training loss (wide grey line), its part in the top eigenspace of the tangent kernel (solid), and "
    "the rest (dashed).",
    "norm": "Above the training loss, below the norm of the tangent kernel.",
    "critical-rates": "Above, a mark for each step: the critical rate of its batch, a triangle where the rate (line) "
    "exceeds it. Below, the training loss.",
    "calm": "The same at the smaller rate.",
    "hessian": "For each step, the critical rate of its batch by the kernel against that by the Hessian. On the "
    "dotted line they are equal.",
    "paper": "Above the training loss, below the norm of the tangent kernel and the line $n/\\eta$ (dotted). "
    "Triangles: the rate is raised.",
    "paper-split": "The training loss (wide grey line), its part in the top eigenspace (solid), and the rest (dashed).",
    "restarts": "Trainings that begin at the rate with which the schedule ends. Where a line breaks off, training "
    "diverges.",
    "catapults": "Test performance (above) and AGOP alignment (below) against the number of catapults.",
    "batch-sizes": "From top to bottom: steps above the batch's critical rate, test performance, AGOP alignment.",
    "optimizers": "Test performance against AGOP alignment, a mark for each training.",
    "validation": "Performance on the validation set along the training.",
    "validation-small": "Performance on the validation set along the training, at the small rate.",
    "pictures": "The first ten rows and columns of the AGOP.",
}


@dataclass(frozen=True)
class Panel:
    """One panel of a figure of the paper on one run's sheet, with the pictures of that sheet that show it."""

    label: str  # "7c"
    row: Row
    pictures: tuple[Figure, ...]

    @property
    def sheet(self) -> Sheet:
        assert self.row.sheet is not None
        return self.row.sheet

    @property
    def letter(self) -> str:
        return self.label.lstrip("0123456789")


def of_figure(number: int, sheets: Mapping[str, Sheet]) -> list[Panel]:
    """All panels of a figure, in the paper's order."""
    found = []
    for row in rows(sheets):
        if row.item == f"figure {number}" and row.sheet is not None:
            there = {} if row.sheet.notebook is None else {f.name: f for f in figures(row.sheet.notebook)}
            for label in row.labels:
                found.append(Panel(label, row, tuple(there[name] for name in _names(label) if name in there)))
    return sorted(found, key=lambda panel: panel.letter)


def block(number: int, sheets: Mapping[str, Sheet]) -> str:
    """A section on a figure of the paper: what it shows, and its panels in a grid."""
    panels = of_figure(number, sheets)
    named = dict.fromkeys(name for panel in panels for name in _names(panel.label))
    legends = " ".join(dict.fromkeys(_LEGENDS[name] for name in named))
    columns = "1 1 1 1" if len(panels) == 1 else "1 1 2 2"
    items = "\n".join(_item(panel) for panel in panels)
    return (
        f"({anchor_of('figure', number)})=\n### Figure {number}: {TITLES[f'figure {number}']}\n\n{legends}\n\n"
        f"::::::{{grid}} {columns}\n:gutter: 3\n\n{items}\n::::::"
    )


def gallery(sheets: Mapping[str, Sheet]) -> str:
    """A thumbnail of every panel by the number in the paper, which leads to its figure."""
    cards = []
    for number in sorted({number_of(label) for sheet in sheets.values() for label in sheet.run.figures}):
        for panel in of_figure(number, sheets):
            mark, outcome = OUTCOMES[panel.row.outcome], panel.row.outcome
            name = f"Fig. {number}{f' ({panel.letter})' * bool(panel.letter)}"
            picture = f"\n{_image(panel, panel.pictures[0], 'png')}\n" if panel.pictures else ""
            cards.append(
                f":::::{{grid-item}}\n:class: panel thumbnail\n{picture}\n[{name}](#{anchor_of('figure', number)}): "
                f"{panel.sheet.run.panel}. {mark} {outcome}\n:::::"
            )
    return "::::::{grid} 2 3 4 4\n:gutter: 2\n\n" + "\n".join(cards) + "\n::::::"


def files(sheets: Mapping[str, Sheet], kept: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """By name every picture that a panel shows, and the thumbnails of the gallery.

    ``kept``: the same of an earlier build, whose thumbnails of pictures that have not changed are taken over.
    """
    found: dict[str, bytes] = {}
    kept = kept or {}
    for number in {number_of(label) for sheet in sheets.values() for label in sheet.run.figures}:
        for panel in of_figure(number, sheets):
            found |= {_file(panel, picture, "svg"): picture.svg.encode() for picture in panel.pictures}
            for picture in panel.pictures[:1]:
                svg, png = (_file(panel, picture, form) for form in ("svg", "png"))
                if png not in found:
                    same = kept.get(svg) == found[svg] and png in kept
                    found[png] = kept[png] if same else _thumbnail(picture)
    return found


def _thumbnail(picture: Figure) -> bytes:
    return bytes(resvg_py.svg_to_bytes(svg_string=picture.svg, width=_WIDTH, dpi=96.0, skip_system_fonts=True))


def table_of_sheets(sheets: Mapping[str, Sheet]) -> str:
    """A line for each run with the verdicts on its claims."""
    lines = []
    for name, sheet in sheets.items():
        verdicts = counted(sheet) if sheet.complete else not_run(sheet)
        lines.append((f"[](/chapters/{name})", sheet.run.in_paper or "–", verdicts, sheet.cost or "–"))
    return table(("run sheet", "in the paper", "claims", "computed in"), lines)


def _names(label: str) -> list[str]:
    number = number_of(label)
    if number in _IN_PANELS:
        return _IN_PANELS[number][label.lstrip("0123456789")].split()
    return next(names for names, numbers in _IN_FIGURES.items() if number in numbers).split()


def _item(panel: Panel) -> str:
    sheet = panel.sheet
    letter = f"**({panel.letter})** " if panel.letter else ""
    pictures = "\n\n".join(_image(panel, picture) for picture in panel.pictures)
    link = f"[run sheet](/chapters/{sheet.run.name})"
    if sheet.complete:
        seeds = sheet.values.get("seeds", 1)
        seeds = len(seeds) if isinstance(seeds, list) else seeds
        size = "smaller than the paper's" if sheet.run.departures(sheet.preset) else "the paper's size"
        verdict = f"{OUTCOMES[panel.row.outcome]} [{panel.row.outcome}](#{target(sheet)})"
        claims = f"claims that hold: {count(panel.row.claims)}"
        about = f"{verdict}; {claims}; {seeds} seed{'s' * (seeds > 1)}; {size}; {link}"
    else:
        about = f"{OUTCOMES[panel.row.outcome]} {not_run(sheet)}; {link}"
    return f":::::{{grid-item}}\n:class: panel\n\n{pictures}\n\n{letter}{sheet.run.panel}: {about}\n:::::"


def _image(panel: Panel, picture: Figure, form: str = "svg") -> str:
    alt = json.dumps(picture.alt, ensure_ascii=False)
    return f"```{{image}} /{FOLDER}/{_file(panel, picture, form)}\n:alt: {alt}\n```"


def _file(panel: Panel, picture: Figure, form: str) -> str:
    return f"{panel.sheet.run.name}-{picture.name}.{form}"
