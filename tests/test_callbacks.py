"""The monitor in Lightning and in the Trainer of Hugging Face, with the real packages: see frameworks.sh."""

import numpy as np
import pytest
import torch
from catapults import tangent
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.filterwarnings("ignore")  # the frameworks' own


class TestLightning:
    @pytest.fixture(autouse=True)
    def lightning(self):
        self.lightning = pytest.importorskip("lightning.pytorch")

    def fit(self, tmp_path, watch=None, optimizer=torch.optim.SGD, logger=False, **options):
        class Module(self.lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(1)
                self.inner = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))

            def forward(self, x):
                return self.inner(x)

            def training_step(self, batch, index):
                return nn.functional.mse_loss(self(batch[0]), batch[1])

            def configure_optimizers(self):
                return optimizer(self.parameters(), lr=0.05)

        generator = torch.Generator().manual_seed(2)
        data = TensorDataset(torch.randn(24, 6, generator=generator), torch.randn(24, 1, generator=generator))
        model = Module()
        before = tangent.critical_learning_rate(tangent.tangent_kernel(model.inner, data.tensors[0][:8]), 8)
        trainer = self.lightning.Trainer(
            max_epochs=2, accelerator="cpu", logger=logger, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[watch] if watch else [], default_root_dir=tmp_path,
            log_every_n_steps=1, **options,
        )  # fmt: skip
        trainer.fit(model, DataLoader(data, batch_size=8))
        return model.state_dict(), before

    @pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
    @pytest.mark.parametrize("accumulated", [1, 3])
    def test_training_is_the_same_and_its_rates_are_read(self, tmp_path, optimizer, accumulated):
        from catapults.monitor.lightning import LightningMonitor

        options = {"optimizer": optimizer, "accumulate_grad_batches": accumulated}
        without, critical = self.fit(tmp_path, **options)
        watch = LightningMonitor(nn.MSELoss(), every=1)
        weights, _ = self.fit(tmp_path, watch, **options)
        assert all(torch.equal(without[k], weights[k]) for k in without)
        assert len(watch.readings) == 6 // accumulated and not watch.readings.failures()
        assert np.isfinite(watch.readings.column("loss")).all()
        if optimizer is torch.optim.SGD and accumulated == 1:
            assert watch.readings.column("critical")[0] == pytest.approx(critical, rel=1e-4)

    def test_losses_are_those_of_the_steps(self, tmp_path):
        from catapults.monitor.lightning import LightningMonitor

        one, three = LightningMonitor(nn.MSELoss(), every=1), LightningMonitor(nn.MSELoss(), every=1)
        self.fit(tmp_path, one)
        self.fit(tmp_path, three, accumulate_grad_batches=3)
        told, measured = three.readings.column("loss")[0], three.watch._curvature
        assert told > 0 and measured is not None
        assert one.readings.column("loss")[0] != told

    def test_the_limit(self, tmp_path):
        from catapults.monitor.lightning import LightningMonitor

        watch = LightningMonitor(nn.MSELoss(), limit=0.01, every=1)
        self.fit(tmp_path, watch)
        assert (watch.readings.column("applied") < 0.05).all()

    def test_loggers_are_told(self, tmp_path):
        pytest.importorskip("tensorboard")
        from catapults.monitor.lightning import LightningMonitor
        from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

        loggers = [CSVLogger(tmp_path, "csv"), TensorBoardLogger(tmp_path, "tensorboard")]
        self.fit(tmp_path, LightningMonitor(nn.MSELoss(), every=2), logger=loggers)
        (table,) = tmp_path.glob("csv/*/metrics.csv")
        assert "catapults/critical" in table.read_text().splitlines()[0]
        assert list(tmp_path.glob("tensorboard/*/events*"))


class TestHuggingFace:
    @pytest.fixture(autouse=True)
    def transformers(self):
        self.transformers = pytest.importorskip("transformers")
        pytest.importorskip("accelerate")

    def train(self, tmp_path, watch=None, report_to="none", **options):
        torch.manual_seed(0)
        config = self.transformers.GPT2Config(
            vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2, resid_pdrop=0.1, bos_token_id=0, eos_token_id=0
        )
        model = self.transformers.GPT2LMHeadModel(config)
        words = torch.randint(11, (16, 8), generator=torch.Generator().manual_seed(1))
        data = [{"input_ids": row, "labels": row} for row in words]
        arguments = self.transformers.TrainingArguments(
            output_dir=str(tmp_path), max_steps=4, per_device_train_batch_size=4, learning_rate=1e-3, use_cpu=True,
            report_to=report_to, save_strategy="no", disable_tqdm=True, logging_steps=1, **options,
        )  # fmt: skip
        trainer = self.transformers.Trainer(model, arguments, train_dataset=data)
        watch = watch and watch(trainer)
        trainer.train()
        return model.state_dict(), watch, trainer

    @pytest.mark.parametrize("accumulated", [1, 2])
    def test_training_is_the_same_and_its_rates_are_read(self, tmp_path, accumulated):
        from catapults.monitor.huggingface import TrainerMonitor

        options = {"gradient_accumulation_steps": accumulated}
        without, _, _ = self.train(tmp_path, **options)
        weights, watch, trainer = self.train(tmp_path, lambda trainer: TrainerMonitor(trainer, every=2), **options)
        assert all(torch.equal(without[k], weights[k]) for k in without)
        assert len(watch.readings) == 4 and not watch.readings.failures()
        assert list(np.isfinite(watch.readings.column("critical"))) == [True, False, True, False]
        assert np.isfinite(watch.readings.column("loss")).all()
        assert sum("catapults/critical" in row for row in trainer.state.log_history) == 2

    def test_with_a_loss_of_the_logits(self, tmp_path):
        from catapults.monitor.huggingface import TrainerMonitor

        def loss(logits, labels):
            return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

        _, watch, _ = self.train(tmp_path, lambda trainer: TrainerMonitor(trainer, loss, limit=0.5, every=1))
        assert not watch.readings.failures()
        applied, critical = watch.readings.column("applied"), watch.readings.column("critical")
        assert (applied <= 0.5 * critical * (1 + 1e-6)).all()

    def test_tensorboard_is_told(self, tmp_path, monkeypatch):
        pytest.importorskip("tensorboard")
        from catapults.monitor.huggingface import TrainerMonitor

        monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
        self.train(tmp_path, lambda trainer: TrainerMonitor(trainer, every=2), report_to=["tensorboard"])
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        (events,) = (tmp_path / "events").rglob("events*")
        found = EventAccumulator(str(events))
        found.Reload()
        assert any("catapults/critical" in tag for tag in found.Tags()["scalars"])
