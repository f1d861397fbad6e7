"""Drawing the training, validation and test set of a task (appendix F, "Dataset" and "EGOP")."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from ..checks import whole_number
from .finding import Found, found, identity
from .names import parse
from .synthetic import SYNTHETIC


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

    @property
    def digest(self) -> str:
        """The sha256 of all that was drawn: inputs and targets of the three sets and the EGOP, with their shapes.

        It says whether two tasks are the same to a training, by whatever name and from whatever file they came.
        """
        drawn = {"egop": self.egop}
        for part in ("train", "validation", "test"):
            split = getattr(self, part)
            drawn |= {f"{part} inputs": split.inputs, f"{part} targets": split.targets}
        digest = hashlib.sha256()
        for name, tensor in drawn.items():
            if tensor is not None:
                digest.update(f"{name} {tuple(tensor.shape)}\n".encode() + tensor.numpy().astype("<f4").tobytes())
        return digest.hexdigest()


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
      d = ``dim``; G* = E[grad f* grad f*^T] is exact. The test set is the same for every ``seed``;
    - ``sphere`` (Fig. 5): x uniform on the unit sphere of R^d and y = 1, no noise; of the first training
      sample both x and y are doubled. f*(x) = ||x|| is the simplest function with these targets; its
      gradients are given, and its EGOP under the uniform distribution;
    - ``cifar-10``; ``svhn``, its cropped digits, all or a known part of them (:mod:`catapults.data.svhn`); ``usps``;
      ``fashion-mnist``; ``celeba``, without glasses and with (:mod:`catapults.data.celeba`); or any other
      ``NAME`` read from ``NAME.npz`` in the folder ``CATAPULTS_DATA`` (:func:`catapults.data.npz.read_npz`);
    - ``NAME:7,9``: its images of the classes listed, in that order. ``cifar-2`` is ``cifar-10:7,9``; ``svhn-2``,
      ``usps-2`` and ``fashion-mnist-2`` have classes 0 and 2.

    Real images are drawn without replacement: training and validation images from the training pool, test
    images from the test pool, or all three from the one pool of a data set without test images. The training
    set depends on ``seed`` and ``n_train`` only, and a larger one begins with the smaller one, up to label noise.

    ``labels``: the targets of two classes are 0 and 1 (``"zero-one"``) or -1 and +1 (``"plus-minus"``) in the
    order of the classes; one-hot targets use the same two values. Those of a synthetic task stay as they are, or
    are divided by their standard deviation in the training set (``"unit"``), and f*, G* with them.
    ``label_noise``: of the training labels this fraction, to the nearest whole number, is replaced by another class,
    any with the same probability; which are, depends on ``seed``, ``n_train`` and the fraction only, and the other sets
    stay right. ``image_size``: average-pool to images of this side, in pixels. These are for real data sets, but for
    ``"unit"``; ``noise`` and ``dim`` are for synthetic tasks, ignored elsewhere.

    Raises ``ValueError`` for a parameter out of range or more images than there are, :class:`DataUnavailable`
    for a data set that cannot be had, :class:`DataCorrupt` for one that is damaged.
    """
    whole_number(1, n_train=n_train)
    whole_number(0, n_validation=n_validation, n_test=n_test, seed=seed)
    if labels not in ("zero-one", "plus-minus", "unit"):
        raise ValueError(f"labels = {labels!r}: allowed are 'zero-one', 'plus-minus' and 'unit'")
    if isinstance(label_noise, bool) or not isinstance(label_noise, int | float) or not 0 <= label_noise < 1:
        raise ValueError(f"label_noise = {label_noise!r}: allowed are numbers of at least 0 and below 1")
    if image_size is not None:
        whole_number(1, image_size=image_size)
    parsed = parse(name)
    sizes = (n_train, n_validation, n_test)
    if labels == "unit" and not parsed.synthetic:
        raise ValueError(f"labels = 'unit': {name} has classes; allowed are 'zero-one' and 'plus-minus'")
    if not parsed.synthetic:
        return _real_task(name, found(parsed), parsed.classes, sizes, seed, labels, label_noise, image_size)
    if label_noise:
        raise ValueError(f"label_noise = {label_noise!r}: {name} has no labels; its targets have noise")
    if labels == "plus-minus" or image_size is not None:
        raise ValueError(f"name = {name!r}: a synthetic task takes neither labels of classes nor image_size")
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise < math.inf:
        raise ValueError(f"noise = {noise!r}: allowed are numbers of at least 0")
    whole_number(SYNTHETIC[parsed.base].smallest_dim, dim=dim)
    return _synthetic_task(parsed.base, sizes, seed, noise, dim, labels == "unit")


def _synthetic_task(
    name: str, sizes: tuple[int, ...], seed: int, noise: float | int, dim: int, unit: bool = False
) -> Task:
    task = SYNTHETIC[name]
    seeds = seed, seed, 0  # one test set, by which all seeds are judged
    splits = [
        Split(*task.draw(n, dim, noise, s, stream)) for stream, (n, s) in enumerate(zip(sizes, seeds, strict=True))
    ]
    egop, over = task.egop(dim), ""
    if unit:
        deviation = splits[0].targets.double().std(correction=0).item()
        if deviation == 0:
            raise ValueError(f"labels = 'unit': the targets of {name} are all alike; allowed is 'zero-one'")
        splits = [Split(s.inputs, s.targets / deviation, s.gradients / deviation) for s in splits]
        egop, over = egop / deviation**2, f", over the targets' standard deviation of {deviation:.3g}"
    source = f"Synthetic task {name}: {task.describe(dim, noise)}{over}, seed {seed}."
    return Task(name, *splits, egop=egop.float(), source=source, identity=identity(name))


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
