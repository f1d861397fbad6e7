"""A result comes back from its file bit for bit, or the file is said to be damaged."""

import json
import math
import zipfile
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from catapults.compute import files
from catapults.compute.atomic import written


@dataclass(frozen=True)
class Inner:
    curve: np.ndarray
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Everything:
    array: Any
    number: Any = 0.1
    text: str = "αβ\n\"'"
    nothing: int | None = None
    tops: tuple = (1, (2.5, "x"), ())
    yes: bool = True
    inner: Inner = field(default_factory=lambda: Inner(np.arange(2.0), ("a",)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "a.result"


class TestARoundTrip:
    @pytest.mark.parametrize(
        "array",
        [
            np.array([0.1, -0.0, np.inf, -np.inf]),
            np.array([0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0000000000001], np.uint64).view(np.float64),
            np.arange(12, dtype=np.float32).reshape(2, 3, 2).transpose(2, 0, 1),
            np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
            np.empty((0, 4), np.uint8),
            np.array(3, np.int64),
            np.array([True, False]),
            np.array(["spike", "ß"]),
        ],
        ids=lambda array: f"{array.dtype} {array.shape}",
    )
    def test_of_arrays(self, array, path):
        files.write(path, Everything(array, inner=Inner(array)), {})
        result, _ = files.read(path, Everything)
        for back in (result.array, result.inner.curve):
            assert type(back) is np.ndarray and back.dtype == array.dtype and back.shape == array.shape
            assert back.tobytes() == array.tobytes()

    def test_of_another_order_of_bytes(self, path):
        files.write(path, Everything(np.arange(3, dtype=">i4")), {})
        assert files.read(path, Everything)[0].array.tolist() == [0, 1, 2]

    @pytest.mark.parametrize("number", [0.1, -0.0, 5e-324, math.inf, math.nan, 2**80, True, 1, 1.0, None])
    def test_of_the_rest(self, number, path):
        result = Everything(np.zeros(1), number)
        files.write(path, result, {"name": "µ", "made": {"by": [1]}})
        back, about = files.read(path, Everything)
        assert type(back.number) is type(number) and repr(back.number) == repr(number)
        assert (back.text, back.nothing, back.tops, back.yes) == (result.text, None, result.tops, True)
        assert back.inner.words == ("a",) and (about["name"], about["made"]) == ("µ", {"by": [1]})
        assert files.about(path) == about

    def test_of_a_result_to_which_a_field_with_a_default_was_added(self, path):
        @dataclass(frozen=True)
        class Earlier:
            array: np.ndarray

        files.write(path, Earlier(np.ones(2)), {})
        back, _ = files.read(path, Everything)
        assert back.array.tolist() == [1, 1] and back.inner.words == ("a",) and back.tops == (1, (2.5, "x"), ())

    @pytest.mark.parametrize(
        "value", [np.float64(1), [1], {"a": 1}, np.array([object()]), (np.zeros(2),), torch.ones(1), Inner(np.zeros(1))]
    )
    def test_of_what_cannot_be_written(self, value):
        with pytest.raises(TypeError, match=r"Everything.number = .*: allowed are numpy arrays, float"):
            files.check(Everything, Everything(np.zeros(1), value))

    def test_of_another_kind(self):
        with pytest.raises(TypeError, match="result: Inner; allowed is Everything"):
            files.check(Everything, Inner(np.zeros(1)))
        with pytest.raises(TypeError, match="result: NoneType; allowed is Inner"):
            files.check(Everything, replace(Everything(np.zeros(1)), inner=None))
        files.check(Everything, Everything(np.zeros(1)))


class TestInSinglePrecision:
    @pytest.mark.parametrize(
        "array, dtype",
        [
            (np.array([0.1, 0.0, -np.inf, np.nan]), np.float32),
            (np.array([1e300, 1.0]), np.float64),  # would become infinite
            (np.array([1e-60, 1.0]), np.float64),  # would become 0, which no logarithmic axis shows
            (np.array([0.1, 0.1, 0.3, 0.1]), np.float64),  # as small when it is packed
            (np.array([0.1]), np.float64),
            (np.linspace(0.1, 0.2, 100).repeat(2), np.float32),
            (np.array([1, 2]), np.int64),
        ],
    )
    def test_are_arrays_whose_numbers_it_has(self, array, dtype, path):
        files.write(path, Everything(array, 0.1), {}, single=True)
        result, about = files.read(path, Everything)
        assert about["arrays"][0][1] == np.dtype(dtype).str
        assert result.array.dtype == array.dtype and result.number == 0.1
        assert np.allclose(result.array, array, rtol=1e-7, atol=0, equal_nan=True)


def test_equal_results_make_equal_files():
    def content(value: float) -> bytes:
        return files.packed(Everything(np.full(9, value)), {"name": "a", "made": {"b": 1, "a": 2}}, single=True)

    assert content(0.5) == content(0.5) != content(0.25)


class TestAFile:
    def test_that_is_damaged_is_named_or_harmless(self, path):
        """Every byte in turn: the result is as it was, or an error names the file."""
        array = np.arange(5.0)
        files.write(path, Everything(array), {"key": "k"})
        whole, lost = path.read_bytes(), 0
        for position in range(len(whole)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
            try:
                back, _ = files.read(path, Everything)
            except files.Damaged as error:
                assert str(path) in str(error) and "delete it, or get it back from git" in str(error)
                lost += 1
            else:
                assert back.array.tobytes() == array.tobytes() and back.tops == (1, (2.5, "x"), ())
        assert lost > len(whole) / 2
        for half in (whole[: len(whole) // 2], b""):
            path.write_bytes(half)
            with pytest.raises(files.Damaged):
                files.about(path)

    def test_that_is_not_there(self, path):
        with pytest.raises(FileNotFoundError):
            files.read(path, Everything)

    def change(self, path, said=None, arrays=None):
        """Write the file as another program could."""
        files.write(path, Everything(np.arange(2.0)), {})
        with zipfile.ZipFile(path) as archive:
            about, raw = json.loads(archive.read("about.json")), archive.read("arrays")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("about.json", json.dumps(about | (said or {})))
            archive.writestr("arrays", raw if arrays is None else arrays)

    @pytest.mark.parametrize(
        "change, why",
        [
            ({"arrays": b"\0" * 40}, "its arrays take 32 bytes, and 40 are there"),
            ({"arrays": b"\0" * 24}, "buffer|reshape"),
            ({"said": {"arrays": [["array", "|O", [4]]]}}, "array 'array' is of type object"),
            ({"said": {"format": 99}}, "format 99, allowed is 1"),
            (
                {"said": {"values": {}, "arrays": [["number", "<f8", [4]]]}},
                "has no array, which today's Everything has; a field that is added to results needs a default",
            ),
        ],
    )
    def test_of_another_form(self, change, why, path):
        self.change(path)
        files.read(path, Everything)
        self.change(path, **change)
        with pytest.raises(files.Damaged, match=why):
            files.read(path, Everything)

    def test_is_there_whole_or_not_at_all(self, tmp_path, monkeypatch):
        path = tmp_path / "a"
        written(path, b"before")

        def full(self, content):
            with self.open("wb") as file:
                file.write(content[:2])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(type(path), "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            written(path, b"after")
        assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
