"""Policies by name, with the published hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Entries = tuple[dict[str, Any], ...]

PRESETS: dict[str, Callable[..., Entries]] = {}
