"""Small pictures in folders, for the tests of the sources for classification."""

import cv2
import numpy as np


def paint(path, grey=0, size=(8, 12)):
    """Write a grey picture of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((*size, 3), grey, np.uint8)
    picture[0, 0] = hash_of(path.name)
    assert cv2.imwrite(str(path), picture)
    return path


def hash_of(name):
    """Three numbers, so that no two pictures have the same bytes."""
    word = sum((place + 1) * ord(c) for place, c in enumerate(name))
    return word % 251, word // 251 % 251, 7


def names_of(source):
    """The file names of its pictures, in order."""
    return [source[i].name.rsplit("/", 1)[-1] for i in range(len(source))]


def classes_of(source):
    """The class names of each picture, in order."""
    return [
        tuple(source.class_names[label] for label in source[i].labels)
        for i in range(len(source))
    ]
