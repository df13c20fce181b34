"""Batches that depend on nothing but the seed and the number of the step.

So a run can stop anywhere and go on with the very same images, order and augmentation: no state of
any random generator has to be kept.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from vitcourse.data.augment import one_hot


@dataclass
class Batch:
    """What a step gets: images (B, C, H, W), normalised; soft targets (B, classes); labels (B,)."""

    images: torch.Tensor
    targets: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor  # which images of the data set these are

    def pieces(self, count):
        """The batch in at most `count` pieces, equal but for the last."""
        parts = [getattr(self, name).chunk(count) for name in self.__dataclass_fields__]
        return [Batch(*part) for part in zip(*parts, strict=True)]


def seed_of(*what):
    """One seed made of many numbers or words: neighbours get seeds that have nothing in common."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:7], "big")


def generator_of(*what):
    """A new generator with that seed."""
    return torch.Generator().manual_seed(seed_of(*what))


def test_batches(data, device, size=1000, rank=0, world=1):
    """The test images of this process, normalised, with their labels: (B, C, H, W), (B,)."""
    index = torch.arange(rank, len(data.test_labels), world).split(size)
    if is_stream(data):
        stream = streamed(data.test, [part.tolist() for part in index], device)
    else:
        stream = (data.test_images[part] for part in index)
    for part, images in zip(index, stream, strict=True):
        yield data.normalise(images.to(device)), data.test_labels[part].to(device)


def is_stream(data):
    """Whether the images are read when they are needed: a StreamData, not a Data."""
    return not hasattr(data, "images")


def streamed(dataset, index, device):
    """Batches of uint8 images (B, C, H, W), read by worker processes, for lists of numbers."""
    loader = DataLoader(
        dataset,
        batch_sampler=index,
        num_workers=min(4, torch.multiprocessing.cpu_count()),
        pin_memory=torch.device(device).type == "cuda",
    )
    for images, _ in loader:
        yield images


class Batches:
    """The training batches of a data set: `for batch in batches.since(step)`.

    With several processes each gets its part of every batch. Where the data lie in memory, each
    augments the whole batch first, so that the images are those that one process alone would see;
    a stream is read, and augmented, only in part.
    """

    def __init__(self, data, recipe, device="cpu", rank=0, world=1):
        if recipe.batch % (world * recipe.accumulate):
            raise ValueError(
                f"a batch of {recipe.batch} does not divide among {world} processes with "
                f"accumulate={recipe.accumulate}: choose a multiple of {world * recipe.accumulate}"
            )
        self.data, self.recipe, self.device = data, recipe, device
        self.rank, self.world = rank, world
        self.size = min(recipe.batch, len(data.labels) // world * world)
        if not self.size:
            raise ValueError(f"{len(data.labels)} images are too few for {world} processes")
        self.per_epoch = len(data.labels) // self.size
        self.steps = recipe.epochs * self.per_epoch
        self.order = (None, None)

    def index(self, step):
        """Which images step number `step` sees: each once an epoch, but for an odd rest."""
        epoch, place = divmod(step, self.per_epoch)
        if self.order[0] != epoch:
            generator = generator_of(self.recipe.seed, "order", epoch)
            order = torch.randperm(len(self.data.labels), generator=generator)
            self.order = (epoch, order.to(self.data.labels.device))
        return self.order[1][place * self.size : (place + 1) * self.size]

    def mine(self, tensor):
        """The part of a batch that belongs to this process."""
        share = self.size // self.world
        return tensor[self.rank * share : (self.rank + 1) * share]

    def since(self, step):
        """The batches from step number `step` to the last."""
        numbers = range(step, self.steps)
        if not is_stream(self.data):
            for number in numbers:
                index = self.index(number)
                batch = self.prepare(self.data.images[index], index, number, "all")
                yield Batch(*(self.mine(getattr(batch, n)) for n in batch.__dataclass_fields__))
            return
        index = [self.mine(self.index(number)).tolist() for number in numbers]
        for number, images in zip(
            numbers, streamed(self.data.train, index, self.device), strict=True
        ):
            yield self.prepare(images, self.mine(self.index(number)), number, self.rank)

    def prepare(self, images, index, number, who):
        """Augment and normalise uint8 images on the device: a Batch."""
        waits = torch.device(self.device).type != "cuda"
        images = images.to(self.device, non_blocking=not waits).float() / 255
        labels = self.data.labels[index].to(self.device, non_blocking=not waits)
        targets = one_hot(labels, len(self.data.classes), self.recipe.smoothing)
        generator = generator_of(self.recipe.seed, "augment", number, who)
        images, targets = self.recipe.augment(images, targets, generator)
        return Batch(self.data.normalise(images, top=1), targets, labels, index)
