"""Settings shared by all tests: strict dtypes and ranks, four CPU devices, options."""

import hashlib
import os
import time
from typing import Any

import pytest

# Before jax is imported: a test of sharding needs several devices.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

_STARTED = time.monotonic()

_hook = install_import_hook(
    ["yolojax.ops", "yolojax.losses", "yolojax.augment"], "beartype.beartype"
)


def pytest_addoption(parser: Any) -> None:
    """Options for a run that has to end in time."""
    parser.addoption(
        "--minutes",
        type=float,
        default=0.0,
        help="skip the tests that have not begun after so many minutes; 0: none",
    )
    parser.addoption(
        "--order",
        default="",
        help="shuffle the files by this text, so that it is not always the same tests "
        "that --minutes leaves out",
    )
    parser.addoption(
        "--optimised",
        action="store_true",
        help="compile as users do; otherwise XLA leaves out most optimisations, since "
        "compiling is half of what the tests do",
    )


def pytest_configure(config: Any) -> None:
    """How XLA compiles, before anything is."""
    optimised = config.getoption("--optimised")
    jax.config.update("jax_disable_most_optimizations", not optimised)


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Files by --order; tests of a file stay together, since they share fixtures."""
    seed = config.getoption("--order")
    if seed:
        items.sort(key=lambda item: _digest(f"{seed} {item.path.name}"))


def pytest_runtest_setup(item: Any) -> None:
    """Skip what begins too late."""
    minutes = item.config.getoption("--minutes")
    if 0 < minutes < (time.monotonic() - _STARTED) / 60:
        pytest.skip(f"not begun within --minutes={minutes:g}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
