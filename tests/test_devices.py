from types import SimpleNamespace

import psutil
import pytest
import torch
from catapults import devices


def test_by_name():
    assert devices.device("cpu") == torch.device("cpu")
    assert devices.device("auto").type in ("cuda", "mps", "cpu")
    with pytest.raises(ValueError, match="device = 'tpu': allowed on this machine are auto"):
        devices.device("tpu")


class TestFreeMemory:
    @pytest.fixture
    def machine(self, monkeypatch):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))

    @pytest.mark.usefixtures("machine")
    @pytest.mark.parametrize(
        ("limit", "used", "free"), [("900", "300", 600), ("max", "300", 1000), ("9000", "1", 1000), (None, None, 1000)]
    )
    def test_of_a_container(self, limit, used, free, tmp_path, monkeypatch):
        if limit:
            (tmp_path / "memory.max").write_text(limit)
            (tmp_path / "memory.current").write_text(used)
        monkeypatch.setattr(devices, "_CONTAINER", tmp_path)
        assert devices.free_memory(torch.device("cpu")) == free

    @pytest.mark.gpu
    def test_of_a_gpu(self):
        before = devices.free_memory(torch.device("cuda"))
        kept = torch.empty(2**28, dtype=torch.uint8, device="cuda")
        assert 2**27 < before - devices.free_memory(torch.device("cuda")) < 2**29
        del kept
