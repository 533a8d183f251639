"""What the entry files share: flags, one-line errors, quiet libraries."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

from yolojax.lookup import hint

FLAGS = flags.FLAGS
WRONG_USE = 2


def define_config(*, required: bool = True) -> None:
    """Define `--config FILE[:variant]` and its overrides `--config.a.b=value`."""
    config_flags.DEFINE_config_file(
        "config", None, "Config file, as configs/quickstart.py or configs/coco.py:n."
    )
    if required:
        flags.mark_flag_as_required("config")


def run(main: Callable[[], int], *, usage: str | None) -> None:
    """Parse the command line, call `main`, and exit with what it returns.

    A wrong flag, config key or value, and every `ValueError` that `main` raises,
    ends in one message on stderr and exit code 2.

    Args:
        main: the command; reads its flags from `FLAGS`.
        usage: the module's docstring, which `--help` prints before the flags.
    """
    absl_logging.set_verbosity(absl_logging.ERROR)
    if {"-h", "--help", "-help"} & set(sys.argv[1:]):
        print((usage or "").strip())
        print("\nFlags:\n")
        print(FLAGS.module_help(sys.argv[0]) or _own_flags_help())
        sys.exit(0)
    try:
        extra = FLAGS(sys.argv)[1:]
        if extra:
            raise ValueError(f"do not know what to do with {' '.join(extra)!r}")
        _set_up_jax()
        code = main()
    except flags.Error as error:
        _fail(str(error))
    except (AttributeError, KeyError):
        # config_flags reports an unknown key so; anything else is a defect of ours.
        message = _unknown_override(sys.argv)
        if message is None:
            raise
        _fail(message)
    except (ValueError, OSError) as error:
        if os.environ.get("YOLOJAX_TRACEBACK"):
            raise
        _fail(f"{error}\n(YOLOJAX_TRACEBACK=1 shows where this was raised)")
    else:
        sys.exit(code)


def _fail(message: str) -> None:
    print(f"error: {message.strip()}", file=sys.stderr)
    sys.exit(WRONG_USE)


def _set_up_jax() -> None:
    """Turn the persistent compilation cache on, unless the user chose otherwise."""
    import jax

    if not getattr(jax.config, "jax_compilation_cache_dir", None):
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update(
            "jax_compilation_cache_dir", os.path.join(home, "yolojax", "xla")
        )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _own_flags_help() -> str:
    lines = []
    for name in FLAGS:
        flag = FLAGS[name]
        if name in _OWN_FLAGS:
            lines.append(f"  --{name}: {flag.help} (default: {flag.value})")
    return "\n".join(lines)


_OWN_FLAGS = (
    "config workdir weights to source output conf iou image_size step index full"
).split()


def _unknown_override(argv: Sequence[str]) -> str | None:
    """A message that names the override which the config file does not have."""
    given = [a for a in argv if a.startswith(("--config.", "-config."))]
    if not given:
        return None
    for argument in given:
        key = argument.lstrip("-").split("=", 1)[0].removeprefix("config.")
        keys = _keys_of_config(argv)
        if key not in keys and not any(k.startswith(f"{key}.") for k in keys):
            return (
                f"the config has no key {key!r}.{hint(key, keys)} "
                f"Keys: {', '.join(sorted(keys))}"
            )
    return None


def _keys_of_config(argv: Sequence[str]) -> list[str]:
    """The dotted keys of the config file named on the command line."""
    path = next((a.split("=", 1)[1] for a in argv if a.startswith("--config=")), None)
    if path is None:
        index = next(i for i, a in enumerate(argv) if a == "--config")
        path = argv[index + 1]
    file, _, variant = path.partition(":")
    get_config = runpy.run_path(file)["get_config"]
    config = get_config(variant) if variant else get_config()
    return _dotted(config.to_dict())


def _dotted(tree: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in tree.items():
        if isinstance(value, dict):
            keys += _dotted(value, f"{prefix}{key}.")
        else:
            keys.append(f"{prefix}{key}")
    return keys
