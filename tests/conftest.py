"""Settings shared by all tests: strict dtypes and ranks, four CPU devices."""

import os

# Before jax is imported: a test of sharding needs several devices.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

_hook = install_import_hook(
    ["yolojax.ops", "yolojax.losses", "yolojax.augment"], "beartype.beartype"
)
