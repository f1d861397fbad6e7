"""Images and labels in one ``.npz``: the format of a person's own data, and of what the cache keeps."""

from pathlib import Path

import numpy as np

from .dataset import Pool, Pools

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
CHANNELS = (1, 3, 4)  # grey, colours, colours with transparency


def read_npz(path: Path) -> Pools:
    """Read ``train_images``, ``train_labels`` and, where there are any, ``test_images``, ``test_labels``.

    A data set without a split has ``images`` and ``labels`` instead. Images are (n, H, W), which is grey, or
    (n, H, W, C) with 1, 3 or 4 channels, uint8 or floats in [-1, 1]; labels (n,) are whole numbers. Raises
    ``ValueError`` otherwise.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        there = set(archive.files)
        names = ("images", "labels")
        if there & set(ARRAYS):
            names = ARRAYS if there & set(ARRAYS[2:]) else ARRAYS[:2]
        if absent := [name for name in names if name not in there]:
            raise ValueError(f"it lacks {', '.join(absent)} beside {', '.join(sorted(there)) or 'nothing'}")
        arrays = [archive[name] for name in names]
    pools = [_checked_pool(images, labels) for images, labels in zip(arrays[::2], arrays[1::2], strict=True)]
    if len({(images.shape[1:], images.dtype) for images, _ in pools}) > 1:
        raise ValueError("its training and test images differ in shape or type")
    return pools


def _checked_pool(images: np.ndarray, labels: np.ndarray) -> Pool:
    if images.ndim not in (3, 4) or 0 in images.shape or labels.shape != images.shape[:1]:
        raise ValueError(f"images {images.shape} and labels {labels.shape} are not (n, H, W[, C]) and (n,)")
    if images.ndim == 4 and (_channels_first(images.shape) or images.shape[3] not in CHANNELS):
        advice = ", as images.transpose(0, 2, 3, 1) gives" if images.shape[1] in CHANNELS else ""
        raise ValueError(f"images {images.shape}: allowed are (n, H, W) and (n, H, W, C) with C = 1, 3 or 4{advice}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"its labels are {labels.dtype}, allowed are whole numbers")
    if np.issubdtype(images.dtype, np.floating):
        images = images.astype("<f4", copy=False)
        if not np.abs(images).max() <= 1:
            raise ValueError("its images have values outside [-1, 1]")
    elif images.dtype != np.uint8:
        raise ValueError(f"its images are {images.dtype}, allowed are uint8 and floats")
    small = labels.min() >= 0 and labels.max() <= 255
    labels = labels.astype(np.uint8 if small else "<i8", copy=False)
    return Pool(images.reshape(*images.shape[:3], -1), labels)


def _channels_first(shape: tuple[int, ...]) -> bool:
    """Whether these are square images with their channels first, also where a side could pass for channels."""
    _, channels, height, width = shape
    return channels in CHANNELS and height == width != channels
