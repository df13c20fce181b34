"""What every data set here is: tensors, names of classes, statistics. And how to split one.

Shapes: n images of C channels and H x W pixels.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch


@dataclass(frozen=True, eq=False, repr=False)
class Data:
    """Images uint8 (n, C, H, W) and labels int64 (n,), to train on and to test on.

    `extras` holds what only some data sets have, such as boxes and masks; what belongs to the test
    images has a name that begins with `test_`.
    """

    name: str
    images: torch.Tensor
    labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    classes: tuple[str, ...]
    extras: dict = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "classes", tuple(self.classes))
        for part in ("", "test_"):
            check_images(f"{part}images", getattr(self, f"{part}images"))
            check_labels(
                f"{part}labels",
                getattr(self, f"{part}labels"),
                len(getattr(self, f"{part}images")),
                len(self.classes),
            )
        ours, test = tuple(self.images.shape[1:]), tuple(self.test_images.shape[1:])
        if ours != test:
            raise ValueError(f"images are {ours} and test_images {test}: both need one (C, H, W)")

    def __repr__(self):
        height, width = self.image
        return (
            f"{self.name}: {len(self.labels)} images to train on, {len(self.test_labels)} to test, "
            f"{self.channels}x{height}x{width}, {len(self.classes)} classes"
        )

    @property
    def channels(self):
        """The number of channels C."""
        return self.images.shape[1]

    @property
    def image(self):
        """The size of an image (H, W)."""
        return tuple(self.images.shape[2:])

    @cached_property
    def statistics(self):
        """The mean and the standard deviation of each channel of the training images, both (C,)."""
        return statistics(self.images)

    @property
    def mean(self):
        """The mean of each channel of the training images, scaled to 0..1: (C,)."""
        return self.statistics[0]

    @property
    def std(self):
        """The standard deviation of each channel of the training images, scaled to 0..1: (C,)."""
        return self.statistics[1]

    def normalise(self, images, top=255):
        """Images with values 0..top -> float32 with mean 0 and std 1: (..., C, H, W), same shape.

        The mean and the standard deviation are those of the training images.
        """
        mean, std = (value.to(images.device)[:, None, None] for value in (self.mean, self.std))
        return (images.float() / top - mean) / std

    def to(self, device):
        """The same data with every tensor on `device`."""
        names = ("images", "labels", "test_images", "test_labels", "extras")
        there = replace(self, **{name: move(getattr(self, name), device) for name in names})
        return there.normalised_by(*self.statistics)

    def normalised_by(self, mean, std):
        """The same data, to be normalised by another mean and standard deviation, both (C,)."""
        values = [torch.as_tensor(value, device=self.images.device) for value in (mean, std)]
        for name, value in zip(("mean", "std"), values, strict=True):
            if value.shape != (self.channels,):
                shape = tuple(value.shape)
                raise ValueError(f"{name} has the shape {shape}: give {self.channels} numbers")
        other = replace(self)
        vars(other)["statistics"] = tuple(values)
        return other


def check_images(name, images):
    """Refuse what is not uint8 (n, C, H, W) with at least one image."""
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8:
        kind = getattr(images, "dtype", type(images).__name__)
        raise ValueError(f"{name} are {kind}: give a uint8 tensor, values 0 to 255")
    if images.ndim != 4 or images.numel() == 0:
        raise ValueError(f"{name} have the shape {tuple(images.shape)}: (n, C, H, W), none 0")


def check_labels(name, labels, images, classes):
    """Refuse what is not int64 (n,), one label for each image, each the number of a class."""
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64:
        kind = getattr(labels, "dtype", type(labels).__name__)
        raise ValueError(f"{name} are {kind}: give an int64 tensor, the number of each class")
    if labels.shape != (images,):
        raise ValueError(
            f"{name} have the shape {tuple(labels.shape)}: {images} images need one each"
        )
    low, high = labels.min().item(), labels.max().item()
    if low < 0 or high >= classes:
        raise ValueError(
            f"{name} go from {low} to {high}: {classes} classes are 0 to {classes - 1}"
        )


def move(value, device):
    """Move the tensors in a tensor, list or dict to a device; anything else stays."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [move(item, device) for item in value]
    if isinstance(value, dict):
        return {name: move(item, device) for name, item in value.items()}
    return value


def statistics(images):
    """Mean and standard deviation of each channel, scaled to 0..1: uint8 (n, C, H, W) -> two (C,).

    They come from a count of the 256 values, so they are exact and take little memory. A channel
    that never changes gets the deviation 1/255, by which one can divide.
    """
    values = torch.arange(256, dtype=torch.float64)
    means, stds = [], []
    for channel in images.unbind(1):  # (n, H, W)
        counts = sum(torch.bincount(part.flatten(), minlength=256) for part in channel.split(10000))
        counts = counts.cpu().double()
        mean = (counts * values).sum() / counts.sum()
        means.append(mean)
        stds.append((counts * (values - mean) ** 2).sum().div(counts.sum()).sqrt().clamp(min=1))
    mean, std = (torch.stack(s).div(255).float().to(images.device) for s in (means, stds))
    return mean, std


def split(labels, fraction, seed):
    """Choose a part for testing at random, the same share of each class: two (n,) of indices.

    Returns the indices to train on and those to test on, both ascending, int64. `fraction` of all
    images, rounded up, are for testing. Each class gives its share, rounded down; the classes that
    lost most by that give one more. Every class has at least one image in each part. The same
    `labels`, `fraction` and `seed` give the same indices.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the test fraction is {fraction!r}: it must lie between 0 and 1")
    labels = np.asarray(labels)
    names, sizes = np.unique(labels, return_counts=True)
    if not len(labels) or sizes.min() < 2:
        what = (
            f"class {names[sizes.argmin()]} has 1 image" if len(labels) else "there are no images"
        )
        raise ValueError(f"{what}: to split, each class needs 2 or more")
    shares = sizes * fraction
    counts = np.floor(shares).astype(int)
    missing = math.ceil(len(labels) * fraction) - counts.sum()
    counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1
    counts = counts.clip(1, sizes - 1)
    rng = np.random.default_rng(seed)
    test = np.zeros(len(labels), dtype=bool)
    for name, count in zip(names, counts, strict=True):
        test[rng.permutation(np.flatnonzero(labels == name))[:count]] = True
    return torch.from_numpy(np.flatnonzero(~test)), torch.from_numpy(np.flatnonzero(test))
