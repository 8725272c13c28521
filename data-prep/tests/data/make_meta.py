"""Writes the MAT-files that the tests read, with scipy: the layout of ImageNet's meta.mat with three made-up classes and
their parent, whose numbers are not in the order of the WNIDs. Run it beside the files: python make_meta.py"""
import numpy
import scipy.io

ROWS = [
    (1, "n00000300", "cat, feline", "it purrs", 0, [], 0, 3),
    (2, "n00000100", "ant", "", 0, [], 0, 4),
    (3, "n00000200", "bee, honeybee, Bienchen für Größe", "it hums", 0, [], 0, 300),
    (4, "n00000001", "animal", "all of them", 3, [1, 2, 3], 1, 0),
]
FIELDS = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images"]
synsets = numpy.zeros((len(ROWS), 1), dtype=[(field, object) for field in FIELDS])
for at, row in enumerate(ROWS):
    for field, value in zip(FIELDS, row):
        synsets[field][at, 0] = numpy.array([value], dtype=float) if isinstance(value, list) else value
other = {"cells": numpy.array([["x", 2.5]], dtype=object), "small": numpy.int16([-3, 300]), "text": "no struct"}
scipy.io.savemat("meta.mat", {"synsets": synsets}, do_compression=True)
scipy.io.savemat("plain.mat", {**other, "synsets": synsets}, do_compression=False)
