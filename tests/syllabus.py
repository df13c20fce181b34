"""The syllabuses in docs/teaching.md: `python -m tests.syllabus` writes them anew.

What is taught when is decided here. Minutes are added up: those of a lecture from its slides, those
of an exercise from its card.
"""

import re
from functools import cache
from pathlib import Path

from vitcourse.check import EXERCISES
from vitcourse.lab import notebooks

PAGE = Path(__file__).resolve().parents[1] / "docs" / "teaching.md"
SESSION, TALK = 120, 110  # minutes of a session; what may be planned of them

# hours -> sessions -> lesson: (sections left out, exercises in class, exercises at home)
PLANS = {
    6: [
        {
            "00": ("model-text notation map alone-or-in-class", "", "first_count"),
            "01": ("einops-text width-text proof-text trade-text", "patchify", "unpatchify"),
            "02": (
                "bert-text axis-text published-text training-text claim-text",
                "",
                "class_token",
            ),
        },
        {
            "03": ("task-text kinds-text larger-text learned-text", "", "add_position"),
            "04": ("reach-text cost-text", "", "attention split_heads merge_heads multi_head"),
        },
        {
            "05": ("drop-path-text local-text decoder-text depth-text", "", "layer_norm block"),
            "06": ("parts sizes weights", "", "vit"),
            "11": (
                "filters-text positions-card rollout-text distance-text similarity-card "
                "object-text any-text",
                "",
                "",
            ),
        },
    ],
    12: [
        {
            "00": ("model-text alone-or-in-class", "first_count", ""),
            "01": ("einops-text proof-text", "patchify", "unpatchify patch_embedding"),
        },
        {
            "02": ("training-text claim-text", "class_token", "read_class_token mend"),
            "03": ("kinds-text", "add_position", "resize_positions"),
        },
        {"04": ("", "attention split_heads", "weights merge_heads multi_head")},
        {
            "05": ("drop-path-text local-text decoder-text", "block", "layer_norm mlp gelu"),
            "06": ("sizes weights", "", "vit first_loss block_parameters"),
        },
        {
            "07": (
                "clip-text bf16-text cifar-text card-adamw-bytes kill-text",
                "schedule",
                "decayed smooth_labels ema",
            ),
            "09": ("tune-large-text recipe-notes published-text", "", "first_gradient"),
        },
        {
            "11": ("filters-text similarity-card any-text", "rollout", "attention_distance"),
            "12": ("authors-text adversarial-text", "drop_tokens", "cover_patches"),
        },
    ],
    24: [
        {
            "00": ("", "first_count", ""),
            "01": ("", "patchify", "unpatchify patch_embedding linear_weight"),
        },
        {
            "02": ("training-text claim-text", "class_token", "mean_patches mend"),
            "03": ("kinds-text", "add_position", "position_2d resize_positions"),
        },
        {"04": ("", "attention split_heads", "merge_heads self_attention multi_head")},
        {"05": ("", "layer_norm gelu block", "mlp drop_path")},
        {"06": ("", "vit first_loss", "class_head block_parameters")},
        {
            "07": ("bf16-text cifar-text card-adamw-bytes", "", "schedule decayed ema"),
            "08": ("depth-text test-text", "diagnose_1", "row_error diagnose_2 diagnose_3"),
        },
        {
            "09": ("tune-large-text recipe-notes published-text", "", "first_gradient"),
            "10": (
                "torchrun assumed-text rate-text noise-notes",
                "average_gradients",
                "accumulate ring_bytes",
            ),
        },
        {
            "11": ("filters-text similarity-card", "rollout", "attention_distance"),
            "12": ("authors-text adversarial-text", "drop_tokens", "cover_patches reorder_patches"),
        },
        {
            "13": ("simple-text", "two_heads", "soft_distillation swap_tokens"),
            "14": ("vt-text pool-text", "soft_split", "peg gather_tokens"),
        },
        {
            "15": ("refiner-text trained-text", "local_weights", "class_attention place_weights"),
            "16": ("tnt-text cross-text authors", "", "shifted_weights patch_merging"),
        },
        {
            "17": ("botnet-text tree-answer", "", "conv_keys fuse_norm"),
            "18": ("", "", "causal_attention mae_loss"),
        },
        {
            "19": ("", "", "giou best_matching look_at_few"),
            "20": ("price-text", "", "psnr pixel_shuffle"),
        },
    ],
}


@cache
class Lesson:
    """A lesson's notebook, its slides, and the minutes of its sections."""

    def __init__(self, number):
        (self.source,) = notebooks.NOTEBOOKS.glob(f"source/{number}-*.py")
        notebook = notebooks.read(self.source)
        self.sections = notebook.metadata["slides"]["sections"]
        self.cells = {cell.id: cell.source for cell in notebook.cells}

    def heading(self, section):
        """What a section is called, without its number."""
        return re.search(r"^##? (?:\d+ · )?(.+)$", self.cells[section], re.M)[1]


def names(words, number):
    """The exercises that a plan names, each of which stands in the lesson."""
    for name in words.split():
        if name not in EXERCISES or EXERCISES[name].lesson != number:
            raise ValueError(f"lesson {number} has no exercise {name}")
    return words.split()


def minutes(exercises):
    """How long exercises take, by their cards."""
    return sum(EXERCISES[name].minutes for name in exercises)


def shown(exercises):
    """A list of exercises with their minutes."""
    return ", ".join(f"`{name}` {EXERCISES[name].minutes}" for name in exercises)


def rows(sessions):
    """The rows of a syllabus; the last is how long each session is."""
    lengths = []
    for place, session in enumerate(sessions, 1):
        length = 0
        for number, (left_out, in_class, at_home) in session.items():
            lesson = Lesson(number)
            unknown = set(left_out.split()) - set(lesson.sections)
            if unknown:
                raise ValueError(f"lesson {number} has no section {min(unknown)}")
            lecture = sum(n for s, n in lesson.sections.items() if s not in left_out.split())
            out = "; ".join(lesson.heading(section) for section in left_out.split())
            here, home = names(in_class, number), names(at_home, number)
            length += lecture + minutes(here)
            link = f"[{number}](../notebooks/{lesson.source.stem}.ipynb)"
            yield [f"{place}", link, f"{lecture}", out, shown(here), shown(home)]
        if length > TALK:
            raise ValueError(f"session {place} has {length} minutes, more than {TALK}")
        lengths.append(length)
    yield lengths


def table(hours):
    """A syllabus as a table."""
    if len(PLANS[hours]) * SESSION != hours * 60:
        raise ValueError(f"{len(PLANS[hours])} sessions of {SESSION} minutes are not {hours} hours")
    *lines, lengths = rows(PLANS[hours])
    head = ["session", "lesson", "lecture", "left out", "in class", "at home"]
    cells = [head, ["---"] * len(head), *lines]
    text = "".join(f"| {' | '.join(line)} |\n" for line in cells)
    return f"{text}\nMinutes, by session: {', '.join(map(str, lengths))}. All: {sum(lengths)}.\n"


def fill(text):
    """The page with each syllabus between its marks as it is planned here."""
    for hours in PLANS:
        before, rest = text.split(f"<!-- {hours} hours -->\n", 1)
        after = rest[rest.index("<!-- end -->") :]
        text = f"{before}<!-- {hours} hours -->\n{table(hours)}{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text()))
