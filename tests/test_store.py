"""What is kept of an experiment comes back bit for bit, and only where everything is as it was."""

import fcntl
import json
import math
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from catapults import data, fingerprint, provenance, store
from catapults.experiments import Experiment
from samples import own
from sweep_samples import Trained, Training, runs


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@dataclass(frozen=True)
class Everything:
    array: Any
    number: Any = 0.1
    text: str = "αβ\n\"'"
    nothing: int | None = None
    tops: tuple = (1, (2.5, "x"), ())
    yes: bool = True


class Plain(Experiment):
    """An experiment of which the tests store what they like."""

    Result: ClassVar[type] = Everything
    dataset: str = "rank-2"
    device: str = "cpu"
    name: ClassVar[str] = "plain"

    def run(self, progress: bool = False) -> Everything:
        return Everything(np.zeros(1))


def stored(result: Everything) -> Everything:
    store.save(Plain(), result)
    return store.load(Plain())


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
            np.arange(3, dtype=">i4"),
        ],
        ids=lambda array: f"{array.dtype} {array.shape}",
    )
    def test_of_arrays(self, array):
        back = stored(Everything(array)).array
        assert type(back) is np.ndarray and back.dtype == array.dtype and back.shape == array.shape
        assert back.tobytes() == array.tobytes()

    @pytest.mark.parametrize("number", [0.1, -0.0, 5e-324, math.inf, math.nan, 2**80, True, 1, 1.0, None])
    def test_of_the_rest(self, number):
        result = Everything(np.zeros(1), number)
        back = stored(result)
        assert type(back.number) is type(number) and repr(back.number) == repr(number)
        assert (back.text, back.nothing, back.tops, back.yes) == (result.text, None, result.tops, True)

    @pytest.mark.parametrize(
        "value", [np.float64(1), [1], {"a": 1}, np.array([object()]), (np.zeros(2),), torch.ones(1)]
    )
    def test_of_what_cannot_be_stored(self, value, results):
        with pytest.raises(TypeError, match=r"Everything.number = .*: allowed are numpy arrays, float"):
            store.save(Plain(), Everything(np.zeros(1), value))
        assert not results.exists()

    def test_of_another_experiments_result(self):
        with pytest.raises(TypeError, match="result: Everything; allowed is Trained"):
            store.save(Training(), Everything(np.zeros(1)))

    def test_of_a_training(self):
        experiment = Training()
        result = experiment.run()
        store.save(experiment, result)
        back = store.load(Training())
        assert back.loss.tobytes() == result.loss.tobytes() and back.weights.dtype == np.float32
        assert (back.steps, back.diverged, back.note, back.tops) == (20, False, None, (1,))


def test_a_file_says_what_it_is(results):
    store.save(Plain(), Everything(np.zeros(1)))
    (path,) = results.iterdir()
    assert path.name == f"Plain-{store.key(Plain())[:16]}.npz"
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(str(file["about.json"]))
    assert about["name"] == "plain" and about["experiment"] == {"dataset": "rank-2", "device": "cpu"}


class TestTheKey:
    def test_is_stable_in_another_process(self):
        code = "from sweep_samples import Training; from catapults import store; print(store.key(Training(seed=3)))"
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        assert result.stdout.strip() == store.key(Training(seed=3))

    def test_does_not_see_how_many_threads_are_used_now(self, monkeypatch):
        before = store.key(Training())
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
        assert store.key(Training()) == before

    def test_sees_the_experiment(self):
        class Other(Plain):
            pass

        experiments = [Training(), Training(seed=1), Training(learning_rate="2 eta_crit"), Plain(), Other()]
        assert len({store.key(experiment) for experiment in experiments}) == 5

    def test_sees_versions_and_device(self, monkeypatch):
        before = store.key(Training())
        with monkeypatch.context() as patch:
            patch.setattr(fingerprint, "dependencies", lambda *_: {"torch": "0.1"})
            assert store.key(Training()) != before
        with monkeypatch.context() as patch:
            patch.setattr(provenance, "device_name", lambda device, threads: "another machine")
            assert store.key(Training()) != before

    def test_sees_the_modules_that_the_experiment_imports_and_no_others(self, tmp_path, monkeypatch):
        package = tmp_path / "catapults"
        shutil.copytree(Path(fingerprint.__file__).parent, package)
        monkeypatch.setattr(fingerprint, "_PACKAGE", package)
        store.save(Training(), Training().run())
        for module, depends in {"figures/base": False, "book/cli": False, "claims/base": False, "sgd": True}.items():
            path = package / f"{module}.py"
            path.write_text(path.read_text() + "\n# changed\n")
            assert (store.load(Training()) is None) is depends, module

    def test_sees_the_data(self, tmp_path, monkeypatch):
        (tmp_path / "data").mkdir()
        monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path / "data"))
        with pytest.raises(data.DataUnavailable):
            store.key(Training(dataset="mine"))
        own(tmp_path / "data")
        before = store.key(Training(dataset="mine"))
        own(tmp_path / "data", train_labels=np.arange(20) % 2)
        after = store.key(Training(dataset="mine"))
        assert before != after == store.key(Training(dataset="mine"), data.identity("mine"))


class TestAFile:
    def test_that_is_not_there(self):
        assert store.load(Plain()) is None

    def test_that_is_damaged_is_none_or_harmless(self, results):
        """Every byte in turn: the result is as it was, or there is none."""
        array, key = np.arange(5.0), store.key(Plain())
        store.save(Plain(), Everything(array))
        (path,) = results.iterdir()
        whole, lost = path.read_bytes(), 0
        for position in range(len(whole)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
            back = store.load(Plain(), key)
            lost += back is None
            assert back is None or (back.array.tobytes() == array.tobytes() and back.tops == (1, (2.5, "x"), ()))
        assert lost > len(whole) / 2
        path.write_bytes(whole[: len(whole) // 2])
        assert store.load(Plain()) is None
        path.write_bytes(whole)
        assert store.load(Plain()).array.tobytes() == array.tobytes()

    def test_with_a_pickle_is_not_loaded(self, results):
        store.save(Plain(), Everything(np.zeros(1)))
        (path,) = results.iterdir()
        with np.load(path) as file:
            about = file["about.json"]
        np.savez(path, array=np.array([{}], object), **{"about.json": about})
        assert store.load(Plain()) is None

    def test_of_another_key_with_the_same_beginning(self):
        store.save(Plain(), Everything(np.zeros(1)), "0" * 64)
        assert store.load(Plain(), "0" * 64) is not None
        assert store.load(Plain(), "0" * 63 + "1") is None

    def test_of_an_earlier_form_of_the_result(self, monkeypatch):
        store.save(Plain(), Everything(np.zeros(1)))
        monkeypatch.setattr(Plain, "Result", Trained)
        assert store.load(Plain()) is None


class TestAFolder:
    def test_is_named_by_the_person_or_by_whoever_asks_or_in_the_cache(self, tmp_path, monkeypatch):
        assert store.folder(tmp_path / "default") == tmp_path / "results"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("CATAPULTS_RESULTS", "here")
        assert store.folder() == tmp_path / "here"
        monkeypatch.delenv("CATAPULTS_RESULTS")
        monkeypatch.setenv("CATAPULTS_CACHE", str(tmp_path / "cache"))
        assert store.folder(tmp_path / "default") == tmp_path / "default"
        assert store.folder() == tmp_path / "cache" / "results"

    def test_that_cannot_be_written_costs_a_warning(self, results):
        results.write_text("not a folder")
        with pytest.warns(UserWarning, match=f"{results}.*: the result of plain, seed 0 could not be kept: "):
            result = store.obtain(Training())
        assert result.steps == 20

    def test_on_a_full_disk_costs_a_warning_and_leaves_nothing_half_written(self, results, monkeypatch):
        def full(file, **_):
            file.write(b"some")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np, "savez", full)
        with pytest.warns(UserWarning, match="No space left on device"):
            store.save(Plain(), Everything(np.zeros(1)))
        assert list(results.iterdir()) == []


class TestObtaining:
    def test_runs_once(self, tmp_path):
        experiment = Training(marks=str(marks(tmp_path)))
        first, second = store.obtain(experiment), store.obtain(experiment)
        assert runs(tmp_path / "marks") == ["plain, seed 0"]
        assert first.weights.tobytes() == second.weights.tobytes()

    def test_restores_the_threads(self):
        before = torch.get_num_threads()
        torch.set_num_threads(before + 1)
        try:
            assert store.obtain(Training()).threads == 1
            assert torch.get_num_threads() == before + 1
        finally:
            torch.set_num_threads(before)

    def test_leaves_an_error_to_the_caller(self, tmp_path):
        with pytest.raises(RuntimeError, match="as it was told"):
            store.obtain(Training(marks=str(marks(tmp_path)), deed="raise"))

    def test_waits_for_whoever_is_at_it(self, tmp_path, results):
        """The lock is held; what its holder stores meanwhile is what the other gets, without a run of its own."""
        experiment = Training(marks=str(marks(tmp_path)))
        lock = store.path(experiment, store.key(experiment)).with_suffix(".lock")
        results.mkdir()
        found = []
        with lock.open("w") as holder:
            fcntl.flock(holder, fcntl.LOCK_EX)
            waiting = threading.Thread(target=lambda: found.append(store.obtain(experiment)), daemon=True)
            waiting.start()
            waiting.join(1)
            assert waiting.is_alive() and runs(tmp_path / "marks") == []
            result = Training().run()
            store.save(experiment, result)
        waiting.join(30)
        assert runs(tmp_path / "marks") == [] and found[0].weights.tobytes() == result.weights.tobytes()

    def test_is_not_held_up_by_a_lock_that_was_left_behind(self, results):
        results.mkdir()
        store.path(Training(), store.key(Training())).with_suffix(".lock").write_text("left behind")
        assert store.obtain(Training()).steps == 20


def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"
