"""Finds the reference material that lies beside the checkout, or skips the test."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "shared"


def shared(*parts: str) -> Path:
    """The path of a file or folder of the reference material.

    Skips the calling test, with the reason, where the material is absent.
    """
    path = ROOT.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs ../shared/{'/'.join(parts)}, which is not here")
    return path
