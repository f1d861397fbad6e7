"""How processes share a machine: locks, and what the library needs of the operating system."""

import subprocess
import sys
import threading

import pytest
from catapults.compute import processes

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
from catapults import checks, compute, data, display
from catapults.compute import made, processes
assert "torch" not in sys.modules
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
    assert before < 2**27 < after < before + 2 * 2**27
