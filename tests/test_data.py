"""Data sets: what Data refuses, the split, the digits, the drawn shapes, folders of pictures."""

import hashlib
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, PILToTensor, Resize

from vitcourse import Config, ViT
from vitcourse.data import Data, load
from vitcourse.data.base import move, split, statistics
from vitcourse.data.digits import digits_all
from vitcourse.data.folder import FolderStream, folder, threads
from vitcourse.data.shapes import CLASSES, COLOURS, FORMS, shapes
from vitcourse.parts import NoPosition
from vitcourse.vit import patchify


def sums(*tensors):
    """The beginning of a checksum of the bytes of some tensors."""
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()[:16]


# Data -------------------------------------------------------------------------------------------


def make(**changes):
    parts = dict(
        name="made",
        images=torch.randint(256, (6, 3, 4, 5), dtype=torch.uint8),
        labels=torch.tensor([0, 1, 0, 1, 1, 0]),
        test_images=torch.randint(256, (2, 3, 4, 5), dtype=torch.uint8),
        test_labels=torch.tensor([1, 0]),
        classes=("cat", "dog"),
    )
    return Data(**parts | changes)


def test_data_says_what_it_is():
    data = make()
    assert str(data) == "made: 6 images to train on, 2 to test, 3x4x5, 2 classes"
    assert data.channels == 3 and data.image == (4, 5) and data.extras == {}
    with pytest.raises(AttributeError):
        data.labels = None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"images": torch.rand(6, 3, 4, 5)}, "images are torch.float32: give a uint8"),
        ({"images": np.zeros((6, 3, 4, 5), np.uint8)}, "images are uint8: give a uint8 tensor"),
        ({"test_images": torch.zeros(2, 4, 5, dtype=torch.uint8)}, r"test_images .* \(2, 4, 5\)"),
        ({"test_images": torch.zeros(0, 3, 4, 5, dtype=torch.uint8)}, r"\(0, 3, 4, 5\).*none 0"),
        ({"test_images": torch.zeros(2, 1, 4, 5, dtype=torch.uint8)}, r"both need one \(C, H, W\)"),
        ({"labels": torch.zeros(6)}, "labels are torch.float32: give an int64"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, r"shape \(5,\): 6 images need one each"),
        ({"test_labels": torch.tensor([0, 2])}, "test_labels go from 0 to 2: 2 classes are 0 to 1"),
        ({"labels": torch.tensor([0, 1, 0, -1, 1, 0])}, "labels go from -1 to 1"),
    ],
)
def test_data_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        make(**changes)
    assert "\n" not in str(error.value)


def test_statistics_are_those_of_the_training_images():
    data = make()
    scaled = data.images.double() / 255
    torch.testing.assert_close(data.mean, scaled.mean((0, 2, 3)).float())
    torch.testing.assert_close(data.std, scaled.std((0, 2, 3), unbiased=False).float())
    assert data.mean is data.mean  # computed once
    normal = data.normalise(data.images)
    assert normal.dtype == torch.float32 and normal.shape == data.images.shape
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(normal.std((0, 2, 3), unbiased=False), torch.ones(3))
    one = data.normalise(data.test_images[0])
    torch.testing.assert_close(one[2], (data.test_images[0, 2] / 255 - data.mean[2]) / data.std[2])


def test_a_channel_that_never_changes_can_be_normalised():
    mean, std = statistics(torch.full((2, 1, 3, 3), 51, dtype=torch.uint8))
    assert mean.item() == pytest.approx(0.2) and std.item() == pytest.approx(1 / 255)


def test_to_moves_every_tensor():
    moved = make(extras={"boxes": [torch.zeros(1, 4)], "names": ["a"]}).to("cpu")
    assert isinstance(moved, Data) and moved.extras["names"] == ["a"]
    there = move({"boxes": [torch.zeros(1, 4), torch.zeros(2, 4)], "names": ["a"]}, "meta")
    assert [tensor.is_meta for tensor in there["boxes"]] == [True, True] and there["names"] == ["a"]


def test_other_statistics_stay_when_data_move():
    data = make()
    other = data.normalised_by((0.5, 0.4, 0.3), torch.tensor([0.1, 0.2, 0.3]))
    assert data.mean.tolist() != other.mean.tolist() == pytest.approx([0.5, 0.4, 0.3])
    moved = other.to("cpu")
    assert moved.mean.equal(other.mean) and moved.std.equal(other.std)
    one = moved.normalise(data.images[0])[2]
    torch.testing.assert_close(one, (data.images[0, 2] / 255 - 0.3) / 0.3)
    with pytest.raises(ValueError, match=r"std has the shape \(1,\): give 3 numbers"):
        data.normalised_by((0.5, 0.4, 0.3), [0.1])


@pytest.mark.gpu
def test_data_on_a_device():
    here = shapes("scenes", train=20, test=8)
    there = here.to("cuda")
    for tensor in (there.images, there.labels, there.test_images, there.extras["boxes"][3]):
        assert tensor.is_cuda
    torch.testing.assert_close(there.mean.cpu(), here.mean)
    torch.testing.assert_close(there.normalise(here.images), here.normalise(here.images))


# Split ------------------------------------------------------------------------------------------


def test_split_takes_its_share_of_each_class():
    labels = torch.tensor([0] * 50 + [1] * 13 + [2] * 2)
    train, test = split(labels, 0.3, seed=4)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(65))
    assert train.tolist() == sorted(train.tolist()) and test.tolist() == sorted(test.tolist())
    assert labels[test].bincount().tolist() == [15, 4, 1]  # 20 of 65, as 15 + 3.9 + .6
    assert labels[train].bincount().tolist() == [35, 9, 1]
    for again in (split(labels, 0.3, seed=4), split(labels.numpy(), 0.3, seed=4)):
        assert torch.equal(again[1], test)
    assert not torch.equal(split(labels, 0.3, seed=5)[1], test)


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_split_leaves_each_class_in_both_parts(fraction):
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])
    for rows in split(labels, fraction, seed=0):
        assert labels[rows].unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "labels, fraction, message",
    [
        ([0, 0, 1], 0.5, "class 1 has 1 image: to split, each class needs 2"),
        ([], 0.5, "there are no images"),
        ([0, 0], 1, "fraction is 1: it must lie between 0 and 1"),
        ([0, 0], 0, "fraction is 0"),
    ],
)
def test_split_refuses(labels, fraction, message):
    with pytest.raises(ValueError, match=message):
        split(labels, fraction, seed=0)


# Digits -----------------------------------------------------------------------------------------


def test_digits():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = digits_all()
    assert images.shape == (1797, 1, 8, 8) and images.dtype == torch.uint8
    assert labels.tolist() == bunch.target.tolist()
    levels = [round(value * 255 / 16) for value in range(17)]
    assert images.flatten().tolist() == [levels[int(value)] for value in bunch.images.flatten()]
    data = load("digits")
    assert len(data.images) == 1437 and len(data.test_images) == 360
    assert data.classes == tuple("0123456789")
    share = data.test_labels.bincount() / labels.bincount()
    assert share.min() > 0.19 and share.max() < 0.21
    both = sorted(image.tolist() for image in [*data.images, *data.test_images])
    assert both == sorted(image.tolist() for image in images)
    assert sums(data.images, data.labels, data.test_images, data.test_labels) == "b27a17df94074adb"


# Shapes -----------------------------------------------------------------------------------------


def all_tensors(data):
    extras = [data.extras[name] for name in sorted(data.extras) if "classes" not in name]
    extras = [torch.cat(value) if isinstance(value, list) else value for value in extras]
    return data.images, data.labels, data.test_images, data.test_labels, *extras


@pytest.mark.parametrize(
    "task, known",
    [
        ("classes", "972dc20d4b59ce8e"),
        ("relation", "43e1467b4c858500"),
        ("scenes", "2cf84e1567901acd"),
    ],
)
def test_a_seed_gives_the_same_bytes_everywhere(task, known):
    drawn = load("shapes", task=task, train=40, test=16, seed=3)
    assert sums(*all_tensors(drawn)) == known
    other = shapes(task, train=40, test=16, seed=4)
    assert not torch.equal(other.images, drawn.images)
    shorter = shapes(task, train=24, test=16, seed=3)  # the test part is one for all
    assert torch.equal(shorter.test_images, drawn.test_images)
    assert not torch.equal(drawn.images[:16], drawn.test_images)


def test_shapes_boxes_and_masks_are_the_truth():
    data = shapes(train=800, test=80)
    assert data.images.shape == (800, 3, 32, 32) and data.classes == CLASSES and len(CLASSES) == 8
    assert data.labels.bincount().tolist() == [100] * 8
    for part in ("", "test_"):
        images = data.images if part == "" else data.test_images
        labels = data.labels if part == "" else data.test_labels
        boxes, masks = data.extras[part + "boxes"], data.extras[part + "masks"]
        assert boxes.dtype == torch.float32 and masks.dtype == torch.bool
        assert masks.shape == (len(images), 32, 32)
        assert torch.equal(boxes, torch.stack([tight(mask) for mask in masks]))
        assert boxes.min() >= 0 and boxes.max() <= 32
        pixels = images.permute(0, 2, 3, 1)
        for image, label, mask in zip(pixels, labels, masks, strict=True):
            tint = image[mask].unique(dim=0)
            assert len(tint) == 1  # the object and nothing else
            red = tint[0, 0] > tint[0, 2]
            assert CLASSES[label].startswith("red" if red else "blue")
            assert not (image[~mask] == tint).all(-1).any()


def tight(mask):
    """The smallest box around a mask (H, W)."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return torch.tensor([float(edge) for edge in edges])


def test_form_and_colour_both_matter():
    data = shapes(train=1600, test=8)
    form, colour = data.labels // len(COLOURS), data.labels % len(COLOURS)
    masks, boxes = data.extras["masks"], data.extras["boxes"]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    filled = masks.sum((1, 2)) / area
    averages = torch.stack([filled[form == i].mean() for i in range(len(FORMS))])
    assert averages[1] == 1 and averages[0] < 0.9  # squares fill their box, nothing else does
    assert (filled[form != 1] < 0.95).all()
    upper = masks & (
        torch.arange(32)[:, None] < (boxes[:, 1] + boxes[:, 3])[:, None, None] / 2 - 0.5
    )
    above = upper.sum((1, 2)) / masks.sum((1, 2))
    assert (above[form == 2] < 0.35).all() and (above[form != 2] > 0.35).all()  # triangles
    assert (filled[form == 0] > 0.7).all() and (filled[form == 3] < 0.7).all()  # circle, cross
    for i in range(len(FORMS)):  # a colour has every form equally often, and every size
        both = torch.bincount(colour[form == i])
        assert both.tolist() == [200, 200]
        sizes = [area[(form == i) & (colour == c)].mean().item() for c in (0, 1)]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.2)


def bag(images, patch):
    """The patches of each image in a fixed order, wherever they lay."""
    return [sorted(map(bytes, image)) for image in patchify(images, patch).numpy()]


def test_relation_pairs_hold_the_same_patches():
    data = load("shapes", task="relation", train=200, test=40)
    for images, labels in ((data.images, data.labels), (data.test_images, data.test_labels)):
        assert (labels[::2] + labels[1::2] == 1).all()  # one of each
        for patch in (1, 2, 4, 8):
            assert bag(images[::2], patch) == bag(images[1::2], patch)
    assert not torch.equal(data.images[::2], data.images[1::2])
    assert bag(data.images[::2], 4) != bag(data.images[::2].roll(1, 0), 4)  # and others differ
    assert 0.3 < data.labels[::2].float().mean() < 0.7  # the order in a pair tells nothing


def test_relation_labels_and_boxes():
    data = shapes("relation", train=200, test=8)
    red, blue = data.extras["boxes"].unbind(1)
    assert torch.equal(data.labels, (red[:, 2] < blue[:, 0] + 1e-3).long())
    apart = (red[:, 2] <= blue[:, 0]) | (blue[:, 2] <= red[:, 0])
    assert apart.all()  # in x, so a mirror turns the label round
    assert data.classes[1] == "red is left of blue"
    images = data.images.int()
    for boxes, channel in ((red, 0), (blue, 2)):
        for image, box in zip(images, boxes.int().tolist(), strict=True):
            inside = image[:, box[1] : box[3], box[0] : box[2]]
            assert inside.shape == (3, 7, 7)
            assert inside[channel, 3, 3] > inside[2 - channel, 3, 3] + 50  # its centre


def test_relation_cannot_be_solved_without_positions():
    data = shapes("relation", train=32, test=8)
    cfg = Config(dim=24, depth=2, heads=2, patch=4, image=32, classes=2)
    answers = {}
    for name, model in (("with", ViT), ("without", ViT.variant(Position=NoPosition))):
        model = model(cfg).eval().double()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        with torch.no_grad():
            answers[name] = model(data.normalise(data.images).double())
    same, different = answers["without"], answers["with"]
    torch.testing.assert_close(same[::2], same[1::2], rtol=0, atol=1e-9)
    assert ((different[::2] - different[1::2]).abs().amax(1) > 1e-6).all()
    assert ((same[2::2] - same[:-2:2]).abs().amax(1) > 1e-6).all()


def test_scenes():
    data = load("shapes", task="scenes", train=300, test=20)
    assert data.classes == ("1 object", "2 objects", "3 objects", "4 objects")
    assert data.labels.unique().tolist() == [0, 1, 2, 3]
    assert data.extras["classes"] == CLASSES
    assert len(data.extras["test_boxes"]) == len(data.extras["test_labels"]) == 20
    parts = data.images.int(), data.labels, data.extras["boxes"], data.extras["labels"]
    for image, label, boxes, objects in zip(*parts, strict=True):
        assert boxes.shape == (label + 1, 4) and objects.shape == (label + 1,)
        assert boxes.dtype == torch.float32 and objects.dtype == torch.int64
        taken = torch.zeros(32, 32, dtype=torch.int64)
        for (x1, y1, x2, y2), number in zip(boxes.int().tolist(), objects, strict=True):
            assert 0 <= x1 < x2 <= 32 and 0 <= y1 < y2 <= 32
            taken[y1:y2, x1:x2] += 1
            red, _, blue = image[:, (y1 + y2) // 2, (x1 + x2) // 2]
            assert CLASSES[number].startswith("red" if red > blue else "blue")
            tint = image[:, (y1 + y2) // 2, (x1 + x2) // 2]
            mask = (image == tint[:, None, None]).all(0)
            mask[:y1], mask[y2:], mask[:, :x1], mask[:, x2:] = False, False, False, False
            assert tight(mask).tolist() == [x1, y1, x2, y2]
        assert taken.max() == 1  # no two overlap


@pytest.mark.parametrize(
    "options, message",
    [
        ({"task": "colours"}, "task is 'colours': choose classes, relation, scenes"),
        ({"train": 0}, "train is 0: it must be a whole number above 0"),
        ({"task": "relation", "test": 7}, "test is 7: the relation task draws pairs"),
    ],
)
def test_shapes_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        load("shapes", **options)


# Folders ----------------------------------------------------------------------------------------


def picture(size=(40, 30), mode="RGB"):
    """A smooth picture with some noise, (width, height)."""
    width, height = size
    rng = np.random.default_rng(width * 1000 + height)
    wave = np.outer(np.sin(np.arange(height) / 7), np.cos(np.arange(width) / 5))[..., None]
    pixels = 127 + 90 * wave * rng.uniform(0.3, 1, 3) + rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


def fill(path, **files):
    """Save pictures: fill(path, cat=["a.png"], dog=["b.jpg"])."""
    for number, (name, endings) in enumerate(files.items()):
        (path / name).mkdir(parents=True, exist_ok=True)
        for i, file in enumerate(endings):
            picture((40 + 3 * i, 33 + 5 * number)).save(path / name / file)


MANY = [f"{i}.png" for i in range(5)]


def test_folder_with_classes(tmp_path):
    fill(tmp_path, cat=MANY, dog=["a.jpg", "b.JPEG", "c.bmp", "d.webp", "e.gif", "f.PNG"])
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "cat" / "Thumbs.db").write_text("nor this")
    (tmp_path / "cat" / "._0.png").write_text("nor this")
    data = load(tmp_path, image=16, test=0.4)
    assert isinstance(data, Data) and data.name == tmp_path.name
    assert data.images.shape == (6, 3, 16, 16) and data.test_images.shape == (5, 3, 16, 16)
    assert data.classes == ("cat", "dog") and data.extras["skipped"] == []
    assert data.labels.bincount().tolist() == [3, 3]
    again, other = (
        load(str(tmp_path), image=16, test=0.4),
        load(tmp_path, image=16, seed=1, test=0.4),
    )
    assert torch.equal(again.images, data.images) and not torch.equal(other.images, data.images)


@pytest.mark.parametrize("second", ["test", "val"])
def test_folder_with_train_and_test(tmp_path, second):
    fill(tmp_path / "train", cat=MANY, dog=MANY[:3])
    fill(tmp_path / second, cat=["0.png"], dog=["7.jpg"])
    data = folder(tmp_path, image=24)
    assert data.labels.tolist() == [0] * 5 + [1] * 3 and data.test_labels.tolist() == [0, 1]
    resize = Resize(24, InterpolationMode.BICUBIC)
    theirs = Compose([resize, CenterCrop(24), PILToTensor()])
    for part, images in (("train", data.images), (second, data.test_images)):
        expected = ImageFolder(tmp_path / part, transform=theirs)
        assert tuple(expected.classes) == data.classes
        assert torch.equal(torch.stack([image for image, _ in expected]), images)


@pytest.mark.parametrize("size", [(70, 33), (33, 71), (24, 24), (10, 13), (200, 24), (1, 90)])
def test_resizing_is_that_of_torchvision(tmp_path, size):
    (tmp_path / "one").mkdir()
    for name in "ab":
        picture(size).save(tmp_path / "one" / f"{name}.png")
    ours = folder(tmp_path, image=24, test=0.5).images[0]
    theirs = Compose([Resize(24, InterpolationMode.BICUBIC), CenterCrop(24), PILToTensor()])
    assert torch.equal(ours, theirs(picture(size)))


def read_one(path, image=8, channels=3):
    return FolderStream([path], torch.tensor([0]), image, channels)[0][0]


def test_kinds_of_pictures(tmp_path):
    path = tmp_path / "a.png"
    picture((8, 8), "L").save(path)
    grey = torch.from_numpy(np.array(picture((8, 8), "L")))
    assert torch.equal(read_one(path, channels=1)[0], grey)
    assert torch.equal(read_one(path), grey.expand(3, 8, 8))
    Image.fromarray(np.array([[0, 300], [30000, 65535]], np.uint16)).save(path)
    assert read_one(path, 2, 1)[0].tolist() == [[0, 1], [117, 255]]
    pixels = np.zeros((1, 2, 4), np.uint8)  # black: once solid, once transparent
    pixels[0, 0, 3] = 255
    Image.fromarray(np.concatenate([pixels, pixels])).save(path)
    assert read_one(path, 2)[0].tolist() == [[0, 255], [0, 255]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Image.fromarray(np.concatenate([pixels, pixels])).quantize(4).save(path)
        assert read_one(path, 2)[0].tolist() == [[0, 255], [0, 255]]
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright, stored lying: to be turned by 90 degrees
    lying = np.zeros((8, 8, 3), np.uint8)
    lying[:4] = 255
    Image.fromarray(lying).save(path, exif=exif)
    assert read_one(path)[0, 0].tolist() == [0] * 4 + [255] * 4
    frames = [Image.new("L", (8, 8), value) for value in (200, 10)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_one(tmp_path / "a.gif").unique().tolist() == [200]


def test_large_photographs_are_close_to_exact(tmp_path):
    large = picture((1200, 900))
    large.save(tmp_path / "a.jpg", quality=95)
    ours = read_one(tmp_path / "a.jpg", 32).float()
    exact = Compose([Resize(32, InterpolationMode.BICUBIC), CenterCrop(32), PILToTensor()])
    assert (ours - exact(Image.open(tmp_path / "a.jpg")).float()).abs().mean() < 1.5


def damage(path):
    """Four ways in which a picture cannot be read."""
    whole = (path / "0.png").read_bytes()
    (path / "empty.png").write_bytes(b"")
    (path / "noise.jpg").write_bytes(bytes(range(256)))
    (path / "text.gif").write_text("this is no picture")
    (path / "cut.png").write_bytes(whole[: len(whole) // 2])
    return ["cut.png", "empty.png", "noise.jpg", "text.gif"]


def test_unreadable_pictures_are_left_out_and_listed(tmp_path):
    fill(tmp_path, cat=MANY, dog=MANY)
    names = damage(tmp_path / "cat")
    with pytest.warns(UserWarning) as warned:
        data = folder(tmp_path, image=24)
    assert len(warned) == 1 and "\n" not in str(warned[0].message)
    assert "4 of 14 pictures cannot be read and are left out" in str(warned[0].message)
    assert warned[0].filename == __file__
    assert [Path(file).name for file in data.extras["skipped"]] == names
    assert len(data.images) + len(data.test_images) == 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in names:
            (tmp_path / "cat" / name).unlink()
        clean = folder(tmp_path, image=24)
    assert torch.equal(clean.images, data.images) and torch.equal(clean.labels, data.labels)


def lone(path):
    fill(path, cat=MANY, dog=["0.png"])


def unreadable(path):
    fill(path, cat=MANY, dog=[])
    for name in ("a.png", "b.png"):
        (path / "dog" / name).write_bytes(b"x")


def beside(path):
    fill(path, cat=MANY)
    picture().save(path / "loose.png")


def beside_train(path):
    fill(path / "train", cat=MANY)
    fill(path / "test", cat=MANY)
    picture().save(path / "loose.png")


def train_and_class(path):
    fill(path / "train", cat=MANY)
    fill(path, dog=MANY)


def other_classes(path):
    fill(path / "train", cat=MANY, dog=MANY)
    fill(path / "test", cat=MANY, cow=MANY)


def nested(path):
    fill(path / "animals", cat=MANY)


LAYOUTS = {
    "one picture": (lone, "the class dog has 1 readable pictures, it needs 2 or more"),
    "no readable": (unreadable, "the class dog has 0 readable pictures"),
    "empty class": (lambda path: fill(path, cat=MANY, dog=[]), "dog holds no picture"),
    "empty": (lambda path: None, "holds no folders: it needs one folder of pictures for each"),
    "beside classes": (beside, "holds pictures, such as loose.png: put each into"),
    "beside train": (beside_train, "holds pictures, such as loose.png"),
    "train and class": (train_and_class, "holds train and also dog"),
    "only train": (lambda path: fill(path / "train", cat=MANY), "neither test nor val"),
    "other classes": (other_classes, "train and test differ, only one has cow, dog"),
    "nested": (nested, "animals holds the folder cat"),
}


@pytest.mark.parametrize("what", LAYOUTS)
@pytest.mark.parametrize("stream", [False, True])
def test_layouts_that_are_refused(tmp_path, what, stream):
    build, message = LAYOUTS[what]
    build(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        folder(tmp_path, stream=stream)
    assert "\n" not in str(error.value)


def test_folder_refuses(tmp_path):
    fill(tmp_path, cat=MANY)
    with pytest.raises(FileNotFoundError, match="there is no folder .*none"):
        folder(tmp_path / "none")
    for options, message in (
        ({"channels": 4}, "channels is 4: 1 is grey, 3 is colour"),
        ({"image": 0}, "image is 0"),
        ({"test": 1.5}, "fraction is 1.5"),
    ):
        with pytest.raises(ValueError, match=message):
            folder(tmp_path, **options)


def test_tiny_pictures_are_read_in_one_thread(tmp_path):
    (tmp_path / "tiny").write_bytes(bytes(100))
    (tmp_path / "large").write_bytes(bytes(100_000))
    assert threads([tmp_path / "tiny"] * 7) == 1
    assert 1 <= threads([tmp_path / "large"] * 307) <= 8


# Streams ----------------------------------------------------------------------------------------


def test_a_stream_gives_what_the_tensors_hold(tmp_path):
    fill(tmp_path, cat=MANY, dog=MANY * 2)
    whole, stream = folder(tmp_path, image=20), folder(tmp_path, image=20, stream=True)
    assert not isinstance(stream, Data) and stream.classes == whole.classes
    assert stream.channels == 3 and stream.image == (20, 20) and stream.name == whole.name
    assert torch.equal(stream.labels, whole.labels)
    assert torch.equal(stream.test_labels, whole.test_labels)
    for part, images in ((stream.train, whole.images), (stream.test, whole.test_images)):
        assert len(part) == len(images)
        assert torch.equal(torch.stack([image for image, _ in part]), images)
    torch.testing.assert_close(stream.mean, whole.mean)  # fewer than 1000: all are used
    torch.testing.assert_close(stream.std, whole.std)
    torch.testing.assert_close(stream.normalise(whole.images), whole.normalise(whole.images))


def test_a_stream_feeds_workers(tmp_path):
    fill(tmp_path, cat=MANY, dog=MANY)
    stream = folder(tmp_path, image=20, channels=1, stream=True)
    pickle.dumps(stream.train)  # workers that are spawned get it so
    batches = list(DataLoader(stream.train, batch_size=3, num_workers=2))
    images = torch.cat([images for images, _ in batches])
    assert images.dtype == torch.uint8 and images.shape == (8, 1, 20, 20)
    assert torch.cat([labels for _, labels in batches]).tolist() == stream.labels.tolist()


def test_a_stream_leaves_out_what_does_not_begin_like_a_picture(tmp_path):
    fill(tmp_path, cat=MANY, dog=MANY)
    damage(tmp_path / "cat")
    with pytest.warns(UserWarning, match="3 of 14 pictures cannot be read"):
        stream = folder(tmp_path, stream=True)
    parts = (stream.train, stream.test)
    ((part, i),) = [(p, i) for p in parts for i, f in enumerate(p.files) if f.endswith("cut.png")]
    with pytest.raises(ValueError, match="cut.png cannot be read: remove it"):
        part[i]


def test_statistics_of_a_stream_read_at_most_1000(tmp_path, monkeypatch):
    fill(tmp_path, cat=["0.png", "1.png"])
    stream = folder(tmp_path, image=8, test=0.5, stream=True)
    files = np.repeat(stream.train.files, 1500)
    many = FolderStream(files, torch.zeros(1500, dtype=torch.int64), 8)
    asked, image = [], many[0]
    monkeypatch.setattr(FolderStream, "__getitem__", lambda self, i: asked.append(i) or image)
    object.__setattr__(stream, "train", many)
    assert stream.mean.shape == (3,) and stream.std.shape == (3,)
    assert len(asked) == len(set(asked)) == 1000


# load -------------------------------------------------------------------------------------------


def test_load_knows_names_and_folders(tmp_path):
    message = (
        "no data set and no folder 'nothing': choose digits, shapes, cifar10, or give the path"
    )
    with pytest.raises(ValueError, match=message):
        load("nothing")
    with pytest.raises(TypeError):
        load("digits", size=3)
