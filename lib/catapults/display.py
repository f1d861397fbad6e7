"""What a notebook shows: figures with caption and alternative text, generated prose, tables.

Each object carries its content a second time as data (``MIME``), from which the book takes captions and alternative
texts without reading them back from text.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

MIME = "application/vnd.catapults+json"


@dataclass(frozen=True)
class Figure:
    """An SVG picture. ``alt`` says in words what a reader who cannot see it should know, ``caption`` what it shows."""

    svg: str = field(repr=False)
    name: str
    caption: str
    alt: str

    @property
    def inline(self) -> str:
        """The picture as part of an HTML page: without XML declaration and document type."""
        return self.svg[self.svg.index("<svg") :]

    def png(self, width: int, ground: str | None = None) -> bytes:
        """As PNG, so many pixels wide, on a ground of this colour or none."""
        import resvg_py  # which only the book needs

        drawn = resvg_py.svg_to_bytes(
            svg_string=self.svg, width=width, dpi=96.0, background=ground, skip_system_fonts=True
        )
        return bytes(drawn)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        content = {"kind": "figure", "name": self.name, "caption": self.caption, "alt": self.alt}
        return {"image/svg+xml": self.svg, "text/plain": self.alt, MIME: content}


@dataclass(frozen=True)
class Text:
    """Markdown, with the data it was made from."""

    markdown: str
    content: dict[str, Any] = field(default_factory=dict)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/markdown": with_math(self.markdown), "text/plain": self.markdown}
        return bundle | {MIME: self.content} if self.content else bundle


_SYMBOLS = {  # where a pattern has a group, it stands for #
    r"η_crit\(X_batch\)": r"$\eta_{\mathrm{crit}}(X_{\mathrm{batch}})$",
    r"η_crit": r"$\eta_{\mathrm{crit}}$",
    r"η\*_whole": r"$\eta^*_{\mathrm{whole}}$",
    r"\bL≤(\d+)": r"$\mathcal{L}_{\le #}$",
    r"\bL>(\d+)": r"$\mathcal{L}_{>#}$",
    r"‖K_batch‖": r"$\lVert K_{\mathrm{batch}}\rVert$",
}


def with_math(markdown: str) -> str:
    """The symbols of plain texts as mathematics, outside of code and of mathematics."""
    parts = re.split(r"(`[^`]*`|\$[^$]*\$)", markdown)
    for pattern, symbol in _SYMBOLS.items():
        parts[::2] = [re.sub(pattern, lambda m, s=symbol: s.replace("#", m[m.lastindex or 0]), p) for p in parts[::2]]
    return "".join(parts)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines)


def number(value: SupportsFloat) -> str:
    """Three significant digits, without an exponent from 0.001 to 100,000."""
    value = float(value)
    if value == 0 or not 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}"
    digits = f"{value:.3g}"
    return f"{float(digits):,.0f}" if "e" in digits else digits
