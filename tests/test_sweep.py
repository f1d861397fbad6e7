"""Sweeps in this process, in others and on a Dask cluster: the same results, whatever happens to one of them."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import distributed
import psutil
import pytest
import torch
from catapults import cluster as clusters
from catapults import devices, processes, store, workers
from catapults import sweep as sweeps
from catapults.sweep import sweep
from nbformat.v4 import new_code_cell, new_notebook
from samples import own
from sweep_samples import Training, execute, look_for_data_in, pretend, runs

HERE = Path(__file__).parent
DIVERGING = "1000000"


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture
def marks(tmp_path):
    """The folder in which each run leaves a file."""
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture(scope="module")
def local_cluster():
    """Two workers with a process each."""
    with (
        processes.environment({"PYTHONPATH": str(HERE)}),
        distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as local,
    ):
        yield local


@pytest.fixture
def cluster(local_cluster):
    """It has both workers again, where the test before has killed one."""
    with distributed.Client(local_cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    return local_cluster


def bits(results: list) -> list[bytes]:
    return [result.loss.tobytes() + result.weights.tobytes() for result in results]


@pytest.fixture(scope="module")
def alone():
    """What each seed gives without a sweep."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    trained = bits([Training(seed=seed).run() for seed in range(3)])
    torch.set_num_threads(before)
    assert len(set(trained)) == 3
    return trained


@contextmanager
def killing(mark: Path):
    """Kill the process that leaves this mark, once."""

    def kill():
        while not (mark.exists() and mark.read_text()):
            time.sleep(0.05)
        os.kill(int(mark.read_text()), signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    yield
    thread.join(1)
    assert not thread.is_alive()


class TestHere:
    def test_results_are_those_of_the_experiments_in_their_order(self, alone):
        before = torch.get_num_threads()
        torch.set_num_threads(before + 1)
        try:
            done = sweep([Training(seed=seed) for seed in (2, 0, 1)], processes=1)
            assert torch.get_num_threads() == before + 1
        finally:
            torch.set_num_threads(before)
        assert bits(done.results) == [alone[2], alone[0], alone[1]]
        assert [result.threads for result in done.results] == [1, 1, 1]
        assert done.describe() == "3 trainings." and not done.failures

    def test_equal_experiments_run_once(self, marks):
        experiments = [Training(seed=seed, marks=str(marks)) for seed in (0, 1, 0)]
        done = sweep(experiments, processes=1)
        assert runs(marks) == ["plain, seed 0", "plain, seed 1"] and done.describe() == "2 trainings."
        assert [outcome.experiment for outcome in done.outcomes] == experiments
        assert done.outcomes[0] is done.outcomes[2]

    def test_what_fails_and_what_diverges_is_said_by_name(self, marks):
        experiments = [
            Training(seed=1, marks=str(marks), deed="raise"),
            Training(seed=2, learning_rate=DIVERGING),
            Training(seed=3, dataset="nowhere"),
            Training(seed=4),
        ]
        for _ in range(2):  # what failed is tried again
            done = sweep(experiments, processes=1)
            assert [bool(outcome.failure) for outcome in done.outcomes] == [True, False, True, False]
            assert done.failures["raise, seed 1"] == "RuntimeError: as it was told"
            assert done.failures["plain, seed 3"].startswith("DataUnavailable: nowhere cannot be had")
            assert done.diverged == ["plain, seed 2"] and len(done.results) == 2
        assert runs(marks) == ["raise, seed 1"] * 2
        beginning = "4 trainings, 2 taken from earlier ones; 1 diverged: plain, seed 2; 2 failed: raise, seed 1: Runt"
        assert done.describe().startswith(beginning) and done.describe().endswith(".")

    def test_a_result_of_the_wrong_kind_is_a_failure(self, monkeypatch):
        monkeypatch.setattr(Training, "run", lambda self, progress=False: {"loss": 1})
        done = sweep([Training()], processes=1)
        assert done.failures == {"plain, seed 0": "TypeError: result: dict; allowed is Trained"}

    def test_an_interrupted_one_goes_on_where_it_was(self, marks):
        deeds = ["", "", "interrupt", ""]
        experiments = [Training(seed=seed, marks=str(marks), deed=deed) for seed, deed in enumerate(deeds)]
        with pytest.raises(KeyboardInterrupt):
            sweep(experiments, processes=1)
        assert runs(marks) == ["interrupt, seed 2", "plain, seed 0", "plain, seed 1"]
        done = sweep(experiments, processes=1)
        assert runs(marks) == ["interrupt, seed 2"] * 2 + [f"plain, seed {seed}" for seed in (0, 1, 3)]
        assert [outcome.cached for outcome in done.outcomes] == [True, True, False, False]

    def test_what_is_damaged_is_made_again(self, results, marks):
        experiments = [Training(seed=seed, marks=str(marks)) for seed in (0, 1)]
        first = sweep(experiments, processes=1)
        store.path(experiments[0], store.key(experiments[0])).write_bytes(b"damaged")
        second = sweep(experiments, processes=1)
        assert bits(first.results) == bits(second.results)
        assert [outcome.cached for outcome in second.outcomes] == [False, True]

    def test_a_full_disk_loses_no_result(self, results):
        results.write_text("not a folder")
        with pytest.warns(UserWarning, match="the result of plain, seed 0 could not be kept"):
            assert len(sweep([Training()], processes=1).results) == 1

    def test_nothing_to_do(self):
        assert sweep([]).outcomes == () and sweep([], scheduler="tcp://127.0.0.1:1").describe() == "0 trainings."


class TestHowManyProcesses:
    @pytest.fixture
    def numbers(self, monkeypatch):
        """Those with which a sweep starts processes; 1 stands for none."""
        started = []

        def in_processes(experiments, number):
            started.append(number)
            return iter(())

        monkeypatch.setattr(workers, "in_processes", in_processes)
        monkeypatch.setattr(workers, "serially", lambda experiments: in_processes(experiments, 1))
        return started

    @pytest.mark.parametrize("threads", [1, 3])
    def test_as_many_as_there_are_threads(self, numbers, monkeypatch, threads):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        sweeps._here({"key": Training()}, None)
        assert numbers == [threads]

    def test_one_on_an_accelerator_unless_more_are_asked_for(self, numbers, monkeypatch):
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        monkeypatch.setattr(devices, "device", lambda name: torch.device("cuda:0" if name == "auto" else name))
        experiments = {"a": Training(), "b": Training(device="auto")}
        sweeps._here(experiments, None)
        sweeps._here(experiments, 2)
        assert numbers == [1, 2]

    def test_none(self, marks):
        with pytest.raises(ValueError, match="processes = 0: allowed are whole numbers of at least 1"):
            sweep([Training(marks=str(marks))], processes=0)
        assert runs(marks) == []


class TestProcesses:
    def test_results_are_the_same_and_a_killed_process_costs_only_time(self, alone, marks):
        experiments = [Training(seed=0, marks=str(marks), deed="wait_to_die"), Training(seed=1), Training(seed=2)]
        with killing(marks / "wait_to_die, seed 0.0"):
            done = sweep(experiments, processes=2)
        assert done.failures == {} and runs(marks) == ["wait_to_die, seed 0"] * 2
        assert bits(done.results) == alone
        assert os.getpid() not in {int(path.read_text()) for path in marks.iterdir()}
        assert {result.threads for result in done.results} == {1}

    def test_one_that_dies_or_raises_each_time_does_not_take_the_others_along(self, alone, marks):
        deeds = ["die", "raise"]
        bad = [Training(seed=seed, marks=str(marks), deed=deed) for seed, deed in enumerate(deeds)]
        done = sweep([*bad, Training(seed=2)], processes=2)
        assert done.failures == {
            "die, seed 0": "its process died 3 times, perhaps for want of memory",
            "raise, seed 1": "RuntimeError: as it was told",
        }
        assert runs(marks).count("die, seed 0") == 4  # once with others
        assert bits(done.results) == alone[2:]

    def test_an_interruption_ends_them_and_keeps_what_is_done(self, tmp_path, results, marks):
        first = Training()
        script = tmp_path / "script.py"
        script.write_text(
            "from sweep_samples import Training\nfrom catapults.sweep import sweep\n"
            f"if __name__ == '__main__':\n    sweep([Training(), Training(marks={str(marks)!r}, deed='wait_to_die')], "
            "processes=2)\n"
        )
        mark, stored = marks / "wait_to_die, seed 0.0", store.path(first, store.key(first))
        environment = os.environ | {"PYTHONPATH": str(HERE)}
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
        with subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.PIPE, text=True) as process:
            signal.signal(signal.SIGINT, before)
            try:
                for _ in range(600):
                    if stored.exists() and mark.exists() and mark.read_text():
                        break
                    time.sleep(0.1)
                worker = psutil.Process(int(mark.read_text()))
                process.send_signal(signal.SIGINT)
                process.wait(timeout=60)
            finally:
                process.kill()
        assert process.returncode != 0
        psutil.wait_procs([worker], 30)
        assert not worker.is_running()
        assert store.load(first).steps == 20

    def test_from_a_notebook_that_a_process_of_the_build_executes(self, alone, results):
        code = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from catapults.sweep import sweep
from sweep_samples import Training
print(sweep([Training(seed=0), Training(seed=1)], processes=2, progress=True).describe())
"""
        with processes.pool(1) as pool:
            said = pool.submit(execute, new_notebook(cells=[new_code_cell(code)])).result(120)
        assert said == "2 trainings.\n"
        assert bits([store.load(Training(seed=seed)) for seed in (0, 1)]) == alone[:2]


class TestProgress:
    @pytest.fixture
    def terminal(self):
        """A terminal's name, and what it has shown."""
        ours, theirs = os.openpty()

        def shown() -> str:
            return os.read(ours, 100_000).decode()

        yield os.ttyname(theirs), shown
        os.close(ours)
        os.close(theirs)

    def check(self, text: str) -> None:
        assert "trainings" in text and "1/3" in text and "3/3" in text and "plain, seed 2" in text

    def test_on_the_terminal(self, terminal, monkeypatch):
        store.obtain(Training())
        name, shown = terminal
        with open(name, "w") as file:  # noqa: PTH123
            monkeypatch.setattr(sys, "__stderr__", file)
            sweep([Training(seed=seed) for seed in range(3)], processes=1, progress=True)
        self.check(shown())

    def test_on_the_terminal_of_the_build(self, terminal, monkeypatch, capfd):
        store.obtain(Training())
        name, shown = terminal
        monkeypatch.setattr(sys, "__stderr__", None)
        monkeypatch.setenv("CATAPULTS_TERMINAL", name)
        sweep([Training(seed=seed) for seed in range(3)], processes=1, progress=True)
        self.check(shown())
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("wanted", [True, False])
    def test_without_a_terminal_there_is_none(self, wanted, tmp_path, monkeypatch, capfd):
        monkeypatch.setenv("CATAPULTS_TERMINAL", str(tmp_path / "gone"))
        sweep([Training()], processes=1, progress=wanted)
        assert capfd.readouterr() == ("", "")


class TestTheAddress:
    @pytest.mark.parametrize("scheduler", ["", "localhost", "localhost:8786", "tcp://", "tcp://a b:1", "http://a:1"])
    def test_that_is_none(self, scheduler, marks):
        with pytest.raises(ValueError, match=f"scheduler = {scheduler!r}: allowed is an address such as 'tcp://"):
            sweep([Training(marks=str(marks))], scheduler=scheduler)
        assert runs(marks) == []

    def test_at_which_nobody_is(self, marks, monkeypatch):
        monkeypatch.setattr(clusters, "_PATIENCE", 1)
        with pytest.raises(ConnectionError, match="scheduler = 'tcp://127.0.0.1:1': no Dask scheduler answers there"):
            sweep([Training(marks=str(marks))], scheduler="tcp://127.0.0.1:1")
        assert runs(marks) == []

    def test_at_which_somebody_else_is(self, marks, monkeypatch, web):
        monkeypatch.setattr(clusters, "_PATIENCE", 1)
        address = web[1].replace("http", "tcp")
        with pytest.raises(ConnectionError, match=f"scheduler = '{address}': no Dask scheduler answers there"):
            sweep([Training(marks=str(marks))], scheduler=address)
        assert runs(marks) == []

    def test_is_not_needed_where_all_is_stored(self):
        store.obtain(Training())
        assert sweep([Training()], scheduler="tcp://127.0.0.1:1").outcomes[0].cached


class TestACluster:
    def test_results_are_the_same_and_a_killed_worker_costs_only_time(self, cluster, alone, marks):
        experiments = [Training(seed=0, marks=str(marks), deed="wait_to_die"), Training(seed=1), Training(seed=2)]
        with killing(marks / "wait_to_die, seed 0.0"):
            done = sweep(experiments, scheduler=cluster.scheduler_address)
        assert done.failures == {} and runs(marks) == ["wait_to_die, seed 0"] * 2
        assert bits(done.results) == alone and {result.threads for result in done.results} == {1}
        assert all(outcome.cached for outcome in sweep(experiments, processes=1).outcomes)  # they are stored here

    def test_what_fails_is_said_by_name(self, cluster, alone, marks, tmp_path, monkeypatch):
        (tmp_path / "data").mkdir()
        own(tmp_path / "data")
        monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path / "data"))
        bad = [Training(seed=1, marks=str(marks), deed="raise"), Training(seed=2, dataset="mine")]
        done = sweep([*bad, Training(seed=0)], scheduler=cluster.scheduler_address)
        assert done.failures["raise, seed 1"] == "RuntimeError: as it was told"
        assert done.failures["plain, seed 2"].startswith("DataUnavailable: mine cannot be had")  # there, but here
        assert bits(done.results) == alone[:1] and cluster.scheduler.tasks == {}

    def test_a_worker_with_other_versions_is_refused_before_any_work(self, cluster, marks):
        with distributed.Client(cluster, set_as_default=False) as client:
            worker = list(client.scheduler_info()["workers"])[0]
            client.run(pretend, "0.1", workers=[worker])
            try:
                with pytest.raises(clusters.WorkersDiffer, match=re.escape(f"worker {worker}: it has torch 0.1, not")):
                    sweep([Training(marks=str(marks))], scheduler=cluster.scheduler_address)
            finally:
                client.run(pretend, None)
        assert runs(marks) == []

    def test_a_worker_that_comes_later_is_refused_too(self, cluster, marks, monkeypatch):
        monkeypatch.setattr(clusters, "_compare", lambda *_: None)
        with distributed.Client(cluster, set_as_default=False) as client:
            client.run(pretend, "0.1")
            try:
                with pytest.raises(clusters.WorkersDiffer, match="worker tcp://.*: it has torch 0.1, not"):
                    sweep([Training(marks=str(marks))], scheduler=cluster.scheduler_address)
            finally:
                client.run(pretend, None)
        assert runs(marks) == []

    def test_a_worker_with_other_data_is_refused(self, cluster, marks, tmp_path, monkeypatch):
        for name, classes in (("here", 2), ("there", 4)):
            (tmp_path / name).mkdir()
            own(tmp_path / name, train_labels=torch.arange(20).numpy() % classes)
        before = os.environ.get("CATAPULTS_DATA", "")
        monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path / "here"))
        with distributed.Client(cluster, set_as_default=False) as client:
            client.run(look_for_data_in, str(tmp_path / "there"))
            try:
                with pytest.raises(clusters.WorkersDiffer, match="data: its mine is not the one here"):
                    sweep([Training(dataset="mine", marks=str(marks))], scheduler=cluster.scheduler_address)
            finally:
                client.run(look_for_data_in, before)
        assert runs(marks) == []

    def test_an_interruption_cancels_the_rest(self, cluster, marks, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(store, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sweep([Training(seed=seed) for seed in range(3)], scheduler=cluster.scheduler_address)
        for _ in range(100):
            if not cluster.scheduler.tasks:
                break
            time.sleep(0.1)
        assert not cluster.scheduler.tasks


@pytest.mark.parametrize(
    "change, said",
    [
        ({"device": "cuda:0 (X)"}, "its device is cuda:0 (X), not cpu"),
        ({"dependencies": {"torch": "2"}}, "it has numpy None, not 1; torch 2, not 1"),
        ({"library": {"sgd.py": "b", "new.py": "c"}}, "its library has another new.py, sgd.py"),
        ({}, ""),
    ],
)
def test_in_what_a_worker_differs(change, said):
    here = {"device": "cpu", "dependencies": {"torch": "1", "numpy": "1"}, "library": {"sgd.py": "a"}}
    assert clusters._difference(here, here | change) == said
