"""Pictures drawn by us, 32x32 RGB, whose truth is known: class, box, mask, relation.

Everything is whole-number arithmetic on numpy arrays, so a seed gives the same bytes everywhere.
Shapes: n images of 32x32 pixels; boxes are (x1, y1, x2, y2) in pixels, x2 and y2 just outside.
"""

import numpy as np
import torch

from vitcourse.data.base import Data

SIDE = 32
FORMS = ("circle", "square", "triangle", "cross")
COLOURS = {"red": (205, 55, 50), "blue": (50, 80, 205)}
CLASSES = tuple(f"{colour} {form}" for form in FORMS for colour in COLOURS)
CELL = 8  # in the relation task, objects lie in the cells of a 4x4 grid
MOST = 4  # objects in a scene


def shapes(task="classes", train=4000, test=1000, seed=0):
    """Draw a data set of `train` and `test` images, uint8 (n, 3, 32, 32), for one of three tasks.

    - "classes": one object; the label is its colour and form, 8 classes, all equally often.
      extras: `boxes` float32 (n, 4), `masks` bool (n, 32, 32).
    - "relation": a red and a blue object; the label is 1 where the red one is further left. Images
      2i and 2i+1 hold the same patches of 8x8 (4x4, 2x2, 1x1) pixels in another order, and have
      different labels: a model that does not know where a patch lies gives both the same answer.
      extras: `boxes` float32 (n, 2, 4), the red object's first.
    - "scenes": 1 to 4 objects that do not overlap; the label is their number minus one.
      extras: `boxes`, a list of n float32 (objects, 4); `labels`, a list of n int64 (objects,),
      numbers in `classes`, the names of the 8 classes of objects.

    The extras of the test images have names that begin with `test_`.
    """
    tasks = {"classes": draw_classes, "relation": draw_relation, "scenes": draw_scenes}
    if task not in tasks:
        raise ValueError(f"task is {task!r}: choose {', '.join(tasks)}")
    for name, count in (("train", train), ("test", test)):
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} is {count!r}: it must be a whole number above 0")
        if task == "relation" and count % 2:
            raise ValueError(
                f"{name} is {count}: the relation task draws pairs, give an even number"
            )
    names = {
        "classes": CLASSES,
        "relation": ("red is right of blue", "red is left of blue"),
        "scenes": tuple(f"{k} object{'s' * (k > 1)}" for k in range(1, MOST + 1)),
    }
    images, labels, extras = tasks[task](np.random.default_rng([seed, 0]), train)
    test_images, test_labels, more = tasks[task](np.random.default_rng([seed, 1]), test)
    extras |= {f"test_{name}": value for name, value in more.items()}
    if task == "scenes":
        extras["classes"] = CLASSES
    parts = (images, labels, test_images, test_labels)
    return Data(f"shapes, {task}", *map(torch.from_numpy, parts), names[task], extras)


# The three tasks: (rng, n) -> images (n, 3, 32, 32), labels (n,), extras ------------------------


def draw_classes(rng, n):
    """One object in each image, anywhere, of any size."""
    labels = rng.permutation(np.arange(n) % len(CLASSES))
    radius = rng.integers(4, 10, n)
    x, y = place(rng, radius), place(rng, radius)
    images, masks = background(rng, n), draw_mask(labels // len(COLOURS), x, y, radius)
    paint(images, masks, colours(rng, labels % len(COLOURS)))
    boxes = torch.from_numpy(box(x, y, radius)).float()
    return images.astype(np.uint8), labels, {"boxes": boxes, "masks": torch.from_numpy(masks)}


def draw_relation(rng, n):
    """Pairs of images: in the second one, the red and the blue object have changed places.

    The background repeats every 8 pixels and an object lies inside one cell of 8x8 pixels. So to
    change places is to exchange two cells, and the image keeps its patches.
    """
    pairs = n // 2
    columns, rows = rng.integers(0, SIDE // CELL, (2, pairs, 2))  # of the red and the blue object
    columns[:, 1] = (columns[:, 0] + rng.integers(1, SIDE // CELL, pairs)) % (SIDE // CELL)
    inside_x, inside_y = rng.integers(3, 5, (2, pairs, 2))  # the centre of each in its cell
    forms = rng.integers(0, len(FORMS), (pairs, 2))
    paper = background(rng, pairs, CELL)
    tints = [colours(rng, np.full(pairs, colour)) for colour in range(2)]
    radius = np.full(pairs, 3)
    images, labels, boxes = [], [], []
    for order in ([0, 1], [1, 0]):
        x, y = columns[:, order] * CELL + inside_x, rows[:, order] * CELL + inside_y
        drawn = paper.copy()
        for i in range(2):
            paint(drawn, draw_mask(forms[:, i], x[:, i], y[:, i], radius), tints[i])
        images.append(drawn.astype(np.uint8))
        labels.append((x[:, 0] < x[:, 1]).astype(np.int64))
        boxes.append(box(x, y, radius[:, None]))
    images, labels, boxes = (np.stack(both, 1) for both in (images, labels, boxes))
    boxes = torch.from_numpy(boxes.reshape(n, 2, 4)).float()
    return images.reshape(n, 3, SIDE, SIDE), labels.reshape(n), {"boxes": boxes}


def draw_scenes(rng, n):
    """One to four objects in each image. Places are drawn again until no two boxes overlap."""
    counts = rng.integers(1, MOST + 1, n)
    radius, x, y = (np.zeros((n, MOST), dtype=np.int64) for _ in range(3))
    left = np.arange(n)
    while len(left):
        radius[left] = rng.integers(3, 7, (len(left), MOST))
        x[left], y[left] = place(rng, radius[left]), place(rng, radius[left])
        left = left[overlap(box(x[left], y[left], radius[left]), counts[left])]
    labels = rng.integers(0, len(CLASSES), (n, MOST))
    images = background(rng, n)
    for i in range(MOST):
        masks = draw_mask(labels[:, i] // len(COLOURS), x[:, i], y[:, i], radius[:, i])
        masks &= (i < counts)[:, None, None]
        paint(images, masks, colours(rng, labels[:, i] % len(COLOURS)))
    boxes = torch.from_numpy(box(x, y, radius)).float()
    extras = {
        "boxes": [b[:count] for b, count in zip(boxes, counts, strict=True)],
        "labels": [k[:count] for k, count in zip(torch.from_numpy(labels), counts, strict=True)],
    }
    return images.astype(np.uint8), counts - 1, extras


# What they are drawn with -----------------------------------------------------------------------


def background(rng, n, size=SIDE):
    """Stripes and noise in a dull colour, repeated every `size` pixels: int16 (n, 3, 32, 32)."""
    y, x = np.mgrid[:size, :size]
    a, b = rng.integers(0, 3, (2, n, 1, 1))
    width = rng.choice([1, 2, 4], (n, 1, 1))
    stripes = (a * x + b * y) // width % 2 * rng.integers(0, 30, (n, 1, 1))  # (n, size, size)
    noise = rng.integers(-15, 16, (n, size, size))
    colour = rng.integers(80, 160, (n, 3, 1, 1))
    texture = (colour + (stripes + noise)[:, None]).astype(np.int16)  # (n, 3, size, size)
    return np.tile(texture, (1, 1, SIDE // size, SIDE // size))


def colours(rng, which):
    """A red or a blue for each image, never twice the same: (n,) of 0 or 1 -> (n, 3)."""
    return np.array(list(COLOURS.values()))[which] + rng.integers(-25, 26, (len(which), 3))


def place(rng, radius):
    """A coordinate for the centre of each object that leaves it inside the image."""
    return rng.integers(radius, SIDE - radius)


def box(x, y, radius):
    """The boxes of objects, whatever their form: three (...) -> (..., 4)."""
    return np.stack([x - radius, y - radius, x + radius + 1, y + radius + 1], axis=-1)


def overlap(boxes, counts):
    """Whether any two of the first `counts` boxes overlap: (n, 4, 4), (n,) -> bool (n,)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    common = (low[:, :, None] < high[:, None]).all(-1) & (low[:, None] < high[:, :, None]).all(-1)
    first, second = np.triu_indices(boxes.shape[1], 1)
    return (common[:, first, second] & (second < counts[:, None])).any(-1)


def draw_mask(form, x, y, radius):
    """The pixels of one object in each image: four (n,) -> bool (n, 32, 32).

    Each form touches all sides of its box, so the size of a box does not tell the form.
    """
    rows, columns = np.mgrid[:SIDE, :SIDE]
    form, x, y, r = (value[:, None, None] for value in (form, x, y, radius))
    dx, dy = np.abs(columns - x), rows - y
    square = (dx <= r) & (np.abs(dy) <= r)
    circle = dx**2 + dy**2 <= r * (r + 1)
    triangle = square & (2 * dx <= dy + r)
    cross = square & (np.minimum(dx, np.abs(dy)) <= r // 3)
    return np.select([form == i for i in range(4)], [circle, square, triangle, cross], False)


def paint(images, masks, tint):
    """Colour the pixels of each mask, in place: (n, 3, 32, 32), (n, 32, 32), (n, 3)."""
    np.copyto(images, tint[:, :, None, None].astype(np.int16), where=masks[:, None])
