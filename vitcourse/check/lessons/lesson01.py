"""Exercises of lesson 01: an image becomes a sequence of patches."""

from einops import rearrange
from torch import nn

from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.config import grid_of
from vitcourse.vit import patchify, unpatchify

# patchify -----------------------------------------------------------------------------------------


def by_columns(images, patch):
    """Patches in the order of columns."""
    return rearrange(images, "B C (h p) (w q) -> B (w h) (p q C)", p=patch, q=patch)


def transposed_inside(images, patch):
    """Each patch mirrored at its diagonal."""
    return rearrange(images, "B C (h p) (w q) -> B (h w) (q p C)", p=patch, q=patch)


def channels_first(images, patch):
    """All of red, then all of green, then all of blue."""
    return rearrange(images, "B C (h p) (w q) -> B (h w) (C p q)", p=patch, q=patch)


def only_reshaped(images, patch):
    """The right shape by a reshape that cuts rows of pixels, not patches."""
    B, C, H, W = images.shape
    return images.reshape(B, (H // patch) * (W // patch), patch * patch * C)


def every_pixel_apart(images, patch):
    """A patch of pixels that lie far from each other."""
    return rearrange(images, "B C (p h) (q w) -> B (h w) (p q C)", p=patch, q=patch)


def channels_not_moved(images, patch):
    """Cut rightly, and joined with the channels still in front of the patches."""
    x = rearrange(images, "B C (h p) (w q) -> B C h w p q", p=patch, q=patch)
    B, C, h, w, _, _ = x.shape
    return x.reshape(B, h * w, patch * patch * C)


def channels_for_patches(images, patch):
    """The channels where the patches belong."""
    return rearrange(images, "B C (h p) (w q) -> B C (h w p q)", p=patch, q=patch)


PATCHIFY = Exercise(
    name="patchify",
    lesson="01",
    task="Cut images (B, C, H, W) into patches (B, N, P*P*C), row by row, channels last.",
    minutes=10,
    difficulty=2,
    reference=patchify,
    solution=(grid_of, patchify),
    cases=(
        Case(
            about="grey images, higher than wide",
            inputs=lambda g: (normal(g, 4, 1, 15, 6), 3),
            shape="B N P*P*C",
            sizes=dict(B=4, N=10, P=3, C=1, H=15, W=6),
        ),
        Case(
            about="colour images, wider than high",
            inputs=lambda g: (normal(g, 6, 3, 10, 20), 5),
            shape="B N P*P*C",
            sizes=dict(B=6, N=8, P=5, C=3, H=10, W=20),
        ),
    ),
    hints=(
        "An axis of length H holds h patches of P pixels each: split it into two axes, (h, P).",
        "After splitting both axes you have (B, C, h, P, w, P). In which order must they stand, so that "
        "the first ones count patches and the last ones lie inside a patch?",
        "einops writes it in one line: the pattern begins with 'B C (h p) (w q) -> ...', and p and q "
        "are given as arguments. With torch alone: reshape, permute(0, 2, 4, 3, 5, 1), reshape.",
    ),
    mistakes=(
        Mistake(
            "by columns",
            by_columns,
            "Your patches are right, but they come column by column: the first ones must be those of "
            "the top row",
        ),
        Mistake(
            "transposed inside",
            transposed_inside,
            "Each patch is mirrored at its diagonal: inside a patch, too, the pixels come row by row",
        ),
        Mistake(
            "channels first",
            channels_first,
            "The channels of a pixel must stand side by side: yours come as all red, all green, all "
            "blue",
        ),
        Mistake(
            "only reshaped",
            only_reshaped,
            "This is what reshape alone gives, rows of pixels cut into pieces whose shape is right by "
            "accident: the axes must be reordered between splitting and joining",
        ),
        Mistake(
            "every pixel apart",
            every_pixel_apart,
            "The pixels of your patches lie far from each other: H is h times P, in this order, "
            "so split it into (h, P) and not (P, h)",
        ),
        Mistake(
            "channels not moved",
            channels_not_moved,
            "You joined the axes while the channels still stood before the patches, which mixes different "
            "patches: bring the axes to (B, h, w, P, P, C) first, then join",
        ),
        Mistake(
            "channels for patches",
            channels_for_patches,
            "The channels ended up where the patches belong: all channels of a pixel go into its patch",
        ),
    ),
)

# patch embedding ----------------------------------------------------------------------------------


class PatchEmbedding(nn.Module):
    """Images (B, C, H, W) -> tokens (B, N, D)."""

    def __init__(self, channels, dim, patch):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    def forward(self, images):
        x = self.proj(images)  # (B, D, h, w)
        return x.flatten(2).transpose(1, 2)  # (B, N, D)


class NotTransposed(PatchEmbedding):
    """Tokens and width exchanged."""

    def forward(self, images):
        return self.proj(images).flatten(2)


class EmbeddedByColumns(PatchEmbedding):
    """Patches in the order of columns."""

    def forward(self, images):
        return self.proj(images).transpose(2, 3).flatten(2).transpose(1, 2)


class ReshapedTokens(PatchEmbedding):
    """A reshape in place of a transpose."""

    def forward(self, images):
        x = self.proj(images)
        return x.reshape(x.shape[0], -1, x.shape[1])


class NoStride(PatchEmbedding):
    """A window at every pixel."""

    def __init__(self, channels, dim, patch):
        super().__init__(channels, dim, patch)
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch)


PATCH_EMBEDDING = Exercise(
    name="patch_embedding",
    lesson="01",
    task="A module that turns images (B, C, H, W) into tokens (B, N, D) with one Conv2d called proj.",
    minutes=10,
    difficulty=2,
    kind="module",
    reference=PatchEmbedding,
    cases=(
        Case(
            about="colour images, wider than high",
            build=(3, 11, 4),
            inputs=lambda g: (normal(g, 6, 3, 8, 20),),
            shape="B N D",
            sizes=dict(B=6, N=10, D=11, C=3, P=4, H=8, W=20),
        ),
    ),
    hints=(
        "A convolution whose stride is its size looks at every patch once.",
        "The convolution gives (B, D, h, w). Join h and w into one axis: flatten(2).",
        "Then D stands before N: transpose(1, 2) exchanges them. A reshape would mix them up.",
    ),
    mistakes=(
        Mistake(
            "not transposed",
            NotTransposed,
            "The convolution puts the width before the patches: exchange the two axes with transpose",
        ),
        Mistake(
            "by columns",
            EmbeddedByColumns,
            "Your tokens are right, but they come column by column: flatten the grid as it is, row by "
            "row",
        ),
        Mistake(
            "reshaped",
            ReshapedTokens,
            "A reshape gives the right shape and mixes the numbers of different patches: exchange the "
            "axes with transpose",
        ),
        Mistake(
            "no stride",
            NoStride,
            "Your windows overlap, one begins at every pixel: give the convolution stride=patch, so that "
            "each pixel belongs to one patch",
        ),
    ),
)

# unpatchify ---------------------------------------------------------------------------------------


def back_by_columns(patches, grid, patch):
    """Patches laid down column by column."""
    h, w = grid
    return rearrange(patches, "B (w h) (p q C) -> B C (h p) (w q)", h=h, w=w, p=patch, q=patch)


def back_on_its_side(patches, grid, patch):
    """Height and width of the grid exchanged."""
    w, h = grid
    return rearrange(patches, "B (h w) (p q C) -> B C (h p) (w q)", h=h, w=w, p=patch, q=patch)


def back_transposed_inside(patches, grid, patch):
    """Each patch mirrored at its diagonal."""
    h, w = grid
    return rearrange(patches, "B (h w) (q p C) -> B C (h p) (w q)", h=h, w=w, p=patch, q=patch)


def back_channels_first(patches, grid, patch):
    """The values of a patch taken for all red, then all green, then all blue."""
    h, w = grid
    return rearrange(patches, "B (h w) (C p q) -> B C (h p) (w q)", h=h, w=w, p=patch, q=patch)


def back_only_reshaped(patches, grid, patch):
    """The right shape by a reshape alone."""
    return patches.reshape(len(patches), -1, grid[0] * patch, grid[1] * patch)


def back_woven(patches, grid, patch):
    """The pixels of all patches woven into each other."""
    h, w = grid
    return rearrange(patches, "B (h w) (p q C) -> B C (p h) (q w)", h=h, w=w, p=patch, q=patch)


def back_channels_last(patches, grid, patch):
    """An image as matplotlib wants it."""
    h, w = grid
    return rearrange(patches, "B (h w) (p q C) -> B (h p) (w q) C", h=h, w=w, p=patch, q=patch)


UNPATCHIFY = Exercise(
    name="unpatchify",
    lesson="01",
    task="Put the patches (B, N, P*P*C) of a grid (h, w) back together, as images (B, C, H, W).",
    minutes=10,
    difficulty=2,
    reference=unpatchify,
    cases=(
        Case(
            about="grey patches, in a grid higher than wide",
            inputs=lambda g: (normal(g, 4, 10, 9), (5, 2), 3),
            shape="B C H W",
            sizes=dict(B=4, C=1, H=15, W=6, N=10, P=3, h=5, w=2),
        ),
        Case(
            about="colour patches, in a grid wider than high",
            inputs=lambda g: (normal(g, 6, 8, 75), (2, 4), 5),
            shape="B C H W",
            sizes=dict(B=6, C=3, H=10, W=20, N=8, P=5, h=2, w=4),
        ),
    ),
    hints=(
        "It is patchify backwards: every step has one that undoes it.",
        "Split both axes: N is (h, w), and P*P*C is (P, P, C). That gives (B, h, w, P, P, C). Which of "
        "these axes make up H, and which make up W?",
        "With einops: 'B (h w) (p q C) -> B C (h p) (w q)', and h, w, p, q given as arguments. With torch "
        "alone: reshape, permute(0, 5, 1, 3, 2, 4), reshape.",
    ),
    mistakes=(
        Mistake(
            "by columns",
            back_by_columns,
            "You lay the patches down column by column: they come row by row, so N is (h, w) in this "
            "order",
        ),
        Mistake(
            "on its side",
            back_on_its_side,
            "Your image lies on its side: a grid is (h, w), the height comes first",
        ),
        Mistake(
            "transposed inside",
            back_transposed_inside,
            "Each patch is mirrored at its diagonal: inside a patch, too, the pixels come row by row",
        ),
        Mistake(
            "channels first",
            back_channels_first,
            "You took the values of a patch for all red, all green, all blue: the channels of a pixel "
            "stand side by side, so P*P*C is (P, P, C)",
        ),
        Mistake(
            "only reshaped",
            back_only_reshaped,
            "This is what reshape alone gives, each patch spread out along a row of pixels: the axes must "
            "be reordered between splitting and joining",
        ),
        Mistake(
            "woven",
            back_woven,
            "The pixels of different patches are woven into each other: H is h times P, in this order, so "
            "join (h, P) and not (P, h)",
        ),
        Mistake(
            "channels last",
            back_channels_last,
            "Your images are (B, H, W, C), as matplotlib wants them: in torch the channels stand before "
            "height and width",
        ),
    ),
)

# values of a patch --------------------------------------------------------------------------------

PATCH_VALUES = Exercise(
    name="patch_values",
    lesson="01",
    task="Say how many values one patch has if a colour image of 256 x 256 is cut into patches of 32 x 32.",
    minutes=3,
    difficulty=1,
    kind="number",
    reference=3072,
    cases=(),
    hints=(
        "Look at one patch only: the size of the image does not matter.",
        "How many pixels has a patch, and how many values has a pixel of a colour image?",
        "32 rows of 32 pixels, each with a red, a green and a blue value: multiply the three.",
    ),
    mistakes=(
        Mistake(
            "colours forgotten",
            1024,
            "That is the number of pixels in a patch: each of them has three values, one for each colour",
        ),
        Mistake(
            "one row",
            96,
            "That is one row of pixels in three colours: a patch has 32 such rows",
        ),
        Mistake(
            "number of patches",
            64,
            "That is how many patches there are: the question is how many values are in one of them",
        ),
        Mistake(
            "whole image",
            196608,
            "That is the number of values in the whole image: one patch has only its share of them",
        ),
        Mistake(
            "sixteen",
            768,
            "That is a patch of 16 x 16 in three colours, as in ViT-B/16: here a side has 32 pixels",
        ),
    ),
)

# weight of the convolution, as a matrix -----------------------------------------------------------


def linear_weight(weight):
    """The weight of a convolution (D, C, P, P) as that of a Linear on patches: (D, P*P*C)."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def weight_only_flattened(weight):
    """Channels first, which is how the convolution stores them."""
    return weight.flatten(1)


def weight_mirrored(weight):
    """Channels last, but rows and columns exchanged."""
    return weight.permute(0, 3, 2, 1).flatten(1)


def weight_mirrored_channels_first(weight):
    """Rows and columns exchanged, channels left in front."""
    return weight.permute(0, 1, 3, 2).flatten(1)


def weight_channels_between(weight):
    """The channels between rows and columns."""
    return weight.permute(0, 2, 1, 3).flatten(1)


def weight_reshaped(weight):
    """The right shape by a reshape and a transpose of the result."""
    return weight.reshape(-1, len(weight)).T


def weight_transposed(weight):
    """The matrix for x @ matrix, which Linear stores the other way round."""
    return weight.permute(2, 3, 1, 0).flatten(0, 2)


LINEAR_WEIGHT = Exercise(
    name="linear_weight",
    lesson="01",
    task="Turn the weight of the convolution (D, C, P, P) into the weight (D, P*P*C) of a Linear that "
    "does the same to patchify's patches.",
    minutes=10,
    difficulty=3,
    reference=linear_weight,
    cases=(
        Case(
            about="grey images: one channel",
            inputs=lambda g: (normal(g, 7, 1, 3, 3),),
            shape="D P*P*C",
            sizes=dict(D=7, C=1, P=3),
        ),
        Case(
            about="colour images: three channels",
            inputs=lambda g: (normal(g, 8, 3, 5, 5),),
            shape="D P*P*C",
            sizes=dict(D=8, C=3, P=5),
        ),
    ),
    hints=(
        "Both compute sums of products. The right number must meet the right pixel, so the order matters.",
        "patchify lists a patch row by row, and the channels of a pixel side by side: (P, P, C). The "
        "convolution stores (C, P, P).",
        "Move the channels to the end: permute(0, 2, 3, 1) gives (D, P, P, C). Then join the last three "
        "axes with flatten(1).",
    ),
    mistakes=(
        Mistake(
            "only flattened",
            weight_only_flattened,
            "You flattened (C, P, P) as the convolution stores it: patchify puts the channels last, so "
            "reorder to (P, P, C) before flattening",
        ),
        Mistake(
            "mirrored",
            weight_mirrored,
            "The channels are last, as they should be, but rows and columns are exchanged: each filter is "
            "mirrored at its diagonal",
        ),
        Mistake(
            "mirrored, channels first",
            weight_mirrored_channels_first,
            "You exchanged rows and columns and left the channels in front: leave rows and columns in "
            "their order and move the channels to the end",
        ),
        Mistake(
            "channels between",
            weight_channels_between,
            "Your channels stand between the rows and the columns: they belong behind both",
        ),
        Mistake(
            "reshaped",
            weight_reshaped,
            "A reshape to (P*P*C, D) mixes the numbers of different filters: each of the D filters must "
            "become one row",
        ),
        Mistake(
            "transposed",
            weight_transposed,
            "This is the matrix for patches @ matrix: a Linear stores it the other way round, one row for "
            "each of its D results",
        ),
    ),
)

EXERCISES = (PATCHIFY, UNPATCHIFY, PATCH_VALUES, PATCH_EMBEDDING, LINEAR_WEIGHT)

QUESTIONS = {
    "patches of 16 x 16 in an image of 224 x 224": (
        196,
        "14 patches fit along each side, 14 x 14 in all.",
        {
            14: "That is one side: the patches lie in rows and columns.",
            28: "Rows and columns are multiplied, not added.",
            197: "The class token comes later: count patches only.",
            256: "That is the number of pixels inside one patch.",
            3136: "That would be patches of 4 x 4 pixels.",
        },
    ),
    "patches of 8 x 8 in an image of 224 x 224": (
        784,
        "28 along each side: half the side of a patch makes four times as many.",
        {
            392: "Half as wide and half as high: there are four times as many as 196, not twice.",
            28: "That is one side: the patches lie in rows and columns.",
            98: "Smaller patches are more patches.",
        },
    ),
    "values in a patch of 16 x 16 in three colours": (
        768,
        "16 x 16 pixels with three values each.",
        {
            256: "That is the number of pixels: each has three values, one for each colour.",
            48: "That is one row of pixels: a patch has 16 of them.",
            196: "That is how many patches an image of 224 x 224 has, not how large one is.",
            150528: "That is the whole image of 224 x 224.",
        },
    ),
    "parameters of the patch embedding of ViT-B/16": (
        590592,
        "A matrix from 768 values to a width of 768, and 768 biases.",
        {
            589824: "That is the matrix: each of the 768 results also has a bias.",
            197376: "A patch has 16 x 16 x 3 values: the colours count, too.",
            196608: "A patch has 16 x 16 x 3 values, and each result has a bias.",
            115756032: "All patches share one matrix: the number of patches does not matter.",
        },
    ),
}
