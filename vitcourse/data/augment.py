"""Random changes to a batch of images, made on the device where the images lie.

Images are (B, C, H, W), floating, in 0..1: augment first, normalise afterwards. Nothing is changed
in place, and there is no loop over images: `shift` draws a choice for each image, and `shift_by`
carries out all of them at once; so with the others.

All numbers are drawn from the generator that is passed, on the CPU, and only then moved to the
images: a seed means the same on every device, and on the CPU it gives the same batch to the bit.
CUDA is not waited for: what is drawn is copied while it still works.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F


def draw(generator, *shape):
    """Numbers between -1 and 1, all equally likely, on the CPU: float64 of the given shape."""
    return 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1


def beside(values, images, dtype=None):
    """What was drawn on the CPU, on the device of the images: the same shape."""
    return values.to(images.device, dtype, non_blocking=images.is_cuda)


def each(values, images):
    """Let one number per image meet its pixels: (B,) -> (B, 1, 1, 1), with the images' device."""
    return beside(values, images, images.dtype).view(-1, 1, 1, 1)


# Where things are


def shift(images, pixels, fill="zero", *, generator):
    """Move each image by -pixels..pixels, down and to the right: what pad-and-crop does."""
    if not 0 <= pixels < min(images.shape[-2:]):
        raise ValueError(f"shift is {pixels}: it must be 0 or more, and less than the image's side")
    dy, dx = torch.randint(-pixels, pixels + 1, (2, len(images)), generator=generator)
    return shift_by(images, dy, dx, fill)


def shift_by(images, dy, dx, fill="zero"):
    """Move image b down by dy[b] and right by dx[b] pixels: (B, C, H, W) -> (B, C, H, W).

    At the edge come in zeros, or, with `fill="reflect"`, the image itself, mirrored.
    """
    if fill not in ("zero", "reflect"):
        raise ValueError(f"fill is {fill!r}: choose zero or reflect")
    H, W = images.shape[-2:]
    dy, dx = (beside(pixels, images)[:, None] for pixels in (dy, dx))
    y = torch.arange(H, device=images.device) - dy  # (B, H), the row from which each row is taken
    x = torch.arange(W, device=images.device) - dx  # (B, W)
    y, x = y[:, None, :, None], x[:, None, None, :]
    inside = (y >= 0) & (y < H) & (x >= 0) & (x < W)  # (B, 1, H, W)
    y = H - 1 - (H - 1 - y.abs()).abs()  # -1 becomes 1, and H becomes H - 2
    x = W - 1 - (W - 1 - x.abs()).abs()
    moved = images.take_along_dim(y, 2).take_along_dim(x, 3)  # (B, C, H, W)
    return moved if fill == "reflect" else moved * inside


def flip(images, *, generator):
    """Mirror each image, left to right, with probability 1/2."""
    return flip_by(images, draw(generator, len(images)) < 0)


def flip_by(images, chosen):
    """Mirror the images for which `chosen` (B,) is true: (B, C, H, W) -> (B, C, H, W)."""
    return torch.where(each(chosen, images).bool(), images.flip(-1), images)


def affine(images, rotate=0, scale=0, shear=0, translate=0, elastic=0, bicubic=False, *, generator):
    """Turn, zoom, slant and move each image, all about its centre, and bend it.

    The angle lies between -rotate and rotate degrees, the zoom between 1 - scale and 1 + scale, the
    slant along x, and another along y, between -shear and shear degrees, and the move along each
    axis between -translate and translate, as a part of that side. To bend it, 4 x 4 knots that lie
    over the image are each pulled by up to `elastic` pixels along each axis.
    """
    B, _, H, W = images.shape
    turn, zoom, shear_x, shear_y, dx, dy = draw(generator, 6, B)
    bent = bend(elastic * draw(generator, B, 2, 4, 4), (H, W)) if elastic else None
    return affine_by(
        images,
        affine_matrices(
            rotate=rotate * turn,
            scale=1 + scale * zoom,
            shear_x=shear * shear_x,
            shear_y=shear * shear_y,
            dx=translate * W * dx,
            dy=translate * H * dy,
        ),
        bent,
        bicubic,
    )


def bend(pulls, size):
    """How far each pixel moves when knots are pulled, x and y: (B, 2, n, n) -> (B, 2, H, W).

    The n x n knots lie evenly over the image, the outer ones in its outermost pixels. Between
    them, the moves change smoothly. Of one writer's digit come those of many.
    Simard et al. 2003, https://doi.org/10.1109/ICDAR.2003.1227801
    """
    return F.interpolate(pulls, size, mode="bicubic", align_corners=True)


def affine_matrices(rotate=0, scale=1, shear_x=0, shear_y=0, dx=0, dy=0):
    """Matrices (B, 2, 3) that slant, then zoom, then turn clockwise, then move: each value is (B,).

    A matrix takes a point (x, y, 1) to the place where it goes, in pixels from the image's centre,
    x to the right and y down. Angles are in degrees.
    """
    values = (rotate, scale, shear_x, shear_y, dx, dy)
    values = [torch.as_tensor(value, dtype=torch.float64) for value in values]
    rotate, scale, shear_x, shear_y, dx, dy = torch.broadcast_tensors(*values)
    cos, sin = rotate.deg2rad().cos(), rotate.deg2rad().sin()
    tan_x, tan_y = shear_x.deg2rad().tan(), shear_y.deg2rad().tan()
    row_x = [scale * (cos - sin * tan_y), scale * (cos * tan_x - sin), dx]
    row_y = [scale * (sin + cos * tan_y), scale * (sin * tan_x + cos), dy]
    return torch.stack([torch.stack(row_x, -1), torch.stack(row_y, -1)], -2)


def affine_by(images, matrices, bent=None, bicubic=False):
    """Move every point of image b by matrices[b]: (B, C, H, W), (B, 2, 3) -> (B, C, H, W).

    A matrix says where a point goes, see `affine_matrices`. To fill a pixel, we ask where it comes
    from, which the inverse says, moved by `bent` (B, 2, H, W), and mix the four pixels around that
    place, or if `bicubic` the sixteen, which blurs less. From beyond the edge come zeros.
    """
    H, W = images.shape[-2:]
    back = torch.linalg.inv(matrices[:, :, :2])  # (B, 2, 2)
    back, moves = (beside(part, images, images.dtype) for part in (back, matrices[:, :, 2]))
    (a, b), (c, d) = back.permute(1, 2, 0)[..., None, None]  # each (B, 1, 1)
    dx, dy = moves.T[..., None, None]  # each (B, 1, 1)
    x = torch.arange(W, device=images.device) - (W - 1) / 2 - dx  # (B, 1, W)
    y = torch.arange(H, device=images.device)[:, None] - (H - 1) / 2 - dy  # (B, H, 1)
    from_x = a * x + b * y  # (B, H, W), in pixels from the centre
    from_y = c * x + d * y  # (B, H, W)
    if bent is not None:
        bent = beside(bent, images, images.dtype)
        from_x, from_y = from_x + bent[:, 0], from_y + bent[:, 1]
    places = torch.stack([from_x * 2 / W, from_y * 2 / H], dim=-1)  # -1 and 1 are the edges
    mode = "bicubic" if bicubic else "bilinear"
    return F.grid_sample(images, places.to(images), mode, align_corners=False).clamp(0, 1)


def cutout(images, size, *, generator):
    """Fill one square of each image with the image's mean colour: (B, C, H, W) -> (B, C, H, W).

    The centre may be any pixel, so a part of the square may lie outside.
    Cutout, DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552
    """
    H, W = images.shape[-2:]
    top = torch.randint(H, (len(images),), generator=generator) - size // 2
    left = torch.randint(W, (len(images),), generator=generator) - size // 2
    return cutout_at(images, top, left, size)


def cutout_at(images, top, left, size):
    """Fill the square at top[b], left[b] with the mean colour of image b, channel by channel.

    The mean is the image's, not the batch's: no image depends on those that happen to be beside it.
    """
    mean = images.mean(dim=(-2, -1), keepdim=True)  # (B, C, 1, 1)
    return torch.where(in_box(images, top, left, size, size), mean, images)


def in_box(images, top, left, height, width):
    """Which pixels lie in the box of their image: (B, 1, H, W), true or false. Sizes are (B,)."""
    y, x = (torch.arange(side) for side in images.shape[-2:])
    rows = (y >= top[:, None]) & (y < (top + height)[:, None])  # (B, H)
    columns = (x >= left[:, None]) & (x < (left + width)[:, None])  # (B, W)
    rows, columns = beside(rows, images), beside(columns, images)
    return rows[:, None, :, None] & columns[:, None, None, :]


# Colour: every change is a blend with an image that lacks something


def blend(other, images, factor):
    """0 gives the other image, 1 the image itself, and more goes beyond it: factor (B,)."""
    return torch.lerp(other, images, each(factor, images)).clamp(0, 1)


def grey(images):
    """How bright each pixel looks: (B, C, H, W) -> (B, 1, H, W). The eye sees green best."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def brightness_by(images, factor):
    """Blend each image with black: (B, C, H, W), (B,) -> (B, C, H, W)."""
    return blend(torch.zeros_like(images), images, factor)


def contrast_by(images, factor):
    """Blend each image with the one grey that is its mean: (B, C, H, W), (B,) -> (B, C, H, W)."""
    return blend(grey(images).mean(dim=(-2, -1), keepdim=True), images, factor)


def saturation_by(images, factor):
    """Blend each image with itself in grey: (B, C, H, W), (B,) -> (B, C, H, W)."""
    return blend(grey(images), images, factor)


def sharpness_by(images, factor):
    """Blend each image with itself, blurred: (B, C, H, W), (B,) -> (B, C, H, W).

    A blurred pixel is the mean of its 3x3 square in which it counts five times. The edge stays.
    """
    middle = images[..., 1:-1, 1:-1]
    blurred = images.clone()
    blurred[..., 1:-1, 1:-1] = (9 * F.avg_pool2d(images, 3, stride=1) + 4 * middle) / 13
    return blend(blurred, images, factor)


def colour(images, brightness=0, contrast=0, saturation=0, *, generator):
    """Change each image's brightness, contrast and saturation, in this order.

    A factor lies between 1 - brightness and 1 + brightness, and so on. Images of one channel have
    no saturation.
    """
    u, v, w = draw(generator, 3, len(images))
    if brightness:
        images = brightness_by(images, 1 + brightness * u)
    if contrast:
        images = contrast_by(images, 1 + contrast * v)
    if saturation:
        images = saturation_by(images, 1 + saturation * w)
    return images


def posterize_by(images, strength):
    """Keep 8 bits of each value, down to 4 at the strength (B,) 1: (B, C, H, W) -> (B, C, H, W)."""
    step = 2 ** each((4 * strength.abs()).round(), images)
    return (images * 255).round().div(step).floor() * step / 255


def solarize_by(images, strength):
    """Turn bright values into their negative: none at strength (B,) 0, all at 1."""
    lowest = (1 - strength.abs()) * 256 / 255  # of 0, 1/255, ..., 1
    return torch.where(images >= each(lowest, images), 1 - images, images)


def autocontrast(images):
    """Stretch every channel of every image to reach from 0 to 1: (B, C, H, W) -> (B, C, H, W)."""
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low), images)


# RandAugment, Cubuk et al. 2019, https://arxiv.org/abs/1909.13719

# what each operation does to images (B, C, H, W) at a strength s (B,) between -1 and 1
OPERATIONS = {
    "identity": lambda images, s: images,
    "rotate": lambda images, s: affine_by(images, affine_matrices(rotate=30 * s)),
    "shear x": lambda images, s: affine_by(images, affine_matrices(shear_x=17 * s)),
    "shear y": lambda images, s: affine_by(images, affine_matrices(shear_y=17 * s)),
    "translate x": lambda images, s: affine_by(
        images, affine_matrices(dx=0.45 * images.shape[-1] * s)
    ),
    "translate y": lambda images, s: affine_by(
        images, affine_matrices(dy=0.45 * images.shape[-2] * s)
    ),
    "brightness": lambda images, s: brightness_by(images, 1 + 0.9 * s),
    "contrast": lambda images, s: contrast_by(images, 1 + 0.9 * s),
    "saturation": lambda images, s: saturation_by(images, 1 + 0.9 * s),
    "sharpness": lambda images, s: sharpness_by(images, 1 + 0.9 * s),
    "posterize": posterize_by,
    "solarize": solarize_by,
    "autocontrast": lambda images, s: autocontrast(images),
}


def rand_augment(images, count=2, magnitude=9, *, generator):
    """Change each image by `count` operations, one after the other, each drawn from OPERATIONS.

    The magnitude, 0 to 10, is the strength of all of them, 10 being the strongest. The sign of the
    strength, left or right, darker or brighter, is drawn for each image.
    """
    for _ in range(count):
        choice = torch.randint(len(OPERATIONS), (len(images),), generator=generator)
        sign = draw(generator, len(images)).sign()
        images = operate(images, choice, sign * magnitude / 10)
    return images


def operate(images, choice, strength):
    """Apply operation choice[b] at strength[b] to image b: (B, C, H, W) -> (B, C, H, W).

    The images that share an operation go through it together.
    """
    changed = torch.empty_like(images)
    for number, operation in enumerate(OPERATIONS.values()):
        group = (choice == number).nonzero().squeeze(1)  # the images that drew this operation
        if len(group):
            here = beside(group, images)
            changed[here] = operation(images[here], strength[group])
    return changed


# Labels, and images that are mixed with others


def one_hot(labels, classes, smoothing=0.0):
    """Labels (B,) -> targets (B, classes) that sum to 1.

    Of each target, the part `smoothing` is spread over all classes, the right one included.
    """
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


def mix(images, targets, mixup=0.0, cutmix=0.0, *, generator):
    """Mix each image (B, C, H, W), and its target (B, classes), with those of a partner.

    Partners are a permutation of the batch, so an image may meet itself. The part `keep` that an
    image keeps is drawn for each image from Beta(a, a), where a is `mixup` or `cutmix`. If both are
    above zero, a coin decides between the two for the whole batch.
    """
    if not mixup and not cutmix:
        return images, targets
    if targets.ndim != 2 or not targets.is_floating_point():
        raise ValueError(
            f"targets are {targets.dtype} of shape {tuple(targets.shape)}: mixing needs "
            f"(batch, classes), which one_hot(labels, classes) makes"
        )
    B, _, H, W = images.shape
    partner = torch.randperm(B, generator=generator)
    if mixup and (not cutmix or draw(generator) < 0):
        return mixup_by(images, targets, partner, beta(mixup, B, generator))
    side = (1 - beta(cutmix, B, generator)).sqrt()  # the box's part of each side
    height, width = (H * side).long(), (W * side).long()
    top = torch.randint(H, (B,), generator=generator) - height // 2
    left = torch.randint(W, (B,), generator=generator) - width // 2
    return cutmix_by(images, targets, partner, top, left, height, width)


def beta(a, count, generator):
    """Numbers drawn from Beta(a, a): float64 (count,), near 0 and 1 for a < 1, even for a = 1.

    PyTorch draws them from its global state only, so NumPy does, with a seed from the generator.
    """
    seed = torch.randint(2**62, (), generator=generator).item()
    return torch.from_numpy(np.random.default_rng(seed).beta(a, a, count))


def mixup_by(images, targets, partner, keep):
    """Keep the part keep[b] of image b, take the rest from its partner: partner (B,), keep (B,).

    mixup, Zhang et al. 2017, https://arxiv.org/abs/1710.09412
    """
    other = beside(partner, images)
    images = torch.lerp(images[other], images, each(keep, images))
    return images, mix_targets(targets, partner, keep)


def cutmix_by(images, targets, partner, top, left, height, width):
    """Fill a box of image b from the same box of its partner: partner and box are (B,) each.

    A box may reach beyond the edge. So the targets are mixed by the pixels that were in fact taken.

    CutMix, Yun et al. 2019, https://arxiv.org/abs/1905.04899
    """
    box = in_box(images, top, left, height, width)  # (B, 1, H, W)
    images = torch.where(box, images[beside(partner, images)], images)
    return images, mix_targets(targets, partner, 1 - box.float().mean(dim=(1, 2, 3)))


def mix_targets(targets, partner, keep):
    """Mix targets (B, classes) as their images were mixed: partner (B,), keep (B,)."""
    other, keep = beside(partner, targets), beside(keep, targets, targets.dtype)
    return torch.lerp(targets[other], targets, keep[:, None])


# All together

WHOLE = ("shift", "cutout", "rand_augment")
HIGHEST = {
    "rotate": 180,
    "scale": 0.9,
    "shear": 40,
    "translate": 1,
    "elastic": 100,
    "brightness": 1,
    "contrast": 1,
    "saturation": 1,
    "magnitude": 10,
    "mixup": 100,
    "cutmix": 100,
}


@dataclass(frozen=True)
class Augment:
    """What is done to a training batch, in the order of the fields; 0 is off.

    `Augment(shift=4, flip=True)(images, targets, generator)` gives new images and targets. Only
    mixup and cutmix change targets; they need soft ones, see `one_hot`.
    """

    shift: int = 0  # pixels
    flip: bool = False
    rotate: float = 0  # degrees
    scale: float = 0  # part of the size
    shear: float = 0  # degrees
    translate: float = 0  # part of the side
    elastic: float = 0  # pixels by which the knots of a grid over the image are pulled
    bicubic: bool = False  # geometry mixes sixteen pixels, not four, and blurs less
    brightness: float = 0
    contrast: float = 0
    saturation: float = 0
    rand_augment: int = 0  # how many operations
    magnitude: float = 9  # of these operations, 0 to 10
    cutout: int = 0  # pixels
    mixup: float = 0.0  # the a of Beta(a, a)
    cutmix: float = 0.0

    def __post_init__(self):
        for name, value in ((field.name, getattr(self, field.name)) for field in fields(self)):
            if name in WHOLE and not (isinstance(value, int) and value >= 0):
                raise ValueError(f"{name} is {value!r}: it must be a whole number, 0 or more")
            if name in ("flip", "bicubic") and not isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}: it must be True or False")
            if name in HIGHEST:
                if not (isinstance(value, (int, float)) and 0 <= value <= HIGHEST[name]):
                    raise ValueError(f"{name} is {value!r}: it must be 0 to {HIGHEST[name]}")

    def __call__(self, images, targets, generator):
        if images.ndim != 4 or not images.is_floating_point():
            raise ValueError(
                f"images are {images.dtype} of shape {tuple(images.shape)}: augmentation needs "
                f"(batch, channels, height, width), floating, in 0..1"
            )
        if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
            raise ValueError("generator must be one of the CPU: torch.Generator().manual_seed(0)")
        if self.shift:
            images = shift(images, self.shift, generator=generator)
        if self.flip:
            images = flip(images, generator=generator)
        geometry = (self.rotate, self.scale, self.shear, self.translate, self.elastic)
        if any(geometry):
            images = affine(images, *geometry, self.bicubic, generator=generator)
        colours = (self.brightness, self.contrast, self.saturation)
        if any(colours):
            images = colour(images, *colours, generator=generator)
        if self.rand_augment:
            images = rand_augment(images, self.rand_augment, self.magnitude, generator=generator)
        if self.cutout:
            images = cutout(images, self.cutout, generator=generator)
        return mix(images, targets, self.mixup, self.cutmix, generator=generator)
