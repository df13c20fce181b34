"""Exercises of lesson 12: what it needs and what it withstands."""

import torch

from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.config import grid_of
from vitcourse.stress import occlude
from vitcourse.vit import patchify, unpatchify

# take tokens away ---------------------------------------------------------------------------------


def drop_tokens(x, keep, prefix_len):
    """Keep the prefix and some patches: x (B, R+N, D), keep (n,) -> (B, R+n, D)."""
    prefix, patches = x[:, :prefix_len], x[:, prefix_len:]
    return torch.cat([prefix, patches[:, keep]], dim=1)


def prefix_dropped(x, keep, prefix_len):
    """No prefix."""
    return x[:, prefix_len:][:, keep]


def off_by_prefix(x, keep, prefix_len):
    """Numbers that count the prefix."""
    return torch.cat([x[:, :prefix_len], x[:, keep]], dim=1)


def one_prefix_token(x, keep, prefix_len):
    """One prefix token, however many there are."""
    return drop_tokens(x, keep, 1)


def others_kept(x, keep, prefix_len):
    """The named patches taken away."""
    stays = torch.ones(x.shape[1] - prefix_len, dtype=torch.bool, device=x.device)
    stays[keep] = False
    return torch.cat([x[:, :prefix_len], x[:, prefix_len:][:, stays]], dim=1)


def set_to_zero(x, keep, prefix_len):
    """Zeros in place of what is dropped."""
    stays = torch.zeros(x.shape[1], 1, device=x.device)
    stays[:prefix_len] = 1
    stays[prefix_len + keep] = 1
    return x * stays


def first_patches(x, keep, prefix_len):
    """As many as asked for, from the first on."""
    return x[:, : prefix_len + len(keep)]


def prefix_behind(x, keep, prefix_len):
    """The prefix at the end."""
    prefix, patches = x[:, :prefix_len], x[:, prefix_len:]
    return torch.cat([patches[:, keep], prefix], dim=1)


def in_order(x, keep, prefix_len):
    """The patches sorted by place."""
    return drop_tokens(x, keep.sort().values, prefix_len)


def images_picked(x, keep, prefix_len):
    """The numbers used for the batch."""
    return x[keep]


def picked_with_prefix(x, keep, prefix_len):
    """The numbers used on the whole sequence."""
    return x[:, keep]


DROP_TOKENS = Exercise(
    name="drop_tokens",
    lesson="12",
    task="Keep the R prefix tokens and, behind them, the patches whose numbers `keep` lists, in that "
    "order: x (B, R+N, D), keep (n,) -> (B, R+n, D).",
    minutes=8,
    difficulty=2,
    reference=drop_tokens,
    cases=(
        Case(
            about="a class token",
            inputs=lambda g: (normal(g, 2, 13, 7), torch.tensor([6, 0, 3, 10]), 1),
            shape="B R+n D",
            sizes=dict(B=2, R=1, N=12, n=4, D=7, T=13),
        ),
        Case(
            about="a class token and four registers",
            inputs=lambda g: (normal(g, 2, 15, 6), torch.tensor([8, 1, 5]), 5),
            shape="B R+n D",
            sizes=dict(B=2, R=5, N=10, n=3, D=6, T=15),
        ),
        Case(
            about="no prefix",
            inputs=lambda g: (normal(g, 3, 8, 5), torch.tensor([7, 2]), 0),
            shape="B R+n D",
            sizes=dict(B=3, R=0, N=8, n=2, D=5),
        ),
    ),
    hints=(
        "Cut the sequence in two: what stands before the patches stays whatever happens.",
        "Patch number 0 stands behind the prefix, at place R of the sequence. Either cut the prefix off "
        "first, or add R to the numbers.",
        "A tensor of whole numbers picks along an axis: patches[:, keep]. Then torch.cat([prefix, "
        "chosen], dim=1).",
    ),
    mistakes=(
        Mistake(
            "prefix dropped",
            prefix_dropped,
            "The prefix is gone, and with it the class token that the head reads: put x[:, :prefix_len] "
            "in front",
        ),
        Mistake(
            "off by the prefix",
            off_by_prefix,
            "Your numbers are off by the prefix: patch 0 stands at place R of the sequence, behind the "
            "class token",
        ),
        Mistake(
            "one prefix token",
            one_prefix_token,
            "You took the prefix to be one token: it has prefix_len, which may be none or several",
        ),
        Mistake(
            "the others kept",
            others_kept,
            "You took away the patches that keep lists: those are the ones to stay",
        ),
        Mistake(
            "set to zero",
            set_to_zero,
            "You set the other tokens to zero, and zeros still take part in attention: leave them out of "
            "the sequence",
        ),
        Mistake(
            "the first patches",
            first_patches,
            "You kept as many patches as asked for, but the first ones: keep says which",
        ),
        Mistake(
            "prefix behind",
            prefix_behind,
            "Your prefix stands behind the patches: the head reads the first token, so it comes first",
        ),
        Mistake(
            "sorted",
            in_order,
            "You sorted the patches by their place: give them in the order of keep",
        ),
        Mistake(
            "images picked",
            images_picked,
            "You used the numbers on axis 0, which are the images: the tokens are axis 1",
        ),
        Mistake(
            "picked from all",
            picked_with_prefix,
            "You picked from the whole sequence: its first prefix_len tokens are no patches, and they must stay",
        ),
    ),
)

# paint patches ------------------------------------------------------------------------------------


def size_of_patch(images, chosen):
    """The side of a patch."""
    return images.shape[-1] // chosen.shape[-1]


def paint(images, covered):
    """Zeros where `covered` (B, H, W) is true."""
    return images.masked_fill(covered[:, None].to(images.device), 0.0)


def others_covered(images, chosen):
    """All but the chosen ones."""
    return occlude(images, ~chosen)


def tiled(images, chosen):
    """The small map repeated as a whole."""
    P = size_of_patch(images, chosen)
    return paint(images, chosen.repeat(1, P, P))


def by_columns(images, chosen):
    """The map read column by column."""
    return occlude(images, chosen.transpose(1, 2).reshape(chosen.shape))


def first_images_choice(images, chosen):
    """The choice of the first image for all."""
    return occlude(images, chosen[:1].expand_as(chosen))


def corners(images, chosen):
    """One pixel of each chosen patch."""
    P = size_of_patch(images, chosen)
    covered = torch.zeros(images[:, 0].shape, dtype=torch.bool, device=chosen.device)
    covered[:, ::P, ::P] = chosen
    return paint(images, covered)


def first_channel(images, chosen):
    """One channel only."""
    return torch.cat([occlude(images, chosen)[:, :1], images[:, 1:]], dim=1)


def transposed(images, chosen):
    """Rows and columns exchanged."""
    P = size_of_patch(images, chosen)
    covered = chosen.transpose(1, 2).repeat_interleave(P, 1).repeat_interleave(P, 2)
    return paint(images, covered)


def not_repeated(images, chosen):
    """A map of patches laid over a map of pixels."""
    return images.masked_fill(chosen[:, None], 0.0)


def with_ones(images, chosen):
    """White."""
    return occlude(images, chosen, 1.0)


def every_choice(images, chosen):
    """What is chosen in one image, covered in all."""
    return occlude(images, chosen.any(dim=0).expand_as(chosen))


def loop_exchanged(images, chosen):
    """x taken for the row."""
    P, result = size_of_patch(images, chosen), images.clone()
    for b, y, x in chosen.nonzero().tolist():
        result[b, :, x * P : x * P + P, y * P : y * P + P] = 0
    return result


COVER_PATCHES = Exercise(
    name="cover_patches",
    lesson="12",
    task="Paint the chosen patches of each image black, with zeros: images (B, C, H, W), chosen, bool "
    "(B, h, w) -> (B, C, H, W).",
    minutes=10,
    difficulty=2,
    reference=occlude,
    cases=(
        Case(
            about="colour images, wider than high",
            inputs=lambda g: (normal(g, 2, 3, 20, 28), torch.rand(2, 5, 7, generator=g) < 0.4),
            shape="B C H W",
            sizes=dict(B=2, C=3, H=20, W=28, h=5, w=7, P=4),
        ),
        Case(
            about="grey images with larger patches",
            inputs=lambda g: (normal(g, 3, 1, 10, 20), torch.rand(3, 2, 4, generator=g) < 0.4),
            shape="B C H W",
            sizes=dict(B=3, C=1, H=10, W=20, h=2, w=4, P=5),
        ),
    ),
    hints=(
        "A patch has W // w pixels a side. Make of the map of patches a map of pixels: (B, h, w) -> "
        "(B, H, W).",
        "repeat_interleave(P, 1) writes every row of the map P times, one below the other. The same along "
        "axis 2 does it for the columns.",
        "The channels share one map: covered[:, None] has the shape (B, 1, H, W). images.masked_fill("
        "covered[:, None], 0.0) gives a new tensor and leaves the old one alone.",
    ),
    mistakes=(
        Mistake(
            "the others covered",
            others_covered,
            "You covered all patches but the chosen ones: true means covered",
        ),
        Mistake(
            "tiled",
            tiled,
            "You repeated the map as a whole, like tiles: every entry must become a square of its own, "
            "which repeat_interleave does",
        ),
        Mistake(
            "by columns",
            by_columns,
            "Your patches are counted column by column: chosen[b, y, x] is in row y and column x",
        ),
        Mistake(
            "one choice for all",
            first_images_choice,
            "All images got the choice of the first: each has its own, chosen[b]",
        ),
        Mistake(
            "one pixel each",
            corners,
            "You covered one pixel of each chosen patch: a patch has P x P of them",
        ),
        Mistake(
            "one channel",
            first_channel,
            "You covered the first channel alone: black is zero in all channels",
        ),
        Mistake(
            "axes exchanged",
            transposed,
            "You exchanged rows and columns of the map: h goes with H, w with W",
        ),
        Mistake(
            "map too small",
            not_repeated,
            "You laid a map of patches over pixels: first write every entry P times along both axes",
        ),
        Mistake(
            "white",
            with_ones,
            "You painted them white: black is zero",
        ),
        Mistake(
            "every choice for all",
            every_choice,
            "What is chosen in one image is covered in all: each has its own, chosen[b]",
        ),
        Mistake(
            "x before y",
            loop_exchanged,
            "You exchanged rows and columns: chosen[b, y, x] is in row y, and rows are axis 2 of the images",
        ),
    ),
)

# put patches in another order ---------------------------------------------------------------------


def reorder_patches(images, patch, order):
    """Place i shows patch order[i]: images (B, C, H, W), order (N,) -> (B, C, H, W)."""
    grid = grid_of(images.shape[-2:], patch)
    patches = patchify(images, patch)  # (B, N, P*P*C)
    return unpatchify(patches[:, order], grid, patch)


def backwards(images, patch, order):
    """The order the other way round."""
    return reorder_patches(images, patch, order.argsort())


def columns_first(images, patch, order):
    """Patches counted by columns."""
    h, w = grid_of(images.shape[-2:], patch)
    number = torch.arange(h * w, device=order.device).view(h, w).T.flatten()  # by columns
    rows = torch.empty_like(order)
    rows[number] = number[order]
    return reorder_patches(images, patch, rows)


def left_as_patches(images, patch, order):
    """Not put together."""
    return patchify(images, patch)[:, order]


def bare_reshape(images, patch, order):
    """Reshaped to the shape of the images."""
    return patchify(images, patch)[:, order].reshape(images.shape)


def inside_patches(images, patch, order):
    """Pixels within each patch."""
    patches = patchify(images, patch)
    places = torch.arange(patches.shape[2], device=order.device).flip(0)
    return unpatchify(patches[..., places], grid_of(images.shape[-2:], patch), patch)


def unchanged(images, patch, order):
    """Cut and put together."""
    return images.clone()


def moved_and_turned(images, patch, order):
    """Each patch mirrored on its diagonal."""
    patches = patchify(images, patch).unflatten(2, (patch, patch, -1))
    patches = patches.transpose(2, 3).flatten(2)
    return unpatchify(patches[:, order], grid_of(images.shape[-2:], patch), patch)


REORDER_PATCHES = Exercise(
    name="reorder_patches",
    lesson="12",
    task="Cut images into patches and put them together in another order, so that place i shows patch "
    "order[i]: images (B, C, H, W), order (N,) -> (B, C, H, W).",
    minutes=8,
    difficulty=2,
    reference=reorder_patches,
    cases=(
        Case(
            about="colour images, wider than high",
            inputs=lambda g: (normal(g, 5, 3, 8, 16), 4, torch.tensor([2, 5, 0, 7, 1, 3, 6, 4])),
            shape="B C H W",
            sizes=dict(B=5, C=3, H=8, W=16, P=4, h=2),
        ),
        Case(
            about="grey images in three rows of patches",
            inputs=lambda g: (normal(g, 5, 1, 9, 6), 3, torch.tensor([1, 2, 4, 0, 5, 3])),
            shape="B C H W",
            sizes=dict(B=5, C=1, H=9, W=6, P=3, w=2),
        ),
    ),
    hints=(
        "You have both halves from lesson 01: vit.patchify(images, patch) gives (B, N, P*P*C), and "
        "vit.unpatchify(patches, grid, patch) puts them together.",
        "The grid is (H // patch, W // patch). Only the middle step is new: pick patches along axis 1.",
        "patches[:, order] has patch order[0] at place 0, and so on.",
    ),
    mistakes=(
        Mistake(
            "backwards",
            backwards,
            "You sent patch i to place order[i]: place i must show patch order[i], which is the other way "
            "round",
        ),
        Mistake(
            "columns first",
            columns_first,
            "Your patches are counted column by column: they go row by row, as in lesson 01",
        ),
        Mistake(
            "left as patches",
            left_as_patches,
            "You gave back patches: put them together to images with vit.unpatchify",
        ),
        Mistake(
            "reshaped",
            bare_reshape,
            "A reshape alone does not put patches together, because the pixels of a row of the image lie "
            "in several patches: use vit.unpatchify",
        ),
        Mistake(
            "inside the patches",
            inside_patches,
            "You moved the pixels inside each patch: the patches move, what is in them stays",
        ),
        Mistake(
            "unchanged",
            unchanged,
            "The images are as they were: the order has not been used",
        ),
        Mistake(
            "patches mirrored",
            moved_and_turned,
            "Each patch is mirrored on its diagonal: rows and columns inside the patches are exchanged",
        ),
    ),
)

# numbers ------------------------------------------------------------------------------------------

PATCHES = (224 // 16) ** 2
GONE = 3 * PATCHES // 4

TOKENS_LEFT = Exercise(
    name="tokens_left",
    lesson="12",
    task="Three quarters of the patches of a 224 x 224 image are taken away from ViT-B/16: how many "
    "tokens enter its first block?",
    minutes=4,
    difficulty=1,
    kind="number",
    reference=PATCHES - GONE + 1,
    cases=(),
    hints=(
        "How many patches of 16 x 16 pixels has an image of 224 x 224?",
        "Of 196 patches 147 go.",
        "196 - 147 patches stay. One more token is not a patch, and it stays whatever happens.",
    ),
    mistakes=(
        Mistake(
            "no class token",
            PATCHES - GONE,
            "Those are the patches that stay: the class token enters the block, too",
        ),
        Mistake(
            "those that go",
            GONE,
            "That is how many patches go: count those that stay, and the class token",
        ),
        Mistake(
            "pixels counted",
            224 * 224 // 4,
            "You counted pixels: the tokens are patches of 16 x 16 of them, and the class token",
        ),
        Mistake(
            "all of them",
            PATCHES + 1,
            "That is the whole sequence: three quarters of the patches are taken away",
        ),
        Mistake(
            "three quarters stay",
            GONE + 1,
            "You let three quarters stay: they are taken away",
        ),
    ),
)

EXERCISES = (DROP_TOKENS, COVER_PATCHES, REORDER_PATCHES, TOKENS_LEFT)

QUESTIONS = {
    "pixels by which an image must move so that the patches of ViT-B/16 move unchanged": (
        16,
        "One whole patch: then every patch holds what its neighbour held.",
        {
            1: "After one pixel every patch holds other pixels: its neighbour's column has come in.",
            14: "That is the number of patches in a row: how wide is one?",
            8: "After half a patch, each patch holds half of two old ones.",
            224: "That is the whole image: a smaller step is enough.",
        },
    ),
    "orders in which the patches of an image of 8x8 can stand, if they have 4x4 pixels": (
        24,
        "Four patches: 4 x 3 x 2 x 1.",
        {
            4: "That is the number of patches: how many orders have they?",
            16: "Each place can have any patch, but each patch is there once.",
            64: "That is the number of pixels: the patches are put in another order.",
        },
    ),
    "attention scores left, in percent, if ViT-B/16 keeps 49 of its 196 patches": (
        6,
        "50 tokens of 197 are a quarter, and of pairs of tokens it is a quarter of a quarter.",
        {
            25: "That is the share of the tokens: each of them is compared with each.",
            75: "That is the share of the patches that went.",
            94: "That is the share of the scores that went.",
            50: "Twice a quarter? Each token is compared with each: a quarter of a quarter.",
        },
    ),
}
