"""The experiments whose results the lessons show, as recorded: one file each.

A file says in its docstring what it asks, and holds

    SEEDS           how often it is run, each time with another seed
    measure(seed)   one run: {name of a figure: number}
    CLAIMS          {what the lesson says: a function of the means, true if it is so}
"""
