"""What a model withstands: occlusion, shuffling, shift, another distribution, an adversarial patch.

Images are (B, C, H, W) in 0..1; every function returns new ones of the same shape, in 0..1. What is
random comes from a torch.Generator, so that two models meet the same pictures.
"""

import torch
import torch.nn.functional as F

from vitcourse.config import grid_of
from vitcourse.vit import patchify, unpatchify


def choose(grid, share, images, generator, heat=None):
    """Choose that share of each image's patches: bool (B, h, w), true for the chosen ones.

    Without `heat` by chance; with a heat map (B, h, w) the hottest ones.
    """
    h, w = grid
    order = torch.rand(images, h * w, generator=generator) if heat is None else heat.flatten(1)
    count = round(share * h * w)
    chosen = torch.zeros(images, h * w, dtype=torch.bool)
    chosen.scatter_(1, order.cpu().topk(count, dim=1).indices, True)
    return chosen.reshape(images, h, w)


def occlude(images, chosen, value=0.0):
    """Paint the chosen patches (B, h, w) with one value."""
    patch = images.shape[-1] // chosen.shape[-1]
    covered = chosen.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None]
    return images.masked_fill(covered.to(images.device), value)


def shuffle_patches(images, patch, generator):
    """Cut each image into patches and put them together in an order of its own, by chance."""
    grid = grid_of(images.shape[-2:], patch)
    patches = patchify(images, patch)  # (B, N, P*P*C)
    order = torch.rand(patches.shape[:2], generator=generator).argsort(dim=1).to(images.device)
    patches = patches.gather(1, order[..., None].expand_as(patches))
    return unpatchify(patches, grid, patch)


def shift(images, dy, dx):
    """Move the pictures down and to the right; what leaves on one side enters on the other."""
    return images.roll((dy, dx), (-2, -1))


def noise(images, strength, generator):
    """Add normal noise of that standard deviation to every value."""
    grain = torch.randn(images.shape, generator=generator).to(images)
    return (images + strength * grain).clamp(0, 1)


def blur(images, strength, generator=None):
    """Blur with a Gaussian of that standard deviation, in pixels."""
    if strength == 0:
        return images.clone()
    reach = max(1, round(3 * strength))
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / strength) ** 2).to(images)
    line = (line / line.sum()).expand(images.shape[1], 1, -1)  # (C, 1, 2*reach+1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    across = F.conv2d(padded, line[:, :, None, :], groups=images.shape[1])
    return F.conv2d(across, line[..., None], groups=images.shape[1]).clamp(0, 1)


def contrast(images, strength, generator=None):
    """Take away that share of the contrast: 0 leaves all of it, 1 leaves one grey."""
    grey = images.mean(dim=(1, 2, 3), keepdim=True)
    return grey + (1 - strength) * (images - grey)


def texture(images, strength, generator):
    """Lay a texture over each image, with that weight: stripes of a random direction and width."""
    B, _, H, W = images.shape
    angle, period, phase = torch.rand(3, B, 1, 1, generator=generator)
    angle, period = torch.pi * angle, 2 + 4 * period
    y, x = torch.arange(H)[:, None], torch.arange(W)
    wave = torch.sin((x * angle.cos() + y * angle.sin()) * 2 * torch.pi / period + 6 * phase)
    stripes = (0.5 + 0.5 * wave)[:, None].to(images)  # (B, 1, H, W)
    return (1 - strength) * images + strength * stripes


SHIFTS = {"noise": noise, "blur": blur, "contrast": contrast, "texture": texture}


def adversarial_patch(logits, images, labels, corner, size, steps=20, rate=0.1, generator=None):
    """Paint one square of each image so that the model errs: (B, C, H, W) -> (B, C, H, W).

    `logits(images)` is the model, with its normalisation. The square has its upper left `corner`
    (y, x) and `size` pixels a side. It begins with noise and climbs the loss by the sign of the
    gradient (projected gradient ascent, `steps` of `rate`); of all that was tried, each image keeps
    what gave it the highest loss, its own pixels included.
    """
    (y, x), (H, W) = corner, images.shape[-2:]
    if not (0 <= y <= H - size and 0 <= x <= W - size):
        raise ValueError(f"a square of {size} at {corner} does not lie in an image of {H} x {W}")
    inside = torch.zeros(1, 1, H, W, dtype=torch.bool, device=images.device)
    inside[..., y : y + size, x : x + size] = True
    best = images.clone()
    with torch.no_grad():
        worst = F.cross_entropy(logits(images), labels, reduction="none")
    start = torch.rand(images.shape, generator=generator).to(images)
    now = torch.where(inside, start, images)
    for _ in range(steps):
        now = now.detach().requires_grad_()
        loss = F.cross_entropy(logits(now), labels, reduction="none")
        (slope,) = torch.autograd.grad(loss.sum(), now)
        better = loss.detach() > worst
        best[better], worst[better] = now.detach()[better], loss.detach()[better]
        now = torch.where(inside, (now.detach() + rate * slope.sign()).clamp(0, 1), images)
    return best
