"""Data sets: from a file or a demo to examples to train on and to prove with.

`read_examples` reads one file, `load_data` makes what a recipe asks for, `check` tells people what is in a file. Knows nothing
of models but, for counting tokens, a tokenizer that it is given.
"""

from engine.data.check import check
from engine.data.dataset import load_data, source, unseen
from engine.data.examples import SHAPES, DataSet, Example, Problem, Report, Shape, with_system
from engine.data.formats import FORMATS, KEPT, read_examples
from engine.data.shapes import SERVES
from engine.data.shelf import chats_file

__all__ = [
    "FORMATS", "KEPT", "SERVES", "SHAPES", "DataSet", "Example", "Problem", "Report", "Shape", "chats_file", "check", "load_data",
    "read_examples", "source", "unseen", "with_system",
]  # fmt: skip
