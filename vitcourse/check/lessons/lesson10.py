"""Exercises of lesson 10: from one GPU to many."""

import torch

from vitcourse.check.exercise import Case, Exercise, Mistake, normal

# average_gradients --------------------------------------------------------------------------------


def average_gradients(gradients, shares):
    """The gradient of the whole batch: means (n, D, E) of shares (n,) of images -> (D, E)."""
    weights = shares / shares.sum()  # (n,)
    return (weights[:, None, None] * gradients).sum(dim=0)  # (D, E)


def average_unweighted(gradients, shares):
    """Every process counts alike."""
    return gradients.mean(dim=0)


def average_summed(gradients, shares):
    """No division at all."""
    return gradients.sum(dim=0)


def average_of_sums(gradients, shares):
    """Sums over images, not divided by them."""
    return (shares[:, None, None] * gradients).sum(dim=0)


def average_divided_by_processes(gradients, shares):
    """Sums over images, divided by processes."""
    return (shares[:, None, None] * gradients).mean(dim=0)


def average_divided_twice(gradients, shares):
    """Weights that sum to one, and then a mean."""
    return average_gradients(gradients, shares) / len(gradients)


def average_upside_down(gradients, shares):
    """The smaller the share, the more it counts."""
    return average_gradients(gradients, 1 / shares)


def average_of_first(gradients, shares):
    """Process 0 alone."""
    return gradients[0]


def average_of_means(gradients, shares):
    """Means added up, divided by all images."""
    return gradients.sum(dim=0) / shares.sum()


AVERAGE_GRADIENTS = Exercise(
    name="average_gradients",
    lesson="10",
    task="Each of n processes has the mean gradient (D, E) of its images: from all of them (n, D, E), and the numbers of images `shares` (n,), compute the mean gradient of all images (D, E).",
    minutes=10,
    difficulty=2,
    reference=average_gradients,
    gradient=False,
    cases=(
        Case(
            about="three processes with six images each",
            inputs=lambda g: (normal(g, 3, 5, 4), torch.tensor([6, 6, 6])),
            shape="D E",
            sizes=dict(n=3, D=5, E=4),
        ),
        Case(
            about="two processes, with 8 images and with 3",
            inputs=lambda g: (normal(g, 2, 7, 3), torch.tensor([8, 3])),
            shape="D E",
            sizes=dict(n=2, D=7, E=3),
        ),
    ),
    hints=(
        "With equal shares it is the mean over the processes. With 8 images and 4, how much does each "
        "image count for?",
        "A mean gradient times its number of images is the sum over these images. The sums add up; "
        "divide by all images in the end.",
        "So each process counts by shares / shares.sum(), which is (n,); [:, None, None] makes that "
        "(n, 1, 1), which fits (n, D, E).",
    ),
    mistakes=(
        Mistake(
            "unweighted",
            average_unweighted,
            "You took the plain mean over the processes: an image of a small share then counts for "
            "more than one of a large share, so weigh each process by its share",
        ),
        Mistake(
            "sum",
            average_summed,
            "You added the gradients up: the step would be as many times too long as there are "
            "processes, so weigh each by its part of all images",
        ),
        Mistake(
            "sum over images",
            average_of_sums,
            "This is the sum over all images: divide it by their number, shares.sum()",
        ),
        Mistake(
            "divided by processes",
            average_divided_by_processes,
            "You added up over images and divided by the number of processes: divide by the number "
            "of all images, shares.sum()",
        ),
        Mistake(
            "divided twice",
            average_divided_twice,
            "You divided once too often: weights that sum to one need a sum over the processes, not a "
            "mean",
        ),
        Mistake(
            "upside down",
            average_upside_down,
            "Your weights are upside down: the process with more images counts for more",
        ),
        Mistake(
            "first only",
            average_of_first,
            "This is the gradient of process 0 alone: the images of the others count, too",
        ),
        Mistake(
            "divided by all images",
            average_of_means,
            "You divided by the number of all images, but each gradient is a mean already: multiply it by its share first",
        ),
    ),
)

# accumulate ---------------------------------------------------------------------------------------


def accumulate(images, labels, gradient_of, at_most):
    """The mean gradient over a batch, of which `gradient_of` takes `at_most` images at a time."""
    total = 0.0
    parts = zip(images.split(at_most), labels.split(at_most), strict=True)
    for some_images, some_labels in parts:
        share = len(some_images) / len(images)
        total = total + share * gradient_of(some_images, some_labels)
    return total


def pieces(images, labels, gradient_of, at_most):
    """The gradients of the pieces, (pieces, C, E)."""
    parts = zip(images.split(at_most), labels.split(at_most), strict=True)
    return torch.stack([gradient_of(*part) for part in parts])


def accumulate_sum(images, labels, gradient_of, at_most):
    """Not divided."""
    return pieces(images, labels, gradient_of, at_most).sum(dim=0)


def accumulate_unweighted(images, labels, gradient_of, at_most):
    """A last piece that is smaller counts as much as the others."""
    return pieces(images, labels, gradient_of, at_most).mean(dim=0)


def accumulate_last(images, labels, gradient_of, at_most):
    """The gradient set to zero before every piece."""
    return pieces(images, labels, gradient_of, at_most)[-1]


def accumulate_first(images, labels, gradient_of, at_most):
    """What fits, and no more."""
    return gradient_of(images[:at_most], labels[:at_most])


def accumulate_whole_pieces(images, labels, gradient_of, at_most):
    """A rest that does not fill a piece is dropped."""
    whole = len(images) // at_most * at_most
    return accumulate_unweighted(images[:whole], labels[:whole], gradient_of, at_most)


def accumulate_over_images(images, labels, gradient_of, at_most):
    """Means of pieces, divided by all images."""
    return accumulate_sum(images, labels, gradient_of, at_most) / len(images)


def accumulate_over_piece(images, labels, gradient_of, at_most):
    """Means of pieces, divided by the images of one piece."""
    return accumulate_sum(images, labels, gradient_of, at_most) / at_most


def gradient_for(weight, room):
    """A function: images (b, C), labels (b,) -> the gradient of the mean loss for weight (C, E)."""

    def gradient_of(images, labels):
        if len(images) > room:
            raise MemoryError(f"{len(images)} images at a time are too many: {room} have room")
        given = torch.nn.functional.one_hot(labels, weight.shape[1])  # (b, E)
        with torch.no_grad():
            guess = (images @ weight.to(images)).softmax(dim=1)  # (b, E)
            return images.T @ (guess - given) / len(images)

    return gradient_of


def accumulation(generator, batch, channels, classes, room):
    """The arguments of `accumulate`, for one case."""
    images, weight = normal(generator, batch, channels), normal(generator, channels, classes)
    labels = torch.randint(classes, (batch,), generator=generator)
    return images, labels, gradient_for(weight, room), room


def accumulate_full_weight(images, labels, gradient_of, at_most):
    """Every piece weighed as a full one."""
    return accumulate_sum(images, labels, gradient_of, at_most) * at_most / len(images)


def accumulate_images(images, labels, gradient_of, at_most):
    """The sum over images, not divided by them."""
    return accumulate(images, labels, gradient_of, at_most) * len(images)


ACCUMULATE = Exercise(
    name="accumulate",
    lesson="10",
    task="Compute the mean gradient over a whole batch with a device that has room for `at_most` images at a time: `gradient_of(images, labels)` gives the mean gradient of so many or fewer.",
    minutes=12,
    difficulty=2,
    reference=accumulate,
    cases=(
        Case(
            about="12 images, 4 at a time",
            inputs=lambda g: accumulation(g, 12, 5, 3, room=4),
            shape="C E",
            sizes=dict(B=12, C=5, E=3, at_most=4),
        ),
        Case(
            about="11 images, 3 at a time, so that the last piece is smaller",
            inputs=lambda g: accumulation(g, 11, 6, 4, room=3),
            shape="C E",
            sizes=dict(B=11, C=6, E=4, at_most=3),
        ),
    ),
    hints=(
        "Cut images and labels into pieces, ask for the gradient of each, and add them up. What must "
        "the sum be divided by?",
        "images.split(at_most) gives pieces of at_most images; the last one holds the rest.",
        "A piece of 2 images counts for less than one of 3: weigh each gradient by the part of the "
        "batch that it saw, len(piece) / len(images).",
    ),
    mistakes=(
        Mistake(
            "sum",
            accumulate_sum,
            "You added the pieces' gradients up and did not divide: the step would be as many times "
            "too long as there are pieces",
        ),
        Mistake(
            "unweighted",
            accumulate_unweighted,
            "Every piece counts alike, though the last one is smaller: weigh each by its part of the "
            "batch",
        ),
        Mistake(
            "last only",
            accumulate_last,
            "Only the last piece is left, as if the gradient were set to zero before each: add the "
            "pieces up",
        ),
        Mistake(
            "first only",
            accumulate_first,
            "This is the gradient of the first piece: go through all of them",
        ),
        Mistake(
            "rest dropped",
            accumulate_whole_pieces,
            "The images of the last piece, which is not full, are missing: they count, too",
        ),
        Mistake(
            "divided by all images",
            accumulate_over_images,
            "You divided by the number of images, but each piece's gradient is a mean already: weigh "
            "it by its part of the batch",
        ),
        Mistake(
            "divided by the piece",
            accumulate_over_piece,
            "You divided by the size of a piece, where the number of pieces counts: weigh each piece "
            "by its part of the batch",
        ),
        Mistake(
            "full weight",
            accumulate_full_weight,
            "You weighed every piece as if it were full: the last one has fewer images, so use len(piece)",
        ),
        Mistake(
            "sum over images",
            accumulate_images,
            "This is the sum over all images: divide by their number",
        ),
    ),
)

# numbers ------------------------------------------------------------------------------------------

PARAMETERS = 86_567_656  # ViT-B/16 with 1000 classes

RING_BYTES = Exercise(
    name="ring_bytes",
    lesson="10",
    task="Eight GPUs train a ViT-B/16 of 86,567,656 parameters, and average their gradients, in float32, in a ring: how many bytes does each GPU send in a step?",
    minutes=6,
    difficulty=2,
    kind="number",
    reference=2 * 7 * PARAMETERS * 4 // 8,
    cases=(),
    hints=(
        "Each parameter has one gradient, of 4 bytes. The ring cuts them into as many chunks as there "
        "are GPUs.",
        "In the first round trip every GPU sends n - 1 chunks, until the sums are complete; in the "
        "second n - 1 again, until everybody has them.",
        "2 (n - 1) / n x bytes of gradients, with n = 8 and 4 x 86,567,656 bytes.",
    ),
    mistakes=(
        Mistake(
            "all gradients once",
            PARAMETERS * 4,
            "That is the size of the gradients: a chunk of an eighth of them is sent 14 times",
        ),
        Mistake(
            "half",
            7 * PARAMETERS * 4 // 8,
            "That is half of it: a number has 4 bytes, and after the first n - 1 rounds the sums must "
            "still get back to everybody",
        ),
        Mistake(
            "numbers, not bytes",
            2 * 7 * PARAMETERS // 8,
            "You counted numbers: each has 4 bytes",
        ),
        Mistake(
            "n chunks",
            2 * PARAMETERS * 4,
            "You let each GPU send all n chunks in a round: after n - 1 they are where they must be",
        ),
        Mistake(
            "everybody to everybody",
            7 * PARAMETERS * 4,
            "This is what it takes if everybody sends all gradients to each of the others: in a ring "
            "they go in chunks",
        ),
        Mistake(
            "there and back",
            2 * 7 * PARAMETERS * 4,
            "You sent all gradients 14 times: a message of the ring is a chunk, an eighth of them",
        ),
    ),
)

GLOBAL_BATCH = Exercise(
    name="global_batch",
    lesson="10",
    task="Two computers have four GPUs each. Every GPU holds 48 images at a time, and accumulates 3 times before the optimizer's step. How many images does a step learn from?",
    minutes=3,
    difficulty=1,
    kind="number",
    reference=2 * 4 * 48 * 3,
    cases=(),
    hints=(
        "How many GPUs are there in all?",
        "All of them together hold 8 x 48 images at a time. How often do they do so before a step?",
        "Computers x GPUs x images at a time x pieces: 2 x 4 x 48 x 3.",
    ),
    mistakes=(
        Mistake(
            "no accumulation",
            2 * 4 * 48,
            "This is what all GPUs hold at one time: they do so 3 times before a step",
        ),
        Mistake(
            "one computer",
            4 * 48 * 3,
            "This is one computer's part: there are two of them",
        ),
        Mistake(
            "one GPU",
            48 * 3,
            "This is what one GPU adds: there are eight",
        ),
        Mistake(
            "divided",
            2 * 4 * 48 // 3,
            "You divided by the pieces: each of them brings 48 new images to every GPU",
        ),
        Mistake(
            "one GPU a computer",
            2 * 48 * 3,
            "You counted one GPU in each computer: there are four",
        ),
    ),
)

EXERCISES = (AVERAGE_GRADIENTS, GLOBAL_BATCH, ACCUMULATE, RING_BYTES)

QUESTIONS = {
    "bytes that a GPU sends in a ring of 1000, over those in one of 2, rounded": (
        2,
        "2 (n-1)/n goes from 1 to 1.998: a longer ring has smaller chunks.",
        {
            1000: "Each chunk is a thousandth of the gradients then.",
            500: "There are 999 times as many messages, but each is 500 times smaller.",
            999: "There are 999 times as many messages, but each is 500 times smaller.",
            1: "Nearly: 2 (n-1)/n is 1 for n = 2. What is it for n = 1000?",
        },
    ),
    "bytes for each parameter, with AdamW, all in float32, before any image": (
        16,
        "Weight, gradient and two moments, 4 bytes each.",
        {
            4: "That is the weight alone. What does the optimizer keep?",
            8: "That is weight and gradient. What does the optimizer keep?",
            12: "AdamW keeps two moments, not one: of the gradient, and of its square.",
        },
    ),
    "gradient of all, where 8 images have the mean gradient -0.75 and 4 others 6": (
        1.5,
        "8 x -0.75 + 4 x 6 is 18, over 12 images.",
        {
            2.625: "That is the mean of the two numbers: the 8 images count for more than the 4.",
            5.25: "That is the sum of the two numbers.",
            18: "That is the sum over the images: divide by 12.",
        },
    ),
}
