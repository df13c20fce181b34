"""Right answers to the exercises of lesson 12, and the truth about its questions."""

import itertools

import torch
from einops import rearrange, repeat

from vitcourse import vit
from vitcourse.probe import record_attention, with_tokens

# drop_tokens --------------------------------------------------------------------------------------


def drop_by_numbers(x, keep, prefix_len):
    places = torch.cat([torch.arange(prefix_len, device=x.device), prefix_len + keep])
    return x[:, places]


def drop_by_gather(x, keep, prefix_len):
    chosen = (keep + prefix_len)[None, :, None].expand(len(x), -1, x.shape[-1])
    return torch.cat((x[:, :prefix_len], x.gather(1, chosen)), dim=1)


def drop_by_loop(x, keep, prefix_len):
    tokens = [x[:, place] for place in range(prefix_len)]
    tokens += [x[:, prefix_len + number] for number in keep.tolist()]
    return torch.stack(tokens, dim=1)


# cover_patches ------------------------------------------------------------------------------------


def cover_by_einops(images, chosen):
    P = images.shape[-1] // chosen.shape[-1]
    covered = repeat(chosen, "B h w -> B 1 (h p) (w q)", p=P, q=P)
    return torch.where(covered, torch.zeros_like(images), images)


def cover_by_product(images, chosen):
    P = images.shape[-1] // chosen.shape[-1]
    stays = torch.kron((~chosen).to(images.dtype), torch.ones(P, P, device=images.device))
    return images * stays[:, None]


def cover_by_loop(images, chosen):
    images = images.clone()
    P = images.shape[-1] // chosen.shape[-1]
    for b, y, x in chosen.nonzero().tolist():
        images[b, :, y * P : (y + 1) * P, x * P : (x + 1) * P] = 0
    return images


# reorder_patches ----------------------------------------------------------------------------------


def reorder_by_einops(images, patch, order):
    parts = rearrange(images, "B C (h p) (w q) -> (h w) B C p q", p=patch, q=patch)
    w = images.shape[-1] // patch
    return rearrange(parts[order], "(h w) B C p q -> B C (h p) (w q)", w=w)


def reorder_by_loop(images, patch, order):
    result, w = torch.empty_like(images), images.shape[-1] // patch

    def square(number):
        y, x = divmod(number, w)
        rows = slice(y * patch, y * patch + patch)
        return (..., rows, slice(x * patch, x * patch + patch))

    for place, number in enumerate(order.tolist()):
        result[square(place)] = images[square(number)]
    return result


RIGHT = {
    "drop_tokens": [drop_by_numbers, drop_by_gather, drop_by_loop],
    "cover_patches": [cover_by_einops, cover_by_product, cover_by_loop],
    "reorder_patches": [reorder_by_einops, reorder_by_loop],
    "tokens_left": [],
}

SOURCES = {
    "drop_tokens": """
def answer(x, keep, prefix_len):
    prefix = x[:, :prefix_len]
    places = prefix_len + keep
    patches = x[:, places]
    return torch.cat([prefix, patches], dim=1)
""",
    "cover_patches": """
def answer(images, chosen):
    P = images.shape[-1] // chosen.shape[-1]
    covered = chosen.repeat_interleave(P, 1)
    covered = covered.repeat_interleave(P, 2)
    covered = covered.unsqueeze(1)
    return images.masked_fill(covered, 0.0)
""",
    "reorder_patches": """
def answer(images, patch, order):
    h = images.shape[2] // patch
    w = images.shape[3] // patch
    patches = vit.patchify(images, patch)
    patches = patches[:, order]
    return vit.unpatchify(patches, (h, w), patch)
""",
}

EQUIVALENT = {}


def least_shift():
    """The smallest move of an image after which the patch tokens are moved ones."""
    torch.manual_seed(0)
    embed = vit.PatchEmbed(3, 8, 16)
    image = torch.rand(1, 3, 224, 224)
    before = embed(image)[0].unflatten(1, (14, 14))
    for pixels in range(1, 225):
        after = embed(image.roll(pixels, -1))[0].unflatten(1, (14, 14))
        if any(torch.allclose(after, before.roll(n, 2), atol=1e-5) for n in range(1, 14)):
            return pixels


def scores_left():
    """The share of a model's attention scores with 49 patches of 196, in percent."""
    model = vit.make_vit("Ti/16", image=224, classes=10)
    images, keep = torch.zeros(1, 3, 224, 224), torch.arange(49)
    with torch.no_grad(), record_attention(model) as maps:
        model(images)
        with_tokens(model, images, keep)
    return round(100 * maps[-1].numel() / maps[0].numel())


def truth():
    orders = {tuple(order) for order in itertools.permutations(range((8 // 4) ** 2))}
    return {
        "pixels by which": least_shift(),
        "orders in which": len(orders),
        "attention scores left": scores_left(),
    }
