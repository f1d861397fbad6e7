"""A kernel that is forked does what an ordinary one does, and ends when it should."""

import sys

import psutil
import pytest
import torch
from catapults import processes
from catapults.book import kernels
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
WHO = """import multiprocessing, os, sys
loaded = "catapults.experiments.gd_catapult" in sys.modules
print(os.getpid(), loaded, multiprocessing.parent_process() is not None)"""


def outputs(*cells: str, manager: type | None = kernels.Manager, **options) -> list:
    """What the last cell puts out in a kernel of its own."""
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    chosen = {"kernel_manager_class": manager} if manager else {}
    client = NotebookClient(notebook, timeout=60, kernel_name="python3", **chosen)
    return client.execute(**options).cells[-1].outputs


def printed(*cells: str, **options) -> str:
    return outputs(*cells, **options)[0].text.strip()


def test_all_is_imported_before_it_starts_and_nothing_is_left_of_it():
    pid, loaded, forked = printed(WHO).split()
    assert (loaded, forked) == ("True", "True")
    assert not psutil.pid_exists(int(pid))
    assert printed(WHO, manager=None).split()[1:] == ["False", "False"]


def test_kernels_share_nothing():
    outputs("import catapults, os; catapults.mark = os.environ['MARK'] = 'left'")
    assert printed("import catapults, os; print(hasattr(catapults, 'mark'), 'MARK' in os.environ)") == "False False"


def test_folder_environment_and_threads_are_those_of_its_start(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_TEST_MARK", "here")
    with processes.threads(torch.get_num_threads() + 1):
        number = torch.get_num_threads()
        show = "import os, torch; print(os.getcwd(), os.environ['CATAPULTS_TEST_MARK'], torch.get_num_threads())"
        assert printed(show, cwd=str(tmp_path)) == f"{tmp_path} here {number}"
    monkeypatch.delenv("CATAPULTS_TEST_MARK")
    assert printed("import os; print('CATAPULTS_TEST_MARK' in os.environ)") == "False"


def test_its_numbers_are_an_ordinary_kernels():
    train = """
import hashlib
from catapults.experiments.gd_catapult import GDCatapult
run = GDCatapult(dataset="rank-2", architecture="fcn", depth=3, width=64, n_train=64, norm=None, image_size=None,
                 labels="zero-one", parameterization="ntk", gain=1.0, bias=False, learning_rate="1.5 eta_crit",
                 steps=10, top=2, hessian_every=5, seed=0, device="cpu").run()
"""
    show = "print(hashlib.sha256(run.history.loss.tobytes() + run.history.kernel_norm.tobytes()).hexdigest())"
    assert printed(train, show) == printed(train, show, manager=None)


def test_pictures_of_pyplot_are_shown():
    (shown,) = outputs("import matplotlib.pyplot as plt; _ = plt.plot([1, 2])")
    assert "image/png" in shown.data


def test_several_processes_can_be_started_from_it():
    sweep = "from catapults import processes\nwith processes.pool(2) as pool:\n    print(sum(pool.map(abs, [-1, -2])))"
    assert printed(sweep) == "3"


def test_an_error_of_a_cell_is_told_and_nothing_is_left(tmp_path):
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        outputs(f"import os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); 1 / 0")
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_its_death_is_noticed():
    with pytest.raises(DeadKernelError):
        outputs("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert printed("print('the next')") == "the next"


def test_a_library_that_has_changed_is_not_taken_from_memory(monkeypatch):
    assert printed(WHO).split()[2] == "True"
    now = kernels._library()
    monkeypatch.setattr(kernels, "_library", lambda: now | {"models.py": "changed"})
    assert printed(WHO).split()[1:] == ["False", "False"]
