"""The paper's figures and tables: ``"figure 7"`` is an item, ``"7a"`` the label of one of its panels."""

from collections.abc import Iterable

PAPER = {"figure": range(2, 35), "table": range(1, 4)}  # its figure 1 is a picture from an encyclopaedia

TITLES = {  # what a figure or table is about, in our words
    "figure 2": "a catapult",
    "figure 3": "catapults in the top eigenspace",
    "figure 4": "several catapults in one training",
    "figure 5": "spikes where the rate exceeds the critical one, with batches of one sample",
    "figure 6": "critical rates of the batches, and the split, of a shallow network",
    "figure 7": "catapults in SGD",
    "figure 8": "catapults of gradient descent, test performance, and AGOP alignment",
    "figure 9": "batch size, test performance, and AGOP alignment",
    "figure 10": "a large rate beside a small one",
    "figure 11": "optimisers, test performance, and AGOP alignment",
    "figure 12": "the critical rate by the Hessian and by the kernel",
    "figure 13": "the norm of the kernel during a catapult",
    "figure 14": "catapults on house numbers",
    "figure 15": "catapults on a synthetic function and in a Wide ResNet",
    "figure 16": "catapults with ten classes",
    "figure 17": "several catapults, in the top eigenspace and outside",
    "figure 18": "the last rate of a schedule, from the start",
    "figure 19": "the deep networks of Fig. 7, from beginning to end",
    "figure 20": "catapults in SGD in PyTorch's parameterisation",
    "figure 21": "catapults in SGD on house numbers",
    "figure 22": "catapults in SGD with many samples and with ten classes",
    "figure 23": "catapults in SGD with a cyclical rate",
    "figure 24": "validation along the trainings of Fig. 8",
    "figure 25": "catapults against a small initialisation",
    "figure 26": "the AGOP as a picture",
    "figure 27": "catapults of gradient descent on three more tasks",
    "figure 28": "catapults of gradient descent on a function of full rank",
    "figure 29": "batch size in PyTorch's parameterisation",
    "figure 30": "validation along the trainings of Fig. 9",
    "figure 31": "validation along the trainings of Fig. 29",
    "figure 32": "batch size on three more tasks",
    "figure 33": "the split of the loss in the trainings of Fig. 9",
    "figure 34": "validation along the trainings of Fig. 10",
    "table 1": "batch size, AGOP alignment, and test loss",
    "table 2": "match rates",
    "table 3": "learning rates of the optimisers",
}


def number_of(label: str) -> int:
    """Of a figure or table: 7 for ``"7a"``."""
    return int(label.rstrip("abcdefghijklmnopqrstuvwxyz"))


def letter_of(label: str) -> str:
    """Of a panel: "a" for ``"7a"``; empty for a figure without panels."""
    return label.lstrip("0123456789")


def item_of(kind: str, label: str) -> str:
    """``"figure 7"`` for the figure ``"7a"``."""
    return f"{kind} {number_of(label)}"


def listed(items: Iterable[tuple[str, str]]) -> str:
    """Items with their labels in words: "figures 7a, 12b, table 2"."""
    labels: dict[str, list[str]] = {}
    for item, label in items:
        labels.setdefault(item.split()[0], []).append(label)
    return ", ".join(f"{kind}{'s' * (len(of) > 1)} {', '.join(of)}" for kind, of in labels.items())
