"""One plotting function for each kind of figure, in one style: SVG without background, colours that the colour-blind
tell apart and line styles that differ as well.

A module for each experiment, to be imported by its name; they share the style of ``base``. :func:`plot` draws the
history of any training.
"""

from .plot import plot

__all__ = ["plot"]
