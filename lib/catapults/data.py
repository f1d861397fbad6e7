"""The paper's data: its synthetic tasks with their exact EGOP, and real data sets (appendix F)."""

import difflib
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from . import sources
from .celeba import CELEBA
from .checks import whole_number
from .cifar10 import CIFAR_10
from .fashion_mnist import FASHION_MNIST
from .sources import DataCorrupt, DataError, Dataset, DatasetStatus, DataUnavailable, Found
from .svhn import SVHN
from .synthetic import SYNTHETIC
from .usps import USPS

__all__ = [
    "ALIASES",
    "DATASETS",
    "DataCorrupt",
    "DataError",
    "DataUnavailable",
    "DatasetStatus",
    "Split",
    "Task",
    "available_names",
    "check_name",
    "fetch",
    "identity",
    "is_synthetic",
    "load",
    "n_outputs",
    "status",
]

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (CIFAR_10, SVHN, USPS, FASHION_MNIST, CELEBA)}
ALIASES = {
    "cifar-2": "cifar-10:7,9",
    "svhn-2": "svhn:0,2",
    "usps-2": "usps:0,2",
    "fashion-mnist-2": "fashion-mnist:0,2",
}


@dataclass(frozen=True)
class Split:
    """One of the three sets of a task, float32, on the CPU.

    ``inputs``: images (n, C, H, W) with values in [-1, 1], or vectors (n, d).
    ``targets``: (n,) for regression and for two classes, (n, c) one-hot for c > 2 classes.
    ``gradients``: (n, d), the exact gradient of f* at the inputs; ``None`` for real data.
    """

    inputs: Float[Tensor, " n *shape"]
    targets: Float[Tensor, " n *classes"]
    gradients: Float[Tensor, "n d"] | None = None

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Task:
    """What :func:`load` returns.

    ``egop``: the exact G* (d, d) of a synthetic task, float32; ``None`` for real data.
    ``source``: one sentence on which data these are, how they were obtained and which classes they hold.
    ``identity``: what :func:`identity` returns.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    egop: Float[Tensor, "d d"] | None
    source: str
    identity: str


def load(
    name: str,
    n_train: int,
    n_validation: int = 0,
    n_test: int = 0,
    *,
    seed: int = 0,
    labels: str = "zero-one",
    label_noise: float | int = 0.0,
    image_size: int | None = None,
    noise: float | int = 0.1,
    dim: int = 100,
) -> Task:
    """Draw the training, validation and test set of a task (appendix F, "Dataset" and "EGOP").

    ``name`` is one of

    - ``rank-2``, ``rank-3``, ``rank-4``, ``full-rank``: x ~ N(0, I_d) and y = f*(x) + N(0, ``noise``^2) with
      d = ``dim``; G* = E[grad f* grad f*^T] is exact;
    - ``sphere`` (Fig. 5): x uniform on the unit sphere of R^d and y = 1, no noise; of the first training
      sample both x and y are doubled. f*(x) = ||x|| is the simplest function with these targets; its
      gradients are given, and its EGOP under the uniform distribution;
    - ``cifar-10``; ``svhn``, its cropped digits, all or a known part of them (:mod:`catapults.svhn`); ``usps``;
      ``fashion-mnist``; ``celeba``, without glasses and with (:mod:`catapults.celeba`); or any other
      ``NAME`` read from ``NAME.npz`` in the folder ``CATAPULTS_DATA`` (:func:`catapults.sources.read_npz`);
    - ``NAME:7,9``: its images of the classes listed, in that order. ``cifar-2`` is ``cifar-10:7,9``; ``svhn-2``,
      ``usps-2`` and ``fashion-mnist-2`` have classes 0 and 2.

    Real images are drawn without replacement: training and validation images from the training pool, test
    images from the test pool, or all three from the one pool of a data set without test images. The training
    set depends on ``seed`` and ``n_train`` only, and a larger one begins with the smaller one, up to label noise.

    ``labels``: the targets of two classes are 0 and 1 (``"zero-one"``) or -1 and +1 (``"plus-minus"``) in the
    order of the classes; one-hot targets use the same two values. ``label_noise``: of the training labels this
    fraction, to the nearest whole number, is replaced by another class, any with the same probability; which are,
    depends on ``seed``, ``n_train`` and the fraction only, and the other sets stay right. ``image_size``:
    average-pool to images of this side, in pixels. These are for real data sets; ``noise`` and ``dim`` are for
    synthetic tasks, ignored elsewhere.

    Raises ``ValueError`` for a parameter out of range or more images than there are, :class:`DataUnavailable`
    for a data set that cannot be had, :class:`DataCorrupt` for one that is damaged.
    """
    whole_number(1, n_train=n_train)
    whole_number(0, n_validation=n_validation, n_test=n_test, seed=seed)
    if labels not in ("zero-one", "plus-minus"):
        raise ValueError(f"labels = {labels!r}: allowed are 'zero-one' and 'plus-minus'")
    if isinstance(label_noise, bool) or not isinstance(label_noise, int | float) or not 0 <= label_noise < 1:
        raise ValueError(f"label_noise = {label_noise!r}: allowed are numbers of at least 0 and below 1")
    if image_size is not None:
        whole_number(1, image_size=image_size)
    base, classes = _parse(name)
    sizes = (n_train, n_validation, n_test)
    if base not in SYNTHETIC:
        return _real_task(name, _obtain(base), classes, sizes, seed, labels, label_noise, image_size)
    if label_noise:
        raise ValueError(f"label_noise = {label_noise!r}: {name} has no labels; its targets have noise")
    if labels != "zero-one" or image_size is not None:
        raise ValueError(f"name = {name!r}: a synthetic task takes neither labels nor image_size")
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise < math.inf:
        raise ValueError(f"noise = {noise!r}: allowed are numbers of at least 0")
    whole_number(SYNTHETIC[base].smallest_dim, dim=dim)
    return _synthetic_task(base, sizes, seed, noise, dim)


def identity(name: str) -> str:
    """The content hash of a whole data set, whatever the classes and sizes drawn from it: for keys of caches.

    A recorded hash is returned unread, as every load is checked against it; a synthetic task has a constant
    that names it. Any other data set is obtained, which raises as :func:`fetch`: of ``svhn`` and ``celeba`` it
    says which version is here.
    """
    base, _ = _parse(name)
    if base in SYNTHETIC:
        return f"synthetic:{base}"
    return _dataset(base).identity or _obtain(base).identity


def fetch(name: str) -> Path | None:
    """Obtain a real data set now, with its progress on a terminal, and return the path where it lies.

    ``None`` means nowhere on disk: the task is synthetic, or the cache could not be written (a warning says
    why). Raises ``ValueError`` for a malformed name, :class:`DataUnavailable` and :class:`DataCorrupt`.
    """
    base, _ = _parse(name)
    return None if base in SYNTHETIC else _obtain(base).path


def status() -> list[DatasetStatus]:
    """The real data sets known here, each read and verified; nothing is downloaded."""
    return [sources.status(_dataset(name)) for name in [*DATASETS, *_own_names()]]


def available_names() -> list[str]:
    """Every name known to :func:`load`, including the ``.npz`` files of the folder ``CATAPULTS_DATA``."""
    return [*SYNTHETIC, *DATASETS, *ALIASES, *_own_names()]


def check_name(name: str, parameter: str = "name") -> None:
    """Raise ``ValueError`` for a name that :func:`load` cannot know, as a value of ``parameter``; reads no file."""
    base, _ = _parse(name, parameter)
    folder = sources.data_folder()
    if base not in SYNTHETIC and base not in DATASETS and not (folder and (folder / f"{base}.npz").exists()):
        raise ValueError(f"{parameter} = {name!r}: {_allowed(base)}")


def is_synthetic(name: str) -> bool:
    """Whether this is a synthetic task: vectors with an exact EGOP. Raises ``ValueError`` for a malformed name."""
    return _parse(name)[0] in SYNTHETIC


def n_outputs(name: str) -> int | None:
    """How many numbers a target has: one for regression and two classes, else one per class.

    ``None`` where that takes reading the file. Raises ``ValueError`` for a malformed name.
    """
    base, listed = _parse(name)
    if base in SYNTHETIC:
        return 1
    classes = len(listed) if listed else _dataset(base).classes
    return 1 if classes == 2 else classes


def _parse(name: str, parameter: str = "name") -> tuple[str, tuple[int, ...] | None]:
    """The data set or synthetic task that ``name`` means, and the classes it lists."""
    match = re.fullmatch(r"(\w[\w.-]*)(?::(-?\d+(?:,-?\d+)*))?", ALIASES.get(name, str(name)), re.ASCII)
    if not match:
        raise ValueError(f"{parameter} = {name!r}: {_allowed(str(name).partition(':')[0])}")
    base, classes = match[1], tuple(int(number) for number in (match[2] or "").split(",") if number)
    if classes and (base in SYNTHETIC or base in ALIASES):
        raise ValueError(f"{parameter} = {name!r}: {base} takes no classes")
    if classes and (len(classes) == 1 or len(set(classes)) < len(classes)):
        raise ValueError(f"{parameter} = {name!r}: allowed are two or more different classes")
    return base, classes or None


def _allowed(base: str) -> str:
    """Which names are, and which one is probably meant by one that is not."""
    names = available_names()
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(base.lower(), lower, 1) if base not in names else []
    suggestion = f"did you mean {lower[near[0]]!r}? " if near else ""
    forms = f"allowed are NAME and NAME:CLASS,CLASS with NAME one of {', '.join(names)}"
    folder = sources.data_folder() or "not set"
    return f"{suggestion}{forms}, or any NAME with a file NAME.npz in the folder CATAPULTS_DATA ({folder})"


def _own_names() -> list[str]:
    folder, known = sources.data_folder(), {file for dataset in DATASETS.values() for file in dataset.files}
    return sorted(path.stem for path in folder.glob("*.npz") if path.name not in known) if folder else []


def _dataset(base: str) -> Dataset:
    return DATASETS.get(base) or sources.own_file(base)


def _obtain(base: str) -> Found:
    """The whole data set; the warnings on the way to it point to the caller of this module."""
    if base in DATASETS:
        return sources.obtain(DATASETS[base])
    if found := sources.in_folder(_dataset(base)):
        return found
    raise DataUnavailable(f"{base} cannot be had, {base}.npz is not in the folder CATAPULTS_DATA: {_allowed(base)}.")


def _synthetic_task(name: str, sizes: tuple[int, ...], seed: int, noise: float | int, dim: int) -> Task:
    task = SYNTHETIC[name]
    splits = [Split(*task.draw(n, dim, noise, seed, stream)) for stream, n in enumerate(sizes)]
    source = f"Synthetic task {name}: {task.describe(dim, noise)}, seed {seed}."
    return Task(name, *splits, egop=task.egop(dim).float(), source=source, identity=identity(name))


def _real_task(
    name: str,
    found: Found,
    classes: tuple[int, ...] | None,
    sizes: tuple[int, int, int],
    seed: int,
    labels: str,
    label_noise: float | int,
    image_size: int | None,
) -> Task:
    height, width = found.pools[0].images.shape[1:3]
    if image_size is not None and (height != width or height % image_size):
        divisors = ", ".join(str(side) for side in range(1, height + 1) if height % side == 0)
        allowed = f"the divisors of {height} ({divisors})" if height == width else "square images only"
        images = f"{height}x{width} images"
        raise ValueError(f"image_size = {image_size}: {name} has {images}, allowed are {allowed}")
    classes = classes or tuple(np.unique(found.pools[0].labels).tolist())
    if len(classes) == 1:
        raise ValueError(f"name = {name!r}: all images are of class {classes[0]}, two classes are needed")

    if len(found.pools) == 2:
        origin = f"{found.origin}{', test images from its own test split' if sizes[2] else ''}"
        needs = {"n_train + n_validation": sizes[:2], "n_test": sizes[2:]}
    else:
        origin = f"{found.origin}, without a test split: all sets drawn from one pool, disjoint"
        needs = {"n_train + n_validation + n_test": sizes}
    n_wrong, splits = round(label_noise * sizes[0]), []
    for stream, (pool, (parameter, parts)) in enumerate(zip(found.pools, needs.items(), strict=True)):
        counts = {number: int((pool.labels == number).sum()) for number in classes}
        total = sum(counts.values())
        if sum(parts) > total or (sum(parts) and 0 in counts.values()):
            limits = f"at most {total}, of classes that all occur; images per class: {counts}"
            raise ValueError(f"{parameter} = {sum(parts)}: {name} allows {limits}")
        order = np.flatnonzero(np.isin(pool.labels, classes))
        order = np.random.default_rng([seed, stream]).permutation(order)
        for chosen in np.split(order, np.cumsum(parts))[:-1]:
            numbers = pool.labels[chosen]
            if not splits:  # the training set comes first
                numbers = _with_wrong_labels(numbers, classes, n_wrong, seed)
            splits.append(_real_split(pool.images[chosen], numbers, classes, labels, image_size))
    wrong = (
        f"; {100 * label_noise:g} % of the training labels ({n_wrong} of {sizes[0]}) are wrong" if label_noise else ""
    )
    source = f"{found.title}, classes {', '.join(map(str, classes))}, {origin}, seed {seed}{wrong}."
    return Task(name, *splits, egop=None, source=source, identity=found.identity)


def _with_wrong_labels(
    labels: Integer[np.ndarray, " n"], classes: tuple[int, ...], n_wrong: int, seed: int
) -> Integer[np.ndarray, " n"]:
    """The labels with ``n_wrong`` of them replaced by others of the classes, drawn in a stream of their own."""
    draws = np.random.default_rng([seed, 2])  # 0 and 1 draw the images from their pools
    chosen = draws.permutation(len(labels))[:n_wrong]
    right = (labels[chosen, None] == np.array(classes)).argmax(1)
    labels = labels.copy()
    labels[chosen] = np.array(classes)[(right + draws.integers(1, len(classes), n_wrong)) % len(classes)]
    return labels


def _real_split(
    images: Shaped[np.ndarray, "n h w c"],
    numbers: Integer[np.ndarray, " n"],
    classes: tuple[int, ...],
    values: str,
    image_size: int | None,
) -> Split:
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32, order="C"))
    if images.dtype == np.uint8:
        inputs = inputs / 127.5 - 1
    if image_size is not None:
        inputs = torch.nn.functional.avg_pool2d(inputs, inputs.shape[-1] // image_size)
    one_hot = torch.from_numpy(numbers[:, None] == np.array(classes)).float()
    targets = one_hot[:, 1].clone() if len(classes) == 2 else one_hot
    return Split(inputs, targets * 2 - 1 if values == "plus-minus" else targets)
