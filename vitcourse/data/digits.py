"""Handwritten digits, 8x8 pixels, real, inside the scikit-learn wheel: nothing is downloaded."""

import numpy as np
import torch

from vitcourse.data.base import Data, split


def digits():
    """The 1797 digits: uint8 (1437, 1, 8, 8) to train on and (360, 1, 8, 8) to test on.

    The split is one for all: `split(labels, fraction=0.2, seed=0)`, a fifth of each digit. With so
    few images an accuracy of the test part is known to about one per cent: to compare methods,
    cross-validate on `digits_all()`.
    """
    images, labels = digits_all()
    train, test = split(labels, fraction=0.2, seed=0)
    classes = tuple(str(digit) for digit in range(10))
    return Data("digits", images[train], labels[train], images[test], labels[test], classes)


def digits_all():
    """All digits in one piece, for cross-validation: images uint8 (1797, 1, 8, 8), labels (1797,).

    The values 0..16 of scikit-learn are scaled to 0..255 and rounded.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * 255 / 16).astype(np.uint8)[:, None]
    return torch.from_numpy(images), torch.from_numpy(bunch.target.astype(np.int64))
