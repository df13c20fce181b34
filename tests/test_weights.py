"""weights.load: every layout, every misfit, every hostile file; and the model left as it was."""

import json
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from tests.oracles import SIZES, WIDE, build_timm, build_torchvision, build_transformers, randomise
from vitcourse import Config, ViT, papers, weights
from vitcourse.parts import LearnedPosition2D, MeanHead, RepresentationHead
from vitcourse.vit import resize_position


def build(model=ViT, image=(24, 24), **options):
    return randomise(model(Config(**{**SIZES, "image": image, **options}))).eval()


def images(image=(24, 24)):
    return torch.randn(2, 3, *image)


def assert_same(ours, theirs, image=(24, 24)):
    x = images(image)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_untouched(model, before):
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


# Layouts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_a_state_dict_of_each_library(library):
    build_oracle = dict(
        timm=build_timm, torchvision=build_torchvision, transformers=build_transformers
    )[library]
    oracle = build_oracle((24, 24))
    randomise(oracle.model).eval()
    ours = build()
    report = weights.load(ours, oracle.model.state_dict())
    assert report.layout == library and report.notes == []
    assert report.tensors == len(ours.state_dict())
    assert_same(ours, oracle.run)


def test_both_transformers_layouts(tmp_path):
    oracle = build_transformers((24, 24))
    randomise(oracle.model).eval()
    oracle.model.save_pretrained(tmp_path)  # writes the names of release 4
    names = load_file(tmp_path / "model.safetensors").keys()
    assert any("encoder.layer.0.attention.attention.query" in name for name in names)
    assert not any("encoder.layer" in name for name in oracle.model.state_dict())
    ours = build()
    assert weights.load(ours, tmp_path / "model.safetensors").layout == "transformers"
    assert_same(ours, oracle.run)


def test_transformers_without_a_head():
    oracle = build_transformers((24, 24))
    randomise(oracle.model).eval()
    ours = build()
    head = ours.head.weight.clone()
    report = weights.load(
        ours, {**oracle.model.vit.state_dict(), "pooler.dense.bias": torch.ones(40)}
    )
    assert report.notes == ["head: the source has no head, the model keeps its own for 7"]
    assert report.tensors == len(ours.state_dict()) - 2
    assert torch.equal(ours.head.weight, head)
    x = images()
    theirs = oracle.model.vit(x).last_hidden_state
    torch.testing.assert_close(ours.encode(x)[0], theirs, rtol=1e-4, atol=1e-4)


def google_arrays(state, heads=5):
    """Our state dict as the arrays of a Google file: the inverse of the loader, written apart."""
    out = {
        "cls": state["prefix"],
        "Transformer/posembed_input/pos_embedding": state["position.table"],
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for i in range(3):
        theirs, ours = f"Transformer/encoderblock_{i}/", f"blocks.{i}."
        attention = theirs + "MultiHeadDotProductAttention_1/"
        for norm, number in (("norm1", 0), ("norm2", 2)):
            out[f"{theirs}LayerNorm_{number}/scale"] = state[f"{ours}{norm}.weight"]
            out[f"{theirs}LayerNorm_{number}/bias"] = state[f"{ours}{norm}.bias"]
        weight, bias = state[ours + "attn.qkv.weight"], state[ours + "attn.qkv.bias"]
        for j, name in enumerate(("query", "key", "value")):
            part = slice(j * 40, (j + 1) * 40)
            out[f"{attention}{name}/kernel"] = weight[part].T.reshape(40, heads, 8)
            out[f"{attention}{name}/bias"] = bias[part].reshape(heads, 8)
        out[attention + "out/kernel"] = state[ours + "attn.proj.weight"].T.reshape(heads, 8, 40)
        out[attention + "out/bias"] = state[ours + "attn.proj.bias"]
        for j in (0, 1):
            out[f"{theirs}MlpBlock_3/Dense_{j}/kernel"] = state[f"{ours}mlp.fc{j + 1}.weight"].T
            out[f"{theirs}MlpBlock_3/Dense_{j}/bias"] = state[f"{ours}mlp.fc{j + 1}.bias"]
    return {name: tensor.numpy() for name, tensor in out.items()}


def test_a_google_file_as_timm_reads_it(tmp_path):
    path = tmp_path / "vit.npz"
    np.savez(path, **google_arrays(build().state_dict()))
    theirs = build_timm((24, 24)).model.eval()
    theirs.load_pretrained(str(path))
    ours = build()
    report = weights.load(ours, path)
    assert report.layout == "google" and report.notes == []
    assert_same(ours, theirs)


def test_a_big_vision_file():
    state = build().state_dict()
    arrays = google_arrays(state)
    table = arrays.pop("Transformer/posembed_input/pos_embedding")
    renamed = {"params/pos_embedding": table[:, 1:]}  # the class token has no position there
    for name, array in arrays.items():
        name = name.replace("LayerNorm_2", "LayerNorm_1").replace("Attention_1", "Attention_0")
        renamed["params/" + name.replace("MlpBlock_3", "MlpBlock_0")] = array
    ours, same = build(), build()
    report = weights.load(ours, {name: torch.tensor(array) for name, array in renamed.items()})
    assert report.notes == ["positions: none for the prefix tokens, which get zeros"]
    state["position.table"][:, :1] = 0
    same.load_state_dict(state)
    assert_same(ours, same)


def test_a_representation_layer(tmp_path):
    model = build(ViT.variant(Head=RepresentationHead))
    state = model.state_dict()
    arrays = google_arrays(state)
    arrays["pre_logits/kernel"] = state["head.pre_logits.weight"].T.numpy()
    arrays["pre_logits/bias"] = state["head.pre_logits.bias"].numpy()
    np.savez(tmp_path / "in21k.npz", **arrays)
    ours = build(ViT.variant(Head=RepresentationHead))
    weights.load(ours, tmp_path / "in21k.npz")
    assert_same(ours, model)
    with pytest.raises(ValueError, match="head.pre_logits.weight .build the model with"):
        weights.load(build(), tmp_path / "in21k.npz")
    for_others = build(classes=4)  # for fine-tuning, the hidden layer goes with the head
    assert "keeps its own for 4" in str(weights.load(for_others, tmp_path / "in21k.npz"))


def test_timm_without_a_class_token():
    sizes = dict(img_size=24, patch_size=6, embed_dim=40, depth=3, num_heads=5, mlp_ratio=2)
    pool = dict(class_token=False, global_pool="avg", num_classes=7)
    theirs = timm.create_model("vit_tiny_patch16_224", **sizes, **pool, fc_norm=False)
    ours = build(ViT.variant(Head=MeanHead))
    weights.load(ours, randomise(theirs).eval().state_dict())
    assert_same(ours, theirs)
    other = timm.create_model("vit_tiny_patch16_224", **sizes, **pool, fc_norm=True)
    with pytest.raises(ValueError, match="averages before the norm"):
        weights.load(ours, other.state_dict())


@pytest.mark.parametrize("no_embed_class", [False, True])
def test_timm_with_registers(no_embed_class):
    sizes = dict(img_size=24, patch_size=6, embed_dim=40, depth=3, num_heads=5, mlp_ratio=2)
    theirs = timm.create_model(
        "vit_tiny_patch16_224", **sizes, num_classes=7, reg_tokens=2, no_embed_class=no_embed_class
    )
    ours = build(ViT.variant(registers=2))
    weights.load(ours, randomise(theirs).eval().state_dict())
    assert_same(ours, theirs)


def test_our_own_state_dicts_and_what_wraps_them():
    model = build(ViT.variant(Position=LearnedPosition2D))
    state = model.state_dict()
    wrapped = {"model": {f"module._orig_mod.{name}": t for name, t in state.items()}, "epoch": 3}
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    both = {"state_dict": zeros, "state_dict_ema": state}  # timm's script: the average is meant
    for source in (state, {"state_dict": state}, wrapped, both):
        ours = build(ViT.variant(Position=LearnedPosition2D))
        assert weights.load(ours, source).layout == "vitcourse"
        assert_same(ours, model)


def test_a_paper_brings_its_own_layout():
    class Paper(ViT):
        layouts = {"official": ("stem.weight", weights.rename([(r"^stem\.", "patch_embed.proj.")]))}

    model = build(Paper)
    state = {n.replace("patch_embed.proj", "stem"): t for n, t in model.state_dict().items()}
    ours = build(Paper)
    assert weights.load(ours, state).layout == "official"
    assert_same(ours, model)
    with pytest.raises(ValueError, match="no layout known here"):
        weights.load(build(), {n.replace("prefix", "cls"): t for n, t in state.items()})


# Fitting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["bicubic", "bilinear"])
def test_positions_and_head_are_fitted(resize):
    oracle = build_timm((24, 24))
    state = randomise(oracle.model).state_dict()
    ours = build(image=WIDE, classes=4)
    head = ours.head.weight.clone()
    report = weights.load(ours, state, resize=resize)
    assert report.notes == [
        f"positions: resized ({resize}) from 4x4 to 3x5 patches",
        "head: the source has a head for 7 classes, the model keeps its own for 4",
    ]
    assert str(report).startswith(f"loaded {len(state) - 2} tensors in the layout of timm\n- pos")
    assert torch.equal(ours.head.weight, head)
    wanted = resize_position(state["pos_embed"], (4, 4), (3, 5), 1, resize)
    assert torch.equal(ours.position.table, wanted)


def test_a_source_that_is_not_square():
    state = build_timm(WIDE).model.state_dict()
    with pytest.raises(ValueError, match=r"say which, with load\(..., grid=\(h, w\)\)"):
        weights.load(build(), {**state, "pos_embed": torch.randn(1, 1 + 2 * 7, 40)})
    ours = build()
    assert "from 3x5 to 4x4" in str(weights.load(ours, state, grid=(3, 5)))
    with pytest.raises(ValueError, match="say which"):
        weights.load(ours, state, grid=(5, 5))
    with pytest.raises(ValueError, match="behind 0 prefix tokens .*has the source another head"):
        weights.load(build(ViT.variant(Head=MeanHead)), build().state_dict())


def test_the_positions_of_all_stages_are_fitted():
    def model(image):
        return papers.build("pvt_tiny", image=image)

    source, ours = model(64), model(96)
    report = weights.load(ours, source.state_dict())
    grids = [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert report.notes == [
        f"positions: resized (bicubic) from {a}x{a} to {b}x{b} patches" for a, b in grids
    ]
    for one, other, (a, b) in zip(source.stages, ours.stages, grids, strict=True):
        prefix = one.position.prefix_len
        wanted = resize_position(one.position.table, (a, a), (b, b), prefix)
        assert torch.equal(other.position.table, wanted)


def test_positions_that_could_be_two_grids():
    assert weights.source_grid(16, (1, 0), (3, 5)) == (1, (3, 5))
    assert weights.source_grid(17, (1, 0), (3, 5)) == (1, (4, 4))
    with pytest.raises(ValueError, match="could be more than one grid"):
        weights.source_grid(10, (1, 0), (2, 5))  # 1 + 3x3, or 2x5 without a class token
    assert weights.source_grid(10, (1, 0), (2, 5), (3, 3)) == (1, (3, 3))


def test_other_precision():
    state = {name: tensor.to(torch.bfloat16) for name, tensor in build().state_dict().items()}
    ours = build(image=WIDE)
    weights.load(ours, state)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}


# What is refused --------------------------------------------------------------------------------


def without(state, name):
    return {key: tensor for key, tensor in state.items() if key != name}


MISFITS = {
    "missing": (lambda s: without(s, "norm.bias"), "missing: norm.bias"),
    "unknown": (lambda s: {**s, "blocks.0.extra": torch.ones(1)}, "unknown: blocks.0.extra"),
    "misshapen": (
        lambda s: {**s, "norm.bias": torch.ones(41)},
        r"norm.bias is \(41,\), the model needs \(40,\)",
    ),
    "too deep": (lambda s: {**s, "blocks.3.norm1.bias": torch.ones(40)}, "unknown: blocks.3"),
    "one of three": (
        lambda s: {n.replace("attn.qkv", "attn.query"): t for n, t in s.items()},
        "missing: blocks.0.attn.qkv.bias",
    ),
    "not tensors": (lambda s: {**s, "norm.bias": [1.0]}, "'norm.bias' holds list"),
    "empty": (lambda s: {}, "maps names to tensors"),
    "another network": (lambda s: {"conv1.weight": torch.ones(1)}, "no layout .* conv1.weight"),
    "not a dict": (lambda s: [1, 2], "this is list"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_misfits_are_listed_and_change_nothing(what):
    damage, message = MISFITS[what]
    model = build()
    before, state = snapshot(model), snapshot(build())
    with pytest.raises(ValueError, match=message):
        weights.load(model, damage(state))
    assert_untouched(model, before)


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('this file was executed')",)


def test_hostile_files(tmp_path):
    state = build().state_dict()
    save_file(state, tmp_path / "good.safetensors")
    good = (tmp_path / "good.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    torch.save({**state, "norm.bias": Hostile()}, tmp_path / "code.pt")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Hostile()))
    torch.save(state, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:1000])
    np.savez(tmp_path / "objects.npz", cls=np.array([Hostile()], dtype=object))
    (tmp_path / "noise.npz").write_bytes(b"PK\x03\x04" + bytes(200))
    (tmp_path / "noise.bin").write_bytes(bytes(range(256)))
    names = "cut.safetensors empty.safetensors code.pt pickle.pth cut.pt objects.npz noise.npz"
    for name in [*names.split(), "noise.bin"]:
        model = build()
        before = snapshot(model)
        with pytest.raises(ValueError, match=name) as error:
            weights.load(model, tmp_path / name)
        assert "\n" not in str(error.value)
        assert_untouched(model, before)
    weights.load(model, tmp_path / "whole.pt")
    with pytest.raises(FileNotFoundError, match="no file"):
        weights.load(model, tmp_path / "none.pt")
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(ValueError, match="unknown ending"):
        weights.load(model, tmp_path / "weights.h5")


# Save -------------------------------------------------------------------------------------------


def test_save_and_load(tmp_path):
    path = tmp_path / "new" / "model.safetensors"
    model, ours = build(ViT.variant(Head=MeanHead)), build(ViT.variant(Head=MeanHead))
    weights.save(model, path)
    weights.load(ours, path)
    x = images()
    assert torch.equal(ours(x), model(x))
    written = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        weights.save(ours, path)
    assert path.read_bytes() == written
    weights.save(build(ViT.variant(Head=MeanHead)), path, overwrite=True)
    assert path.read_bytes() != written
    with pytest.raises(ValueError, match="should end in .safetensors"):
        weights.save(model, tmp_path / "model.pt")
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"depth": 10**9}, "is damaged: it holds fewer numbers than its model has"),
        ({"dim": 40 * 10**6}, "is damaged: it holds fewer numbers than its model has"),
        ({"classes": 10**12}, "is damaged: it holds fewer numbers than its model has"),
        ({"mlp_ratio": "4"}, "mlp_ratio is '4'"),
        (None, "does not say how its model is built"),
    ],
)
def test_a_file_that_describes_another_model(tmp_path, changes, message):
    model = build()
    config = vars(model.cfg) | changes if changes else None
    about = {"model": "ViT", "config": config} if changes else [1]
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path, {"about": json.dumps(about)})
    with pytest.raises(ValueError, match=message):
        weights.restore(path)


def test_a_killed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.safetensors"
    weights.save(build(), path)
    script = (
        "import sys; from vitcourse import make_vit, weights\n"
        "model = make_vit('Micro/4', image=32)\n"
        "print('ready', flush=True)\n"
        "while True: weights.save(model, sys.argv[1], overwrite=True)"
    )
    for delay in (0.011, 0.017, 0.023):
        process = subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert load_file(path), "it must be whole, whichever it is"


# Published weights ------------------------------------------------------------------------------


def test_pretrained(monkeypatch):
    from torchvision.models import ViT_B_32_Weights, vit_b_32

    theirs = vit_b_32().eval()
    with torch.no_grad():
        theirs.heads.head.weight.normal_(std=0.02)
    published = theirs.state_dict()
    for name in list(published):  # the names of the published files
        for new, old in (("mlp.0", "mlp.linear_1"), ("mlp.3", "mlp.linear_2")):
            if new in name:
                published[name.replace(new, old)] = published.pop(name)
    monkeypatch.setattr(ViT_B_32_Weights, "get_state_dict", lambda *a, **k: dict(published))
    ours = weights.pretrained("vit_b_32")
    assert not ours.training and ours.class_names[0] == "tench"
    x = ours.preprocess(torch.randint(256, (2, 3, 300, 260), dtype=torch.uint8))
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
    usual = ViT_B_32_Weights.IMAGENET1K_V1.transforms()
    assert (ours.preprocess.crop_size, ours.preprocess.resize_size) == ([224, 224], [256])
    picture = torch.randint(256, (3, 300, 260), dtype=torch.uint8)
    assert torch.equal(ours.preprocess(picture), usual(picture))
    small = weights.pretrained("vit_b_32", image=(96, 128), classes=5)
    assert small(small.preprocess(picture)[None]).shape == (1, 5)


def test_pretrained_without_a_network_or_a_name(monkeypatch):
    from torchvision.models import ViT_B_16_Weights

    def fail(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(ViT_B_16_Weights, "get_state_dict", fail)
    with pytest.raises(ConnectionError, match="Is there a network?"):
        weights.pretrained("vit_b_16")
    with pytest.raises(ValueError, match="choose from vit_b_16, vit_b_32"):
        weights.pretrained("vit_s_16")
    with pytest.raises(ValueError, match="IMAGENET1K_V1"):
        weights.pretrained("vit_b_16", tag="V9")


def test_the_layouts_of_a_model_come_first():
    """Also where one has the name of a general layout."""

    class Renamed(ViT):
        layouts = {"timm": ("patch_embed.proj.weight", weights.rename([("^other$", "prefix")]))}

    model = build(ViT)
    state = {("other" if n == "prefix" else n): t for n, t in model.state_dict().items()}
    assert weights.load(build(Renamed), state).layout == "timm"
