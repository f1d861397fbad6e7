"""The state of a training comes back as it was, or the training begins anew."""

import time

import numpy as np
import pytest
import torch
from catapults.compute import fingerprint, workers
from catapults.compute.checkpoints import Checkpoint, OutOfTime
from catapults.compute.workers import Failure, Queue, Task
from sweep_samples import Walk, descents

STATE = {"weights": [torch.arange(3.0), torch.ones(2, 2, dtype=torch.float64)], "step": 7, "rate": 0.1, "name": "x"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results" / "a.checkpoint"


def test_a_state_comes_back_until_it_is_removed(path):
    checkpoint = Checkpoint(path)
    assert checkpoint.load() is None
    checkpoint.save(STATE)
    back = Checkpoint(path).load()
    assert all(map(torch.equal, back.pop("weights"), STATE["weights"]))
    assert back == {"step": 7, "rate": 0.1, "name": "x"}
    checkpoint.remove()
    assert checkpoint.load() is None and not list(path.parent.iterdir())
    checkpoint.remove()


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[:-50], lambda whole: b"x" * 99])
def test_a_damaged_one_is_none(path, damage):
    Checkpoint(path).save(STATE)
    path.write_bytes(damage(path.read_bytes()))
    assert Checkpoint(path).load() is None


def test_no_pickle_is_loaded(path):
    path.parent.mkdir()
    torch.save({"array": np.zeros(1), "thing": Walk()}, path)
    assert Checkpoint(path).load() is None


def test_it_is_due_every_few_minutes_and_after_the_limit(path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    checkpoint = Checkpoint(path, until=1250.0, every=100.0)
    due = {}
    for now[0] in (1000.0, 1099.0, 1100.0):
        due[now[0]] = checkpoint.due()
    checkpoint.save(STATE)
    for now[0] in (1199.0, 1200.0):
        due[now[0]] = checkpoint.due()
    assert due == {1000.0: False, 1099.0: False, 1100.0: True, 1199.0: False, 1200.0: True}
    checkpoint.save(STATE)
    for now[0] in (1249.0, 1250.0):
        due[now[0]] = checkpoint.due()
    assert not due[1249.0] and due[1250.0]
    with pytest.raises(OutOfTime, match=f"stopped at the time limit; {path} holds where it was"):
        checkpoint.save(STATE)
    assert Checkpoint(path).load()["step"] == 7


def test_where_it_cannot_be_written_a_warning_says_so_and_the_training_goes_on(path):
    path.parent.write_text("not a folder")
    with pytest.warns(UserWarning, match=f"{path}: the state of a training could not be kept"):
        Checkpoint(path).save(STATE)
    with pytest.warns(UserWarning), pytest.raises(OutOfTime, match="where it was could not be kept"):
        Checkpoint(path, until=time.time() - 1).save(STATE)


class TestAWorker:
    def test_hands_it_over_and_begins_nothing_after_the_limit(self, path, tmp_path):
        (tmp_path / "marks").mkdir()
        experiment = Walk(marks=str(tmp_path / "marks"), deed="take_long")
        late = workers.attempt(Task("key", experiment, checkpoint=path, until=time.time() - 1), ())
        assert late == Failure("OutOfTime: no time was left", unfinished=True)
        stopped = workers.attempt(Task("key", experiment, checkpoint=path, until=time.time() + 0.2), ())
        assert stopped.unfinished and path.exists()
        result, _ = workers.attempt(Task("key", experiment, checkpoint=path), ())
        assert result.resumed == 7 and path.exists()  # until whoever has asked has kept the result

    def test_hands_it_over_to_a_training_which_goes_on_bit_for_bit(self, path):
        experiment, _ = descents("1.5 eta_crit")
        whole, _ = workers.attempt(Task("key", experiment), ())
        stopped = workers.attempt(Task("key", experiment, checkpoint=path, until=time.time() + 1e-3), ())
        assert stopped.unfinished or stopped[0].history.loss.tobytes() == whole.history.loss.tobytes()
        again, _ = workers.attempt(Task("key", experiment, checkpoint=path), ())
        assert again.history.loss.tobytes() == whole.history.loss.tobytes()
        assert again.history.splits.tobytes() == whole.history.splits.tobytes()

    def test_says_by_which_code_a_result_was_begun(self, tmp_path, monkeypatch):
        """Files can change while a training runs."""

        def change(*_):
            monkeypatch.setattr(fingerprint, "modules", lambda _: {"changed.py": "0"})

        monkeypatch.setattr(Walk, "_nothing", change)
        _, made = workers.attempt(Task("key", Walk(marks=str(tmp_path))), ())
        assert "sweep_samples.py" in made["modules"] and "changed.py" not in made["modules"]


def test_a_queue_hands_out_what_has_what_it_needs():
    first, second = Walk(seed=1), Walk(seed=2, start=Walk(seed=1))
    tasks = [Task("b", second, (first.key,)), Task("a", first)]
    queue = Queue(tasks, {})
    assert queue.take() == (tasks[1], ()) and queue.take() is None and queue.left == tasks[:1]
    queue.done(first.key, "its result")
    assert queue.take() == (tasks[0], ("its result",)) and queue.take() is None and queue.left == []
    assert Queue(tasks, {}, until=time.time() - 1).take() is None
