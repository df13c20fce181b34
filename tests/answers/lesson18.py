"""Lesson 18: answers that are right, and what its numbers are."""

import torch
import torch.nn.functional as F

from vitcourse import papers
from vitcourse.papers.igpt import CausalAttention
from vitcourse.papers.mae import normalise
from vitcourse.papers.masked_patches import MaskedPatchViT

# causal_attention ---------------------------------------------------------------------------------


def attention_of_the_package(q, k, v):
    layer = CausalAttention(q.shape[1] * q.shape[3], q.shape[1]).eval()
    return layer.attend(q, k, v)


def attention_by_loop(q, k, v):
    """Each query by itself, with the keys that it may see."""
    n, N, d = q.shape[2], k.shape[2], q.shape[3]
    found = []
    for i in range(n):
        seen = N - n + i + 1
        scores = torch.einsum("bkd,bknd->bkn", q[:, :, i], k[:, :, :seen]) / d**0.5
        found.append(torch.einsum("bkn,bknd->bkd", scores.softmax(-1), v[:, :, :seen]))
    return torch.stack(found, dim=2)


def attention_by_torch(q, k, v):
    n, N = q.shape[2], k.shape[2]
    allowed = torch.arange(N) <= torch.arange(n)[:, None] + N - n
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


# put_back -----------------------------------------------------------------------------------------


def put_back_by_scatter(seen, token, noise):
    places = noise.argsort(dim=1)[:, : seen.shape[1]]
    x = token.expand(*noise.shape, -1)
    return x.scatter(1, places[..., None].expand_as(seen), seen)


def put_back_by_loop(seen, token, noise):
    images = []
    for image, numbers in zip(seen, noise, strict=True):
        order = numbers.argsort().tolist()
        places = {place: image[i] for i, place in enumerate(order[: len(image)])}
        images.append(torch.stack([places.get(p, token) for p in range(len(order))]))
    return torch.stack(images)


def put_back_by_matrix(seen, token, noise):
    """A matrix of zeros and ones for each image."""
    order = noise.argsort(dim=1)
    B, N = noise.shape
    x = torch.cat([seen, token.repeat(B, N - seen.shape[1], 1)], dim=1)
    return F.one_hot(order, N).float().mT @ x


# mae_loss -----------------------------------------------------------------------------------------


def loss_of_the_package(answer, patches, hidden):
    error = (answer - normalise(patches)[0]).square().mean(dim=-1)
    return (error * hidden).sum() / hidden.sum()


def loss_of_those_taken_out(answer, patches, hidden):
    with torch.no_grad():
        x = patches[hidden]
        x = x - x.mean(dim=1, keepdim=True)
        variance = x.square().sum(dim=1, keepdim=True) / (x.shape[1] - 1)
        target = x * torch.rsqrt(variance + 1e-6)
    return F.mse_loss(answer[hidden], target)


def loss_by_loop(answer, patches, hidden):
    errors = []
    for b, n in hidden.nonzero().tolist():
        x = patches[b, n]
        target = (x - x.mean()) / (x.var() + 1e-6) ** 0.5
        errors.append((answer[b, n] - target).pow(2))
    return torch.cat(errors).mean()


RIGHT = {
    "causal_attention": [attention_of_the_package, attention_by_loop, attention_by_torch],
    "put_back": [put_back_by_scatter, put_back_by_loop, put_back_by_matrix],
    "mae_loss": [loss_of_the_package, loss_of_those_taken_out, loss_by_loop],
}

SOURCES = {
    "causal_attention": """
def answer(q, k, v):
    n = q.shape[2]
    N = k.shape[2]
    d = q.shape[3]
    past = N - n
    later = torch.arange(N) > torch.arange(n)[:, None] + past
    scores = q @ k.mT
    scores = scores / d ** 0.5
    scores = scores.masked_fill(later, -torch.inf)
    weights = scores.softmax(dim=3)
    return weights @ v
""",
    "put_back": """
def answer(seen, token, noise):
    n = seen.shape[1]
    N = noise.shape[1]
    order = noise.argsort(dim=1)
    back = order.argsort(dim=1)
    gaps = token.expand(len(seen), N - n, len(token))
    x = torch.cat([seen, gaps], dim=1)
    return x.take_along_dim(back[:, :, None], dim=1)
""",
    "mae_loss": """
def answer(answer, patches, hidden):
    mean = patches.mean(dim=2, keepdim=True)
    variance = patches.var(dim=2, keepdim=True)
    variance = variance + 1e-6
    target = (patches - mean) / variance.sqrt()
    error = (answer - target) ** 2
    error = error.mean(dim=2)
    error = error[hidden]
    return error.mean()
""",
}

EQUIVALENT = {
    (
        "put_back",
        "gaps = token.expand(len(seen), N - n, len(token)) -> "
        "gaps = token.expand(len(seen), N + n, len(token))",
    ): "tokens too many stand at the end, where nothing is taken from",
    (
        "mae_loss",
        "error = (answer - target) ** 2 -> error = (target - answer) ** 2",
    ): "a square does not know its sign",
    (
        "mae_loss",
        "error = error.mean(dim=2) -> pass",
    ): "all patches have as many values, so the mean over all is the mean of the means",
}


def truth():
    mae, igpt = (papers.configs()[name] for name in ("mae_b_16", "igpt_s"))
    with torch.device("meta"):
        model = papers.build("mae_b_16")
        _, seen = model.choose(torch.empty(1, 3, 224, 224), torch.empty(1, 196))
        x, _ = model.encode(torch.empty(1, 3, 224, 224), seen)
        pixels = papers.build("igpt_s").embed(torch.empty(1, 1024, dtype=torch.long))
    assert mae.sizes.image == (224, 224) and igpt.sizes.image == 32
    return {
        "tokens that an iGPT": pixels.shape[1],
        "tokens that the encoder": x.shape[1],
        "of 196 patches": int(196 * MaskedPatchViT.corrupted),
    }
