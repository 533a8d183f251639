"""Train, evaluate and use YOLO detectors in JAX."""

__version__ = "0.1.0"
