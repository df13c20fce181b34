"""Exercises of lesson 05: the encoder block."""

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse import vit
from vitcourse.check.exercise import Case, Exercise, Mistake, normal

# layer norm ---------------------------------------------------------------------------------------


def package_layer_norm(x, weight, bias):
    """torch's own, with the eps of every ViT here."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-6)


def layer_norm(x, weight, bias):
    """Give each token mean 0 and variance 1, then scale and shift: (B, T, D) -> (B, T, D)."""
    mean = x.mean(dim=-1, keepdim=True)  # (B, T, 1)
    variance = x.var(dim=-1, keepdim=True, unbiased=False)  # (B, T, 1)
    return (x - mean) / (variance + 1e-6).sqrt() * weight + bias


def normalise(x, dims=-1, unbiased=False, eps=1e-6):
    """Mean 0 and variance 1 over these axes."""
    mean = x.mean(dim=dims, keepdim=True)
    variance = x.var(dim=dims, keepdim=True, unbiased=unbiased)
    return (x - mean) / (variance + eps).sqrt()


def norm_over_tokens(x, weight, bias):
    """Each feature over the tokens of an image."""
    return normalise(x, 1) * weight + bias


def norm_over_batch(x, weight, bias):
    """Each feature over the batch."""
    return normalise(x, 0) * weight + bias


def norm_over_image(x, weight, bias):
    """All tokens of an image together."""
    return normalise(x, (1, 2)) * weight + bias


def norm_unbiased(x, weight, bias):
    """The variance over D - 1."""
    return normalise(x, unbiased=True) * weight + bias


def norm_large_eps(x, weight, bias):
    """torch's default eps."""
    return normalise(x, eps=1e-5) * weight + bias


def norm_without_eps(x, weight, bias):
    """No eps at all."""
    return normalise(x, eps=0) * weight + bias


def norm_eps_outside(x, weight, bias):
    """The eps added to the standard deviation."""
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = centred.square().mean(dim=-1, keepdim=True).sqrt()
    return centred / (deviation + 1e-6) * weight + bias


def norm_alone(x, weight, bias):
    """Without scale and shift."""
    return normalise(x)


def norm_without_bias(x, weight, bias):
    """Scaled, not shifted."""
    return normalise(x) * weight


def norm_over_variance(x, weight, bias):
    """The root forgotten."""
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-6) * weight + bias


def norm_not_centred(x, weight, bias):
    """The mean forgotten."""
    variance = x.var(dim=-1, keepdim=True, unbiased=False)
    return x / (variance + 1e-6).sqrt() * weight + bias


def norm_torch_std(x, weight, bias):
    """torch's std, with eps beside it."""
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (x.std(dim=-1, keepdim=True) + 1e-6) * weight + bias


def norm_torch_std_alone(x, weight, bias):
    """torch's std and no eps."""
    return (x - x.mean(dim=-1, keepdim=True)) / x.std(dim=-1, keepdim=True) * weight + bias


def norm_over_all(x, weight, bias):
    """All numbers of the batch together."""
    return normalise(x, (0, 1, 2)) * weight + bias


def norm_without_weight(x, weight, bias):
    """Shifted, not scaled."""
    return normalise(x) + bias


def norm_without_keepdim(x, weight, bias):
    """Means that do not broadcast."""
    return (x - x.mean(dim=-1)) / (x.var(dim=-1, unbiased=False) + 1e-6).sqrt() * weight + bias


LAYER_NORM = Exercise(
    name="layer_norm",
    lesson="05",
    task="Normalise each token of x (B, T, D) by itself (variance over D, eps 1e-6 under the root), then times weight, plus bias.",
    minutes=10,
    difficulty=2,
    reference=package_layer_norm,
    solution=layer_norm,
    cases=(
        Case(
            about="tokens of different mean and size",
            inputs=lambda g: (
                normal(g, 2, 5, 6) * (0.5 + normal(g, 2, 5, 1).abs()) + normal(g, 2, 5, 1),
                0.5 + normal(g, 6).abs(),
                normal(g, 6),
            ),
            shape="B T D",
            sizes=dict(B=2, T=5, D=6),
        ),
        Case(
            about="tokens that hardly vary, where eps counts",
            inputs=lambda g: (0.001 * normal(g, 3, 4, 7), 0.5 + normal(g, 7).abs(), normal(g, 7)),
            shape="B T D",
            sizes=dict(B=3, T=4, D=7),
        ),
    ),
    hints=(
        "Every token is normalised by itself: over which axis do its numbers lie?",
        "x.mean(dim=-1, keepdim=True) is each token's mean, with an axis of length 1 that broadcasts.",
        "The variance is the mean of the squared distances from the mean: x.var(..., unbiased=False).",
        "(x - mean) / (variance + 1e-6).sqrt() * weight + bias",
    ),
    mistakes=(
        Mistake(
            "over the tokens",
            norm_over_tokens,
            "You normalised each feature over the tokens: a layer norm takes each token by itself, over "
            "the last axis",
        ),
        Mistake(
            "over the batch",
            norm_over_batch,
            "You normalised over the batch, as a batch norm does: a layer norm takes each token by "
            "itself, over the last axis",
        ),
        Mistake(
            "over the image",
            norm_over_image,
            "All tokens of an image share your mean and variance: each token needs its own",
        ),
        Mistake(
            "unbiased",
            norm_unbiased,
            "Your variance is divided by D - 1, the default of torch's var: divide by D, with "
            "unbiased=False",
        ),
        Mistake(
            "large eps",
            norm_large_eps,
            "Your eps is 1e-5, torch's default: Vision Transformers use 1e-6",
        ),
        Mistake(
            "no eps",
            norm_without_eps,
            "You left out eps, so a constant token would be divided by zero: add 1e-6 to the variance",
        ),
        Mistake(
            "eps outside",
            norm_eps_outside,
            "You added eps to the standard deviation: it belongs under the root, beside the variance",
        ),
        Mistake(
            "torch's std",
            norm_torch_std,
            "Your std divides by D - 1, and eps stands beside it: take the variance over D, add eps, "
            "then take the root",
        ),
        Mistake(
            "torch's std, no eps",
            norm_torch_std_alone,
            "Your std divides by D - 1, and eps is missing: take the variance over D, add 1e-6, then "
            "take the root",
        ),
        Mistake(
            "over everything",
            norm_over_all,
            "The whole batch shares your mean and variance: each token needs its own, over the last "
            "axis",
        ),
        Mistake(
            "no keepdim",
            norm_without_keepdim,
            "Your means are (B, T) and do not broadcast against (B, T, D): keep the last axis, with "
            "keepdim=True",
        ),
        Mistake(
            "no weight",
            norm_without_weight,
            "The weight is missing: multiply by it before you add the bias",
        ),
        Mistake(
            "no weight and bias",
            norm_alone,
            "The tokens are normalised, but the learned weight and bias are missing",
        ),
        Mistake(
            "no bias",
            norm_without_bias,
            "The bias is missing: add it at the end",
        ),
        Mistake(
            "divided by the variance",
            norm_over_variance,
            "You divided by the variance: divide by its root, the standard deviation",
        ),
        Mistake(
            "mean kept",
            norm_not_centred,
            "The mean is still in your tokens: subtract it before you divide",
        ),
    ),
)

# gelu ---------------------------------------------------------------------------------------------


def gelu(x):
    """x times the share of a normal distribution that lies below x."""
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def gelu_tanh(x):
    """The approximation."""
    return F.gelu(x, approximate="tanh")


def gelu_sigmoid(x):
    """The quick approximation."""
    return x * torch.sigmoid(1.702 * x)


def gelu_share(x):
    """The share alone."""
    return 0.5 * (1 + torch.erf(x / 2**0.5))


def gelu_without_root(x):
    """erf of x itself."""
    return x * 0.5 * (1 + torch.erf(x))


def gelu_doubled(x):
    """Without the half."""
    return x * (1 + torch.erf(x / 2**0.5))


GELU = Exercise(
    name="gelu",
    lesson="05",
    task="The exact GELU of every number in x: x times 1/2 times (1 + erf(x / sqrt(2))).",
    minutes=5,
    difficulty=1,
    reference=F.gelu,
    solution=gelu,
    cases=(
        Case(
            about="numbers around zero",
            inputs=lambda g: (normal(g, 2, 5, 6),),
            shape="B T M",
            sizes=dict(B=2, T=5, M=6),
        ),
        Case(
            about="numbers around two, where approximations differ most",
            inputs=lambda g: (2 + 0.5 * normal(g, 3, 4, 7),),
            shape="B T M",
            sizes=dict(B=3, T=4, M=7),
        ),
    ),
    hints=(
        "A ReLU asks whether x is above zero. A GELU asks what share of a normal distribution lies below "
        "x, and multiplies x by that share.",
        "That share is (1 + erf(x / sqrt(2))) / 2, and torch has torch.erf.",
        "x * 0.5 * (1 + torch.erf(x / 2**0.5))",
    ),
    mistakes=(
        Mistake(
            "tanh",
            gelu_tanh,
            "This is the approximation with tanh, close but not the same: the exact GELU uses erf",
        ),
        Mistake(
            "relu",
            F.relu,
            "This is ReLU, which cuts off below zero: GELU lets a little of the negative through",
        ),
        Mistake(
            "sigmoid",
            gelu_sigmoid,
            "This is the quick approximation, x times the sigmoid of 1.702 x: the exact GELU uses erf",
        ),
        Mistake(
            "silu",
            F.silu,
            "This is SiLU, x times its sigmoid: GELU multiplies x by the share of a normal "
            "distribution, with erf",
        ),
        Mistake(
            "the share alone",
            gelu_share,
            "This is the share of the normal distribution: multiply it by x",
        ),
        Mistake(
            "no root",
            gelu_without_root,
            "You took erf of x itself: divide x by sqrt(2) first",
        ),
        Mistake(
            "doubled",
            gelu_doubled,
            "Your values are twice too large: 1 + erf(...) goes from 0 to 2, so halve it",
        ),
    ),
)

# mlp ----------------------------------------------------------------------------------------------


class Mlp(nn.Module):
    """Two layers for every token by itself: x (B, T, D) -> (B, T, D)."""

    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class MlpLinear(Mlp):
    """No activation."""

    def forward(self, x):
        return self.fc2(self.fc1(x))


class MlpRelu(Mlp):
    """ReLU."""

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))


class MlpEnd(Mlp):
    """GELU at the end only."""

    def forward(self, x):
        return F.gelu(self.fc2(self.fc1(x)))


class MlpTanh(Mlp):
    """The approximation of GELU."""

    def forward(self, x):
        return self.fc2(gelu_tanh(self.fc1(x)))


class MlpTwice(Mlp):
    """GELU at the end, too."""

    def forward(self, x):
        return F.gelu(super().forward(x))


class MlpResidual(Mlp):
    """With the residual that belongs to the block."""

    def forward(self, x):
        return x + super().forward(x)


MLP = Exercise(
    name="mlp",
    lesson="05",
    task="A module Mlp(dim, hidden) with Linear fc1, exact GELU and Linear fc2: x (B, T, D) -> (B, T, D).",
    minutes=6,
    difficulty=1,
    kind="module",
    reference=vit.Mlp,
    solution=Mlp,
    cases=(
        Case(
            about="two images of five tokens",
            build=(6, 13),
            inputs=lambda g: (normal(g, 2, 5, 6),),
            shape="B T D",
            sizes=dict(B=2, T=5, D=6, M=13),
        ),
    ),
    hints=(
        "Two linear layers, and between them the one thing that is not linear.",
        "fc1 widens each token from D to the hidden width, fc2 brings it back. Linear works on the last "
        "axis, so tokens need no loop.",
        "self.fc2(F.gelu(self.fc1(x))): nothing follows fc2.",
    ),
    mistakes=(
        Mistake(
            "no activation",
            MlpLinear,
            "There is no activation: two linear layers in a row are only one, so put GELU between them",
        ),
        Mistake(
            "relu",
            MlpRelu,
            "You used ReLU: the Vision Transformer uses GELU",
        ),
        Mistake(
            "tanh",
            MlpTanh,
            "Your GELU is the approximation with tanh: use the exact one, F.gelu without arguments",
        ),
        Mistake(
            "activation at the end only",
            MlpEnd,
            "Your GELU stands behind fc2: it belongs between fc1 and fc2, or the two are only one layer",
        ),
        Mistake(
            "activation at the end",
            MlpTwice,
            "There is a GELU behind fc2, too: the branch must be able to subtract, so leave its result "
            "as it is",
        ),
        Mistake(
            "residual inside",
            MlpResidual,
            "You added x to the result: the block does that, the MLP gives its branch alone",
        ),
    ),
)

# block --------------------------------------------------------------------------------------------


class PackageBlock(vit.Block):
    """The package's block, built from three numbers."""

    def __init__(self, dim, heads, hidden):
        super().__init__(dim, vit.Attention(dim, heads), vit.Mlp(dim, hidden))


class Block(nn.Module):
    """Normalise, attend, add; normalise, apply the MLP, add: x (B, T, D) -> (B, T, D)."""

    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = vit.Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = vit.Mlp(dim, hidden)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class NormAfter(Block):
    """Post-norm."""

    def forward(self, x):
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


class NormAfterBranch(Block):
    """The branch normalised before it is added."""

    def forward(self, x):
        x = x + self.norm1(self.attn(x))
        return x + self.norm2(self.mlp(x))


class NoFirstResidual(Block):
    """Attention replaces the tokens."""

    def forward(self, x):
        x = self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class NoSecondResidual(Block):
    """The MLP replaces the tokens."""

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return self.mlp(self.norm2(x))


class NoResidual(Block):
    """No path around anything."""

    def forward(self, x):
        return self.mlp(self.norm2(self.attn(self.norm1(x))))


class OneNormTwice(Block):
    """The first norm before both branches."""

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm1(x))


class ResidualOfNormed(Block):
    """The normalised tokens go around."""

    def forward(self, x):
        x = self.norm1(x)
        x = x + self.attn(x)
        x = self.norm2(x)
        return x + self.mlp(x)


class NormsExchanged(Block):
    """The second norm first."""

    def forward(self, x):
        x = x + self.attn(self.norm2(x))
        return x + self.mlp(self.norm1(x))


class NoNorm1(Block):
    """Bare tokens for the attention."""

    def forward(self, x):
        x = x + self.attn(x)
        return x + self.mlp(self.norm2(x))


class NoNorm2(Block):
    """Bare tokens for the MLP."""

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(x)


class InputTwice(Block):
    """The second path around begins at the input of the block."""

    def forward(self, x):
        return x + self.mlp(self.norm2(x + self.attn(self.norm1(x))))


class OnePathAround(Block):
    """One path around both branches."""

    def forward(self, x):
        return x + self.mlp(self.norm2(self.attn(self.norm1(x))))


class NoMlp(Block):
    """The attention only."""

    def forward(self, x):
        return x + self.attn(self.norm1(x))


class Parallel(Block):
    """Both branches read the same tokens."""

    def forward(self, x):
        return x + self.attn(self.norm1(x)) + self.mlp(self.norm2(x))


class NoNorm(Block):
    """Norms made, and not used."""

    def forward(self, x):
        x = x + self.attn(x)
        return x + self.mlp(x)


class MlpFirst(Block):
    """The branches in the other order."""

    def forward(self, x):
        x = x + self.mlp(self.norm2(x))
        return x + self.attn(self.norm1(x))


class LargeEps(Block):
    """torch's default eps."""

    def __init__(self, dim, heads, hidden):
        super().__init__(dim, heads, hidden)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)


BLOCK = Exercise(
    name="block",
    lesson="05",
    task="A module Block(dim, heads, hidden) with norm1, attn, norm2 and mlp: normalise, attend, add; normalise, apply the MLP, add.",
    minutes=12,
    difficulty=2,
    kind="module",
    reference=PackageBlock,
    solution=Block,
    eps=1e-6,
    cases=(
        Case(
            about="two images, five heads",
            build=(15, 5, 23),
            inputs=lambda g: (normal(g, 2, 7, 15),),
            shape="B T D",
            sizes=dict(B=2, T=7, D=15, K=5, d=3, M=23),
        ),
        Case(
            about="tokens that hardly vary, where the eps of norm1 counts",
            build=(10, 2, 17),
            inputs=lambda g: (0.001 * normal(g, 3, 4, 10),),
            shape="B T D",
            sizes=dict(B=3, T=4, D=10, K=2, d=5, M=17),
        ),
    ),
    hints=(
        "Two branches, one after the other. Each begins with a norm, and its result is added to the "
        "tokens that went around it.",
        "The path around is never normalised: x + attn(norm1(x)), and not norm1(x + attn(x)).",
        "nn.LayerNorm has eps=1e-5 unless told otherwise: here it is 1e-6, in both norms.",
        "x = x + self.attn(self.norm1(x)), then x = x + self.mlp(self.norm2(x)).",
    ),
    mistakes=(
        Mistake(
            "norm after",
            NormAfter,
            "You normalise after adding, as the first Transformer did: the ViT normalises before each "
            "branch, and leaves the path around untouched",
        ),
        Mistake(
            "norm after the branch",
            NormAfterBranch,
            "You normalise what comes out of a branch: the norm belongs before it",
        ),
        Mistake(
            "no first residual",
            NoFirstResidual,
            "The attention replaces the tokens: add its result to x",
        ),
        Mistake(
            "no second residual",
            NoSecondResidual,
            "The MLP replaces the tokens: add its result to x",
        ),
        Mistake(
            "no residual",
            NoResidual,
            "Nothing goes around the branches: add x to the result of each",
        ),
        Mistake(
            "one norm twice",
            OneNormTwice,
            "norm1 stands before both branches: the MLP has a norm of its own, norm2",
        ),
        Mistake(
            "residual of the normalised",
            ResidualOfNormed,
            "The normalised tokens go around your branches: keep x as it was, and normalise only what a "
            "branch reads",
        ),
        Mistake(
            "norms exchanged",
            NormsExchanged,
            "The norms are exchanged: norm1 belongs to the attention, norm2 to the MLP",
        ),
        Mistake(
            "in parallel",
            Parallel,
            "The MLP reads the tokens from before the attention: it must read what the attention has "
            "added to",
        ),
        Mistake(
            "no norm1",
            NoNorm1,
            "The attention reads tokens that are not normalised: norm1 stands before it",
        ),
        Mistake(
            "no norm2",
            NoNorm2,
            "The MLP reads tokens that are not normalised: norm2 stands before it",
        ),
        Mistake(
            "input twice",
            InputTwice,
            "You add the MLP's result to the block's input, so what the attention added is lost: add it "
            "to the sum behind the attention",
        ),
        Mistake(
            "one path around both",
            OnePathAround,
            "One path goes around both branches: each has its own, so add x behind the attention, too",
        ),
        Mistake(
            "no mlp",
            NoMlp,
            "The MLP's result is not in yours: add it to the sum behind the attention",
        ),
        Mistake(
            "no norm",
            NoNorm,
            "Both norms are missing: each branch reads normalised tokens",
        ),
        Mistake(
            "mlp first",
            MlpFirst,
            "The MLP comes before the attention: the attention is first",
        ),
        Mistake(
            "large eps",
            LargeEps,
            "The eps of your norms is 1e-5, torch's default: Vision Transformers use 1e-6",
        ),
    ),
)

# stochastic depth ---------------------------------------------------------------------------------


def drop_path(x, rate, noise):
    """Drop the branch of images whose noise is below the rate, scale up the others: (B, T, D)."""
    keep = (noise >= rate).to(x.dtype)  # (B,)
    return x * keep[:, None, None] / (1 - rate)


def kept(x, noise, rate):
    """1 for the images that stay: (B, 1, 1)."""
    return (noise >= rate).to(x.dtype)[:, None, None]


def drop_not_scaled(x, rate, noise):
    """Dropped, and nothing else."""
    return x * kept(x, noise, rate)


def drop_over_rate(x, rate, noise):
    """Divided by the rate of dropping."""
    return x * kept(x, noise, rate) / rate


def drop_scaled_down(x, rate, noise):
    """Multiplied where a division belongs."""
    return x * kept(x, noise, rate) * (1 - rate)


def drop_the_kept(x, rate, noise):
    """Kept and dropped exchanged."""
    return x * (1 - kept(x, noise, rate)) / (1 - rate)


def drop_whole_batch(x, rate, noise):
    """The first image decides for all."""
    return x * kept(x, noise[:1], rate) / (1 - rate)


def drop_nothing(x, rate, noise):
    """As in evaluation."""
    return x.clone()


def drop_below_the_rest(x, rate, noise):
    """The noise read from the other end."""
    return x * (noise < 1 - rate).to(x.dtype)[:, None, None] / (1 - rate)


def drop_without_axes(x, rate, noise):
    """A mask that does not broadcast."""
    return x * (noise >= rate) / (1 - rate)


def drop_by_token(x, rate, noise):
    """The noise laid along the tokens."""
    return x * kept(x, noise[: x.shape[1]], rate).transpose(0, 1) / (1 - rate)


DROP_PATH = Exercise(
    name="drop_path",
    lesson="05",
    task="Drop the branch x[b] (B, T, D) of every image with noise[b] < rate, and divide the others by 1 - rate.",
    minutes=8,
    difficulty=2,
    reference=drop_path,
    cases=(
        Case(
            about="seven images, of which some are dropped",
            inputs=lambda g: (
                normal(g, 7, 4, 5),
                0.3,
                torch.tensor([0.62, 0.11, 0.94, 0.27, 0.35, 0.05, 0.81]),
            ),
            shape="B T D",
            sizes=dict(B=7, T=4, D=5),
        ),
        Case(
            about="a rate that drops most of them",
            inputs=lambda g: (
                normal(g, 6, 3, 4),
                0.8,
                torch.tensor([0.13, 0.91, 0.44, 0.72, 0.85, 0.38]),
            ),
            shape="B T D",
            sizes=dict(B=6, T=3, D=4),
        ),
    ),
    hints=(
        "One decision for each image: noise has B numbers, so does the mask of those that stay.",
        "(noise >= rate) is True for the kept. To multiply (B, T, D) by it, it must have the shape "
        "(B, 1, 1).",
        "Dropping makes the average smaller by the factor 1 - rate. What undoes that?",
        "x * (noise >= rate).to(x.dtype)[:, None, None] / (1 - rate)",
    ),
    mistakes=(
        Mistake(
            "not scaled up",
            drop_not_scaled,
            "The right images are dropped, but the others are not scaled up: divide them by 1 - rate, so "
            "that the average stays",
        ),
        Mistake(
            "divided by the rate",
            drop_over_rate,
            "You divided by the rate itself: the share that stays is 1 - rate, so divide by that",
        ),
        Mistake(
            "scaled down",
            drop_scaled_down,
            "You multiplied by 1 - rate: the kept must make up for the dropped, so divide by it",
        ),
        Mistake(
            "exchanged",
            drop_the_kept,
            "Kept and dropped are exchanged: an image is dropped where its noise is below the rate",
        ),
        Mistake(
            "one decision for all",
            drop_whole_batch,
            "The first image's noise decides for the whole batch: every image has a decision of its own",
        ),
        Mistake(
            "nothing dropped",
            drop_nothing,
            "Nothing is dropped: set the branch to zero where noise is below the rate",
        ),
        Mistake(
            "the other end of the noise",
            drop_below_the_rest,
            "You keep an image where its noise is below 1 - rate, which is as likely, and is not what was "
            "asked: drop it where the noise is below the rate",
        ),
        Mistake(
            "no axes",
            drop_without_axes,
            "Your mask is (B,), so torch lays it along D: give it the shape (B, 1, 1)",
        ),
        Mistake(
            "by token",
            drop_by_token,
            "You dropped tokens, the same ones in every image: the noise belongs to the images, so give "
            "the mask the shape (B, 1, 1)",
        ),
    ),
)

EXERCISES = (LAYER_NORM, GELU, MLP, BLOCK, DROP_PATH)

QUESTIONS = {
    "hidden width of the MLP in ViT-B": (
        3072,
        "Four times the width of a token: 4 x 768.",
        {
            768: "That is the width of a token: the MLP widens it before it comes back.",
            2304: "That is the width of qkv, three times 768: the MLP widens by four.",
        },
    ),
    "means that one layer norm computes for 2 images of 197 tokens": (
        394,
        "Each token is normalised by itself: 2 x 197.",
        {
            2: "That would be one for each image: each token has its own.",
            197: "The images do not share: there are 2 x 197 tokens.",
            768: "That would be one for each feature, as in a batch norm.",
        },
    ),
    "share of a block's weight matrices, in percent, that is in the MLP (to the nearest whole)": (
        67,
        "The attention has 4 D x D (three for qkv, one for proj), the MLP 8 D x D: 8 of 12.",
        {
            50: "Count the matrices in units of D x D: qkv has 3, proj 1, fc1 4, fc2 4.",
            33: "That is the share of the attention: 4 of 12.",
            80: "fc1 and fc2 have 8 units of D x D, the attention has 4: proj counts, too.",
        },
    ),
}
