"""iGPT: beside transformers and scikit-learn, and what makes it a distribution over images."""

import itertools

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from transformers import (
    ImageGPTConfig,
    ImageGPTForCausalImageModeling,
    ImageGPTForImageClassification,
)
from transformers.models.imagegpt.image_processing_imagegpt import color_quantize_torch

from tests.proofs import count, equal, images, randomise, same_as
from vitcourse import papers, weights
from vitcourse.papers import igpt
from vitcourse.papers.igpt import (
    IGPT,
    CausalAttention,
    Classifier,
    PixelBert,
    QuickMlp,
    Sizes,
    remember,
)

SIZES = Sizes(dim=24, depth=2, heads=3, colours=11, image=(5, 7))


def numbers(*shape, colours=11, seed=0):
    """Random numbers of colours: int64 (B, N)."""
    return torch.randint(colours, shape, generator=torch.Generator().manual_seed(seed))


MODELS = {
    "igpt": lambda: (IGPT(SIZES), numbers(2, 35)),
    "bert": lambda: (PixelBert(SIZES), numbers(2, 35)),
    "classifier": lambda: (Classifier(IGPT(SIZES), 4), numbers(2, 35)),
}
# transformers counts 9 * dim more in each block, its biases: see the_counts_of_transformers
COUNTS = {
    "igpt_s": 76_682_240 - 9 * 512 * 24,
    "igpt_m": 455_489_536 - 9 * 1024 * 36,
    "igpt_l": 1_362_914_304 - 9 * 1536 * 48,
    "igpt_xl": 6_803_097_600 - 9 * 3072 * 60,
}


# Beside transformers ------------------------------------------------------------------------------


class OnFloats(IGPT):
    """Takes numbers of colours as floats, which is what `same_as` gives to a model."""

    def forward(self, colours):
        return super().forward(colours.long())


def theirs(cls=ImageGPTForCausalImageModeling):
    config = ImageGPTConfig(
        vocab_size=12, n_positions=35, n_embd=24, n_layer=2, n_head=3, use_cache=False
    )
    config.num_labels = 4
    return cls(config)


def shifted(colours):
    """What the port wants to be given: the start, number 11, then all but the last."""
    return F.pad(colours.long()[:, :-1], (1, 0), value=11)


def same_as_transformers():
    """Logits, blocks and gradients."""
    oracle, ours = theirs(), OnFloats(Sizes(24, 2, 3, 11, (5, 7), biases=True))
    stages = (*ours.blocks, ours.norm), (*oracle.transformer.h, oracle.transformer.ln_f)
    given = numbers(3, 35).float()
    same_as(oracle, ours, given, stages, lambda colours: oracle(shifted(colours)).logits)


def without_biases_it_is_the_port_whose_biases_are_zero():
    """What the authors' weights are, and the features of each layer."""
    oracle, ours = randomise(theirs()).double(), IGPT(SIZES).double().eval()
    for name, parameter in oracle.named_parameters():
        if name.endswith(".bias"):
            parameter.data.zero_()
    weights.load(ours, oracle.state_dict())
    colours = numbers(3, 35)
    wanted = oracle(shifted(colours), output_hidden_states=True)
    equal(ours(colours), wanted.logits)
    found = ours.features(colours)
    for block, x, mine in zip(
        oracle.transformer.h, wanted.hidden_states[:-1], found[:-1], strict=True
    ):
        equal(mine, block.ln_1(x))
    equal(found[-1], wanted.hidden_states[-1])


def the_classifier_of_transformers():
    """It, too, averages what leaves the last norm."""
    oracle = randomise(theirs(ImageGPTForImageClassification)).double()
    ours = Classifier(IGPT(Sizes(24, 2, 3, 11, (5, 7), biases=True)), 4).double().eval()
    state = oracle.state_dict()
    ours.head.weight.data = state.pop("score.weight")
    state["lm_head.weight"] = ours.model.head.weight.data
    weights.load(ours.model, state)
    colours = numbers(3, 35)
    equal(ours(colours)[0], oracle(shifted(colours)).logits)


def the_counts_of_transformers():
    """With biases, the sizes of iGPT-S count what the port counts."""
    with torch.device("meta"):
        oracle = ImageGPTForCausalImageModeling(ImageGPTConfig())
        ours = papers.build("igpt_s", biases=True)
    assert count(ours) == count(oracle) == 76_682_240


def the_nearest_colour_of_transformers():
    pixels, palette = images(200, 3), images(13, 3, seed=1)
    assert torch.equal(igpt.nearest(pixels, palette), color_quantize_torch(pixels, palette))


# Palette and probe, beside scikit-learn -----------------------------------------------------------


def pictures(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (4, 3, 6, 5), generator=generator, dtype=torch.uint8)


def the_palette_is_that_of_k_means():
    given = pictures()
    pixels = igpt.as_pixels(given).flatten(0, 1)
    different = pixels.unique(dim=0)
    chosen = torch.randperm(len(different), generator=torch.Generator().manual_seed(3))[:7]
    means = KMeans(7, init=different[chosen].numpy(), n_init=1, tol=0, max_iter=50).fit(pixels)
    wanted = torch.from_numpy(means.cluster_centers_)
    equal(igpt.find_palette(given, 7, seed=3), wanted[wanted.sum(dim=1).argsort()], "", 1e-5)


def colours_of_the_palette_are_painted_as_they_were():
    """Numbers run along rows, channels stay where they were, and nothing is lost."""
    palette = igpt.find_palette(pictures(), 30)
    given = numbers(2, 30, colours=30)
    drawn = igpt.paint(given, palette, (6, 5))
    assert torch.equal(igpt.quantise(drawn, (palette * 127.5).round() / 127.5), given)
    for y, x in ((0, 3), (2, 1), (5, 4)):
        pixel = ((palette[given[1, 5 * y + x]] + 1) * 127.5).round().to(torch.uint8)
        assert torch.equal(drawn[1, :, y, x], pixel)


def the_probe_is_logistic_regression():
    features, others = images(60, 6), images(90, 6, seed=1)
    labels = (features @ images(6, 4, seed=2) + images(60, 4, seed=3)).argmax(dim=1)
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0)
    scale = 40 * torch.arange(1, 7)  # features of any size are told apart alike
    oracle = LogisticRegression(C=1.0, tol=1e-10, max_iter=2000)
    oracle.fit(((features - mean) / std).numpy(), labels.numpy())
    wanted = oracle.predict(((others - mean) / std).numpy())
    found = igpt.linear_probe(features * scale + 1, labels, others * scale + 1)
    assert found.tolist() == wanted.tolist()


# The likelihood of an image -----------------------------------------------------------------------


def no_pixel_sees_itself_or_a_later_one():
    """Another colour at place i changes the logits of all later places, and of no other."""
    model, colours = randomise(IGPT(SIZES)).double(), numbers(1, 35)
    before = model(colours)
    for i in (0, 6, 7, 33):
        other = colours.clone()
        other[0, i] = (other[0, i] + 1) % 11
        changed = (model(other) - before).abs().amax(dim=-1)[0] > 1e-9
        assert changed.tolist() == [place > i for place in range(35)]


def all_images_together_have_probability_one():
    """All 81 images of 2 x 2 pixels in three colours."""
    model = randomise(IGPT(Sizes(12, 2, 2, 3, image=2))).double()
    everything = torch.tensor(list(itertools.product(range(3), repeat=4)))
    likelihoods = torch.stack([(-4 * model.objective(one[None])).exp() for one in everything])
    equal(likelihoods.sum(), torch.ones((), dtype=torch.float64))


def memory_changes_nothing():
    """Pixel by pixel with remembered keys and values, and in one go: the same logits."""
    model, colours = randomise(IGPT(SIZES)).double(), numbers(3, 35)
    wanted = model(colours)
    with remember(model):
        found = [model.decode(model.embed(colours[:, : i + 1])[:, i:]) for i in range(35)]
    equal(model.head(torch.cat(found, dim=1)), wanted)
    with remember(model):  # several at a time
        found = [model.decode(model.embed(colours[:, :b])[:, a:b]) for a, b in ((0, 9), (9, 35))]
    equal(model.head(torch.cat(found, dim=1)), wanted)
    equal(model(colours), wanted, "nothing is kept")


def samples_are_drawn_from_the_logits():
    """The same numbers as from a model that computes the whole image for each pixel."""
    model, known = randomise(IGPT(SIZES)).double(), numbers(3, 20)
    generator, colours = torch.Generator().manual_seed(5), known
    for place in range(20, 35):
        logits = model(F.pad(colours, (0, 35 - place)))[:, place] / 0.7
        drawn = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
        colours = torch.cat([colours, drawn], dim=1)
    found = igpt.sample(model, known, torch.Generator().manual_seed(5), temperature=0.7)
    assert torch.equal(found, colours)


# Hidden pixels ------------------------------------------------------------------------------------


def the_colour_of_a_hidden_pixel_is_not_seen():
    """Its colour changes nothing; that of any other pixel changes all logits."""
    model, colours = randomise(PixelBert(SIZES)).double(), numbers(1, 35)
    hidden = torch.zeros(1, 35, dtype=torch.bool)
    hidden[0, [4, 17]] = True
    before = model(colours, hidden)
    for i, seen in ((4, False), (17, False), (5, True), (34, True)):
        other = colours.clone()
        other[0, i] = (other[0, i] + 1) % 11
        changed = (model(other, hidden) - before).abs().amax(dim=-1)[0] > 1e-9
        assert changed.tolist() == [seen] * 35
    equal(model.embed(colours, hidden)[:, [4, 17]], model.position[:, [4, 17]])


def only_hidden_pixels_are_asked_for():
    """The mean over the hidden ones of each image, and then over the images."""
    model, colours = randomise(PixelBert(SIZES)).double(), numbers(3, 35)
    hidden = model.hide(colours, torch.Generator().manual_seed(1))
    assert len(set(hidden.sum(dim=1).tolist())) > 1, "as many in each image prove nothing"
    nats = -model(colours, hidden).log_softmax(dim=-1)
    wanted = [
        torch.stack([nats[b, n, colours[b, n]] for n in range(35) if hidden[b, n]]).mean()
        for b in range(3)
    ]
    found = model.objective(colours, torch.Generator().manual_seed(1))
    equal(found, torch.stack(wanted).mean())
    drawn = model.hide(numbers(1000, 35), torch.Generator().manual_seed(2))
    assert abs(drawn.double().mean() - 0.15) < 0.01


def fine_tuning_minds_both_losses():
    """The loss of pre-training, and that of the labels, with the same pixels hidden."""
    colours, labels = numbers(3, 35), torch.tensor([2, 0, 3])
    for cls in (IGPT, PixelBert):
        model = randomise(Classifier(cls(SIZES), 4)).double()
        generative = model.model.objective(colours, torch.Generator().manual_seed(1))
        hidden = model.model.hide(colours, torch.Generator().manual_seed(1))
        classes = F.cross_entropy(model(colours, hidden)[0], labels)
        found = model.objective(colours, labels, torch.Generator().manual_seed(1))
        equal(found, generative + classes)


PROOFS = [
    same_as_transformers,
    without_biases_it_is_the_port_whose_biases_are_zero,
    the_classifier_of_transformers,
    the_counts_of_transformers,
    the_nearest_colour_of_transformers,
    the_palette_is_that_of_k_means,
    colours_of_the_palette_are_painted_as_they_were,
    the_probe_is_logistic_regression,
    no_pixel_sees_itself_or_a_later_one,
    all_images_together_have_probability_one,
    memory_changes_nothing,
    samples_are_drawn_from_the_logits,
    the_colour_of_a_hidden_pixel_is_not_seen,
    only_hidden_pixels_are_asked_for,
    fine_tuning_minds_both_losses,
]


# Errors of one line -------------------------------------------------------------------------------


def exact_gelu(self, x, grid=None):
    return self.fc2(F.gelu(self.fc1(x)))


def sees_everything(self, q, k, v, bias=None):
    return super(CausalAttention, self).attend(q, k, v)


def not_shifted(self, colours, hidden=None):
    return self.colours(colours) + self.position + 0 * self.prefix


def mask_of_the_first_rows(self, q, k, v, bias=None):
    T, seen = q.shape[2], k.shape[2]
    later = q.new_ones(T, seen, dtype=torch.bool).triu(1)
    bias = q.new_zeros(T, seen).masked_fill(later, -torch.inf)
    return super(CausalAttention, self).attend(q, k, v, bias)


def before_the_norm(self, colours, hidden=None):
    x = self.embed(colours, hidden)
    found = [x]
    for block in self.blocks:
        x = block(x)
        found.append(x)
    return found


def last_token(self, colours, hidden=None):
    x = self.model.encode(colours, hidden)
    return self.head(x[:, -1]), self.model.head(x)


def farthest(pixels, palette):
    return torch.cdist(pixels, palette).argmax(dim=1)


def by_inner_product(pixels, palette):
    return (pixels @ palette.T).argmax(dim=1)


def columns_first(colours, palette, image):
    pixels = (palette[colours] + 1) * 127.5
    return pixels.round().to(torch.uint8).transpose(1, 2).unflatten(2, image[::-1]).mT


def in_sum(self, logits, colours, hidden=None):
    return F.cross_entropy(logits.flatten(0, 1), colours.flatten(), reduction="sum")


def embedded_without_mask(self, colours, hidden=None):
    return self.colours(colours) + self.position


def over_all_pixels(self, logits, colours, hidden):
    return F.cross_entropy(logits.flatten(0, 1), colours.flatten())


def over_the_batch(self, logits, colours, hidden):
    each = F.cross_entropy(logits.transpose(1, 2), colours, reduction="none")
    return (each * hidden).sum() / hidden.sum()


def labels_alone(self, colours, labels, generator=None):
    hidden = self.model.hide(colours, generator)
    return F.cross_entropy(self(colours, hidden)[0], labels)


def likeliest(model, known, generator=None, temperature=1.0):
    colours = known
    for place in range(known.shape[1], 35):
        logits = model(F.pad(colours, (0, 35 - place)))[:, place]
        colours = torch.cat([colours, logits.argmax(dim=-1, keepdim=True)], dim=1)
    return colours


PROBE = igpt.linear_probe


def centred_by_themselves(features, labels, others):
    return PROBE(features, labels, others - others.mean(dim=0))


PLANTED = {
    "GELU as it is": ((QuickMlp, "forward", exact_gelu), same_as_transformers),
    "an eps of 1e-3": (
        (igpt, "RMSNorm", lambda dim: torch.nn.RMSNorm(dim, eps=1e-3)),
        same_as_transformers,
    ),
    "a mean is subtracted": (
        (igpt, "RMSNorm", lambda dim: torch.nn.LayerNorm(dim, eps=1e-5, bias=False)),
        same_as_transformers,
    ),
    "later pixels are seen": (
        (CausalAttention, "attend", sees_everything),
        no_pixel_sees_itself_or_a_later_one,
    ),
    "a pixel sees itself": ((IGPT, "embed", not_shifted), no_pixel_sees_itself_or_a_later_one),
    "a pixel is told by itself": (
        (IGPT, "embed", not_shifted),
        all_images_together_have_probability_one,
    ),
    "the loss is a sum": ((IGPT, "loss", in_sum), all_images_together_have_probability_one),
    "the mask is that of the first rows": (
        (CausalAttention, "attend", mask_of_the_first_rows),
        memory_changes_nothing,
    ),
    "features are not normalised": (
        (IGPT, "features", before_the_norm),
        without_biases_it_is_the_port_whose_biases_are_zero,
    ),
    "the last token is read": ((Classifier, "forward", last_token), the_classifier_of_transformers),
    "the port has biases in the norm": (
        (igpt, "RMSNorm", lambda dim: torch.nn.LayerNorm(dim, eps=1e-5)),
        the_counts_of_transformers,
    ),
    "the farthest colour": ((igpt, "nearest", farthest), the_palette_is_that_of_k_means),
    "nearest by the inner product": (
        (igpt, "nearest", by_inner_product),
        the_palette_is_that_of_k_means,
    ),
    "nearest by the inner product, again": (
        (igpt, "nearest", by_inner_product),
        the_nearest_colour_of_transformers,
    ),
    "others are centred by themselves": (
        (igpt, "linear_probe", centred_by_themselves),
        the_probe_is_logistic_regression,
    ),
    "column by column": (
        (igpt, "paint", columns_first),
        colours_of_the_palette_are_painted_as_they_were,
    ),
    "the likeliest colour is taken": (
        (igpt, "sample", likeliest),
        samples_are_drawn_from_the_logits,
    ),
    "hidden pixels are seen": (
        (PixelBert, "embed", embedded_without_mask),
        the_colour_of_a_hidden_pixel_is_not_seen,
    ),
    "all pixels are asked for": (
        (PixelBert, "loss", over_all_pixels),
        only_hidden_pixels_are_asked_for,
    ),
    "a mean over the batch": (
        (PixelBert, "loss", over_the_batch),
        only_hidden_pixels_are_asked_for,
    ),
    "the labels alone": ((Classifier, "objective", labels_alone), fine_tuning_minds_both_losses),
}
