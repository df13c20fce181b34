"""How well does a small ViT read digits with one of the classic bugs in it?

Each bug of vitcourse/check/bugs.py, and the healthy set-up, trained for the same 400 steps of 64
images. Accuracies are shares of all 1437 training images, without augmentation, against the labels
that training had, and of all 360 test images, as the set-up with its bug computes them. A bug that
sits in the test alone leaves the training as it is, so it tests the healthy model.
"""

from vitcourse.check.bugs import BUGS, accuracies, broken, healthy, train

SEEDS = 3
IN_TEST = ("dropout at test", "test augmented", "test not normalised", "columns at test")


def measure(seed):
    """Training and test accuracy without a bug, and with each."""
    sound, found = healthy(seed), {}
    train(sound)
    setups = {"healthy": sound} | {name: broken(name, seed) for name in BUGS}
    for name, setup in setups.items():
        if name in IN_TEST:
            setup.model = sound.model
        elif name != "healthy":
            train(setup)
        for part, accuracy in zip(("train", "test"), accuracies(setup), strict=True):
            found[f"{name}, {part}"] = round(accuracy, 5)
    return found


NEAR = [name for name in BUGS if "scale" in name or name.startswith("no ") and "norm" in name]
NEAR += ["heads merged by reshape", "softmax over queries", "GELU behind fc2", "positions shifted"]
NEAR += ["last token read", "dropout at test", "test augmented"]


def lost(means, name):
    """What a bug costs, as a share of all test images."""
    return means["healthy, test"] - means[f"{name}, test"]


CLAIMS = {
    "eleven bugs, and no others, end within three points of the healthy set-up": lambda m: (
        {name for name in BUGS if abs(lost(m, name)) < 0.03} == set(NEAR) and len(NEAR) == 11
    ),
    "heads merged, softmax over the queries and last token read end a little above it": lambda m: (
        all(
            -0.03 < lost(m, name) < 0
            for name in ("heads merged by reshape", "softmax over queries", "last token read")
        )
    ),
    "the two bugs of the published repository cost less than a point": lambda m: (
        -0.03 < lost(m, "scale of the width") < 0.01 and -0.03 < lost(m, "GELU behind fc2") < 0.01
    ),
    "without positions between 3 and 10 points are lost": lambda m: (
        0.03 < lost(m, "no positions") < 0.1
    ),
    "without the residual, and with shuffled labels, nothing is learnt": lambda m: (
        max(m["no residual, test"], m["labels shuffled, test"]) < 0.15 < m["healthy, test"]
    ),
    "too much decay, and too high a rate, lose more than 50 points": lambda m: (
        min(lost(m, "decay everywhere"), lost(m, "no warm-up")) > 0.5
    ),
    "test images that are not normalised, or cut by columns, lose more than 30 points": lambda m: (
        min(lost(m, "test not normalised"), lost(m, "columns at test")) > 0.3
    ),
}
