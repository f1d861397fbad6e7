"""One result in one file: plain values as JSON, arrays as raw bytes, both compressed. No pickle is ever loaded.

The file is a ZIP archive of two members. ``about.json`` holds what is said of the result, its plain values, and for
each array its name, type and shape; ``arrays`` holds the arrays' bytes one after the other, little-endian.
"""

import dataclasses
import io
import json
import math
import typing
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .atomic import written

FORMAT = 1
_FEW = 32  # different numbers
_DATE = (1980, 1, 1, 0, 0, 0)  # equal results make equal files


class Damaged(Exception):
    """A file is not what it should be; the message names it and what is wrong."""


class _Lacking(Exception):
    """A file holds no value of a field, which it names, that has no default."""


def write(path: Path, result: Any, about: dict[str, Any], single: bool = False) -> None:
    """Write at once or not at all. ``single``: as in :func:`packed`. Raises ``OSError``."""
    written(path, packed(result, about, single))


def packed(result: Any, about: dict[str, Any], single: bool = False) -> bytes:
    """What a file holds. ``single``: keep arrays of float64 in float32, unless this lacks some of their numbers,
    or they are few that repeat, as rates do, from which others start: exact ones are as small then. They are read as
    float64 again."""
    values, arrays = _taken_apart(result)
    types = {name: a.dtype.newbyteorder("<") for name, a in arrays.items()}
    if single:
        arrays = {name: a.astype(np.float32) if _fits_single(a) else a for name, a in arrays.items()}
    arrays = {name: np.asarray(a, a.dtype.newbyteorder("<"), order="C") for name, a in arrays.items()}
    listed = [[name, a.dtype.str, list(a.shape), types[name].str] for name, a in arrays.items()]
    everything = {"format": FORMAT, **about, "values": values, "arrays": listed}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, member in (
            ("about.json", json.dumps(everything, sort_keys=True).encode()),
            ("arrays", b"".join(a.tobytes() for a in arrays.values())),
        ):
            archive.writestr(zipfile.ZipInfo(name, _DATE), member, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def about(path: Path) -> dict[str, Any]:
    """What a file says of its result. Raises :class:`Damaged`, and ``FileNotFoundError`` where there is none."""
    return _read(path)[0]


def read(path: Path, kind: type) -> tuple[Any, dict[str, Any]]:
    """A result of a dataclass ``kind`` and what is said of it. Raises as :func:`about`."""
    said, raw = _read(path)
    try:
        arrays, position = {}, 0
        for name, dtype, shape, *original in said["arrays"]:
            dtype = np.dtype(dtype)
            if dtype.hasobject:
                raise ValueError(f"array {name!r} is of type {dtype}")
            size = dtype.itemsize * math.prod(shape)
            array = np.frombuffer(raw[position : position + size], dtype).reshape(shape)
            arrays[name] = array.astype(original[0], copy=False) if original else array
            position += size
        if position != len(raw):
            raise ValueError(f"its arrays take {position} bytes, and {len(raw)} are there")
        return _put_together(kind, "", said["values"], arrays), said
    except _Lacking as error:
        whole = f"{path}: has no {error}, which today's {kind.__qualname__} has"
        raise Damaged(f"{whole}; a field that is added to results needs a default, or the file is damaged") from None
    except Exception as error:  # of any kind, if the file is damaged
        raise Damaged(
            f"{path}: damaged ({type(error).__name__}: {error}); delete it, or get it back from git"
        ) from None


def check(kind: type, result: Any) -> None:
    """Raise ``TypeError`` unless this is a result of a dataclass ``kind`` that can be written."""
    if type(result) is not kind:
        raise TypeError(f"result: {type(result).__name__}; allowed is {kind.__qualname__}")
    types = typing.get_type_hints(kind)
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if dataclasses.is_dataclass(types[field.name]):
            check(types[field.name], value)
        elif not (_is_plain(value) or (type(value) is np.ndarray and not value.dtype.hasobject)):
            allowed = "numpy arrays, float, int, bool, str, None, tuples of these but arrays, and dataclasses of these"
            raise TypeError(f"{kind.__qualname__}.{field.name} = {value!r}: allowed are {allowed}")


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            said = json.loads(archive.read("about.json"))
            if said["format"] != FORMAT:
                raise ValueError(f"format {said['format']}, allowed is {FORMAT}")
            return said, archive.read("arrays")
    except FileNotFoundError:
        raise
    except Exception as error:  # of any kind, if the file is damaged
        raise Damaged(
            f"{path}: damaged ({type(error).__name__}: {error}); delete it, or get it back from git"
        ) from None


def _fits_single(array: np.ndarray) -> bool:
    if array.dtype != np.float64 or 2 * len(np.unique(array)) <= min(array.size + 1, 2 * _FEW):
        return False
    sizes, limits = np.abs(array[np.isfinite(array) & (array != 0)]), np.finfo(np.float32)
    return bool(np.all((sizes >= limits.tiny) & (sizes <= limits.max)))


def _taken_apart(result: Any, prefix: str = "") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    values, arrays = {}, {}
    for field in dataclasses.fields(result):
        name, value = prefix + field.name, getattr(result, field.name)
        if isinstance(value, np.ndarray):
            arrays[name] = value
        elif dataclasses.is_dataclass(value):
            inner, of_inner = _taken_apart(value, f"{name}.")
            values |= inner
            arrays |= of_inner
        else:
            values[name] = value
    return values, arrays


def _put_together(kind: type, prefix: str, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    types = typing.get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        name = prefix + field.name
        if name in arrays:
            found[field.name] = arrays[name]
        elif name in values:
            found[field.name] = _tuples(values[name])
        elif dataclasses.is_dataclass(types[field.name]) and any(
            n.startswith(f"{name}.") for n in {**values, **arrays}
        ):
            found[field.name] = _put_together(types[field.name], f"{name}.", values, arrays)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise _Lacking(name)
    return kind(**found)


def _is_plain(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return value is None or type(value) in (float, int, bool, str)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
