"""The evidence for each paper: one file each, run by tests/test_papers.py.

A file holds

    MODELS          {name: a function that returns a small model and images for it}
    PROOFS          functions without arguments that assert: equality with code written by others,
                    and identities, each of which kills or isolates one mechanism
    PLANTED         {an error of one line, in words: (what mock.patch.object needs, the proof that
                    notices it)}; every proof has one at least
    COUNTS          {configuration: parameters that the authors' code counts}
    OTHER_SIZES     {name: (height, width) of images that a model takes though built for others}
    GRAPH_BREAKS    names of models that do not compile as one graph, with the reason; rare
"""
