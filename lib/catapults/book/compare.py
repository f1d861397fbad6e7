"""Runs side by side, one's own beside the book's or any others, in one page that needs nothing else."""

import csv
import io
from collections.abc import Mapping
from html import escape
from typing import Any

import resvg_py

from ..display import Figure
from ..figures.compare import curves
from ..paper import VERDICTS
from .executed import figures
from .sheets import Sheet

_CSS = """
:root { color-scheme: light dark; --line: #8888; --ink: #222; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #121212; } .picture svg { filter: invert(1)
  hue-rotate(180deg) brightness(1.15); } }
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 72rem; padding: 1rem; }
table { border-collapse: collapse; font-size: 0.9em; }
th, td { border-bottom: 1px solid var(--line); padding: 0.3rem 0.6rem; text-align: left; vertical-align: top; }
.wide { overflow-x: auto; }
.side { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); }
.picture svg { height: auto; max-width: 100%; }
figure { margin: 0; }
figcaption { font-size: 0.85em; }
"""


def page(sheets: Mapping[str, Sheet]) -> str:
    """HTML: the parameters that differ, curves over each other, figures and claims side by side.

    ``sheets``: with their notebooks, by the names under which they are shown.
    """
    title = " and ".join(sheets)
    drawn = over_each_other(sheets)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<h2>Parameters that differ</h2>{_parameters(sheets)}",
        f"<h2>Curves</h2>{_picture(drawn)}" if drawn else "",
        f"<h2>Claims</h2>{_claims(sheets)}",
        f"<h2>Figures</h2>{_figures(sheets)}",
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def over_each_other(sheets: Mapping[str, Sheet]) -> Figure | None:
    """The curves of each one's first seed; ``None`` where fewer than two have curves of that kind."""
    found = {name: of[0] for name, sheet in sheets.items() if (of := list(histories(sheet).values()))}
    return curves(found) if len(found) > 1 else None


def histories(sheet: Sheet) -> dict[int, Any]:
    """Those of pages with one training a seed, by seed; empty for others."""
    runs = sheet.page.runs(sheet.results)
    return {run.experiment.seed: run.history for run in runs if hasattr(run, "history")}


def numbers(sheets: Mapping[str, Sheet]) -> str:
    """CSV: a line for each run, seed and state, with what was measured there."""
    columns = ("loss", "kernel_norm", "critical_learning_rate", "rate_at_states")
    rows = (
        (name, seed, t, *(getattr(h, column)[t] for column in columns))
        for name, sheet in sheets.items()
        for seed, h in histories(sheet).items()
        for t in range(len(h.loss))
    )
    return _csv(("run", "seed", "iteration", "loss", "kernel_norm", "critical_learning_rate", "learning_rate"), rows)


def verdicts(sheets: Mapping[str, Sheet]) -> str:
    """CSV: a line for each run and claim."""
    rows = (
        (name, key, claim.statement, sheet.claims.worded(key), claim.ours, claim.paper, claim.seeds)
        for name, sheet in sheets.items()
        for key, claim in sheet.claims.items()
    )
    return _csv(("run", "claim", "statement", "verdict", "here", "paper", "holds in"), rows)


def png(svg: str, width: int = 1600) -> bytes:
    """The picture on a white ground."""
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=width, dpi=96.0, background="white"))


def _csv(header: tuple[str, ...], rows) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return file.getvalue()


def _parameters(sheets: Mapping[str, Sheet]) -> str:
    every = [sheet.values for sheet in sheets.values()]
    names = dict.fromkeys(name for values in every for name in values if name not in ("device", "scheduler"))
    different = [n for n in names if len({repr(values.get(n)) for values in every}) > 1]
    if not different:
        return "<p>None.</p>"
    rows = [(n, *(repr(values[n]) if n in values else "–" for values in every)) for n in different]
    return _table(("parameter", *sheets), rows)


def _claims(sheets: Mapping[str, Sheet]) -> str:
    keys = dict.fromkeys(key for sheet in sheets.values() for key in sheet.claims)
    rows = []
    for key in keys:
        of = [sheet.claims.get(key) for sheet in sheets.values()]
        cells = [
            "–"
            if claim is None
            else f"{VERDICTS[claim.verdict]} {sheet.claims.worded(key)}: {claim.ours}"
            + (f" (holds in {claim.seeds})" if claim.seeds else f" ({claim.why})" if claim.why else "")
            for claim, sheet in zip(of, sheets.values(), strict=True)
        ]
        rows.append((next(claim.statement for claim in of if claim), *cells))
    return _table(("claim", *sheets), rows) if rows else "<p>None.</p>"


def _figures(sheets: Mapping[str, Sheet]) -> str:
    drawn = {n: {f.name: f for f in figures(s.notebook)} for n, s in sheets.items() if s.notebook is not None}
    names = dict.fromkeys(name for of in drawn.values() for name in of)
    return "".join(
        f'<div class="side">{"".join(_picture(of[name], run) for run, of in drawn.items() if name in of)}</div>'
        for name in names
    )


def _picture(figure: Figure, of: str = "") -> str:
    svg = figure.svg[figure.svg.index("<svg") :]
    caption = f"<strong>{escape(of)}.</strong> " if of else ""
    return (
        f'<figure class="picture"><div role="img" aria-label="{escape(figure.alt)}">{svg}</div>'
        f"<figcaption>{caption}{escape(figure.caption)}</figcaption></figure>"
    )


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    return f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
