# %% [markdown] name="title"
# # 08 · Break it
#
# A published repository trains a small ViT. Its code divides the scores of attention by $\sqrt{D}$,
# where the paper has $\sqrt{d}$, and it puts a second GELU behind the last layer of each MLP. By its own
# account it still reaches 90.9 % on CIFAR-10. A model that trains is not proof that it is right.
#
# In this lesson you break a healthy model in 18 ways, one at a time, and learn which signal gives which
# bug away.
#
# **A question first.** All 18 run, and raise no error. How many of them change the shape of what comes
# out?

# %% name="setup"
import torch

from vitcourse import check, show, vit
from vitcourse.check import bugs

# %% name="predict-shape"
check.predict("bugs of the 18 that the shape of the logits gives away", ...)

# %% [markdown] name="bugs-text"
# ## Eighteen bugs
#
# Each is a small change to one class. The first eleven sit in the model, the next three in the training,
# the last four in the test. Read them, and mark those that you think a low accuracy would show you.

# %% name="bugs-list"
for name, bug in bugs.BUGS.items():
    print(f"{name:24}{bug.sentence}")

# %% [markdown] name="small-text"
# ## One bug in numbers that you can read
#
# Attention ends with K heads, each with d numbers for every token: (B, K, T, d). They must become
# (B, T, D), one row for each token. Here are K = 2 heads, T = 3 tokens, d = 2. The number 213 stands for
# head 2, token 1, place 3: so the middle digit is the token. (Places count from 3, to look unlike the
# rest.)

# %% name="small"
heads, tokens = torch.tensor([1, 2]), torch.tensor([1, 2, 3])
places = torch.tensor([3, 4])
x = heads[:, None, None] * 100 + tokens[:, None] * 10 + places  # (K, T, d)
x = x[None]  # (B, K, T, d)
right = x.transpose(1, 2).flatten(2)  # (B, T, D)
wrong = x.reshape(1, 3, 4)  # (B, T, D)
print("right", right[0].tolist())
print("wrong", wrong[0].tolist())

# %% [markdown] name="small-picture-text"
# In the right result each row belongs to one token. In the wrong one the first row holds tokens 1 and 2,
# the next tokens 3 and 1. The picture shows the middle digit. Both have the shape (1, 3, 4).

# %% name="small-picture"
owners = [result[0] // 10 % 10 for result in (right, wrong)]
titles = ["transpose, then flatten", "reshape alone"]
picture = show.heatmaps(owners, titles, size=2.6, numbers=True)
alt = "Two 3 x 4 grids of token numbers: rows of 1, 2, 3; and rows that mix tokens"
show.figure(picture, alt=alt)

# %% [markdown] name="setup-text"
# ## A healthy set-up
#
# A bug may sit in the model, in what prepares the images, in the optimizer, or in the test. So you need
# all of these in one object. `bugs.healthy()` has a ViT for the digits (D = 48, 3 heads of width 16,
# 4 blocks, patches of 4 x 4) and how it is trained and tested. `bugs.broken("no scale")` is the same
# with one bug. Every signal is tried on the healthy one first: a signal that speaks there is of no use.

# %% name="healthy"
healthy = bugs.healthy()
images = bugs.some(32)  # (B, C, H, W), the first training images, normalised
print("images", tuple(images.shape), "-> logits", tuple(healthy.predict(images).shape))
print("to test:", tuple(healthy.test_images().shape))
print("optimizer:", [len(group["params"]) for group in healthy.groups()], "tensors")

# %% [markdown] name="first-loss-text"
# ## Signals 1 and 2: the shape, the first loss
#
# A new model finds all classes equally likely, so its first loss is ln(10) = 2.30. Many guides name this
# as the first test. Try it on four set-ups.

# %% name="first-loss"
for name in ("healthy", "no scale", "heads merged by reshape", "no residual"):
    setup = bugs.broken(name) if name != "healthy" else healthy
    shape, loss = bugs.output_shape(setup), bugs.first_loss(setup)
    print(f"{name:24} shape {shape}, first loss {loss:.2f}")

# %% [markdown] name="first-loss-answer"
# Nothing. This head begins with zeros, so all logits are 0, whatever happens before it. The first loss
# finds a wrong number of classes, a head that begins too large, or a loss that is computed wrongly. It
# does not look into the model.
#
# That holds for other tests, too: start values hide bugs. A norm that multiplies by 1 and adds 0, a bias
# of 0, a head of 0. So the signals below use `bugs.spread(setup)`, a copy of the model with random
# values everywhere, of such a size that what is about 1 stays about 1.

# %% [markdown] name="order-text"
# ## Signal 3: the order of the patches
#
# Without positions the patches are a set (lesson 03). So shuffle them and see whether the logits change.
# v1 uses the model as it begins, v2 the spread one.

# %% name="order-v1"
patches = vit.patchify(images, 4)[:, [2, 0, 3, 1]]  # (B, N, P*P*C)
shuffled = vit.unpatchify(patches, (2, 2), 4)  # (B, C, H, W)
lost = bugs.broken("no positions")
for name, setup in {"healthy": healthy, "no positions": lost}.items():
    change = setup.predict(shuffled) - setup.predict(images)
    print(f"{name:14}{change.abs().max():.2f}")

# %% name="order-v2"
for name, setup in {"healthy": healthy, "no positions": lost}.items():
    model = bugs.spread(setup)  # new
    with torch.no_grad():
        change = model(shuffled) - model(images)
    print(f"{name:14}{change.abs().max():.2f}")
    assert abs(change.abs().max() - bugs.order_counts(setup)) < 1e-6
print("ok: bugs.order_counts gives the same")

# %% [markdown] name="order-answer"
# v1 is blind: zeros on both sides. v2 sees it. A test that cannot speak looks like a test that is passed,
# so run each test once on a model that must fail it.

# %% [markdown] name="card-row-error"
# ## Signals 4 and 5: the attention weights
#
# ### Exercise: rows that sum to one
#
# 5 minutes · difficulty 1 of 3
#
# Each query shares out a weight of 1 among the keys. Write `row_error(weights)`: weights (B, K, T, T),
# where `weights[b, k, i, j]` says how much query i takes from key j -> for each head, how far its worst
# row is from summing to one, (B, K).
#
# A hint: `check.hint("row_error")`. The solution: `check.solution("row_error")`.


# %% name="stub-row-error" tags=["exercise"]
def row_error(weights):
    """weights (B, K, T, T) -> the largest distance of a row's sum from 1: (B, K)."""
    ...


# %% name="check-row-error" tags=["check"]
check.row_error(row_error)

# %% name="rows"
from vitcourse.probe import record_attention

for name in ("softmax over queries", None):
    setup = bugs.broken(name) if name else healthy
    model = bugs.spread(setup)
    with torch.no_grad(), record_attention(model) as maps:
        model(images)
    weights = maps[0][0, 0]  # (T, T): block 1, image 1, head 1
    print(f"{name or 'healthy'}: rows {[round(s, 2) for s in weights.sum(1).tolist()]}")
    print(f"{'':10}columns {[round(s, 2) for s in weights.sum(0).tolist()]}")

# %% [markdown] name="scores-text"
# With the softmax over the queries the columns sum to one: some queries take too much, others hardly
# anything.
#
# Next, the size of the scores. Queries and keys whose numbers have variance 1 give
#
# $$\text{Var}(\mathbf{q} \cdot \mathbf{k}) = \sum_{i=1}^{d} \text{Var}(q_i k_i) = d, \qquad
# \text{Var}\!\left(\frac{\mathbf{q} \cdot \mathbf{k}}{\sqrt{d}}\right) = 1$$
#
# So the scores of a healthy head lie about 1 apart. Predict what they are without the scale.

# %% name="predict-scores"
question = "how many times too large are the scores of a head of width 16"
question += " without the scale"
check.predict(question, ...)

# %% [markdown] name="card-score-spread"
# ### Exercise: the size of the scores
#
# 6 minutes · difficulty 2 of 3
#
# The model hands out weights, not scores. But a weight is $e^{s}$ over the sum of its row, so its
# logarithm is the score s minus one number that the row shares. Write `score_spread(weights)`: take the
# logarithm, then torch's `std` of each row, then the mean over the queries: (B, K, T, T) -> (B, K).
#
# A hint: `check.hint("score_spread")`. The solution: `check.solution("score_spread")`.


# %% name="stub-score-spread" tags=["exercise"]
def score_spread(weights):
    """weights (B, K, T, T) -> the mean deviation of a row's scores: (B, K)."""
    ...


# %% name="check-score-spread" tags=["check"]
check.score_spread(score_spread)

# %% name="scores"
for name in ("no scale", "scale of the width", "no norm1", "no residual", None):
    size = bugs.score_size(bugs.broken(name) if name else healthy)
    print(f"{name or 'healthy':20}{size:.1f}")

# %% [markdown] name="scores-answer"
# Four bugs show in one number: it is about 4 times too large, about $\sqrt{3}$ times too small (D is 3
# times d), or wrong because what attention reads is not normalised, or has lost its differences. The
# repository of the beginning would be found here, before any training.

# %% [markdown] name="depth-text"
# ## Signals 6 and 7: through the depth
#
# Without the residual, attention replaces each token by a mean of all tokens. Block after block, they
# become one. Measure how alike the tokens of an image are: the mean cosine of two of them.
#
# Many texts name another sign: without residuals the gradient vanishes on its way to the first block.
# Guess whether it does so here.

# %% name="alike"
for name in ("healthy", "no residual"):
    setup = bugs.broken(name) if name != "healthy" else healthy
    lengths = [round(length, 1) for length in bugs.gradients(setup)]
    print(f"{name:12} alike {bugs.tokens_alike(setup):.2f}, gradients {lengths}")

# %% [markdown] name="deep-text"
# The tokens are all the same, and the gradient does not vanish. To see why, take 12 blocks, and leave
# away the residual, the norms, and both.


# %% name="deep-blocks"
class NoResidual(vit.Block):
    def forward(self, x, grid=None):
        return self.mlp(self.norm2(self.attn(self.norm1(x))))


class NoNorms(vit.Block):
    def forward(self, x, grid=None):
        x = x + self.attn(x)
        return x + self.mlp(x)


class Neither(vit.Block):
    def forward(self, x, grid=None):
        return self.mlp(self.attn(x))


kinds = {"healthy": vit.Block, "no residual": NoResidual}
kinds |= {"no norms": NoNorms, "neither": Neither}

# %% name="deep"
from vitcourse import make_vit

sizes = dict(depth=12, image=8, channels=1, classes=10)
curves = {}
for name, block in kinds.items():
    setup = bugs.healthy()
    setup.model = make_vit("Nano/4", vit.ViT.variant(Block=block), **sizes)
    curves[name] = (range(1, 13), bugs.gradients(setup))
picture = show.lines(curves, "block", "length of the gradient", log="y")
show.figure(picture, alt="Gradients over 12 blocks: two level, one rising, one falling")
for name, (_, lengths) in curves.items():
    print(f"{name:12} first block / last block: {lengths[0] / lengths[-1]:.2g}")

# %% [markdown] name="deep-answer"
# With norms the gradients stay level, even without the residual: a norm divides by the size of what comes
# in, and scales the gradient up in turn. The gradient fades, to less than a hundredth, where the norms
# are missing, too. Where the norms alone are missing, it is largest in the first block.
#
# So "no residual" does not show in the gradient by depth here. It shows in the tokens.

# %% [markdown] name="test-text"
# ## Signals 8 to 11: images, test, optimizer
#
# Four questions that take one line each. What mean and deviation have the test images? Are they the same
# when you ask again? Do the same images get the same logits again? Which parameters decay that should
# not?

# %% name="test-signals"
names = ["healthy", "test not normalised", "test augmented", "dropout at test"]
for name in [*names, "decay everywhere"]:
    setup = bugs.broken(name) if name != "healthy" else healthy
    mean, deviation = bugs.mean_and_deviation(setup)
    pixels = f"{abs(mean):.1f} {deviation:.1f}"
    same = f"{bugs.same_images(setup)!s:6} {bugs.same_logits(setup)!s:6}"
    print(f"{name:20} pixels {pixels}  same {same} decay {bugs.wrongly_decayed(setup)}")

# %% [markdown] name="table-text"
# ## Every bug, every signal
#
# `bugs.SIGNALS` holds all of these, each with the bound that the healthy set-up keeps. The next cell runs
# the eleven that need no training on all 18. Predict one row first: how many of them hear heads that are
# merged by a reshape?

# %% name="predict-merged"
question = "signals, of the eleven that need no training"
question += ", that hear heads merged by reshape"
check.predict(question, ...)

# %% name="table"
setups = {"healthy": healthy} | {name: bugs.broken(name) for name in bugs.BUGS}
heard = {
    name: [signal for signal in bugs.FREE if bugs.speaks(signal, setup)]
    for name, setup in setups.items()
}
print("the eleven:", ", ".join(bugs.FREE))
for name, signals in heard.items():
    print(f"{name:25}{', '.join(signals) or '·'}")
silent = [name for name, signals in heard.items() if not signals and name != "healthy"]
print(f"{len(silent)} of {len(bugs.BUGS)} bugs make no sound")

# %% [markdown] name="table-answer"
# Ten bugs are found in a second, without training. Three signals never speak: the shape, the first loss,
# the gradient by depth. They are not useless, they look for other bugs.
#
# ## One batch
#
# What about training? Train each on one batch of 32 images, 60 times. A sound model learns it by heart.


# %% name="one-batch" tags=["nbval-ignore-output"]
chosen = ["healthy", "heads merged by reshape", "labels shuffled", "no residual"]
chosen += ["decay everywhere", "no warm-up"]
losses = {name: bugs.one_batch(setups[name]) for name in chosen}
picture = show.lines({n: losses[n] for n in chosen if n[:5] != "label"}, "step", "loss")
alt = "Five losses over 60 steps: two fall to 0, one jumps first, two stay high"
show.figure(picture, alt=alt)
for name, curve in losses.items():
    print(f"{name:25} highest {max(curve):.2f}, last {curve[-1]:.2f}")

# %% name="one-batch-bound"
assert all(losses[name][-1] < 0.6 for name in chosen[:3])
assert min(losses["no residual"][-1], losses["decay everywhere"][-1]) > 0.6
assert max(losses["no warm-up"]) > 2.6 > max(losses["healthy"])
print("ok: no residual and too much decay cannot learn a batch; no warm-up jumps first")

# %% [markdown] name="one-batch-answer"
# A learning rate that is too high shows in the first steps: the loss rises above ln(10). Shuffled labels
# are learnt by heart as well as right ones, and so is a batch with merged heads.

# %% [markdown] name="claim-text"
# ## The usual case
#
# Now train all of them: the same 400 steps, three seeds. The result is recorded, since it takes some
# minutes. Before you look: how far below the healthy one do you expect the two bugs of the repository,
# "scale of the width" and "GELU behind fc2"?

# %% name="claim"
record = show.recorded("claim-broken")
print(show.origin(record))
figures = record["figures"]
print(f"{'':26}train   test")
for name in ["healthy", *bugs.BUGS]:
    shares = [figures[f"{name}, {part}"]["mean"] for part in ("train", "test")]
    print(f"{name:26}{shares[0]:.3f}   {shares[1]:.3f}")

# %% name="claim-picture"
test = {name: figures[f"{name}, test"] for name in ["healthy", *bugs.BUGS]}
order = sorted(test, key=lambda name: -test[name]["mean"])
means = {name: test[name]["mean"] for name in order}
spread = {name: test[name]["spread"] for name in order}
sound = means["healthy"]
picture = show.bars(means, "test accuracy", spread=spread, mark=sound, limit=1)
show.figure(picture, alt="Test accuracies: most bugs lie near the healthy model's line")

# %% name="claim-count"
near = [name for name in bugs.BUGS if abs(means[name] - sound) < 0.03]
print(f"{len(near)} of {len(bugs.BUGS)} bugs lie within 3 points of the healthy one:")
for name in near:
    lead = 100 * (means[name] - sound)
    print(f"{name:26}{lead:+.1f} points, signals: {', '.join(heard[name]) or 'none'}")

# %% [markdown] name="claim-answer"
# Eleven bugs cost fewer than three points. A single run moves by about a point with its seed, so most of
# them could not be told from the healthy model by their accuracy. Some end a little above it: merged
# heads, the softmax over the queries, the last token. Do not read that as an improvement: the model is
# small, and these are three runs. Training adapts to what it is given, as long as the gradient is that of
# the model it has.
#
# The two bugs of the repository cost nothing that you could see. That is how they stay in a repository.
#
# Which bugs show in the accuracies? Compare training with test.

# %% name="gap"
for name in bugs.BUGS:
    parts = [figures[f"{name}, {part}"]["mean"] for part in ("train", "test")]
    learns, generalises = parts[0] > 0.8, parts[1] > parts[0] - 0.2
    if not learns:
        print(f"{name:22}does not know its training images")
    elif not generalises:
        print(f"{name:22}knows its training images, not the test images")

# %% [markdown] name="trace-text"
# ## What is left
#
# Five bugs make no sound and hardly cost accuracy. They are right in every property that you tested, and
# wrong in their numbers. Only a comparison with a reference finds those: the same weights, the same
# image, stage by stage. You know `check.trace` from lesson 06.

# %% name="trace"
merged = setups["heads merged by reshape"]
found = check.trace(merged.model, images[:2])
assert found.stage == bugs.departs(merged)

# %% name="trace-all"
for name in bugs.BUGS:
    stage = bugs.departs(setups[name])
    if name in silent:
        print(f"{name:26}{stage or 'the trace finds nothing: the model is healthy'}")

# %% [markdown] name="trace-answer"
# The trace has a blind side, too: it compares the model and sees neither labels, nor learning rate, nor
# test images. Those show in the accuracies. No single signal is enough, and each takes a second or two.
#
# | where the bug is | who hears it |
# |---|---|
# | attention's weights | rows, scores |
# | positions, residual | order, alike |
# | test images, test mode | pixels, images, twice |
# | optimizer | decay, first steps, one batch |
# | labels, patch order in the test | training against test accuracy |
# | numbers in wrong places | comparison with a reference |

# %% [markdown] name="card-diagnose-1"
# ## Three unknown bugs
#
# ### Exercise: the first
#
# 4 minutes · difficulty 1 of 3
#
# `bugs.hidden(1)` is a set-up with one of the 18 bugs. Its classes do not tell which. Run signals on it,
# in a cell of your own, then answer with the name of the bug, in quotes, as `bugs.BUGS` has it.
#
# A hint: `check.hint("diagnose_1")`. The solution: `check.solution("diagnose_1")`.

# %% name="stub-diagnose-1" tags=["exercise"]
diagnose_1 = ...  # the name of the bug in bugs.hidden(1)

# %% name="check-diagnose-1" tags=["check"]
check.diagnose_1(diagnose_1)

# %% [markdown] name="card-diagnose-2"
# ### Exercise: the second
#
# 6 minutes · difficulty 2 of 3
#
# The same with `bugs.hidden(2)`. Two of the bugs sound alike: say what differs between them before you
# answer.
#
# A hint: `check.hint("diagnose_2")`. The solution: `check.solution("diagnose_2")`.

# %% name="stub-diagnose-2" tags=["exercise"]
diagnose_2 = ...  # the name of the bug in bugs.hidden(2)

# %% name="check-diagnose-2" tags=["check"]
check.diagnose_2(diagnose_2)

# %% [markdown] name="card-diagnose-3"
# ### Exercise: the third
#
# 8 minutes · difficulty 3 of 3
#
# The same with `bugs.hidden(3)`. Write down, after each signal, which bugs it excludes.
#
# A hint: `check.hint("diagnose_3")`. The solution: `check.solution("diagnose_3")`.

# %% name="stub-diagnose-3" tags=["exercise"]
diagnose_3 = ...  # the name of the bug in bugs.hidden(3)

# %% name="check-diagnose-3" tags=["check"]
check.diagnose_3(diagnose_3)

# %% [markdown] name="remember"
# ## Remember
#
# - A model that trains may be wrong. Eleven of these 18 bugs cost fewer than three points.
# - Shapes and a first loss of ln(classes) are needed, and hear none of the 18.
# - Start values hide bugs: test with random ones, and try each test on a model that must fail it.
# - Rows that sum to one, scores about 1 apart, tokens that differ, patches whose order counts, a test
#   that gives the same twice: each takes a second.
# - What has the right size and the wrong place is found by comparison with a reference alone.
#
# Before: [07 training](07-training.ipynb). Next: [09 fine-tuning](09-fine-tuning.ipynb).
#
# [Glossary](../docs/glossary.md).
