"""Exercises of lesson 02: the class token."""

import torch
from torch import nn

from vitcourse.check.exercise import Case, Exercise, Mistake, normal

# the class token, in front of the patches ----------------------------------------------------------


class ClassToken(nn.Module):
    """Put a learned token before the patches: x (B, N, D) -> (B, N+1, D)."""

    def __init__(self, dim):
        super().__init__()
        self.prefix = nn.Parameter(0.02 * torch.randn(1, 1, dim))

    def forward(self, x):
        prefix = self.prefix.expand(len(x), -1, -1)  # (B, 1, D)
        return torch.cat([prefix, x], dim=1)  # (B, N+1, D)


class TokenBehind(ClassToken):
    """The class token at the end."""

    def forward(self, x):
        return torch.cat([x, self.prefix.expand(len(x), -1, -1)], dim=1)


class TokenAdded(ClassToken):
    """The class token added to every patch."""

    def forward(self, x):
        return x + self.prefix


class TokenInPlace(ClassToken):
    """The class token in place of the first patch."""

    def forward(self, x):
        return torch.cat([self.prefix.expand(len(x), -1, -1), x[:, 1:]], dim=1)


class TokenAsChannels(ClassToken):
    """Along the channels."""

    def forward(self, x):
        return torch.cat([self.prefix.expand_as(x), x], dim=2)


class TokenAsImage(ClassToken):
    """Along the batch."""

    def forward(self, x):
        return torch.cat([self.prefix.expand_as(x[:1]), x], dim=0)


class TokenOfFirstImage(ClassToken):
    """Zeros for all images but the first."""

    def forward(self, x):
        prefix = torch.zeros_like(x[:, :1])
        prefix[0] = self.prefix[0]
        return torch.cat([prefix, x], dim=1)


class TokenNotExpanded(ClassToken):
    """One image's worth of class token for a batch."""

    def forward(self, x):
        return torch.cat([self.prefix, x], dim=1)


class TokenPerPatch(ClassToken):
    """A class token for every patch."""

    def forward(self, x):
        return torch.cat([self.prefix.expand_as(x), x], dim=1)


CLASS_TOKEN = Exercise(
    name="class_token",
    lesson="02",
    task="A module ClassToken(dim) that puts its parameter prefix (1, 1, D) before the patches: (B, N, D) "
    "-> (B, N+1, D).",
    minutes=10,
    difficulty=2,
    kind="module",
    reference=ClassToken,
    cases=(
        Case(
            about="a single image",
            build=(7,),
            inputs=lambda g: (normal(g, 1, 5, 7),),
            shape="B N+1 D",
            sizes=dict(B=1, N=5, D=7),
        ),
        Case(
            about="three images",
            build=(7,),
            inputs=lambda g: (normal(g, 3, 5, 7),),
            shape="B N+1 D",
            sizes=dict(B=3, N=5, D=7),
        ),
    ),
    hints=(
        "The sequence becomes longer by one token; the tokens of the patches stay as they are.",
        "There is one class token and there are B images: expand shows the same one to each, as (B, 1, D), "
        "without copying it.",
        "torch.cat joins tensors along an axis: torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1).",
    ),
    mistakes=(
        Mistake(
            "behind",
            TokenBehind,
            "Your class token stands behind the patches: it comes first, so that it can be read at place 0 "
            "however many patches there are",
        ),
        Mistake(
            "added",
            TokenAdded,
            "You added the class token to every patch: it is a token of its own, put before them",
        ),
        Mistake(
            "in place of a patch",
            TokenInPlace,
            "Your class token took the place of the first patch: it comes before the patches, and all of "
            "them stay",
        ),
        Mistake(
            "along the channels",
            TokenAsChannels,
            "You joined along the channels, so every token became twice as wide: join along the axis of "
            "tokens, dim=1",
        ),
        Mistake(
            "along the batch",
            TokenAsImage,
            "You joined along the batch, so your class token became one more image: join along the axis of "
            "tokens, dim=1",
        ),
        Mistake(
            "first image only",
            TokenOfFirstImage,
            "Only the first image got the class token, the others got zeros: expand shows it to all of "
            "them",
        ),
        Mistake(
            "not expanded",
            TokenNotExpanded,
            "The class token and the patches are not for equally many images: expand it over the batch, "
            "self.prefix.expand(len(x), -1, -1)",
        ),
        Mistake(
            "one per patch",
            TokenPerPatch,
            "You put in one class token for each patch: expand the axis of images only, and leave the axis "
            "of tokens at 1",
        ),
    ),
)

# how many tokens ----------------------------------------------------------------------------------

TOKEN_COUNT = Exercise(
    name="token_count",
    lesson="02",
    task="Say how many tokens a ViT with a class token makes of an image of 224 x 224 in patches of 16 x 16.",
    minutes=3,
    difficulty=1,
    kind="number",
    reference=197,
    cases=(),
    hints=(
        "Every patch is a token. Is that all?",
        "14 patches fit along each side. How many are there in all, and what stands before them?",
        "14 x 14 patches, and one class token.",
    ),
    mistakes=(
        Mistake(
            "class token forgotten",
            196,
            "Those are the patches, counted rightly: the class token is one token more",
        ),
        Mistake(
            "one side",
            15,
            "You counted one side and the class token: the patches lie in rows and columns, 14 x 14",
        ),
        Mistake(
            "sides added",
            29,
            "You added rows and columns: the patches of a grid are rows times columns, 14 x 14",
        ),
        Mistake(
            "grid grew",
            225,
            "You made the grid longer by one on both sides: the class token is one token, outside the grid",
        ),
        Mistake(
            "pixels",
            50177,
            "You counted every pixel as a token: a token is a patch of 16 x 16 pixels",
        ),
        Mistake(
            "width",
            768,
            "That is how many values a patch has: the question is how many tokens there are",
        ),
    ),
)

# read the class token -----------------------------------------------------------------------------


def read_class_token(x):
    """What the head reads: tokens (B, T, D) -> class tokens (B, D)."""
    return x[:, 0]


def read_last(x):
    """The last patch."""
    return x[:, -1]


def read_mean_of_all(x):
    """The mean of all tokens."""
    return x.mean(dim=1)


def read_mean_of_patches(x):
    """The mean of the patches."""
    return x[:, 1:].mean(dim=1)


def read_first_patch(x):
    """The token behind the class token."""
    return x[:, 1]


def read_first_image(x):
    """All tokens of the first image."""
    return x[0]


def read_first_channel(x):
    """The first number of every token."""
    return x[:, :, 0]


def read_with_axis(x):
    """The class token, with an axis of length one."""
    return x[:, :1]


def read_squeezed(x):
    """The class token, with every axis of length one taken away."""
    return x[:, :1].squeeze()


READ_CLASS_TOKEN = Exercise(
    name="read_class_token",
    lesson="02",
    task="Take the class token out of the sequence: tokens (B, T, D) -> (B, D).",
    minutes=3,
    difficulty=1,
    reference=read_class_token,
    cases=(
        Case(
            about="three images",
            inputs=lambda g: (normal(g, 3, 6, 7),),
            shape="B D",
            sizes=dict(B=3, T=6, D=7, N=5),
        ),
        Case(
            about="a single image",
            inputs=lambda g: (normal(g, 1, 6, 7),),
            shape="B D",
            sizes=dict(B=1, T=6, D=7, N=5),
        ),
    ),
    hints=(
        "Where did the class token go: to which place of the sequence?",
        "An index for each axis: all images, one token, all channels.",
        "The class token has the place 0 on the axis of tokens, which is the second: x[:, 0].",
    ),
    mistakes=(
        Mistake(
            "last token",
            read_last,
            "You read the last token, which is a patch: the class token stands at the front, at place 0",
        ),
        Mistake(
            "mean of all",
            read_mean_of_all,
            "You averaged all tokens: that is another way to read a ViT, here the class token alone is read",
        ),
        Mistake(
            "mean of patches",
            read_mean_of_patches,
            "You averaged the patches and left out the class token: it is the one to be read",
        ),
        Mistake(
            "first patch",
            read_first_patch,
            "You read the token at place 1, which is the first patch: places are counted from 0",
        ),
        Mistake(
            "first image",
            read_first_image,
            "You took all tokens of the first image: the first axis counts images, the second counts tokens",
        ),
        Mistake(
            "first channel",
            read_first_channel,
            "You took the first number of every token: the class token is all numbers of the first token",
        ),
        Mistake(
            "axis kept",
            read_with_axis,
            "It is the right token, with an axis of length 1 too many: the index 0 removes the axis, the "
            "slice :1 keeps it",
        ),
        Mistake(
            "squeezed",
            read_squeezed,
            "squeeze() took away every axis of length 1, that of the images too, if there is only one: the "
            "index 0 removes the axis of tokens and no other",
        ),
    ),
)

# average the patches instead ----------------------------------------------------------------------


def mean_patches(x):
    """The other way to read a ViT: tokens (B, T, D) -> the mean of all patches (B, D)."""
    return x[:, 1:].mean(dim=1)


def sum_of_patches(x):
    """The sum, not divided."""
    return x[:, 1:].sum(dim=1)


def divided_by_all(x):
    """The sum of the patches, divided by the number of all tokens."""
    return x[:, 1:].sum(dim=1) / x.shape[1]


def mean_without_last(x):
    """The class token kept, and the last patch left out."""
    return x[:, :-1].mean(dim=1)


def mean_over_channels(x):
    """One number for each patch."""
    return x[:, 1:].mean(dim=2)


def mean_over_images(x):
    """The images averaged."""
    return x[:, 1:].mean(dim=0)


def largest_of_patches(x):
    """The maximum."""
    return x[:, 1:].amax(dim=1)


MEAN_PATCHES = Exercise(
    name="mean_patches",
    lesson="02",
    task="Average the tokens of the patches, without the class token: tokens (B, T, D) -> (B, D).",
    minutes=5,
    difficulty=1,
    reference=mean_patches,
    cases=(
        Case(
            about="five patches",
            inputs=lambda g: (normal(g, 3, 6, 7),),
            shape="B D",
            sizes=dict(B=3, T=6, D=7, N=5),
        ),
        Case(
            about="a single patch",
            inputs=lambda g: (normal(g, 3, 2, 7),),
            shape="B D",
            sizes=dict(B=3, T=2, D=7, N=1),
        ),
    ),
    hints=(
        "First leave out the class token, then average.",
        "A slice leaves it out: the tokens from place 1 on. Which axis must then disappear?",
        "x[:, 1:] are the patches (B, N, D), and .mean(dim=1) averages over the axis of tokens.",
    ),
    mistakes=(
        Mistake(
            "class token included",
            read_mean_of_all,
            "You averaged the class token, too: leave it out, the patches begin at place 1",
        ),
        Mistake(
            "sum",
            sum_of_patches,
            "This is the sum: divide it by the number of patches, or more patches give larger numbers",
        ),
        Mistake(
            "divided by all tokens",
            divided_by_all,
            "You added up the patches and divided by the number of all tokens: divide by that of the "
            "patches, which is one less",
        ),
        Mistake(
            "wrong end",
            mean_without_last,
            "You left out the last token, which is a patch: the class token is the first",
        ),
        Mistake(
            "over channels",
            mean_over_channels,
            "You averaged the numbers of each token: average the tokens, over dim=1, so that D numbers "
            "remain for each image",
        ),
        Mistake(
            "over images",
            mean_over_images,
            "You averaged different images: average over dim=1, the tokens of one image",
        ),
        Mistake(
            "maximum",
            largest_of_patches,
            "You took the largest number of each channel: asked for is the mean",
        ),
    ),
)

# mend the published code --------------------------------------------------------------------------


def embed(patches, prefix, table):
    """Class token and positions: patches (B, N, D), prefix (1, 1, D), table (1, N+1, D)."""
    x = torch.cat([prefix.expand(len(patches), -1, -1), patches], dim=1)  # (B, N+1, D)
    return x + table


def in_front(prefix, patches):
    """The class token in front of each image's patches."""
    return torch.cat([prefix.expand(len(patches), -1, -1), patches], dim=1)


def embed_not_expanded(patches, prefix, table):
    """One image's worth of class token for a batch."""
    return torch.cat([prefix, patches], dim=1) + table


def embed_as_published(patches, prefix, table):
    """The positions first, the class token afterwards: the shapes do not fit."""
    return in_front(prefix, patches + table)


def embed_without_class_position(patches, prefix, table):
    """The patches have the right positions, the class token has none."""
    return in_front(prefix, patches + table[:, 1:])


def embed_shifted(patches, prefix, table):
    """The table cut at the wrong end: each patch has the position of its neighbour."""
    return in_front(prefix, patches + table[:, :-1])


def embed_class_last(patches, prefix, table):
    """The patches take the positions from the front, the class token the last one."""
    return in_front(prefix + table[:, -1:], patches + table[:, :-1])


def embed_behind(patches, prefix, table):
    """The class token behind the patches."""
    return torch.cat([patches, prefix.expand(len(patches), -1, -1)], dim=1) + table


def embed_behind_with_position(patches, prefix, table):
    """The class token behind the patches, each with its own position."""
    x = embed(patches, prefix, table)
    return torch.cat([x[:, 1:], x[:, :1]], dim=1)


def embed_twice(patches, prefix, table):
    """Added before and after."""
    return in_front(prefix, patches + table[:, 1:]) + table


def embed_without_table(patches, prefix, table):
    """No positions at all."""
    return in_front(prefix, patches)


def embed_without_class_token(patches, prefix, table):
    """No class token at all."""
    return patches + table[:, 1:]


MEND = Exercise(
    name="mend",
    lesson="02",
    task="Mend a function embed(patches, prefix, table) as it was published: it adds the N+1 positions to "
    "the N patches, and puts the class token before them afterwards.",
    minutes=10,
    difficulty=2,
    reference=embed,
    cases=(
        Case(
            about="a single image",
            inputs=lambda g: (normal(g, 1, 5, 7), normal(g, 1, 1, 7), normal(g, 1, 6, 7)),
            shape="B N+1 D",
            sizes=dict(B=1, N=5, D=7),
        ),
        Case(
            about="three images",
            inputs=lambda g: (normal(g, 3, 5, 7), normal(g, 1, 1, 7), normal(g, 1, 6, 7)),
            shape="B N+1 D",
            sizes=dict(B=3, N=5, D=7),
        ),
    ),
    hints=(
        "Count: how many tokens are there when the table is added, and how many rows has the table?",
        "The table has a row for the class token, too, its first one. So the class token must be there "
        "before the table is added.",
        "Exchange the two steps: x = torch.cat([prefix.expand(len(patches), -1, -1), patches], dim=1), "
        "then x + table.",
    ),
    mistakes=(
        Mistake(
            "as published",
            embed_as_published,
            "This is the code as it was published, which adds N+1 positions to N patches: the class token "
            "must stand before the patches when the table is added",
        ),
        Mistake(
            "not expanded",
            embed_not_expanded,
            "The class token and the patches are not for equally many images: expand it over the batch, "
            "prefix.expand(len(patches), -1, -1)",
        ),
        Mistake(
            "class token without a position",
            embed_without_class_position,
            "It runs, and the patches are right, but your class token has no position: row 0 of the table "
            "is its own",
        ),
        Mistake(
            "shifted",
            embed_shifted,
            "It runs, but you left out the last row of the table: row 0 is that of the class token, so each "
            "patch now has the position of its neighbour",
        ),
        Mistake(
            "class token has the last position",
            embed_class_last,
            "You gave the patches the first rows and the class token the last: the table is in the order of "
            "the tokens, and the class token is the first of them",
        ),
        Mistake(
            "class token behind",
            embed_behind,
            "Your class token stands behind the patches: it comes first, and row 0 of the table is its own",
        ),
        Mistake(
            "class token behind, with its own position",
            embed_behind_with_position,
            "Every token has its own position, but the class token stands behind the patches: it comes "
            "first",
        ),
        Mistake(
            "positions twice",
            embed_twice,
            "Your patches get their positions twice, before the class token joins them and after: add the "
            "table once, at the end",
        ),
        Mistake(
            "no positions",
            embed_without_table,
            "The class token is where it should be, but the table was not added: without it no token knows "
            "its place",
        ),
        Mistake(
            "no class token",
            embed_without_class_token,
            "You made the shapes fit by leaving out row 0 of the table and the class token itself: put it "
            "before the patches, then add the whole table",
        ),
    ),
)

EXERCISES = (CLASS_TOKEN, TOKEN_COUNT, READ_CLASS_TOKEN, MEAN_PATCHES, MEND)

QUESTIONS = {
    "tokens of a 224 image with 16 patches": (
        197,
        "14 x 14 patches of 16 x 16 pixels, and the class token.",
        {
            196: "Those are the patches: the class token is one more.",
            15: "That is one side: the patches lie in rows and columns.",
            17: "Patches of 16 x 16 pixels, not 16 patches.",
            257: "Patches of 16 x 16 pixels, not 16 x 16 patches.",
            225: "The class token is one token outside the grid: no row or column is added.",
        },
    ),
    "tokens of a 384 image with 16 patches": (
        577,
        "24 x 24 patches, and still one class token.",
        {
            576: "Those are the patches: the class token is one more.",
            579: "There is one class token however large the image is.",
            338: "The patches grow with the area, 24 x 24 in place of 14 x 14, not with the side.",
            197: "A larger image is cut into more patches of the same size.",
        },
    ),
    "parameters of the class token of ViT-B/16": (
        768,
        "One vector as wide as a token, the same for all images.",
        {
            1: "It is one token, which is a vector as wide as all others.",
            197: "That is how many tokens there are: only one of them is the class token.",
            150528: "There is one class token, not one for each patch.",
        },
    ),
}
