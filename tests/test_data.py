from pathlib import Path

import numpy as np
import pytest
import torch
from catapults import data
from catapults.data import names
from catapults.data.synthetic import SYNTHETIC
from hypothesis import given
from hypothesis import strategies as st
from samples import empty_folders, few_examples, images, own, rows, same


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return empty_folders(tmp_path, monkeypatch)


# Synthetic tasks


@pytest.mark.parametrize("name", SYNTHETIC)
@few_examples
@given(seed=st.integers(0, 2**40), n=st.integers(1, 12), others=st.integers(0, 5), dim=st.integers(10, 30))
def test_synthetic_task(name, seed, n, others, dim):
    task = data.load(name, n, others, 3, seed=seed, dim=dim, noise=0)
    for split, size in ((task.train, n), (task.validation, others), (task.test, 3)):
        assert len(split) == size
        assert split.inputs.shape == split.gradients.shape == (size, dim) and split.targets.shape == (size,)
    assert len(rows(task.train) | rows(task.validation) | rows(task.test)) == n + others + 3
    assert task.egop.shape == (dim, dim)
    assert task.identity == data.identity(name) and name in task.identity
    assert name in task.source and task.source.endswith(".")
    assert same(task.train, data.load(name, n, seed=seed, dim=dim, noise=0).train)


def test_seeds_differ():
    assert not rows(data.load("rank-2", 20, seed=0).train) & rows(data.load("rank-2", 20, seed=1).train)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rank-2", 0), "n_train = 0: allowed are whole numbers of at least 1"),
        (("rank-2", 2.0), "n_train = 2.0"),
        (("rank-2", True), "n_train = True"),
        (("rank-2", 1, -1), "n_validation = -1"),
        (("rank-2", 1, 0, "3"), "n_test = '3'"),
        (("rank-2", 1, dict(seed=-1)), "seed = -1"),
        (("rank-2", 1, dict(noise=-0.1)), "noise = -0.1"),
        (("rank-2", 1, dict(noise=float("nan"))), "noise = nan"),
        (("rank-3", 1, dict(dim=9)), "dim = 9: allowed are whole numbers of at least 10"),
        (("rank-2", 1, dict(label_noise=0.1)), "label_noise = 0.1: rank-2 has no labels; its targets have noise"),
        (("rank-2", 1, dict(label_noise=1)), "label_noise = 1: allowed are numbers of at least 0 and below 1"),
        (("cifar-2", 1, dict(label_noise=-0.1)), "label_noise = -0.1"),
        (("cifar-2", 1, dict(label_noise=float("nan"))), "label_noise = nan"),
        (("cifar-2", 1, dict(label_noise=False)), "label_noise = False"),
        (("cifar-2", 1, dict(labels="unit")), "labels = 'unit': cifar-2 has classes; allowed are 'zero-one' and"),
        (("rank-2", 1, dict(labels="unit")), "labels = 'unit': the targets of rank-2 are all alike"),
        (("rank-2", 1, dict(image_size=4)), "takes neither labels of classes nor image_size"),
        (("rank-2", 1, dict(labels="±1")), "labels = '±1': allowed are 'zero-one', 'plus-minus' and 'unit'"),
        (("cifar-10", 1, dict(image_size=0)), "image_size = 0"),
        (("rank-2:0,1", 1), "rank-2 takes no classes"),
        (("cifar-2:0,1", 1), "cifar-2 takes no classes"),
        (("cifar-10:7", 1), "two or more different classes"),
        (("cifar-10:7,7", 1), "two or more different classes"),
        (("cifar-10:cat,dog", 1), "allowed are NAME and NAME:CLASS,CLASS"),
        (("../secret", 1), "allowed are NAME and NAME:CLASS,CLASS"),
        (("", 1), f"one of {', '.join([*names.SYNTHETIC, *data.DATASETS, *data.ALIASES])}, or any NAME with a file "),
    ],
)
def test_invalid_parameters_are_named(no_type_checks, arguments, message):
    options = arguments[-1] if isinstance(arguments[-1], dict) else {}
    with pytest.raises(ValueError) as error:
        data.load(*(value for value in arguments if value is not options), **options)
    assert message in str(error.value)


@pytest.mark.parametrize(("name", "outputs"), [("mine", 4), ("mine:1,3", 1), ("mine:3,1,0", 3)])
def test_n_outputs_are_those_of_the_targets(folder, name, outputs):
    own(folder)
    targets = data.load(name, 10).train.targets
    assert (1 if targets.dim() == 1 else targets.shape[1]) == outputs
    assert data.n_outputs(name) == (None if name == "mine" else outputs)


# The digest of what was drawn


def test_digest_says_whether_the_numbers_are_the_same(folder):
    path = own(folder)
    task = data.load("mine:1,3", 6, 2, 3)
    path.rename(folder / "other.npz")
    same_numbers = data.load("other:1,3", 6, 2, 3)
    assert task.digest == same_numbers.digest != data.load("other:1,3", 6, 2, 3, seed=1).digest
    assert len({data.load("other:1,3", *sizes).digest for sizes in [(6, 2, 3), (6, 2), (6, 0, 2), (6,)]}) == 4
    assert task.digest != data.load("other:1,3", 6, 2, 3, label_noise=0.2).digest
    altered = data.load("other:1,3", 6, 2, 3)
    altered.test.targets[0] = 1 - altered.test.targets[0]
    assert task.digest != altered.digest


@pytest.mark.parametrize("name", ["rank-3", "full-rank"])
def test_unit_targets_are_those_over_their_deviation(name):
    """f* and its EGOP are divided, too, so that the AGOP of a network that has learned it is the EGOP."""
    plain, unit = (data.load(name, 50, 20, 30, dim=12, labels=labels) for labels in ("zero-one", "unit"))
    deviation = plain.train.targets.double().std(correction=0)
    assert unit.train.targets.double().std(correction=0) == pytest.approx(1, rel=1e-6)
    for a, b in ((plain.train, unit.train), (plain.validation, unit.validation), (plain.test, unit.test)):
        assert torch.equal(a.inputs, b.inputs)
        torch.testing.assert_close(b.targets * deviation.float(), a.targets)
        torch.testing.assert_close(b.gradients * deviation.float(), a.gradients)
    torch.testing.assert_close(unit.egop * deviation.float() ** 2, plain.egop)
    assert f"over the targets' standard deviation of {deviation:.3g}" in unit.source and plain.digest != unit.digest


def test_digest_of_a_synthetic_task(folder):
    """As it is on any machine: inputs are drawn by NumPy, the rest is rounded from double precision."""
    task = data.load("rank-4", 5, 3, 2, dim=6, seed=1)
    assert task.digest == "d9cc39bf7f8484f8cf059367c21f1082454655a5f6f048bf11cb21288058dd5c"
    task.egop[0, 0] += 1
    assert task.digest != data.load("rank-4", 5, 3, 2, dim=6, seed=1).digest


# A person's own .npz


def test_own_file(folder):
    path = own(folder)
    task = data.load("mine", 12, 8, 8)
    assert task.train.inputs.shape == (12, 1, 6, 6) and task.train.targets.shape == (12, 4)
    assert (task.train.targets.sum(1) == 1).all()
    assert task.train.inputs.min() >= -1 and task.train.inputs.max() <= 1
    assert task.egop is None and task.train.gradients is None
    assert task.identity == data.identity("mine:0,3") and task.identity.startswith("sha256:")
    assert "classes 0, 1, 2, 3" in task.source and "mine.npz" in task.source
    expected = images(20, 6, 6).reshape(20, 1, 6, 6) / np.float32(127.5) - 1
    assert rows(task.train) | rows(task.validation) == {row.astype(np.float32).tobytes() for row in expected}
    assert data.fetch("mine:0,1") == path
    assert "mine" in data.available_names()
    assert [status for status in data.status() if status.name == "mine"] == [
        data.DatasetStatus("mine", True, path, task.identity, "set CATAPULTS_DATA to a folder with mine.npz")
    ]


def test_two_classes_take_the_order_listed(folder):
    own(folder, train_images=(np.arange(20) % 4).astype(np.uint8)[:, None, None] * np.ones((6, 6), np.uint8))
    for name, ones in (("mine:1,3", 3), ("mine:3,1", 1)):
        split = data.load(name, 10).train
        shown = ((split.inputs[:, 0, 0, 0] + 1) * 127.5).round()
        assert torch.equal(split.targets, (shown == ones).float())
        assert torch.equal(data.load(name, 10, labels="plus-minus").train.targets, split.targets * 2 - 1)
    assert set(data.load("mine", 10, labels="plus-minus").train.targets.unique().tolist()) == {-1, 1}


@few_examples
@given(sizes=st.tuples(st.integers(1, 20), st.integers(0, 12), st.integers(0, 8)), seed=st.integers(0, 99))
def test_splits_are_disjoint_and_the_training_set_is_its_own(folder, sizes, seed):
    own(folder)
    if sum(sizes[:2]) > 20:
        sizes = (sizes[0], 20 - sizes[0], sizes[2])
    task = data.load("mine", *sizes, seed=seed)
    assert tuple(map(len, (task.train, task.validation, task.test))) == sizes
    assert len(rows(task.train) | rows(task.validation) | rows(task.test)) == sum(sizes)
    assert same(task.train, data.load("mine", sizes[0], seed=seed).train)


def test_one_pool_gives_disjoint_splits(folder):
    np.savez(folder / "faces.npz", images=images(30, 4, 4, 3), labels=np.arange(30) % 2)
    task = data.load("faces", 10, 12, 8)
    assert task.train.inputs.shape == (10, 3, 4, 4) and task.train.targets.shape == (10,)
    assert len(rows(task.train) | rows(task.validation) | rows(task.test)) == 30
    assert "without a test split" in task.source
    assert same(task.train, data.load("faces", 10).train)
    with pytest.raises(ValueError, match=r"n_validation \+ n_test = 31.*at most 30.*\{0: 15, 1: 15\}"):
        data.load("faces", 10, 12, 9)


def test_training_pool_alone_serves_as_the_one_pool(folder):
    own(folder, test_images=None, test_labels=None)
    assert len(data.load("mine", 10, 5, 5).test) == 5


def test_average_pooling(folder):
    own(folder)
    full, pooled = (data.load("mine", 5, image_size=size).train.inputs for size in (None, 2))
    torch.testing.assert_close(pooled, full.reshape(5, 1, 2, 3, 2, 3).mean((3, 5)))
    assert data.load("mine", 5, image_size=6).test.inputs.shape == (0, 1, 6, 6)
    with pytest.raises(ValueError, match=r"image_size = 4: .* 6x6 .* allowed are .* \(1, 2, 3, 6\)"):
        data.load("mine", 5, image_size=4)
    own(folder, train_images=images(20, 6, 3), test_images=images(8, 6, 3))
    with pytest.raises(ValueError, match="allowed are square images only"):
        data.load("mine", 5, image_size=3)


def test_float_images_are_kept(folder):
    values = np.linspace(-1, 1, 20 * 36).reshape(20, 6, 6)
    own(folder, train_images=values, test_images=values[:8])
    assert rows(data.load("mine", 20).train) == {row.tobytes() for row in values.astype(np.float32)}


def test_too_many_images_are_counted(folder):
    own(folder)
    with pytest.raises(ValueError, match=r"n_validation = 11: mine:1,3 allows at most 10.*\{1: 5, 3: 5\}"):
        data.load("mine:1,3", 8, 3)
    with pytest.raises(ValueError, match=r"n_test = 9: mine allows at most 8"):
        data.load("mine", 1, 0, 9)
    with pytest.raises(ValueError, match=r"of classes that all occur; images per class: \{1: 5, 7: 0\}"):
        data.load("mine:1,7", 2)
    own(folder, train_labels=np.zeros(20, int))
    with pytest.raises(ValueError, match="all images are of class 0, two classes are needed"):
        data.load("mine", 2)


def test_identity_follows_the_content(folder):
    own(folder)
    first = data.identity("mine")
    own(folder, train_labels=(np.arange(20) + 1) % 4)
    assert data.identity("mine") != first
    own(folder, train_images=images(20, 3, 12), test_images=images(8, 3, 12, seed=1))
    assert data.identity("mine") != first


def test_unknown_name_lists_the_known_ones(folder):
    own(folder)
    with pytest.raises(data.DataUnavailable, match=r"nowhere\.npz is not .*rank-2.*cifar-10.*mine") as error:
        data.load("nowhere:0,1", 2)
    assert str(folder) in str(error.value)


def test_folder_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path / "typo"))
    with pytest.raises(data.DataUnavailable, match="typo"):
        data.fetch("mine")
    monkeypatch.delenv("CATAPULTS_DATA")
    with pytest.raises(data.DataUnavailable, match=r"CATAPULTS_DATA \(not set\)"):
        data.identity("mine")


def test_relative_folder_is_shown_in_full(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CATAPULTS_DATA", "here")
    with pytest.raises(data.DataUnavailable) as error:
        data.load("mine", 2)
    assert str(tmp_path / "here") in str(error.value)


# Label noise


@few_examples
@given(
    name=st.sampled_from(["mine", "mine:1,3", "mine:3,1,0"]),
    n=st.integers(1, 8),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 99),
    labels=st.sampled_from(["zero-one", "plus-minus"]),
)
def test_label_noise_changes_so_many_training_labels_and_nothing_else(folder, name, n, fraction, seed, labels):
    own(folder)
    clean, noisy = (
        data.load(name, n, 2, 4, seed=seed, labels=labels, label_noise=noise, image_size=3) for noise in (0, fraction)
    )
    changed = (clean.train.targets != noisy.train.targets).reshape(n, -1).any(1).sum().item()
    assert abs(changed - fraction * n) <= 0.5
    assert torch.equal(clean.train.inputs, noisy.train.inputs)
    assert same(clean.validation, noisy.validation) and same(clean.test, noisy.test)
    assert set(noisy.train.targets.unique().tolist()) <= ({0, 1} if labels == "zero-one" else {-1, 1})
    if noisy.train.targets.dim() == 2:
        assert torch.equal(noisy.train.targets.sum(1), clean.train.targets.sum(1))
    assert same(noisy.train, data.load(name, n, seed=seed, labels=labels, label_noise=fraction, image_size=3).train)
    assert noisy.identity == clean.identity
    said = f"% of the training labels ({changed} of {n}) are wrong"
    assert (said in noisy.source) == (fraction > 0) and "wrong" not in clean.source


def test_wrong_labels_are_any_other_class_and_any_image(folder):
    n = 12_000
    own(folder, train_images=images(n, 1, 1), train_labels=np.arange(n) % 4, test_images=None, test_labels=None)
    clean, noisy, other = (
        data.load("mine", n, seed=seed, label_noise=noise).train for seed, noise in ((0, 0), (0, 0.5), (1, 0.5))
    )
    right, given = clean.targets.argmax(1), noisy.targets.argmax(1)
    wrong = right != given
    pairs = torch.bincount(4 * right[wrong] + given[wrong], minlength=16).reshape(4, 4)
    expected = n // 2 / 12
    assert (pairs.diagonal() == 0).all()
    assert (pairs - expected * (1 - torch.eye(4))).abs().max() < 4 * expected**0.5
    assert wrong[: n // 2].sum() == pytest.approx(n / 4, abs=4 * (n / 16) ** 0.5)
    # Half of the labels of another seed are wrong too: that both are, or neither, must be as likely as not.
    also = data.load("mine", n, seed=1).train.targets.argmax(1) != other.targets.argmax(1)
    assert (wrong == also).sum() == pytest.approx(n / 2, abs=4 * (n / 4) ** 0.5)


def test_label_noise_of_the_paper_is_told(folder):
    np.savez(folder / "mine.npz", images=images(2000, 1, 1), labels=np.arange(2000) % 2)
    source = data.load("mine", 2000, label_noise=0.1, seed=3).source
    assert source.endswith("seed 3; 10 % of the training labels (200 of 2000) are wrong.")


def test_all_seeds_of_a_synthetic_task_are_judged_by_one_test_set():
    first, second = (data.load("rank-2", 5, 5, 5, seed=seed) for seed in (0, 1))
    assert torch.equal(first.test.inputs, second.test.inputs) and torch.equal(first.test.targets, second.test.targets)
    assert not torch.equal(first.train.inputs, second.train.inputs)
    assert not torch.equal(first.validation.inputs, second.validation.inputs)
