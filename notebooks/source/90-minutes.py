# %% [markdown] name="title"
# # The Vision Transformer in 90 minutes
#
# For those who know PyTorch and want the whole at once. You write a plain ViT from nothing, prove that
# it equals the package's model (which equals the published ones), train it on the device that you have,
# and look at what it looks at. The headings say how many minutes a section takes. Links lead to the
# lesson that takes the same step slowly, with exercises.
#
# **A question first.** An image is cut into patches, and somebody shuffles them before they enter a
# Transformer that is told nothing of places. How does its answer change? Write down a guess. Section 6
# tests it.

# %% name="setup"
import torch
import torch.nn.functional as F
from torch import nn

import vitcourse
from vitcourse import check, data, show

# %% [markdown] name="data-text"
# ## 1 · Pictures and a device · 6 minutes
#
# The pictures are drawn by the course, so nothing is downloaded: a circle, square, triangle or cross, red
# or blue, on a ground that says nothing. Eight classes. All of them know where their object is, which
# section 8 needs.
#
# One line chooses the device: CUDA, the GPU of a Mac (mps), or else the CPU, which needs about half a
# minute in section 7. Until then everything is small and stays on the CPU.

# %% name="device"
device = torch.accelerator.current_accelerator(True) or torch.device("cpu")

# %% name="data"
shapes = data.load("shapes")
print(shapes)
names = [shapes.classes[i] for i in shapes.test_labels[:8]]
picture = show.images(shapes.test_images[:8], names, size=1.2)
show.figure(picture, alt="Eight pictures of coloured shapes, each under its class")

# %% [markdown] name="patches-text"
# ## 2 · Patches · 14 minutes
#
# A Transformer takes a sequence and lets every element look at every element. Pixels are too many: 32 x 32
# of them would be 1,048,576 pairs. So the image is cut into patches of P x P, and each patch becomes one
# token, a vector.
#
# The smallest case: one image of 4 x 6 pixels, numbered, and patches of 2 x 2. Predict the four numbers
# of the first patch. Is `reshape` to six rows of four enough?

# %% name="patches-small"
image = torch.arange(24).view(1, 1, 4, 6)  # (B, C, H, W)
print(image[0, 0])
rows = image.reshape(1, 6, 4)  # (B, N, P*P): the shape is right
print("the first row of reshape:", rows[0, 0].tolist())

# %% [markdown] name="cut-text"
# Four pixels in a line are no square: `reshape` keeps the order of the memory. Cut each axis in two
# instead, (h, P) and (w, P), bring the two P together, then flatten.


# %% name="cut"
def cut(images, patch):
    """Images (B, C, H, W) -> patches (B, N, C*P*P), row by row."""
    B, C, H, W = images.shape
    x = images.reshape(B, C, H // patch, patch, W // patch, patch)  # (B, C, h, P, w, P)
    x = x.permute(0, 2, 4, 1, 3, 5)  # (B, h, w, C, P, P)
    return x.flatten(3).flatten(1, 2)  # (B, N, C*P*P)


print("the first patch:", cut(image, 2)[0, 0].tolist())
print("the last patch: ", cut(image, 2)[0, -1].tolist())

# %% name="cut-picture"
picture = show.patch_grid(shapes.test_images[3].permute(1, 2, 0).numpy(), patch=4)
show.figure(picture, alt="A red cross, and beside it the 8 x 8 pieces of the picture")

# %% name="predict-comparisons"
question = "how many times as many comparisons, if both sides of an image double"
check.predict(question, ...)

# %% name="patches-sizes"
print("image  patch  tokens  values in a patch")
for side, patch in (32, 4), (224, 16), (384, 16), (224, 32):
    print(f"{side:>5}{patch:>7}{(side // patch) ** 2:>8}{3 * patch**2:>11}")

# %% [markdown] name="embed-text"
# Each patch is projected to D numbers, by the same matrix $E$ for all: $x_i = E\,p_i + b$. A convolution
# whose stride is its size does precisely that, and fast. It is the first part of the model. Lesson
# [01](01-patches.ipynb) builds it from loops.


# %% name="embed"
class PatchEmbed(nn.Module):
    def __init__(self, channels, dim, patch):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    def forward(self, images):
        x = self.proj(images)  # (B, D, h, w)
        return x.flatten(2).transpose(1, 2)  # (B, N, D)


# %% name="embed-proof"
torch.manual_seed(0)
embed, images = PatchEmbed(3, 10, 4), torch.rand(2, 3, 8, 12)
by_hand = F.linear(cut(images, 4), embed.proj.weight.flatten(1), embed.proj.bias)
assert torch.allclose(embed(images), by_hand, atol=1e-6)
print("images", tuple(images.shape), "-> tokens", tuple(embed(images).shape))
print("ok: the convolution is one matrix, applied to every patch")

# %% [markdown] name="class-text"
# ## 3 · A class token and positions · 10 minutes
#
# Which token speaks for the image? The ViT adds one that belongs to no patch: a learned vector at the
# front, the class token. It collects what the others know, and the head reads it alone.
#
# And places: a learned vector for each row of the sequence is added, the class token's included. With N
# patches there are T = N + 1 rows:
#
# $$z_0 = [\,x_{\text{class}};\; x_1;\; \dots;\; x_N\,] + E_{\text{pos}}$$
#
# Three patches of width 2, in numbers. Predict the last row.

# %% name="class-small"
x = torch.tensor([[[1.0, 2], [3, 4], [5, 6]]])  # (B, N, D)
prefix = torch.tensor([[[9.0, 9]]])  # (1, 1, D): one for all images
position = torch.tensor([[[0.0, 0], [0.1, 0], [0.2, 0], [0.3, 0]]])  # (1, T, D)
z = torch.cat([prefix.expand(len(x), -1, -1), x], dim=1) + position  # (B, T, D)
for row in z[0].tolist():
    print([round(value, 1) for value in row])

# %% [markdown] name="class-notes"
# `expand` gives every image of a batch the same vector without copying it, so its gradients add up. No
# row of the table is tied to a place by anything but training. That the model finds rows and columns
# in it all the same is the subject of lesson [03](03-positions.ipynb); what else could speak for the
# image is that of lesson [02](02-class-token.ipynb).

# %% [markdown] name="attention-text"
# ## 4 · Attention · 20 minutes
#
# Every token asks (a query $q$), offers (a key $k$) and carries (a value $v$). How much token i takes from
# token j is the product of its query with the other's key, made into shares by a softmax:
#
# $$\text{Attention}(Q, K, V) = \text{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}}\right) V$$
#
# Three tokens, d = 4. The first asks for what the first key offers, the second for the second. The third
# query is zero. Predict its row of weights.

# %% name="attention-small"
q = torch.tensor([[4.0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0]])  # (T, d)
k = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])  # (T, d)
v = torch.tensor([[3.0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 30]])  # (T, d)
scores = q @ k.T / 4**0.5  # (T, T)
weights = scores.softmax(dim=-1)  # (T, T), rows that sum to one
for name, matrix in {"weights": weights, "what each takes": weights @ v}.items():
    print(name)
    for row in matrix.tolist():
        print("  ", [round(value, 2) for value in row])

# %% [markdown] name="scale-text"
# A query of zero matches all keys alike, so the third token takes a third of everything. Nothing in the
# formula knows an order of tokens: it is a weighted sum over a set.
#
# Why divide by $\sqrt d$? Let queries and keys be random, with variance 1. Predict how the scores grow
# from d = 4 to d = 1024, and what a softmax makes of it.

# %% name="scale"
torch.manual_seed(0)
print("   d  spread of scores  largest weight of 65: unscaled  scaled")
for d in 4, 64, 1024:
    scores = torch.randn(1000, d) @ torch.randn(65, d).T  # 1000 queries, 65 keys
    raw, scaled = (s.softmax(-1).amax(-1).mean() for s in (scores, scores / d**0.5))
    print(f"{d:>4}{scores.std():>12.1f}{raw:>33.2f}{scaled:>12.2f}")

# %% [markdown] name="heads-text"
# The spread is about $\sqrt d$. Unscaled, wide queries look at one key alone, and a saturated softmax passes
# hardly any gradient. Scaled, all widths begin alike.
#
# One map a layer is little: a token may want to know its neighbours and its colour at once. So D is split
# among K heads of width d = D/K, each with a map of its own. A guess: does a layer with 4 heads have
# more parameters than one with 1?
#
# In code, one `Linear` makes q, k and v of all heads; then axes are moved. Follow the shapes.


# %% name="attention"
class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, K, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, K, T, d)
        scores = q @ k.transpose(-2, -1) * self.scale  # (B, K, T, T)
        weights = scores.softmax(dim=-1)  # (B, K, T, T)
        self.map = weights.detach()  # kept for section 8
        x = weights @ v  # (B, K, T, d)
        x = x.transpose(1, 2).flatten(2)  # (B, T, D): the heads side by side
        return self.proj(x)  # (B, T, D)


# %% name="attention-proof"
torch.manual_seed(0)
x, layer = torch.randn(2, 5, 12), Attention(dim=12, heads=3)
q, k, v = layer.qkv(x).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
fused = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
assert torch.allclose(layer(x), layer.proj(fused), atol=1e-6)
print("tokens", tuple(x.shape), "-> maps", tuple(layer.map.shape))
one, four = (sum(p.numel() for p in Attention(56, K).parameters()) for K in (1, 4))
print(f"parameters with 1 head: {one:,}, with 4: {four:,}")
print("ok: what PyTorch's fused kernel gives")

# %% [markdown] name="merge-text"
# The most common error stands in the last but one line of `forward`. Without the `transpose`, a `reshape`
# to (B, T, D) runs, has the right shape, and even trains. Two heads, three tokens; each number says
# its head and its token, 1.2 is head 1, token 2. Which rows belong to one token?

# %% name="merge"
heads = torch.tensor([[[0.0, 0.1, 0.2], [1.0, 1.1, 1.2]]])  # (B, K, T)
heads = heads[..., None].expand(-1, -1, -1, 2)  # (B, K, T, d)
for name, x in {"reshape": heads, "transpose first": heads.transpose(1, 2)}.items():
    print(f"{name}:")
    for row in x.reshape(1, 3, 4)[0].tolist():
        print("  ", [round(value, 1) for value in row])

# %% [markdown] name="merge-notes"
# After the plain `reshape`, the second row holds token 2 of head 0 beside token 0 of head 1: tokens are
# mixed. With the transpose, each row is one token, its heads side by side. Lesson
# [04](04-attention.ipynb) builds attention step by step; lesson [08](08-break-it.ipynb) is about errors
# that raise nothing.

# %% [markdown] name="block-text"
# ## 5 · The block · 8 minutes
#
# Attention mixes tokens, by sums alone. An MLP of two layers works on each token
# by itself. Both are wrapped alike: normalise, compute, add to what came in.
#
# $$x' = x + \text{Attn}(\text{LN}(x)) \qquad x'' = x' + \text{MLP}(\text{LN}(x'))$$
#
# The norm stands *before*, on the branch, so the sum runs through all blocks undisturbed. It works on each
# token by itself: no image of a batch touches another.

# %% name="predict-mlp"
question = "share of a block's weight matrices, in percent, that is in the MLP"
check.predict(f"{question} (to the nearest whole)", ...)


# %% name="block"
class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))  # (B, T, M) inside, (B, T, D) outside


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=1e-6) for _ in range(2))
        self.attn, self.mlp = Attention(dim, heads), Mlp(dim, 4 * dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))  # (B, T, D)
        return x + self.mlp(self.norm2(x))  # (B, T, D)


# %% [markdown] name="block-notes"
# `eps=1e-6` is what the ViT's authors use; PyTorch's own default is 1e-5. The difference is small, and a
# model that is to equal another must have it. Lesson [05](05-encoder-block.ipynb) asks what each part is
# for, and takes them away one by one.

# %% [markdown] name="whole-text"
# ## 6 · The whole, and a proof · 12 minutes
#
# Patches, class token, positions, blocks, a last norm, and a linear head on the class token. That is all.


# %% name="whole"
class ViT(nn.Module):
    def __init__(self, image, patch, dim, depth, heads, classes, channels=3):
        super().__init__()
        T = 1 + (image // patch) ** 2
        self.patch_embed = PatchEmbed(channels, dim, patch)
        self.prefix = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.position = nn.Parameter(0.02 * torch.randn(1, T, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, classes)

    def forward(self, images):
        x = self.patch_embed(images)  # (B, N, D)
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1)  # (B, T, D)
        x = self.blocks(x + self.position)  # (B, T, D)
        return self.head(self.norm(x)[:, 0])  # (B, classes)


# %% name="shapes-of-steps"
sizes = dict(image=32, patch=4, dim=56, depth=2, heads=4, classes=8)
torch.manual_seed(0)
model, images = ViT(**sizes), torch.rand(5, 3, 32, 32)
for name, part in model.named_children():
    part.name = name
    part.register_forward_hook(
        lambda part, x, y: print(f"{part.name:12}", tuple(x[0].shape), tuple(y.shape))
    )
logits = model(images)
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")

# %% [markdown] name="proof-text"
# Is it right? A shape proves nothing, and neither does a falling loss. So compare with a model that is
# known to be right: the package's, which is tested against three libraries. Give every parameter a random
# value, since zeros and ones hide errors. Copy all of them, and compare logits and gradients, in double
# precision. `load_state_dict` is strict: no tensor may be missing, left over, or of another shape.

# %% name="proof"
mine = ViT(**sizes).double()
for parameter in mine.parameters():
    nn.init.normal_(parameter, std=0.3)
package = vitcourse.ViT(vitcourse.Config(**sizes)).double()
renamed = {"position": "position.table"}
package.load_state_dict({renamed.get(n, n): t for n, t in mine.state_dict().items()})
images = shapes.normalise(shapes.test_images[:5]).double()  # (B, C, H, W)
for model in mine, package:
    F.cross_entropy(model(images), shapes.test_labels[:5]).backward()
assert torch.allclose(mine(images), package(images), atol=1e-10)
theirs = dict(package.named_parameters())
for name, parameter in mine.named_parameters():
    same = theirs[renamed.get(name, name)]
    assert torch.allclose(parameter.grad, same.grad, atol=1e-10)
print(f"ok: the same logits, and the same gradient of all {len(theirs)} tensors")

# %% [markdown] name="can-fail-text"
# A proof that cannot fail is none. Plant two errors of one line and measure the largest difference of a
# logit. Which of the two would single precision, with its seven digits, hide?


# %% name="can-fail"
def gap():
    """The largest difference between a logit of mine and the package's."""
    return (mine(images) - package(images)).abs().max().item()


assert gap() < 1e-10
mine.norm.eps = 1e-5
print(f"eps of one norm ten times as large: {gap():.1e}")
mine.norm.eps = 1e-6
mine.blocks[0].attn.scale = 1.0
print(f"no scale in one block:              {gap():.1e}")
mine.blocks[0].attn.scale = 14**-0.5
assert gap() < 1e-10
print("ok: both are noticed, and undone")

# %% [markdown] name="shuffle-text"
# Now the first question. Shuffle the 64 patches of each image. How does the answer change, with
# positions, and with all positions set to zero?

# %% name="shuffle"
from vitcourse.stress import shuffle_patches

torn = shuffle_patches(images, 4, torch.Generator().manual_seed(1))
with torch.no_grad():
    told = (mine(torn) - mine(images)).abs().max()
    mine.position.zero_()
    untold = (mine(torn) - mine(images)).abs().max()
assert told > 1e-3 and untold < 1e-10
print("with positions: other logits. Without: the same logits")

# %% [markdown] name="shuffle-notes"
# Not at all. Nothing else in the model knows a place: the embedding, the norms and the MLP treat each
# token alike, and attention sums over a set. The position table is the only thing that makes an image of
# a bag of patches. Lesson [06](06-vision-transformer.ipynb) counts the parameters of all published sizes
# and loads the weights of other libraries.

# %% [markdown] name="train-text"
# ## 7 · Train it · 10 minutes
#
# A loop like any other: AdamW, a learning rate that rises for a fifth of the steps and then falls along a
# cosine, gradients cut to length 1, half of the batches mirrored. The warm-up is no ornament: without it
# a Transformer often gets stuck early. Why each ingredient is there is lesson [07](07-training.ipynb).
#
# **Predict.** What is the loss before the first step, about, with 8 classes? And what share of 1000 new
# pictures is named right after 400 steps of 64 pictures: 0.3, 0.6, 0.9?

# %% name="first-loss"
torch.manual_seed(0)
model = ViT(**sizes).to(device)
images, labels = shapes.normalise(shapes.images.to(device)), shapes.labels.to(device)
tests, truth = shapes.normalise(shapes.test_images.to(device)), shapes.test_labels
with torch.no_grad():
    loss = F.cross_entropy(model(images[:500]), labels[:500]).item()
print(f"first loss {loss:.2f}, ln(8) is {torch.tensor(8).log():.2f}")


# %% name="measures"
@torch.no_grad()
def look(model):
    """The answers (1000,), and the class token's row of each map (L, 1000, K, 1, T)."""
    guesses, maps = [], []
    for part in tests.split(250):
        guesses.append(model(part).argmax(dim=1).cpu())
        rows = [block.attn.map[:, :, :1].cpu() for block in model.blocks]
        maps.append(torch.stack(rows))
    return torch.cat(guesses), torch.cat(maps, dim=1)


_, maps_before = look(model)
print("layers, pictures, heads, rows, tokens:", tuple(maps_before.shape))

# %% name="train" tags=["nbval-ignore-output"]
steps, rate, losses = 400, 6e-3, []
optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
cycle = torch.optim.lr_scheduler.OneCycleLR
schedule = cycle(optimizer, rate, total_steps=steps, pct_start=0.2)
for step in range(steps):
    if step == 60:
        early, _ = look(model)
    chosen = torch.randint(len(images), (64,))
    batch = images[chosen.to(device)]  # (B, C, H, W)
    batch = batch.flip(-1) if step % 2 else batch
    loss = F.cross_entropy(model(batch), labels[chosen.to(device)])
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    losses.append(loss.detach())
guesses, maps = look(model)
accuracy = (guesses == truth).float().mean().item()
print(f"{accuracy:.2f} of 1000 new pictures are named right")

# %% name="train-bound"
assert accuracy > 0.6
print("ok: more than 0.6, where a guess gives 0.125")

# %% name="curve"
curve = torch.stack(losses).cpu().unflatten(0, (40, 10)).mean(dim=1)  # of ten steps
picture = show.lines({"loss": (range(10, 401, 10), curve)}, "step", "training loss")
alt = "The loss falls from 2 to 1.4 in 40 steps, stays to step 100, then goes below 0.3"
show.figure(picture, alt=alt)

# %% [markdown] name="plateau-text"
# The curve has a step at about 1.4, and ln(4) is 1.39: as if the model had come from eight equally likely
# classes to four, and stayed there. What does it know by then? The loop kept its answers after 60 steps.
# A class is a form and a colour, so the two can be counted apart. Guess first.

# %% name="plateau" tags=["nbval-ignore-output"]
known = {}
for when, answers in {"after 60 steps": early, "after 400": guesses}.items():
    colour = (answers % 2 == truth % 2).float().mean().item()  # even: red, odd: blue
    form = (answers // 2 == truth // 2).float().mean().item()
    known[when] = colour, form
    print(f"{when:<15} the colour is right in {colour:.2f}, the form in {form:.2f}")

# %% name="plateau-bound"
colour, form = known["after 60 steps"]
assert colour > 0.9 and form < 0.6
print("ok: first it learns the colour, then the form")

# %% [markdown] name="plateau-notes"
# A colour can be read from any one patch of the object. A form lies in how patches stand to each other,
# so the tokens must learn to look at each other first.

# %% [markdown] name="look-text"
# ## 8 · What it looks at · 10 minutes
#
# The maps are there already: each `Attention` kept its last one. Row 0 is the class token's, and says how
# much of each patch goes into the answer. An object covers about 0.15 of its picture. **Predict:** what
# share of the class token's attention lies on the object, before training and after?

# %% name="maps"
i, grid = 3, (8, 8)
picture = show.attention_maps(shapes.test_images[i], maps[:, i], grid)
alt = "A red cross, and where the class token looks in 2 layers of 4 heads: in some "
alt += "the whole cross is bright, in others one patch at its edge"
show.figure(picture, alt=alt)

# %% [markdown] name="maps-notes"
# The heads divide the work: some spread over the whole object, others rest on a single patch at its edge
# or in a corner between its arms. One picture proves little. The next cell takes all 1000, averages the
# heads, and compares with the truth.

# %% name="on-object" tags=["nbval-ignore-output"]
from vitcourse.probe import on_object

shares, recorded = {}, {"before": maps_before, "after": maps}
for when, rows in recorded.items():
    heats = rows[..., 0, 1:].mean(dim=2).unflatten(-1, grid)  # (L, 1000, h, w)
    for layer, heat in enumerate(heats):
        share, area = on_object(heat, shapes.extras["test_masks"])
        shares[f"layer {layer}, {when} training"] = share.mean().item()
for name, share in shares.items():
    print(f"{name}: {share:.2f} of the attention is on the object")
picture = show.bars(shares, "share on the object", mark=area.mean().item(), limit=1)
alt = "Before training both layers are at the dashed line, 0.15; after it near 0.5"
show.figure(picture, alt=alt)

# %% name="on-object-bound"
for layer in range(2):
    before, after = (shares[f"layer {layer}, {w} training"] for w in recorded)
    assert after > 1.5 * before
print("ok: training moved the attention to the object, though nobody said where it is")

# %% [markdown] name="explore-text"
# Your weights fit the package's model, so its tools fit your weights. Choose a layer and a head; point at
# a patch and see where that patch looks. What do the patches of the object look at, and what those of the
# ground?

# %% name="explore"
package = vitcourse.ViT(vitcourse.Config(**sizes)).eval()
trained = model.cpu().state_dict()
package.load_state_dict({renamed.get(name, name): t for name, t in trained.items()})
alt = "A red cross, and what each token takes from each patch: 2 layers, 4 heads"
show.attention(package, shapes.test_images[i], alt, normalise=shapes.normalise)

# %% [markdown] name="explore-notes"
# A map shows where a token looks, which is not yet why the answer came out so. Lesson
# [11](11-looking-inside.ipynb) takes patches away and asks what changes; lesson
# [12](12-what-it-withstands.ipynb) asks what a ViT needs and what it withstands.

# %% [markdown] name="remember"
# ## Remember
#
# - A ViT is patches, a class token, positions, and blocks that do the rest, in about 50 lines.
# - Without positions an image is a bag of patches.
# - The right shape proves nothing. Compare with a reference, with random weights, and see it fail.
# - Attention finds the object though no label says where it is.
#
# Where next, by what you want:
#
# | you want | go to |
# |---|---|
# | to do it yourself, with exercises | [00 start here](00-start-here.ipynb) |
# | to train well | [07 training on a GPU](07-training.ipynb) |
# | your own pictures | [the capstone](capstone.ipynb), [09 fine-tuning](09-fine-tuning.ipynb) |
# | what came after the ViT | [13 better training](13-better-training.ipynb) and on |
