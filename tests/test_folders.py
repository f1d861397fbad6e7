import os
import subprocess
import sys
from pathlib import Path

import pytest
from catapults.data import folders


def test_a_relative_folder_is_that_of_the_start(tmp_path, monkeypatch):
    """Also for what is started from another folder later, as notebooks are."""
    (tmp_path / "elsewhere").mkdir()
    script = """
import os, subprocess, sys
from catapults.data import folders
os.chdir("elsewhere")
say = "print(folders.data_folder(), folders.cache_folder(), os.environ['CATAPULTS_RESULTS'], sep=chr(10), flush=True)"
exec(say)
subprocess.run([sys.executable, "-c", "import os; from catapults.data import folders; " + say], check=True)
"""
    monkeypatch.setenv("CATAPULTS_DATA", "here")
    monkeypatch.setenv("CATAPULTS_CACHE", "../there")
    monkeypatch.setenv("CATAPULTS_RESULTS", "results")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=True, stdout=subprocess.PIPE, encoding="utf-8"
    )
    told = [Path(os.path.normpath(line)) for line in done.stdout.splitlines()]
    assert told == 2 * [tmp_path / "here", tmp_path.parent / "there", tmp_path / "results"]


def test_what_is_named_later_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CATAPULTS_DATA", "here")
    assert folders.data_folder() == tmp_path / "here"
    monkeypatch.chdir(tmp_path.parent)
    assert folders.data_folder() == tmp_path / "here"
    monkeypatch.setenv("CATAPULTS_DATA", "")
    assert folders.data_folder() is None


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CATAPULTS_CACHE", "~/kept")
    assert folders.cache_folder() == Path("~/kept").expanduser()


@pytest.mark.skipif(sys.platform == "win32", reason="there every user has an account")
@pytest.mark.parametrize("tilde", [False, True])
def test_a_user_without_home_and_account(tmp_path, tilde):
    script = """
import pwd
pwd.getpwuid = {}.__getitem__  # which knows nobody
from catapults import data
from catapults.data import folders
print(folders.cache_folder())
print([status.available for status in data.status() if status.name == "celeba"])
"""
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(tmp_path)}
    variables |= {"CATAPULTS_DATA": "~/data"} if tilde else {}
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, env=variables, cwd=tmp_path, check=True, stdout=subprocess.PIPE, encoding="utf-8")
    assert done.stdout.splitlines() == [str(tmp_path / f"catapults-{os.getuid()}"), "[False]"]
