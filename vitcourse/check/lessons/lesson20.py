"""Exercises of lesson 20: repairing images."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.papers import ipt
from vitcourse.papers.ipt import DecoderBlock, Look, ReluMlp

# how good a repair is -----------------------------------------------------------------------------


def not_cut_off(restored, clean):
    """Values outside 0 to 1 as they are."""
    return -10 * (restored - clean).square().mean(dim=(1, 2, 3)).log10()


def of_the_root(restored, clean):
    """10 times the logarithm of the root."""
    return ipt.psnr(restored, clean) / 2


def twice_ten(restored, clean):
    """20 times the logarithm of the mean square."""
    return 2 * ipt.psnr(restored, clean)


def natural_logarithm(restored, clean):
    """log, not log10."""
    return ipt.psnr(restored, clean) * math.log(10)


def sign_lost(restored, clean):
    """Negative."""
    return -ipt.psnr(restored, clean)


def without_ten(restored, clean):
    """Bel, not decibel."""
    return ipt.psnr(restored, clean) / 10


def peak_of_255(restored, clean):
    """As if values went to 255."""
    return ipt.psnr(restored, clean) + 20 * math.log10(255)


def whole_batch(restored, clean):
    """One number for all images."""
    return -10 * (restored.clamp(0, 1) - clean).square().mean().log10()


def mean_of_batch(restored, clean):
    """The mean of the right ones."""
    return ipt.psnr(restored, clean).mean()


def channel_by_channel(restored, clean):
    """A PSNR for each colour, and their mean."""
    error = (restored.clamp(0, 1) - clean).square().mean(dim=(2, 3))  # (B, C)
    return (-10 * error.log10()).mean(dim=1)


def of_brightness(restored, clean):
    """The mean colour compared."""
    error = (restored.clamp(0, 1) - clean).mean(dim=1).square().mean(dim=(1, 2))
    return -10 * error.log10()


def absolute_error(restored, clean):
    """The mean distance, not its square."""
    return -10 * (restored.clamp(0, 1) - clean).abs().mean(dim=(1, 2, 3)).log10()


def summed(restored, clean):
    """The sum of squares."""
    return ipt.psnr(restored, clean) - 10 * math.log10(clean[0].numel())


def square_of_mean(restored, clean):
    """The mean first."""
    return -20 * (restored.clamp(0, 1) - clean).mean(dim=(1, 2, 3)).abs().log10()


def repaired(B, C, H, W):
    """Clean images, and ones that are a little off, here and there outside 0 to 1."""

    def make(g):
        clean = torch.rand(B, C, H, W, generator=g)
        size = 0.1 + 0.2 * torch.rand(B, C, 1, 1, generator=g)
        return clean + size * normal(g, B, C, H, W), clean

    return make


PSNR = Exercise(
    name="psnr",
    lesson="20",
    task="The PSNR of each restored image, in dB: -10 log10 of the mean squared error over all its values. "
    "Clean images have values 0 to 1; what a restored one has outside is cut off first: (B, C, H, W) "
    "twice -> (B,).",
    minutes=6,
    difficulty=1,
    reference=ipt.psnr,
    cases=(
        Case(
            about="four images",
            inputs=repaired(4, 3, 5, 6),
            shape="B",
            sizes=dict(B=4, C=3, H=5, W=6),
        ),
        Case(
            about="two images",
            inputs=repaired(2, 3, 7, 4),
            shape="B",
            sizes=dict(B=2, C=3, H=7, W=4),
        ),
    ),
    hints=(
        "restored.clamp(0, 1) cuts off what lies outside. Do it first, as a screen does.",
        "The mean over all axes but the first: .mean(dim=(1, 2, 3)) leaves (B,), one error an image.",
        "-10 * error.log10(): an error of 0.01 is 20 dB.",
    ),
    mistakes=(
        Mistake(
            "not cut off",
            not_cut_off,
            "You compare values that no screen shows: cut off what lies outside 0 to 1 first",
        ),
        Mistake(
            "of the root",
            of_the_root,
            "You took 10 times the logarithm of the root: with the root it would be 20 times",
        ),
        Mistake(
            "twenty times",
            twice_ten,
            "You took 20 times the logarithm of a squared error: 20 belongs to its root, 10 to the square",
        ),
        Mistake(
            "natural logarithm",
            natural_logarithm,
            "Your logarithm is the natural one: a decibel is made with log10",
        ),
        Mistake("sign lost", sign_lost, "Your PSNR is negative: a small error is a large PSNR"),
        Mistake("without the ten", without_ten, "The ten is missing: a bel has ten decibels"),
        Mistake(
            "a peak of 255",
            peak_of_255,
            "You took a peak of 255: here the brightest value is 1, and its logarithm zero",
        ),
        Mistake(
            "one number for the batch",
            whole_batch,
            "You took one error of the whole batch: each image has its PSNR",
        ),
        Mistake(
            "the mean of the batch",
            mean_of_batch,
            "You took the mean over the images: hand back one PSNR for each",
        ),
        Mistake(
            "channel by channel",
            channel_by_channel,
            "You took a PSNR of each channel, and their mean: take the mean of the errors, then one "
            "logarithm",
        ),
        Mistake(
            "of brightness",
            of_brightness,
            "You compared the mean of the colours: here every channel counts by itself",
        ),
        Mistake(
            "absolute errors",
            absolute_error,
            "You took absolute errors: those of a PSNR are squared",
        ),
        Mistake(
            "a sum",
            summed,
            "You took the sum of the squares: it is their mean, or larger images would be worse",
        ),
        Mistake(
            "mean before square",
            square_of_mean,
            "You took the mean before the square: too bright and too dark then cancel out",
        ),
    ),
)

# a larger map out of channels ---------------------------------------------------------------------


def pixel_shuffle(map, r):
    """(B, r*r*F, H, W) -> (B, F, r*H, r*W): of r*r channels, a square of r x r places."""
    B, _, H, W = map.shape
    map = map.reshape(B, -1, r, r, H, W)  # (B, F, r, r, H, W)
    map = map.permute(0, 1, 4, 2, 5, 3)  # (B, F, H, r, W, r)
    return map.reshape(B, -1, r * H, r * W)  # (B, F, r*H, r*W)


def axes_apart(map, r):
    """(B, F, r, r, H, W): the axes by name."""
    return map.unflatten(1, (-1, r, r))


def put_together(map):
    """(B, F, H, r, W, r) -> (B, F, r*H, r*W)."""
    return map.flatten(4, 5).flatten(2, 3)


def rows_for_columns(map, r):
    """Within a square, column by column."""
    return put_together(axes_apart(map, r).permute(0, 1, 4, 3, 5, 2))


def features_last(map, r):
    """The features are the fastest axis of the channels."""
    return put_together(map.unflatten(1, (r, r, -1)).permute(0, 3, 4, 1, 5, 2))


def squares_last(map, r):
    """H and W before both r, and then poured."""
    B, _, H, W = map.shape
    return axes_apart(map, r).permute(0, 1, 4, 5, 2, 3).reshape(B, -1, r * H, r * W)


def side_by_side(map, r):
    """Small pictures beside each other."""
    return axes_apart(map, r).permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3)


def poured(map, r):
    """The numbers as they lie in memory."""
    B, channels, H, W = map.shape
    return map.reshape(B, channels // r**2, r * H, r * W)


def repeated(map, r):
    """The mean of the channels for all places."""
    mean = axes_apart(map, r).mean(dim=(2, 3))
    return mean.repeat_interleave(r, 2).repeat_interleave(r, 3)


def first_repeated(map, r):
    """The first channel for all places."""
    return map[:, :: r * r].repeat_interleave(r, 2).repeat_interleave(r, 3)


def from_below(map, r):
    """Squares turned by half."""
    return put_together(axes_apart(map, r).flip(2, 3).permute(0, 1, 4, 2, 5, 3))


def transposed(map, r):
    """Width for height."""
    return pixel_shuffle(map, r).mT


def interpolated(map, r):
    """Enlarged, each feature's first channel."""
    return F.interpolate(map[:, :: r * r], scale_factor=r, mode="bilinear")


def channels_to_channels(map, r):
    """The way back."""
    return F.pixel_unshuffle(map, r)


def features_and_scale(B, channels, H, W, r):
    """A map of many channels, and the scale."""
    return lambda g: (normal(g, B, channels, H, W), r)


PIXEL_SHUFFLE = Exercise(
    name="pixel_shuffle",
    lesson="20",
    task="Make a map `r` times as high and wide. Of r*r channels that follow each other, all belong to one "
    "feature: the square of r x r places, row by row: (B, r*r*F, H, W) -> (B, F, r*H, r*W).",
    minutes=10,
    difficulty=2,
    reference=pixel_shuffle,
    cases=(
        Case(
            about="twice as large",
            inputs=features_and_scale(3, 20, 4, 6, 2),
            shape="B F rH rW",
            sizes={"B": 3, "F": 5, "H": 4, "W": 6, "rH": 8, "rW": 12},
        ),
        Case(
            about="three times as large",
            inputs=features_and_scale(3, 36, 2, 5, 3),
            shape="B F rH rW",
            sizes={"B": 3, "F": 4, "H": 2, "W": 5, "rH": 6, "rW": 15},
        ),
    ),
    hints=(
        "Give every axis a name of its own first: map.reshape(B, F, r, r, H, W) takes the channels apart, "
        "into feature, row and column within a square.",
        "A row of the large map is a row of the small one, and then a row within its square. So H stands "
        "before its r, and W before its r: (B, F, H, r, W, r).",
        "map.permute(0, 1, 4, 2, 5, 3) puts the axes so, and reshape(B, F, r * H, r * W) joins them.",
    ),
    mistakes=(
        Mistake(
            "column by column",
            rows_for_columns,
            "You filled each square column by column: its channels lie row by row",
        ),
        Mistake(
            "features last",
            features_last,
            "You took channels that lie far apart for one square: the r*r channels of a feature follow "
            "each other",
        ),
        Mistake(
            "side by side",
            side_by_side,
            "You laid whole maps side by side: the places of a square are neighbours in the large map",
        ),
        Mistake(
            "squares last",
            squares_last,
            "You put H and W in front of both r: each r stands behind its own side, H, r, W, r",
        ),
        Mistake(
            "poured",
            poured,
            "This is what reshape alone gives: it keeps the order in memory, and the axes have to be "
            "permuted first",
        ),
        Mistake(
            "a mean",
            repeated,
            "You gave the mean of the channels to the whole square: each channel is one place of it",
        ),
        Mistake(
            "one channel repeated",
            first_repeated,
            "You repeated the first channel: the others are the other places of the square",
        ),
        Mistake(
            "from below",
            from_below,
            "You filled each square from its lower right: the first channel is the upper left",
        ),
        Mistake(
            "height for width",
            transposed,
            "You took rows for columns: your map is the transposed one",
        ),
        Mistake(
            "interpolated",
            interpolated,
            "You interpolated: nothing is computed here, numbers only move",
        ),
        Mistake(
            "the way back",
            channels_to_channels,
            "You made the map smaller and gave it more channels: that is the way back",
        ),
    ),
)

# a decoder that is told its task ------------------------------------------------------------------


class TaskDecoder(nn.Module):
    """Places look at each other, then at what was seen: x, seen (B, N, D), query (N, D) -> x."""

    def __init__(self, dim, heads):
        super().__init__()
        self.attn, self.cross_attn = Look(dim, heads), Look(dim, heads)
        self.mlp = ReluMlp(dim, 4 * dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x, seen, query):
        y = self.norm1(x)
        x = x + self.attn(y + query, y + query, y)  # (B, N, D)
        x = x + self.cross_attn(self.norm2(x) + query, seen, seen)  # (B, N, D)
        return x + self.mlp(self.norm3(x))  # (B, N, D)


class Forgotten(DecoderBlock):
    """No query at all."""

    def forward(self, x, seen, query):
        return super().forward(x, seen, 0 * query)


class NotInSelf(DecoderBlock):
    """The places among themselves know no task."""

    def forward(self, x, seen, query):
        y = self.norm1(x)
        x = x + self.attn(y, y, y)
        x = x + self.cross_attn(self.norm2(x) + query, seen, seen)
        return x + self.mlp(self.norm3(x))


class NotInCross(DecoderBlock):
    """Who asks the encoder knows no task."""

    def forward(self, x, seen, query):
        y = self.norm1(x)
        x = x + self.attn(y + query, y + query, y)
        x = x + self.cross_attn(self.norm2(x), seen, seen)
        return x + self.mlp(self.norm3(x))


class InValues(DecoderBlock):
    """Added to values, too."""

    def forward(self, x, seen, query):
        y = self.norm1(x) + query
        x = x + self.attn(y, y, y)
        x = x + self.cross_attn(self.norm2(x) + query, seen, seen)
        return x + self.mlp(self.norm3(x))


class NotInKeys(DecoderBlock):
    """Added to queries alone."""

    def forward(self, x, seen, query):
        y = self.norm1(x)
        x = x + self.attn(y + query, y, y)
        x = x + self.cross_attn(self.norm2(x) + query, seen, seen)
        return x + self.mlp(self.norm3(x))


class InSeenKeys(DecoderBlock):
    """Added to the keys of what was seen."""

    def forward(self, x, seen, query):
        y = self.norm1(x)
        x = x + self.attn(y + query, y + query, y)
        x = x + self.cross_attn(self.norm2(x) + query, seen + query, seen)
        return x + self.mlp(self.norm3(x))


class AddedForGood(DecoderBlock):
    """Added to the tokens themselves."""

    def forward(self, x, seen, query):
        return super().forward(x + query, seen, 0 * query)


class BeforeNorm(DecoderBlock):
    """Added before the norm."""

    def forward(self, x, seen, query):
        y = self.norm1(x + query)
        x = x + self.attn(y, y, self.norm1(x))
        x = x + self.cross_attn(self.norm2(x + query), seen, seen)
        return x + self.mlp(self.norm3(x))


class SeenNormed(DecoderBlock):
    """A norm for what the encoder saw."""

    def forward(self, x, seen, query):
        return super().forward(x, self.norm2(seen), query)


class ItselfTwice(DecoderBlock):
    """Looks at itself twice."""

    def forward(self, x, seen, query):
        y = self.norm1(x)
        x = x + self.attn(y + query, y + query, y)
        y = self.norm2(x)
        x = x + self.cross_attn(y + query, y, y)
        return x + self.mlp(self.norm3(x))


class EncoderFirst(DecoderBlock):
    """The two attentions exchanged."""

    def forward(self, x, seen, query):
        x = x + self.cross_attn(self.norm2(x) + query, seen, seen)
        y = self.norm1(x)
        x = x + self.attn(y + query, y + query, y)
        return x + self.mlp(self.norm3(x))


class PostNorm(DecoderBlock):
    """Norms behind the sums."""

    def forward(self, x, seen, query):
        x = self.norm1(x + self.attn(x + query, x + query, x))
        x = self.norm2(x + self.cross_attn(x + query, seen, seen))
        return self.norm3(x + self.mlp(x))


class NoSkip(DecoderBlock):
    """What the encoder saw takes the place of x."""

    def forward(self, x, seen, query):
        y = self.norm1(x)
        x = x + self.attn(y + query, y + query, y)
        x = self.cross_attn(self.norm2(x) + query, seen, seen)
        return x + self.mlp(self.norm3(x))


class ValuesNotNormed(DecoderBlock):
    """x itself as values."""

    def forward(self, x, seen, query):
        y = self.norm1(x)
        x = x + self.attn(y + query, y + query, x)
        x = x + self.cross_attn(self.norm2(x) + query, seen, seen)
        return x + self.mlp(self.norm3(x))


class AttnNotNormed(DecoderBlock):
    """The first norm left out."""

    def forward(self, x, seen, query):
        x = x + self.attn(x + query, x + query, x)
        x = x + self.cross_attn(self.norm2(x) + query, seen, seen)
        return x + self.mlp(self.norm3(x))


class CrossNotNormed(DecoderBlock):
    """The second norm left out."""

    def forward(self, x, seen, query):
        y = self.norm1(x)
        x = x + self.attn(y + query, y + query, y)
        x = x + self.cross_attn(x + query, seen, seen)
        return x + self.mlp(self.norm3(x))


class NoFirstSkip(DecoderBlock):
    """What the first attention gives takes the place of x."""

    def forward(self, x, seen, query):
        y = self.norm1(x)
        x = self.attn(y + query, y + query, y)
        x = x + self.cross_attn(self.norm2(x) + query, seen, seen)
        return x + self.mlp(self.norm3(x))


class NoLastSkip(DecoderBlock):
    """What the MLP gives takes the place of x."""

    def forward(self, x, seen, query):
        y = self.norm1(x)
        x = x + self.attn(y + query, y + query, y)
        x = x + self.cross_attn(self.norm2(x) + query, seen, seen)
        return self.mlp(self.norm3(x))


class MlpNotNormed(DecoderBlock):
    """The third norm left out."""

    def forward(self, x, seen, query):
        y = self.norm1(x)
        x = x + self.attn(y + query, y + query, y)
        x = x + self.cross_attn(self.norm2(x) + query, seen, seen)
        return x + self.mlp(x)


def decoder_case(about, B, N, dim, heads):
    """Places, what was seen, and a query."""
    return Case(
        about=about,
        build=(dim, heads),
        inputs=lambda g: (normal(g, B, N, dim), normal(g, B, N, dim), normal(g, N, dim)),
        shape="B N D",
        sizes={"B": B, "N": N, "D": dim, "K": heads},
    )


TASK_DECODER = Exercise(
    name="task_decoder",
    lesson="20",
    task="A block with `attn` and `cross_attn`, two ipt.Look(dim, heads), `mlp`, an ipt.ReluMlp(dim, 4 * dim), and "
    "`norm1`, `norm2`, `norm3`, LayerNorms. Pre-norm, each of the three parts with its skip: places look "
    "at each other, then at `seen` as it is, then the MLP. The query is added to the normed x where it "
    "asks, and to keys made of x; never to values, never to `seen`: (B, N, D) twice, (N, D) -> (B, N, D).",
    minutes=12,
    difficulty=3,
    kind="module",
    reference=DecoderBlock,
    solution=TaskDecoder,
    tolerance=1e-4,
    cases=(
        decoder_case("six places", B=2, N=6, dim=12, heads=3),
        decoder_case("seven places", B=3, N=7, dim=8, heads=2),
    ),
    hints=(
        "A Look takes three things: look(queries, keys, values). With y = norm1(x), decide for each of the "
        "three of attn whether it is y or y + query.",
        "Queries and keys are compared: both may know the task. Values are what is handed on: they stay y. "
        "In cross_attn, keys and values are `seen`.",
        "x = x + self.cross_attn(self.norm2(x) + query, seen, seen) is the second part. The third is "
        "x + self.mlp(self.norm3(x)).",
    ),
    mistakes=(
        Mistake("query forgotten", Forgotten, "The query is forgotten: the block knows no task"),
        Mistake(
            "not among themselves",
            NotInSelf,
            "The query is missing where places look at each other: add it to queries and keys there",
        ),
        Mistake(
            "not to the encoder",
            NotInCross,
            "The query is missing where places look at what the encoder saw: add it to what asks",
        ),
        Mistake(
            "in values",
            InValues,
            "You added the query to values, too: it decides where to look, and is not what is handed on",
        ),
        Mistake(
            "not in keys",
            NotInKeys,
            "You added the query to queries alone: among themselves, keys get it, too",
        ),
        Mistake(
            "in the keys of what was seen",
            InSeenKeys,
            "You added the query to what the encoder saw: that knows no task",
        ),
        Mistake(
            "added for good",
            AddedForGood,
            "You added the query to x itself: it would stay there, and reach values and MLP",
        ),
        Mistake(
            "before the norm",
            BeforeNorm,
            "You added the query before the norm: it is added to what the norm gives",
        ),
        Mistake(
            "what was seen is normed",
            SeenNormed,
            "You normed what the encoder saw: it is taken as it is",
        ),
        Mistake(
            "itself twice",
            ItselfTwice,
            "Your second attention looks at x again: its keys and values are what the encoder saw",
        ),
        Mistake(
            "encoder first",
            EncoderFirst,
            "You looked at the encoder first: places look at each other before that",
        ),
        Mistake(
            "norms behind",
            PostNorm,
            "Your norms stand behind the sums: here each stands in front of its part",
        ),
        Mistake(
            "no skip",
            NoSkip,
            "A skip is missing around the second attention: what it gives is added to x",
        ),
        Mistake(
            "values not normed",
            ValuesNotNormed,
            "Your values are x as it is: the first attention takes its values from norm1(x), too",
        ),
        Mistake(
            "first norm left out",
            AttnNotNormed,
            "The first norm is left out: it stands in front of the first attention",
        ),
        Mistake(
            "second norm left out",
            CrossNotNormed,
            "The second norm is left out: what asks the encoder is norm2(x) + query",
        ),
        Mistake(
            "no first skip",
            NoFirstSkip,
            "A skip is missing around the first attention: what it gives is added to x",
        ),
        Mistake(
            "no last skip",
            NoLastSkip,
            "A skip is missing around the MLP: what it gives is added to x",
        ),
        Mistake(
            "third norm left out",
            MlpNotNormed,
            "The third norm is left out: it stands in front of the MLP",
        ),
    ),
)

# patches of one image should be alike -------------------------------------------------------------


def cosines(x):
    """The cosine of patch m of image i and patch n of image k: (B, B, N, N)."""
    x = F.normalize(x, dim=-1)
    return torch.einsum("imd,knd->ikmn", x, x)


def from_cosines(cosine, with_itself=False):
    """The loss of cosines, or of what somebody takes for them: (B, B, N, N) -> (B, N, N)."""
    own = cosine.diagonal(dim1=0, dim2=1).permute(2, 0, 1)  # (B, N, N)
    same = torch.eye(len(cosine), dtype=torch.bool)[:, :, None, None]
    if not with_itself:
        cosine = cosine.masked_fill(same, -math.inf)
    return cosine.logsumexp(dim=1) - own


def itself_below(x):
    """Image i in the denominator."""
    return from_cosines(cosines(x), with_itself=True).mean()


def not_normed(x):
    """Products, not cosines."""
    return from_cosines(torch.einsum("imd,knd->ikmn", x, x)).mean()


def normed_along_places(x):
    """Divided by the length along the wrong axis."""
    y = F.normalize(x, dim=1)
    return from_cosines(torch.einsum("imd,knd->ikmn", y, y)).mean()


def place_of_the_first(x):
    """The others' patch m, for every n."""
    cosine = cosines(x)
    own = cosine.diagonal(dim1=0, dim2=1).permute(2, 0, 1)
    there = cosine.diagonal(dim1=2, dim2=3)[..., None].expand_as(cosine)  # (B, B, N, N)
    same = torch.eye(len(x), dtype=torch.bool)[:, :, None, None]
    return (there.masked_fill(same, -math.inf).logsumexp(dim=1) - own).mean()


def zero_for_itself(x):
    """A cosine of 0 for image i in the denominator."""
    cosine = cosines(x)
    own = cosine.diagonal(dim1=0, dim2=1).permute(2, 0, 1)
    same = torch.eye(len(x), dtype=torch.bool)[:, :, None, None]
    return (cosine.masked_fill(same, 0).logsumexp(dim=1) - own).mean()


def mean_of_others(x):
    """The mean of the others' exponentials."""
    return ipt.patch_contrast(x) - math.log(len(x) - 1)


def without_exponentials(x):
    """The difference of cosines."""
    cosine = cosines(x)
    own = cosine.diagonal(dim1=0, dim2=1).permute(2, 0, 1)
    return (cosine.sum(dim=1) - own - own).mean()


def sign_turned(x):
    """Patches of one image pushed apart."""
    return -ipt.patch_contrast(x)


def summed_over_patches(x):
    """The sum over all pairs of places."""
    return ipt.patch_contrast(x) * x.shape[1] ** 2 * len(x)


def summed_over_places(x):
    """The sum over pairs of places, the mean over images."""
    return ipt.patch_contrast(x) * x.shape[1] ** 2


def with_itself_alone(x):
    """m = n only."""
    return from_cosines(cosines(x)).diagonal(dim1=1, dim2=2).mean()


def all_places_below(x):
    """All patches of the others in the denominator."""
    cosine = cosines(x)
    own = cosine.diagonal(dim1=0, dim2=1).permute(2, 0, 1)
    same = torch.eye(len(x), dtype=torch.bool)[:, :, None, None]
    others = cosine.masked_fill(same, -math.inf).logsumexp(dim=(1, 3))  # (B, N)
    return (others[..., None] - own).mean()


def not_itself(x):
    """Pairs of different places only."""
    loss = from_cosines(cosines(x))
    N = x.shape[1]
    return (loss.sum() - loss.diagonal(dim1=1, dim2=2).sum()) / (len(x) * N * (N - 1))


PATCH_CONTRAST = Exercise(
    name="patch_contrast",
    lesson="20",
    task="The contrastive loss of patches x (B, N, D): for image i and places m, n, minus the logarithm of "
    "exp cos(x_im, x_in) over the sum of exp cos(x_im, x_kn) for all other images k; the mean over all "
    "i, m, n: a scalar.",
    minutes=12,
    difficulty=3,
    reference=ipt.patch_contrast,
    tolerance=1e-4,
    cases=(
        Case(
            about="three images",
            inputs=lambda g: (normal(g, 3, 4, 5),),
            shape="",
            sizes=dict(B=3, N=4, D=5),
        ),
        Case(
            about="five images",
            inputs=lambda g: (normal(g, 5, 3, 4),),
            shape="",
            sizes=dict(B=5, N=3, D=4),
        ),
    ),
    hints=(
        "Make all vectors of length 1, F.normalize(x, dim=-1): then a product is a cosine. "
        'torch.einsum("imd,knd->ikmn", x, x) holds every cosine you need.',
        "-log(exp a / sum exp b) is logsumexp(b) - a. a are the cosines with k = i, b those with k not i, "
        "and the sum runs over k alone.",
        "Set the cosines with k = i to -inf, masked_fill with torch.eye(B) of bools, and take "
        "logsumexp(dim=1): (B, N, N). Subtract the cosines with k = i, and take the mean.",
    ),
    mistakes=(
        Mistake(
            "itself below",
            itself_below,
            "Image i stands in your denominator, too: here only the other images do",
        ),
        Mistake(
            "a cosine of 0",
            zero_for_itself,
            "You gave image i a cosine of 0 below: its exponential is 1, and -inf leaves it out",
        ),
        Mistake("not of length 1", not_normed, "These are products, not cosines: norm the patches"),
        Mistake(
            "normed along places",
            normed_along_places,
            "You normed along the places: each patch is a vector of length 1",
        ),
        Mistake(
            "the first's place",
            place_of_the_first,
            "You compare with the others' patch at place m: it is the one at the second's place, n",
        ),
        Mistake(
            "a mean below",
            mean_of_others,
            "You took the mean of the other images: the denominator is their sum",
        ),
        Mistake(
            "no exponentials",
            without_exponentials,
            "Logarithm and exponentials are missing: cosines are subtracted as they are",
        ),
        Mistake(
            "sign turned",
            sign_turned,
            "Your sign is turned: patches of one image would be pushed apart",
        ),
        Mistake(
            "a sum", summed_over_patches, "You took the sum over all i, m and n: take the mean"
        ),
        Mistake(
            "a sum over places",
            summed_over_places,
            "You took the sum over the places: take the mean over m and n, too",
        ),
        Mistake(
            "each with itself",
            with_itself_alone,
            "You compared each patch with itself alone: m and n run over all places, each by itself",
        ),
        Mistake(
            "all places below",
            all_places_below,
            "Your denominator sums over the places, too: n is the same above and below",
        ),
        Mistake(
            "not with itself",
            not_itself,
            "You left out the pairs with m = n: they count, too",
        ),
    ),
)

# ------------------------------------------------------------------------------------------------

EXERCISES = (PSNR, PIXEL_SHUFFLE, TASK_DECODER, PATCH_CONTRAST)

QUESTIONS = {
    "the best single answer to 0, 0, 0, 8 by mean distance (L1)": (
        0,
        "Three of four are met exactly. The mean distance is least at the median.",
        {
            2: "That is the mean: it is best if errors are squared.",
            4: "That lies in the middle between the two, and is far from all.",
            8: "Only one of four is 8.",
        },
    ),
    "numbers in a token of IPT: 64 features, patches of 3 x 3": (
        576,
        "All 64 features of nine places, and nothing is projected away.",
        {
            27: "That would be a patch of the image, with three colours: IPT cuts its map of features.",
            64: "That is one place: a patch has nine.",
            9: "Each place has 64 features.",
            768: "That is the width of ViT-B/16.",
        },
    ),
    "dB that the PSNR rises when the mean squared error falls to a tenth": (
        10,
        "The PSNR is -10 log10 of the error, and log10 of a tenth is -1.",
        {
            20: "That is what a hundredth gives, or a tenth of the distance.",
            1: "That would be a bel: a decibel is a tenth of it.",
            3: "That is about what half of the error gives.",
            -10: "A small error is a large PSNR.",
        },
    ),
}
