"""How processes share a machine: locks, and what the library needs of the operating system."""

import os
import subprocess
import sys
import threading

import psutil
import pytest
import torch
from catapults.compute import made, processes

HOLD = """
import sys, time
from pathlib import Path
from catapults.compute.processes import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of ``result``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "result")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_is_waited_for_and_goes_with_a_process_that_is_killed(holder, tmp_path):
    said = []

    def waiting() -> None:
        said.append("waiting")
        holder.kill()

    with processes.alone(tmp_path / "result", waiting):
        assert said == ["waiting"] and holder.wait() != 0
    with processes.alone(tmp_path / "result", lambda: pytest.fail("nobody is there")):
        pass


def test_threads_wait_for_one_another(tmp_path):
    inside, most = [], []

    def work() -> None:
        with processes.alone(tmp_path / "new folder" / "result"):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most == [1] * 8


def test_no_folder_to_write_to_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError), processes.alone(tmp_path / "file" / "result"):
        pass


def test_neither_pytorch_nor_modules_of_unix_are_needed():
    script = """
import sys
import psutil  # which has what takes their place there
sys.modules |= {"fcntl": None, "resource": None}  # as on Windows
from catapults import compute, data
from catapults.compute import job, processes, verify
with processes.environment({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}), processes.threads(1):
    assert "torch" not in sys.modules
    import torch
    assert torch.get_num_threads() == 1
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_peak_memory_counts_what_was_there():
    script = f"""
import sys
sys.path = {sys.path}
from catapults.compute.made import _peak_bytes
before = _peak_bytes()
block = bytearray(b"x") * 2**27
del block
print(before, _peak_bytes())
"""
    told = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
    before, after = map(int, told.split())
    assert 100 * 2**20 < after - before < 300 * 2**20


def test_what_made_a_result():
    about = made.made({"modules": {"a.py": "0"}, "commit": "abc"}, "digest", "cpu", 1.23456)
    assert (about["modules"], about["commit"], about["drawn"], about["seconds"]) == (
        {"a.py": "0"},
        "abc",
        "digest",
        1.235,
    )
    assert about["device"].startswith("cpu (1 thread, ") and about["memory"] > 10
    assert about["versions"].keys() == {"torch", "numpy", "scipy", "python", "catapults"}
    assert made.device_name("cpu", 3).startswith("cpu (3 threads, ")
    assert made.device_name("cpu").startswith(f"cpu ({torch.get_num_threads()} thread")


def test_the_number_of_threads_is_as_before():
    before = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    with pytest.raises(KeyError), processes.threads(before[0] + 1):
        assert torch.get_num_threads() == before[0] + 1 and os.environ["OMP_NUM_THREADS"] == str(before[0] + 1)
        raise KeyError
    assert (torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")) == before


@pytest.mark.skipif(sys.platform == "win32", reason="processes of Windows cannot be killed so")
def test_a_pool_ends_with_whoever_has_started_it():
    """Even with one that is killed, and that has no time to end anything."""
    script = """
import os, time
from catapults.compute.processes import pool
with pool(2) as submit:
    print(submit(os.getpid).result(), flush=True)
    submit(time.sleep, 600)
    submit(time.sleep, 600).result()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, encoding="utf-8") as starter:
        worker = psutil.Process(int(starter.stdout.readline()))
        starter.kill()
    assert not psutil.wait_procs([worker], 30)[1]
