"""Exercises of lesson 00: why an image is cut into patches."""

from vitcourse.check.exercise import Exercise, Mistake

FIRST_COUNT = Exercise(
    name="first_count",
    lesson="00",
    task="Say how many patches of 32 x 32 pixels fit in an image of 416 x 640 pixels.",
    minutes=3,
    difficulty=1,
    kind="number",
    reference=260,
    cases=(),
    hints=(
        "Begin with one side: how many pieces of 32 pixels are there in 416?",
        "The patches lie in rows and columns, like the squares of a chessboard.",
        "416/32 rows of 640/32 patches each: multiply the two.",
    ),
    mistakes=(
        Mistake(
            "sides added",
            33,
            "You added the rows and the columns, 13 + 20: a grid has rows times columns",
        ),
        Mistake(
            "divided once",
            8320,
            "You divided the pixels by 32 only once: a patch is 32 pixels wide and 32 pixels high, so "
            "both sides are divided",
        ),
        Mistake(
            "pixels",
            266240,
            "That is the number of pixels: count the patches, each of which holds many pixels",
        ),
        Mistake(
            "pixels of a patch",
            1024,
            "That is the number of pixels inside one patch: the question is how many patches there are",
        ),
        Mistake("one row", 20, "That is one row of patches: there are several rows of them"),
        Mistake(
            "one column", 13, "That is one column of patches: there are several columns of them"
        ),
    ),
)

EXERCISES = (FIRST_COUNT,)

QUESTIONS = {
    "tokens, if every pixel of an image of 224 x 224 were one": (
        50176,
        "224 x 224, which is 256 times as many as with patches of 16 x 16.",
        {
            224: "That is one row of pixels: there are 224 of them.",
            448: "The sides are multiplied, not added.",
            150528: "The three colours belong to one pixel: it is one token, of three values.",
            196: "That is the number of patches of 16 x 16: here each pixel is a token by itself.",
        },
    ),
    "comparisons, if each of 260 patches is compared with every patch": (
        67600,
        "260 x 260: each patch looks at all of them, itself included.",
        {
            260: "That is one comparison for each patch: each is compared with all 260.",
            520: "The number is squared, not doubled.",
            33670: "Here a looking at b and b looking at a are two comparisons, and a looking at itself is one, too.",
            67340: "A patch looks at itself, too.",
        },
    ),
    "how many times as many comparisons, if both sides of an image double": (
        16,
        "Four times as many patches, and the comparisons grow with their square.",
        {
            2: "Each side doubles, so there are four times as many patches to begin with.",
            4: "That is how many times as many patches there are: the comparisons are their square.",
            8: "Twice as high and twice as wide is four times as many patches; then square that.",
        },
    ),
}
