"""Where each object lies: what a detector says in pixels, and how good that is.

A detector is a model such as DETR: `model(images)` gives logits and boxes (B, Q, 4), in parts of
the image, `predictions` those of each layer; `probabilities` makes (B, Q, classes) of the logits,
and `set_loss` compares with the truth.
"""

import contextlib
import io
from dataclasses import dataclass

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import box_convert, box_iou

from vitcourse.papers.deformable_detr import sampling_points
from vitcourse.papers.detr import corners, match
from vitcourse.train.batches import test_batches


@dataclass
class Objects:
    """The objects of one image: boxes (n, 4), x1 y1 x2 y2 in pixels, labels (n,), scores (n,).

    The scores of a truth are ones.
    """

    boxes: torch.Tensor
    labels: torch.Tensor
    scores: torch.Tensor


# Truth --------------------------------------------------------------------------------------------


def objects(data, part="test_"):
    """The objects of the test images, or with part="" the training images: a list of Objects.

    The extras of the data are their boxes, in pixels, and labels.
    """
    both = zip(data.extras[f"{part}boxes"], data.extras[f"{part}labels"], strict=True)
    return [Objects(boxes, labels, torch.ones(len(labels))) for boxes, labels in both]


def targets(data, part=""):
    """The truth of the training images, or with part="test_" the test images, as a loss needs it.

    For each image, labels (n,) and boxes (n, 4): centre, width and height in parts of the image.
    """
    size = torch.tensor([*data.image[::-1]] * 2)  # W, H, W, H
    both = zip(data.extras[f"{part}labels"], data.extras[f"{part}boxes"], strict=True)
    return [(labels, box_convert(boxes / size, "xyxy", "cxcywh")) for labels, boxes in both]


def find(model, batch, truth, auxiliary=True):
    """A step for `fit`: the loss of the answers; truth is that of all training images, `targets`.

    `auxiliary` adds the losses of the answers that the earlier layers of the decoder give.
    """
    device = batch.images.device
    wanted = [[part.to(device) for part in truth[i]] for i in batch.index.tolist()]
    predictions = model.predictions(batch.images)[0 if auxiliary else -1 :]
    # in bfloat16, costs that differ would be the same
    precise = ((logits.float(), boxes.float()) for logits, boxes in predictions)
    return sum(model.set_loss(*answer, wanted) for answer in precise)


# Answers ------------------------------------------------------------------------------------------


@torch.no_grad()
def answers(model, images):
    """What every query answers: images (B, C, H, W) -> a list of Objects, Q in each.

    Row i of each is what query i says: its box, its most likely class, and how likely that is.
    """
    logits, boxes = model.eval()(images)
    scores, labels = model.probabilities(logits).max(dim=-1)  # each (B, Q)
    H, W = images.shape[-2:]
    boxes = corners(boxes) * boxes.new_tensor([W, H, W, H])  # (B, Q, 4)
    parts = boxes.cpu(), labels.cpu(), scores.cpu()
    return [Objects(*image) for image in zip(*parts, strict=True)]


def guesses(model, data):
    """What every query answers to each test image: a list of Objects."""
    device = next(model.parameters()).device
    return [found for x, _ in test_batches(data, device, 250) for found in answers(model, x)]


def confident(found, least=0.5):
    """The answers with a score of at least `least`: Objects -> Objects."""
    keep = found.scores >= least
    return Objects(found.boxes[keep], found.labels[keep], found.scores[keep])


@torch.no_grad()
def who_answers(model, images, truth):
    """The query that is matched with each object: images and their truth -> int64 (n,) for each.

    truth as `targets` gives it. What it says of the same images changes while a model learns.
    """
    logits, boxes = (part.cpu() for part in model.eval()(images))
    found = []
    for queries, wanted in match(model.class_cost(logits), boxes, truth):
        found.append(queries[wanted.argsort()])
    return found


def read_inside(model, images, truth):
    """What the last layer of a Deformable DETR reads inside the object that a query answers for.

    The mean share, by weight, over the objects of images with this truth, `targets`.
    """
    (places, weights), shares = sampling_points(model, images)[-1], []
    for i, queries in enumerate(who_answers(model, images, truth)):
        centre, sides = truth[i][1][:, None, None].split(2, dim=-1)  # each (n, 1, 1, 2)
        away = (places[i, queries].flatten(2, 3).cpu() - centre).abs()  # (n, K, A, 2)
        within = (away <= sides / 2).all(dim=-1)  # (n, K, A)
        shares.append((within * weights[i, :, queries].transpose(0, 1).cpu()).sum(dim=-1))  # (n, K)
    return torch.cat(shares).mean().item()


# How good -----------------------------------------------------------------------------------------


def average_precision(found, truth):
    """Average precision of the Objects found in each image, by pycocotools: {"AP": , "AP50": }.

    The answers to all images are put in order by their scores. One is right if it is the first for
    an object of its class that it overlaps enough. AP is the mean of the precision over recall,
    classes, and ten thresholds of the overlap (IoU), from 0.5 to 0.95; AP50 takes 0.5 alone.
    """
    rows = [row for i, image in enumerate(found) for row in as_coco(i, image)]
    gold = [row for i, image in enumerate(truth) for row in as_coco(i, image)]
    if not rows or not gold:
        return {"AP": 0.0, "AP50": 0.0}
    images = [{"id": i} for i in range(len(truth))]
    kinds = [{"id": int(k)} for k in torch.cat([image.labels for image in truth]).unique()]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = [COCO(), COCO()]
        for part, annotations in zip(coco, (gold, rows), strict=True):
            part.dataset = {"images": images, "categories": kinds, "annotations": annotations}
            part.createIndex()
        measured = COCOeval(*coco, "bbox")
        measured.params.areaRng, measured.params.areaRngLbl = [[0, 1e10]], ["all"]
        measured.evaluate()
        measured.accumulate()
    precision = measured.eval["precision"][..., 0, -1]  # [threshold, recall, class]
    return {"AP": float(precision.mean()), "AP50": float(precision[0].mean())}


def as_coco(i, image):
    """The Objects of image number i as pycocotools wants them."""
    boxes = box_convert(image.boxes, "xyxy", "xywh")
    for place in range(len(boxes)):
        x, y, w, h = box = boxes[place].tolist()
        yield {
            "id": (i + 1) * 10000 + place,
            "image_id": i,
            "category_id": int(image.labels[place]),
            "bbox": box,
            "area": w * h,
            "score": float(image.scores[place]),
            "iscrowd": 0,
        }


def score(model, data):
    """AP and AP50 on the test images, for `fit`."""
    return average_precision(guesses(model, data), objects(data))


def duplicates(found, truth, least=0.5):
    """How many answers too many an object gets: confident boxes that overlap it by an IoU of 0.5.

    The mean over all objects of the answers after the first, whatever their class.
    """
    extra = objects = 0
    for image, wanted in zip(found, truth, strict=True):
        overlaps = box_iou(confident(image, least).boxes, wanted.boxes) >= 0.5  # (answers, n)
        extra += int((overlaps.sum(dim=0) - 1).clamp(min=0).sum())
        objects += len(wanted.boxes)
    return extra / max(objects, 1)
