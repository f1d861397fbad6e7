"""The paper's figures and tables: ``"figure 7"`` is an item, ``"7a"`` the label of one of its panels."""

from collections.abc import Iterable

PAPER = {"figure": range(2, 35), "table": range(1, 4)}  # its figure 1 is a picture from an encyclopaedia


def number_of(label: str) -> int:
    """Of a figure or table: 7 for ``"7a"``."""
    return int(label.rstrip("abcdefghijklmnopqrstuvwxyz"))


def item_of(kind: str, label: str) -> str:
    """``"figure 7"`` for the figure ``"7a"``."""
    return f"{kind} {number_of(label)}"


def listed(items: Iterable[tuple[str, str]]) -> str:
    """Items with their labels in words: "figures 7a, 12b, table 2"."""
    labels: dict[str, list[str]] = {}
    for item, label in items:
        labels.setdefault(item.split()[0], []).append(label)
    return ", ".join(f"{kind}{'s' * (len(of) > 1)} {', '.join(of)}" for kind, of in labels.items())
