"""What obtains files from elsewhere, each for a :class:`.dataset.Way`: addresses on the web, npm, Debian's packages."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .dataset import DataUnavailable


def download(url: str, known_hash: str | None, folder: Path) -> Path:
    """Download a file, with its progress on a terminal.

    ``known_hash``: the sha256 that it must have, or ``"md5:..."``; ``None`` where only its content is known.
    """
    import pooch  # not before it is needed: in a notebook its progress bar warns that there are no widgets

    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=(5, 30))
    return Path(pooch.retrieve(url, known_hash, path=folder, fname="download", downloader=downloader))


def download_files(address: str, files: Mapping[str, str | None], folder: Path) -> Path:
    """:func:`download` the files, given with their hashes, under their names; returns the path of the first."""
    for name, known_hash in files.items():
        download(f"{address}/{name}", known_hash, folder).rename(folder / name)
    return folder / next(iter(files))


def npm_pack(package: str, folder: Path) -> Path:
    """Download an npm package, whose integrity npm checks, without running anything of it."""
    limits = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000"]
    _run(["npm", "pack", package, "--ignore-scripts", *limits], folder, errors="npm err")
    return next(folder.glob("*.tgz"))


def debian_package(package: str, folder: Path) -> Path:
    """Download a Debian package, which apt checks, and unpack it in ``folder``.

    Nothing is installed or run, and no rights are needed. Returns the folder that stands for ``/``.
    """
    limits = ["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=30"]
    _run(["apt-get", "download", package, *limits], folder, errors="e:")
    (archive,) = folder.glob("*.deb")
    _run(["dpkg-deb", "--extract", archive.name, "root"], folder, errors="dpkg-deb: error")
    return folder / "root"


def _run(command: list[str], folder: Path, errors: str) -> None:
    """Run a program whose lines of errors begin with ``errors``, in lower case."""
    program = shutil.which(command[0])
    if program is None:
        raise DataUnavailable(f"{command[0]} is not installed")
    title = " ".join(command[:3])
    if sys.stderr.isatty():
        print(f"{title} ...", file=sys.stderr)
    text = {"text": True, "encoding": "utf-8", "errors": "replace"}
    result = subprocess.run([program, *command[1:]], cwd=folder, capture_output=True, timeout=900, **text)
    if result.returncode:
        said = [line for line in result.stderr.splitlines() if line.lower().startswith(errors)]
        raise DataUnavailable(f"{title} failed: {'; '.join(said[:3])}")
