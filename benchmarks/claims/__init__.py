"""The experiments whose results the lessons show, as recorded: one file each.

A file says in its docstring what it asks, and holds

    SEEDS           how often it is run, each time with another seed
    measure(seed)   one run: {name of a figure: number}
    CLAIMS          {what the lesson says: a function of the means, true if it is so}
    PAIRS           {what is expected: (a figure, that of its control)}; it is so where the figure
                    is above its control with every seed. One that is not so is a negative result,
                    recorded as such
"""


def comparable(*models):
    """Assert that models learn about as many numbers, within 5 %: the first is the control."""
    control, *others = (sum(p.numel() for p in m.parameters() if p.requires_grad) for m in models)
    for count in others:
        assert abs(count - control) <= 0.05 * control, f"{count:,} is not within 5 % of {control:,}"
