"""The data that people have: MNIST and USPS, CIFAR-10, PACS."""

from pathlib import Path

import numpy as np
import pytest

from tljax.data import DataError, Standardiser, fit_standardiser, k_shot, load, match_images, standardise

pytestmark = pytest.mark.real_data


def test_mnist_finds_its_test_part(data_dir: Path) -> None:
    source = load(data_dir / "digits" / "mnist_train.npz")
    assert source.train.x.shape == (60_000, 28, 28, 1)
    assert source.test.x.shape == (10_000, 28, 28, 1)
    assert source.notes == ("test part: mnist_test.npz",)
    assert source.train.counts().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    mean, std = fit_standardiser(source.train.x)
    assert (round(float(mean[0]), 4), round(float(std[0]), 4)) == (0.1307, 0.3081)


def test_mnist_to_usps(data_dir: Path) -> None:
    usps = load(data_dir / "digits" / "usps.npz")
    assert usps.train.x.shape == (7291, 16, 16, 1)
    assert usps.test.x.shape == (2007, 16, 16, 1)
    mnist = load(data_dir / "digits" / "mnist_test.npz").map(lambda part: match_images(part, 16, 16, 1))
    assert mnist.train.x.shape == (8000, 16, 16, 1)
    assert mnist.train.classes == usps.train.classes
    # Shrinking with antialiasing keeps the mean grey.
    assert abs(mnist.train.x.mean() - 0.1325) < 2e-3
    statistics = fit_standardiser(mnist.train.x)
    assert isinstance(statistics, Standardiser)
    assert np.isfinite(standardise(usps.train.x, statistics)).all()
    shots = usps.train.take(k_shot(usps.train.y, 10, seed=0, classes=usps.train.classes))
    assert shots.counts().tolist() == [10] * 10


def test_cifar_and_pacs(data_dir: Path) -> None:
    cifar = load(data_dir / "images" / "cifar10.npz")
    assert (len(cifar.train), len(cifar.test)) == (2500, 5000)
    assert cifar.train.classes[3] == "cat"
    assert cifar.train.only("cat,dog").counts().tolist() == [250, 250]
    photo = load(f"{data_dir}/images/pacs64.npz#photo", size=16)
    assert photo.train.x.shape == (224, 16, 16, 3)
    with pytest.raises(DataError, match="'art_painting', 'cartoon', 'photo', 'sketch'"):
        load(data_dir / "images" / "pacs64.npz")


def test_text_and_flat_folders_are_refused(data_dir: Path) -> None:
    for name in (
        "text/sst2_train.tsv.gz",
        "text/banking77_test.tsv.gz",
        "text/amazon_reviews.npz",
        "images/imagenet_sample",
    ):
        with pytest.raises(DataError):
            load(data_dir / name)
