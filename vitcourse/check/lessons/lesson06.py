"""Exercises of lesson 06: the whole Vision Transformer."""

import math

import torch
from torch import nn

from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.config import Config
from vitcourse.vit import (
    Attention,
    Block,
    ClassHead,
    LayerNorm,
    LearnedPosition,
    Mlp,
    PatchEmbed,
)
from vitcourse.vit import ViT as PackageViT

# the head -----------------------------------------------------------------------------------------


class PackageHead(ClassHead):
    """The package's head, built from two numbers."""

    def __init__(self, dim, classes):
        super().__init__(Config(dim=dim, depth=1, heads=1, classes=classes))


class Head(nn.Linear):
    """Read the class token: x (B, T, D) -> logits (B, classes)."""

    def __init__(self, dim, classes):
        super().__init__(dim, classes)

    def forward(self, x):
        return super().forward(x[:, 0])


class LastToken(Head):
    """The last patch."""

    def forward(self, x):
        return nn.Linear.forward(self, x[:, -1])


class FirstPatch(Head):
    """Counted from one."""

    def forward(self, x):
        return nn.Linear.forward(self, x[:, 1])


class MeanOfAll(Head):
    """The average of all tokens."""

    def forward(self, x):
        return nn.Linear.forward(self, x.mean(dim=1))


class MeanOfPatches(Head):
    """The average without the class token."""

    def forward(self, x):
        return nn.Linear.forward(self, x[:, 1:].mean(dim=1))


class WithSoftmax(Head):
    """Probabilities."""

    def forward(self, x):
        return super().forward(x).softmax(dim=-1)


class EveryToken(Head):
    """Logits for all tokens."""

    def forward(self, x):
        return nn.Linear.forward(self, x)


CLASS_HEAD = Exercise(
    name="class_head",
    lesson="06",
    task="A module Head(dim, classes), itself a Linear with weight and bias, that reads the class token: x (B, T, D) -> logits (B, classes).",
    minutes=5,
    difficulty=1,
    kind="module",
    reference=PackageHead,
    solution=Head,
    cases=(
        Case(
            about="two images of five tokens",
            build=(6, 11),
            inputs=lambda g: (normal(g, 2, 5, 6),),
            shape="B classes",
            sizes=dict(B=2, classes=11, T=5, D=6),
        ),
    ),
    hints=(
        "One token was added for this purpose. At which place of the sequence does it stand?",
        "x[:, 0] is the class token of every image: (B, D).",
        "A class of nn.Linear has weight and bias already: its forward is "
        "return super().forward(x[:, 0]). Logits need no softmax, cross-entropy does that.",
    ),
    mistakes=(
        Mistake(
            "last token",
            LastToken,
            "You read the last token, which is a patch: the class token is the first",
        ),
        Mistake(
            "first patch",
            FirstPatch,
            "You read the token at 1, which is the first patch: Python counts from 0, where the class "
            "token stands",
        ),
        Mistake(
            "mean of all",
            MeanOfAll,
            "You averaged all tokens: this head reads the class token alone, x[:, 0]",
        ),
        Mistake(
            "mean of patches",
            MeanOfPatches,
            "You averaged the patches: this head reads the class token, x[:, 0]",
        ),
        Mistake(
            "softmax",
            WithSoftmax,
            "You applied softmax: logits are the bare numbers, cross-entropy applies it by itself",
        ),
        Mistake(
            "every token",
            EveryToken,
            "Every token has got logits: only the class token is read, x[:, 0]",
        ),
    ),
)

# the whole ViT ------------------------------------------------------------------------------------


class WholeViT(PackageViT):
    """The package's ViT, built from numbers."""

    def __init__(self, image, patch, channels, dim, depth, heads, classes):
        sizes = dict(image=image, patch=patch, channels=channels, dim=dim, depth=depth)
        super().__init__(Config(**sizes, heads=heads, classes=classes))


class ViT(nn.Module):
    """The Vision Transformer: images (B, C, H, W) -> logits (B, classes)."""

    def __init__(self, image, patch, channels, dim, depth, heads, classes):
        super().__init__()
        grid = image[0] // patch, image[1] // patch
        self.patch_embed = PatchEmbed(channels, dim, patch)
        self.prefix = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.position = LearnedPosition(dim, grid, 1)
        self.blocks = nn.ModuleList(
            Block(dim, Attention(dim, heads), Mlp(dim, 4 * dim)) for _ in range(depth)
        )
        self.norm = LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, images):
        x, grid = self.patch_embed(images)  # (B, N, D)
        prefix = self.prefix.expand(len(x), -1, -1)  # (B, 1, D)
        x = torch.cat([prefix, x], dim=1)  # (B, 1+N, D)
        x = self.position(x, grid)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0])  # (B, classes)


class Whole(ViT):
    """The steps of the ViT, each for a mistake to replace."""

    def forward(self, images):
        return self.read(self.norm(self.run(self.begin(*self.patch_embed(images)))))

    def begin(self, x, grid):
        return self.position(self.with_class(x), grid)

    def with_class(self, x):
        return torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1)

    def run(self, x):
        for block in self.blocks:
            x = block(x)
        return x

    def read(self, x):
        return self.head(x[:, 0])


class NoFinalNorm(Whole):
    """The head reads what the last block gives."""

    def forward(self, images):
        return self.read(self.run(self.begin(*self.patch_embed(images))))


class NormBeforeBlocks(Whole):
    """The norm at the wrong end."""

    def forward(self, images):
        return self.read(self.run(self.norm(self.begin(*self.patch_embed(images)))))


class NoPositions(Whole):
    """A set of tokens."""

    def begin(self, x, grid):
        return self.with_class(x)


class ClassBehind(Whole):
    """The class token at the end, and read there."""

    def with_class(self, x):
        return torch.cat([x, self.prefix.expand(len(x), -1, -1)], dim=1)

    def read(self, x):
        return self.head(x[:, -1])


class ClassBehindReadFirst(Whole):
    """The class token at the end, and the first token read."""

    def with_class(self, x):
        return torch.cat([x, self.prefix.expand(len(x), -1, -1)], dim=1)


class PositionsOfPatches(Whole):
    """The class token without a position."""

    def begin(self, x, grid):
        return self.with_class(x + self.position.table[:, 1:])


class PositionsShifted(Whole):
    """The first rows of the table for the patches."""

    def begin(self, x, grid):
        return self.with_class(x + self.position.table[:, :-1])


class MeanRead(Whole):
    """The average of all tokens."""

    def read(self, x):
        return self.head(x.mean(dim=1))


class MeanOfPatchesRead(Whole):
    """The average of the patches."""

    def read(self, x):
        return self.head(x[:, 1:].mean(dim=1))


class LastRead(Whole):
    """The last patch."""

    def read(self, x):
        return self.head(x[:, -1])


class LastBlockLeftOut(Whole):
    """One block too few."""

    def run(self, x):
        for block in self.blocks[:-1]:
            x = block(x)
        return x


class FirstBlockLeftOut(Whole):
    """Blocks counted from one."""

    def run(self, x):
        for block in self.blocks[1:]:
            x = block(x)
        return x


class EveryBlockOnInput(Whole):
    """The loop's result not handed on."""

    def run(self, x):
        for block in self.blocks:
            y = block(x)
        return y


class ResultsNotKept(Whole):
    """Blocks run, and their results are lost."""

    def run(self, x):
        return x


class NormInLoop(Whole):
    """The final norm behind every block."""

    def run(self, x):
        for block in self.blocks:
            x = self.norm(block(x))
        return x

    def forward(self, images):
        return self.read(self.run(self.begin(*self.patch_embed(images))))


class FirstPatchRead(Whole):
    """Counted from one."""

    def read(self, x):
        return self.head(x[:, 1])


class ByColumns(Whole):
    """Patches column by column."""

    def begin(self, x, grid):
        return super().begin(x.unflatten(1, grid).transpose(1, 2).flatten(1, 2), grid)


class ProbabilitiesRead(Whole):
    """Softmax at the end."""

    def read(self, x):
        return super().read(x).softmax(dim=-1)


VIT = Exercise(
    name="vit",
    lesson="06",
    task="A module ViT(image, patch, channels, dim, depth, heads, classes): images (B, C, H, W) -> logits (B, classes); image is (H, W), the MLP is 4 * dim wide, and the parameters are called prefix, position.table, patch_embed.proj, blocks.0 and so on, norm and head.",
    minutes=30,
    difficulty=3,
    kind="module",
    reference=WholeViT,
    solution=ViT,
    tolerance=1e-4,
    eps=1e-6,
    cases=(
        Case(
            about="grey images, wider than high",
            build=((12, 24), 6, 1, 35, 2, 5, 11),
            inputs=lambda g: (0.5 * normal(g, 3, 1, 12, 24),),
            shape="B classes",
            sizes=dict(B=3, classes=11, C=1, H=12, W=24, P=6, N=8, T=9, D=35, K=5, d=7),
        ),
        Case(
            about="colour images and three blocks",
            build=((20, 28), 4, 3, 22, 3, 11, 9),
            inputs=lambda g: (0.5 * normal(g, 6, 3, 20, 28),),
            shape="B classes",
            sizes=dict(B=6, classes=9, C=3, H=20, W=28, P=4, N=35, T=36, D=22, K=11, d=2),
        ),
    ),
    hints=(
        "You have all the parts. Write down their order first: patches, class token, positions, blocks, "
        "norm, head.",
        "In __init__: patch_embed, prefix (1, 1, D), position with a table (1, 1+N, D), blocks in an "
        "nn.ModuleList, norm with eps=1e-6, head. The package's PatchEmbed, LearnedPosition, Attention, "
        "Mlp and Block are there to be used.",
        "The class token goes to every image of the batch: self.prefix.expand(len(x), -1, -1). It stands "
        "first, and gets a row of the position table, too: concatenate, then add.",
        "After the blocks, self.norm(x), and the head reads x[:, 0].",
    ),
    mistakes=(
        Mistake(
            "no final norm",
            NoFinalNorm,
            "The final norm is missing: what leaves the last block is normalised before the head reads it",
        ),
        Mistake(
            "norm before the blocks",
            NormBeforeBlocks,
            "Your final norm stands before the blocks: it belongs behind the last one",
        ),
        Mistake(
            "no positions",
            NoPositions,
            "No positions are added, so shuffled patches would give the same logits: add the table to "
            "the tokens",
        ),
        Mistake(
            "class token behind",
            ClassBehind,
            "Your class token stands behind the patches: it comes first, or every token gets the "
            "position of its neighbour",
        ),
        Mistake(
            "class token behind, first read",
            ClassBehindReadFirst,
            "Your class token stands behind the patches, and the head reads the first patch: put it in "
            "front",
        ),
        Mistake(
            "positions only for patches",
            PositionsOfPatches,
            "Only the patches get positions: the class token has a row of its own, the first, so "
            "concatenate before you add",
        ),
        Mistake(
            "positions shifted",
            PositionsShifted,
            "The patches get the rows from 0 on: row 0 belongs to the class token, so concatenate "
            "before you add",
        ),
        Mistake(
            "mean of all",
            MeanRead,
            "The head reads the mean of all tokens: it must read the class token, x[:, 0]",
        ),
        Mistake(
            "mean of patches",
            MeanOfPatchesRead,
            "The head reads the mean of the patches: it must read the class token, x[:, 0]",
        ),
        Mistake(
            "last token",
            LastRead,
            "The head reads the last patch: the class token is the first, x[:, 0]",
        ),
        Mistake(
            "last block left out",
            LastBlockLeftOut,
            "The last block does not run: go through all of self.blocks",
        ),
        Mistake(
            "first block left out",
            FirstBlockLeftOut,
            "The first block does not run: go through all of self.blocks, from 0 on",
        ),
        Mistake(
            "blocks side by side",
            EveryBlockOnInput,
            "Every block reads the same tokens, so only the last one counts: hand on the result, "
            "x = block(x)",
        ),
        Mistake(
            "results not kept",
            ResultsNotKept,
            "What your blocks give is lost, so the head reads the tokens as they were before them: "
            "hand on the result, x = block(x)",
        ),
        Mistake(
            "norm in the loop",
            NormInLoop,
            "The final norm follows every block: it stands once, behind the last one",
        ),
        Mistake(
            "first patch",
            FirstPatchRead,
            "The head reads the token at 1, the first patch: Python counts from 0, where the class "
            "token stands",
        ),
        Mistake(
            "by columns",
            ByColumns,
            "Your patches come column by column, so they get each other's positions: go row by row",
        ),
        Mistake(
            "softmax",
            ProbabilitiesRead,
            "You applied softmax at the end: logits are the bare numbers, cross-entropy applies it by "
            "itself",
        ),
    ),
)

# numbers ------------------------------------------------------------------------------------------

FIRST_LOSS = Exercise(
    name="first_loss",
    lesson="06",
    task="A new model finds each of 1000 classes equally likely: what is its cross-entropy (natural logarithm)?",
    minutes=3,
    difficulty=1,
    kind="number",
    reference=math.log(1000),
    tolerance=2e-3,
    cases=(),
    hints=(
        "What probability does the right class get, if all are equally likely?",
        "Cross-entropy is minus the logarithm of the right class's probability.",
        "The probability is 1/1000, and -log(1/1000) = log(1000): math.log takes the natural one.",
    ),
    mistakes=(
        Mistake(
            "zero",
            0,
            "A loss of 0 belongs to a model that is certain and right: this one guesses",
        ),
        Mistake(
            "ten classes",
            math.log(10),
            "That is the logarithm of 10: here there are 1000 classes",
        ),
        Mistake(
            "the classes",
            1000,
            "That is the number of classes: the loss is the logarithm of it",
        ),
        Mistake(
            "log10",
            3,
            "That is the logarithm to base 10: cross-entropy takes the natural one, math.log",
        ),
        Mistake(
            "log2",
            math.log2(1000),
            "That is the logarithm to base 2, in bits: torch's cross-entropy takes the natural one, "
            "math.log",
        ),
        Mistake(
            "negative",
            -math.log(1000),
            "That is the logarithm of the probability: the loss is minus that",
        ),
        Mistake(
            "the probability",
            0.001,
            "That is the probability of the right class: the loss is minus its logarithm",
        ),
    ),
)

BLOCK_PARAMETERS = Exercise(
    name="block_parameters",
    lesson="06",
    task="How many parameters has one block of width 192, with an MLP four times as wide, and all biases?",
    minutes=6,
    difficulty=2,
    kind="number",
    reference=12 * 192**2 + 13 * 192,
    cases=(),
    hints=(
        "A Linear from a to b numbers has a times b weights and b biases. A block has four: qkv, proj, "
        "fc1 and fc2.",
        "The matrices are 3 + 1 + 4 + 4 times D x D. The biases are 3, 1, 4 and 1 times D.",
        "Two norms have a weight and a bias of D numbers each: 4 D more, so 12 D x D + 13 D in all.",
    ),
    mistakes=(
        Mistake(
            "matrices alone",
            12 * 192**2,
            "Those are the weight matrices alone: add the biases, and the weights and biases of the two "
            "norms",
        ),
        Mistake(
            "no norms",
            12 * 192**2 + 9 * 192,
            "The two norms are missing: each has a weight and a bias of 192 numbers",
        ),
        Mistake(
            "no bias of qkv",
            12 * 192**2 + 10 * 192,
            "3 x 192 biases are missing: qkv has 3 x 192 of them, and fc1 has 4 x 192",
        ),
        Mistake(
            "one norm",
            12 * 192**2 + 11 * 192,
            "2 x 192 numbers are missing: each of two norms has a weight and a bias of 192, and qkv has "
            "3 x 192 biases",
        ),
        Mistake(
            "no biases",
            12 * 192**2 + 2 * 192,
            "All biases are missing: those of the four linear layers, and of the two norms",
        ),
        Mistake(
            "no projection",
            11 * 192**2 + 12 * 192,
            "The attention's last layer, proj, is missing: 192 x 192 weights and 192 biases",
        ),
    ),
)

EXERCISES = (CLASS_HEAD, VIT, FIRST_LOSS, BLOCK_PARAMETERS)

QUESTIONS = {
    "logits that ViT-B/16 gives for a batch of 8 images, with 1000 classes": (
        8000,
        "One for each image and class: 8 x 1000, whatever the number of tokens.",
        {
            1000: "That is one image: there are 8.",
            1576000: "That would be logits for each of 197 tokens: only the class token is read.",
            8: "That would be one for each image: each class has its own.",
        },
    ),
    "tokens that the head of a ViT-B/16 reads, of the 197": (
        1,
        "The class token alone; the patches speak through it.",
        {
            197: "All of them reach the last block, but the head reads one.",
            196: "Those are the patches: the head reads the other one.",
        },
    ),
    "rows in the position table of ViT-B/16 at 224 pixels": (
        197,
        "196 patches, and the class token has a row, too.",
        {
            196: "The class token has a row of its own, the first.",
            14: "The table has a row for each place of the 14 x 14 grid, and one for the class token.",
            768: "That is how wide each row is.",
        },
    ),
    "layer norms in the whole of ViT-B": (
        25,
        "Two in each of 12 blocks, and one before the head.",
        {
            24: "One more stands between the last block and the head.",
            12: "Each block has two.",
            13: "Each block has two, and there is one more at the end.",
        },
    ),
}
