import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest
from catapults.data import DataUnavailable, downloads


@pytest.mark.parametrize("algorithm", ["", "md5:"])
def test_download_is_checked(web, tmp_path, algorithm):
    offered, address = web
    content = b"a data set"
    (offered / "set.bin").write_bytes(content)
    right = hashlib.new(algorithm.strip(":") or "sha256", content).hexdigest()
    path = downloads.download(f"{address}/set.bin", algorithm + right, tmp_path / "right")
    assert path.read_bytes() == content
    with pytest.raises(ValueError, match="hash"):
        downloads.download(f"{address}/set.bin", algorithm + "0" * len(right), tmp_path / "wrong")


def stub(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="npm is stood in for by a shell script")
def test_npm_pack(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    stub(programs, "npm", 'echo "$2" > package.tgz')
    assert downloads.npm_pack("name@1.0.0", tmp_path).read_text() == "name@1.0.0\n"
    stub(programs, "npm", "echo npm error code E404 >&2\nexit 1")
    with pytest.raises(DataUnavailable, match="npm pack name@1.0.0 failed: npm error code E404"):
        downloads.npm_pack("name@1.0.0", tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="apt-get and dpkg-deb are stood in for by shell scripts")
def test_debian_package(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    stub(programs, "apt-get", 'echo "$1 $2" > "$2_1_all.deb"')
    stub(programs, "dpkg-deb", 'mkdir "$3" && cp "$2" "$3/content"')
    assert (downloads.debian_package("name", tmp_path) / "content").read_text() == "download name\n"
    stub(programs, "apt-get", "echo W: unsandboxed >&2\necho E: Unable to locate package name >&2\nexit 100")
    with pytest.raises(DataUnavailable, match="apt-get download name failed: E: Unable to locate package name$"):
        downloads.debian_package("name", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DataUnavailable, match="apt-get is not installed"):
        downloads.debian_package("name", tmp_path)
