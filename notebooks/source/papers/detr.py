# %% [markdown] name="title"
# # DETR: the objects of an image are a set
#
# Carion et al. 2020, [End-to-End Object Detection with Transformers](https://arxiv.org/abs/2005.12872).
# Lesson [19 finding things](../19-finding-things.ipynb).
#
# **The question.** A detector guesses at thousands of places, and then throws away what it has found
# twice. Can a network say each object once?
#
# **The change.** There are $Q$ learned queries. Each looks at the image and at the other queries, and
# says one box and one class, or "no object". In training, each object is given a query of its own: the
# choice that costs least in all. A query that got no object must learn to say "no object".

# %% name="setup"
import inspect
from itertools import permutations

import torch

from vitcourse import data, detect, papers, show
from vitcourse.papers import detr

# %% [markdown] name="equation"
# ## The equation
#
# $$\hat\sigma = \arg\min_\sigma \sum_{i=1}^{n} C_{\sigma(i),\,i} \qquad
# C_{q,i} = -p_q(c_i) + 5\,\lVert b_q - b_i \rVert_1 - 2\,\text{GIoU}(b_q, b_i)$$
#
# Object $i$ has the class $c_i$ and the box $b_i$; query $q$ says the box $b_q$ and holds $c_i$ for
# likely with $p_q(c_i)$. $\sigma(i)$ is the query that answers for object $i$. No query answers for two.
#
# Three queries, two objects, and what each pair would cost. Which query would you give to each object?

# %% name="small"
C = torch.tensor([[1.0, 2.0], [2.0, 9.0], [6.0, 5.0]])  # (Q, n)
for a, b in permutations(range(3), 2):
    print(f"object 0 to query {a}, object 1 to query {b}: {int(C[a, 0] + C[b, 1])}")
rows, columns = detr.linear_sum_assignment(C)
best = dict(sorted(zip(columns.tolist(), rows.tolist(), strict=True)))
print("the best:", {f"object {i}": f"query {q}" for i, q in best.items()})

# %% [markdown] name="small-answer"
# The cheapest pair is query 0 with object 0. Who takes it must pay 5 for object 1, and 6 in all. The best
# choice pays 4: query 0 is the only one that is good for object 1, so it must be kept for it. There are
# $Q!/(Q-n)!$ choices. The Hungarian algorithm finds the best without trying them all.
#
# ## The difference
#
# DETR has a structure of its own: a ResNet, an encoder, a decoder. What is new in the decoder's layer is
# who is told what. `queries` are learned and `places` are waves; both join the questions and the keys of
# attention, never its values.

# %% name="difference"
print(inspect.getsource(detr.DecoderLayer.forward))
print(inspect.getsource(detr.set_loss).split('"""')[2].strip("\n"))

# %% [markdown] name="cost-text"
# In `set_loss`, `labels` begins as "no object" everywhere. Of 100 queries, most stay so; that is why this
# class counts a tenth. Where are the numbers that the published model learns?

# %% name="cost"
with torch.device("meta"):  # nothing is allocated
    model = papers.build("detr_r50")
for name in ("backbone", "encoder", "decoder"):
    part = getattr(model, name)
    print(f"{name:9} {sum(p.numel() for p in part.parameters()):>10,}")
count = sum(p.numel() for p in model.parameters())
print(f"{'all':9} {count:>10,}")
assert count == 41_524_768

# %% [markdown] name="proof"
# ## The proof
#
# The tests compare the whole model with one of transformers and with one made of PyTorch's own layers,
# the loss with that of transformers, and the matching with all choices that there are; 19 planted errors
# are noticed. Here are three identities. A set has no order, so exchanged objects cost the same, and
# exchanged queries exchange their answers. And the decoder begins with zeros, so at first the queries
# have nothing to tell each other.

# %% name="identities"
torch.manual_seed(0)
model = detr.SmallDETR(detr.SMALL).double().eval()
image = torch.randn(1, 3, 32, 32).double()
labels, boxes = torch.tensor([3, 5]), torch.rand(2, 4).double() / 2 + 0.1
order = torch.randperm(10)
with torch.no_grad():
    logits, found = model(image)
    loss = detr.set_loss(logits, found, [(labels, boxes)])
    turned = detr.set_loss(logits, found, [(labels.flip(0), boxes.flip(0))])
    assert torch.allclose(loss, turned)
    zeros, q = torch.zeros(1, 10, 64).double(), model.position_queries
    told = model.decoder[0].attn(zeros + q, zeros + q, zeros)
    assert torch.allclose(told, told[:, :1].expand_as(told))
    q.copy_(q[order])
    assert torch.allclose(model(image)[1], found[:, order])
print("ok: the order of the objects does not count")
print("ok: in the first layer, all queries are told the same")
print("ok: exchanged queries exchange their answers")

# %% [markdown] name="experiment"
# ## An experiment
#
# Scenes of 32x32 pixels with one to four objects of eight classes. First a look at the matching: eight
# scenes, learned by heart. Which query is matched with which object is asked every 20 steps.

# %% name="train" tags=["nbval-ignore-output"]
scenes = data.load("shapes", task="scenes", train=8, test=1)
images, truth = scenes.normalise(scenes.images), detect.targets(scenes)
torch.manual_seed(0)
model = detr.SmallDETR(detr.SMALL)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
says, who = {}, []
for step in range(161):
    if step % 20 == 0:
        says[step] = detect.answers(model, images)
        who.append(torch.cat(detect.who_answers(model, images, truth)))
    model.train()
    loss = sum(model.set_loss(*answer, truth) for answer in model.predictions(images))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
kept = [int((a == b).sum()) for a, b in zip(who, who[1:], strict=False)]
print(f"objects, of {len(who[0])}, that have the query of 20 steps before:", kept)
objects = detect.objects(scenes, "")
AP50 = [detect.average_precision(found, objects)["AP50"] for found in says.values()]
print("AP50 on these scenes:", [round(score, 2) for score in AP50])

# %% name="train-bound"
assert AP50[0] < 0.1 and AP50[-1] > 0.6 and kept[-1] > kept[0]
print("ok: the objects are found, and each has got a query that stays")

# %% [markdown] name="figure-text"
# A score of 1 says that all objects are found once, in the right class. Here are the boxes of the
# matched queries, the first four scenes, before the first step and after 160. At first all queries say
# nearly the same: the matching has little to go by, and changes its mind.

# %% name="figure" tags=["nbval-ignore-output"]
steps = (0, 160)
pictures = [scenes.images[i] for _ in steps for i in range(4)]
titles = [f"{step} steps" for step in steps for _ in range(4)]
picture = show.images(pictures, titles, columns=4, size=1.6)
for row, step in enumerate(steps):
    asked = who[step // 20].split([len(labels) for labels, _ in truth])
    for i in range(4):
        axes = picture.axes[4 * row + i]
        for x1, y1, x2, y2 in (says[step][i].boxes[asked[i]] - 0.5).tolist():
            axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color="white")
        axes.set(xlim=(-0.5, 31.5), ylim=(31.5, -0.5))
alt = "Four scenes with the matched boxes: all alike at first, then on the objects"
show.figure(picture, alt)
apart = [says[step][0].boxes[:, 0].std().item() for step in steps]
print("how much the left sides of the boxes of the first scene differ, in pixels:")
print([round(pixels, 1) for pixels in apart])

# %% name="figure-bound"
assert apart[1] > apart[0] + 3
print("ok: the boxes of ten queries were alike, and are so no more")

# %% [markdown] name="recorded-text"
# To learn what is true of new scenes takes longer: 8,000 scenes, six epochs of 250 steps, three seeds.
# The record also asks whether the best matching is needed. Greed takes the cheapest pair, again and
# again. The third way gives each object its three cheapest queries.

# %% name="recorded"
record = show.recorded("claim-detr")
figures = record["figures"]
print(show.origin(record))
for name in ("best", "greedy", "three"):
    AP50 = figures[f"{name}, AP50"]["mean"]
    extra = figures[f"{name}, duplicates"]["mean"]
    print(f"{name:6}: AP50 {AP50:.2f}, {extra:.2f} answers too many for an object")
print(show.pairs(record))
for name, first in (("AP50 after epoch", 1), ("kept in epoch", 2)):
    values = [figures[f"{name} {epoch}"]["mean"] for epoch in range(first, 7)]
    print(f"{name} {first} to 6:", " ".join(f"{value:.2f}" for value in values))

# %% [markdown] name="recorded-answer"
# One query for an object is what counts. With three, each object is said three times, and nothing says
# which to keep. A greedy choice is as good as the best one here, ahead by less than a point: a negative
# result, with four objects at most, which says nothing of crowds.
#
# The queries settle while they learn: ever more objects keep theirs. And even the best matching leaves
# 0.31 answers too many for an object. "No object" counts a tenth, so a query in doubt may do better to
# say something.
#
# ## What the authors report
#
# On COCO, DETR with a ResNet-50 and 41 million parameters reaches an AP of 42.0. It needs no list of
# places and no step that removes what was found twice.

# %% [markdown] name="remember"
# ## Remember
#
# - The matching uses probabilities, the loss their logarithms. No gradient passes through the matching.
# - Places and queries are added to what asks and to what is asked, in every layer, never to the values.
# - Classes have one more: "no object". Of Q queries most get it, so it counts a tenth.
# - Each layer of the decoder says its own answer and is trained, with the same heads and norm. What the
#   norm gives goes to the heads, not to the next layer.
# - Boxes are centres and sides in parts of the image, and pass a sigmoid.
