"""Any folder of pictures: CLASS/picture.jpg, or train/CLASS/picture.jpg and test/CLASS/picture.jpg.

Shapes: n images of C channels and H x W pixels, here H = W = `image`.
"""

import os
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset
from tqdm import tqdm

from vitcourse.data.base import Data, split, statistics

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
MODES = {1: "L", 3: "RGB"}


def folder(path, image=32, channels=3, test=0.2, seed=0, stream=False):
    """The pictures in a folder, resized: uint8 (n, C, image, image), a Data.

    The folder holds one folder for each class, of which the share `test`, chosen by `seed`, is for
    testing; or it holds `train` and `test` (or `val`), each with one folder for each class. The
    shorter side of a picture becomes `image` pixels long (bicubic, antialiased), then the centre is
    cut out. Pictures that cannot be read are left out, with a warning; `extras["skipped"]` lists
    them.

    With `stream=True` the pictures stay on the disk: the result is a StreamData, for folders that
    are larger than memory.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    if not isinstance(image, int) or image < 1:
        raise ValueError(f"image is {image!r}: give the side in pixels, a whole number above 0")
    if channels not in MODES:
        raise ValueError(f"channels is {channels!r}: 1 is grey, 3 is colour")
    classes, parts = find(path)
    skipped, contents = [], []
    for files, labels in parts:
        images, good = check(files) if stream else decode(files, image, channels)
        skipped += [str(file) for file, is_good in zip(files, good, strict=True) if not is_good]
        contents.append((images, labels[good]))
    for _, labels in contents:
        require_each(path, classes, labels, 2 if len(contents) == 1 else 1)
    if skipped:
        total = sum(len(files) for files, _ in parts)
        names = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
        text = f"{len(skipped)} of {total} pictures cannot be read and are left out: {names}"
        warnings.warn(text, stacklevel=2)
    if len(contents) == 1:
        ((images, labels),) = contents
        contents = [(images[rows], labels[rows]) for rows in split(labels, test, seed)]
    (images, labels), (test_images, test_labels) = contents
    extras = {"skipped": skipped}
    if not stream:
        return Data(path.name, images, labels, test_images, test_labels, classes, extras)
    train = FolderStream(images, labels, image, channels)
    return StreamData(
        path.name, train, FolderStream(test_images, test_labels, image, channels), classes, extras
    )


# Which pictures there are -----------------------------------------------------------------------


def find(path):
    """The names of the classes, and one or two (train, test) pairs of (files, labels (n,))."""
    names = {item.name for item in folders(path)}
    if "train" not in names:
        classes, *part = list_classes(path)
        return classes, [part]
    tests = sorted(names & {"test", "val"})
    if others := sorted(names - {"train", "test", "val"}):
        raise ValueError(
            f"{path} holds train and also {listing(others)}: it can hold classes, or train and test"
        )
    refuse_loose(path)
    if not tests:
        raise ValueError(
            f"{path} holds train, but neither test nor val: add one, or give {path}/train"
        )
    classes, *train = list_classes(path / "train")
    test_classes, *test = list_classes(path / tests[0])
    if classes != test_classes:
        differ = sorted(set(classes) ^ set(test_classes))
        raise ValueError(
            f"{path}: the classes of train and {tests[0]} differ, only one has {listing(differ)}"
        )
    return classes, [train, test]


def list_classes(path):
    """The classes in a folder of class folders: names, files, labels (n,)."""
    refuse_loose(path)
    classes, files, labels = [], [], []
    for number, item in enumerate(folders(path)):
        if inner := folders(item):
            raise ValueError(
                f"{item} holds the folder {inner[0].name}: a class folder holds only pictures"
            )
        found = pictures(item)
        if not found:
            raise ValueError(
                f"{item} holds no picture ({', '.join(ENDINGS)}): add some or remove it"
            )
        classes.append(item.name)
        files += found
        labels += [number] * len(found)
    if not classes:
        raise ValueError(f"{path} holds no folders: it needs one folder of pictures for each class")
    return tuple(classes), np.array([str(file) for file in files]), torch.tensor(labels)


def refuse_loose(path):
    """Refuse pictures that lie where only class folders belong."""
    if loose := pictures(path):
        raise ValueError(
            f"{path} holds pictures, such as {loose[0].name}: put each into the folder of its class"
        )


def folders(path):
    """The folders in a folder, by name, but for hidden ones."""
    return [item for item in visible(path) if item.is_dir()]


def pictures(path):
    """The pictures in a folder, by name, but for hidden ones."""
    return [item for item in visible(path) if item.suffix.lower() in ENDINGS and item.is_file()]


def visible(path):
    """What is in a folder, by name, without what computers put there."""
    return sorted(item for item in path.iterdir() if not item.name.startswith((".", "__MACOSX")))


def listing(names):
    """The first names of a list, for a message."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def require_each(path, classes, labels, needed):
    """Refuse a class that has fewer pictures than are needed, once unreadable ones are left out."""
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    for name, count in zip(classes, counts, strict=True):
        if count < needed:
            raise ValueError(
                f"{path}: the class {name} has {count} readable pictures, it needs {needed} or more"
            )


# Read a picture ---------------------------------------------------------------------------------


def open_picture(file, image, channels):
    """One picture as it is meant to be seen, upright, in grey or colour: a PIL Image.

    Of an animation it is the first frame; what is transparent becomes white.
    """
    with Image.open(file) as picture:
        picture.draft(None, (4 * image, 4 * image))  # a large JPEG is decoded at a smaller scale
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16 bits, of which Pillow would cut off what is above 255
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert(MODES[channels])


def read_picture(file, image, channels):
    """One picture, resized and cut to a square: uint8 (C, image, image), a numpy array."""
    picture = open_picture(file, image, channels)
    width, height = picture.size
    short = min(width, height)
    width, height = image * width // short, image * height // short
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - image) / 2), round((height - image) / 2)
    array = np.array(picture.crop((left, top, left + image, top + image)))
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def decode(files, image, channels):
    """All pictures (n, C, image, image) that can be read, and which of the files those are (n,)."""
    images = torch.empty(len(files), channels, image, image, dtype=torch.uint8)

    def work(i):
        images.numpy()[i] = read_picture(files[i], image, channels)

    good = for_each(work, len(files), threads(files))
    return images if good.all() else images[good], good


def check(files):
    """The files that begin like a picture, and which of them those are (n,). Nothing is decoded."""

    def work(i):
        Image.open(files[i]).close()

    good = for_each(work, len(files), threads(files))
    return files[good.numpy()], good


def threads(files):
    """How many threads to read with. Below about 5 kB a picture, they only wait for one another."""
    some = files[:: len(files) // 100 + 1]
    mean = sum(os.path.getsize(file) for file in some) / len(some)
    return min(os.cpu_count() or 1, 8) if mean > 5000 else 1


def for_each(work, n, threads):
    """Call `work(i)` for 0 .. n-1 in threads; which of the calls did not fail: bool (n,)."""

    def attempt(i):
        try:
            work(i)
        except Exception:  # a damaged picture can raise anything
            return False
        return True

    with ThreadPool(threads) as pool:
        done = pool.imap(attempt, range(n), chunksize=16)
        return torch.tensor(list(tqdm(done, total=n, desc="pictures", delay=1)))


# Larger than memory -----------------------------------------------------------------------------


class FolderStream(Dataset):
    """Pictures that are read when they are asked for: (uint8 (C, image, image), label).

    A DataLoader with workers reads them in parallel.
    """

    def __init__(self, files, labels, image=32, channels=3):
        self.files, self.labels = np.asarray(files), labels
        self.image, self.channels = image, channels

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        file = self.files[i]
        try:
            picture = read_picture(file, self.image, self.channels)
        except Exception as error:
            raise ValueError(f"{file} cannot be read: remove it ({error})") from None
        return torch.from_numpy(np.ascontiguousarray(picture)), int(self.labels[i])


@dataclass(frozen=True, eq=False, repr=False)
class StreamData:
    """What `Data` is, where the images stay on the disk: `train` and `test` give them one by one.

    Mean and standard deviation are estimated from at most 1000 training images.
    """

    name: str
    train: FolderStream
    test: FolderStream
    classes: tuple[str, ...]
    extras: dict = field(default_factory=dict)

    @property
    def labels(self):
        """The labels of the training images, int64 (n,)."""
        return self.train.labels

    @property
    def test_labels(self):
        """The labels of the test images, int64 (n,)."""
        return self.test.labels

    @property
    def channels(self):
        """The number of channels C."""
        return self.train.channels

    @property
    def image(self):
        """The size of an image (H, W)."""
        return self.train.image, self.train.image

    @cached_property
    def statistics(self):
        """The estimated mean and standard deviation of each channel, scaled to 0..1, both (C,)."""
        chosen = np.random.default_rng(0).permutation(len(self.train))[:1000]
        return statistics(torch.stack([self.train[i][0] for i in chosen]))

    mean, std, normalise, __repr__ = Data.mean, Data.std, Data.normalise, Data.__repr__
