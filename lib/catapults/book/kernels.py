"""Kernels for the book's runs: forked from a process in which all that chapters import is there already.

An ordinary kernel takes seconds to import PyTorch, IPython, matplotlib and the library, for many pages as long as the
run itself.
"""

import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path

import torch
from jupyter_client import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

from .. import fingerprint
from ..processes import end_with_parent, environment

_VARIABLES = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # as a kernel has it before it imports anything
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # of IPython's debugger, which would warn of Python's frozen modules
}


class Manager(AsyncKernelManager):
    """What papermill and nbclient take as ``kernel_manager_class``."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.provisioner = _Provisioner(kernel_id="", kernel_spec=self.kernel_spec, parent=self)


class _Provisioner(LocalProvisioner):
    async def launch_kernel(self, cmd: list[str], **options):
        """An ordinary kernel where forks are not safe, and where the library is no longer as the server imported it."""
        if sys.platform != "linux" or _library() != _library_of_server():
            return await super().launch_kernel(cmd, **options)
        self.cwd = options.get("cwd") or str(Path.cwd())
        self.process = _Kernel(cmd[cmd.index("-f") :], self.cwd, options["env"], torch.get_num_threads())
        self.process.start()
        self.pid = self.process.pid
        return self.connection_info


class _Kernel(multiprocessing.get_context("forkserver").Process):
    """One forked kernel, with what of ``subprocess.Popen`` jupyter_client asks for."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], folder: str, variables: Mapping[str, str], threads: int) -> None:
        super().__init__()
        self._started_with = arguments, folder, dict(variables), threads

    def run(self) -> None:
        arguments, folder, variables, threads = self._started_with
        os.setsid()  # else an interrupt from the terminal, which is the build's, would come here too
        end_with_parent()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        torch.set_num_threads(threads)
        from ipykernel.kernelapp import IPKernelApp  # with it imported, tqdm takes any process for a notebook

        IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self) -> int | None:
        self.join()
        return self.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


def _library() -> dict[str, str]:
    return fingerprint.library(["import catapults"])


@functools.cache
def _library_of_server() -> dict[str, str]:
    """Start the server from which this process's kernels are forked, and say what the library was just before."""
    library = _library()
    forkserver.set_forkserver_preload(["catapults.book.preloaded"])
    with environment(_VARIABLES):
        forkserver.ensure_running()
    return library
