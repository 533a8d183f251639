"""What the entry files share: flags, one-line errors, quiet libraries."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

from yolojax.files import cache_home, expand_path
from yolojax.printable import PrintableStream, unguarded

FLAGS = flags.FLAGS
WRONG_USE = 2
# Flags that are paths, of all commands; `~` and environment variables are expanded.
PATHS = (
    *("workdir", "weights", "checkpoints", "cfg", "source", "data_root"),
    *("output", "to", "schedule"),
)
# Of them those that may be made: a variable that is not set is no name for a folder.
_WRITTEN = ("workdir", "output", "to", "schedule")


def define_config(*, required: bool = True) -> None:
    """Define `--config FILE[:variant]` and its overrides `--config.a.b=value`."""
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Config file, as configs/quickstart.py or configs/coco.py:n; override its keys "
        "with --config.KEY=VALUE, as --config.optim.learning_rate=0.02.",
    )
    if required:
        flags.mark_flag_as_required("config")


def define_merging() -> None:
    """Define how views and networks are merged; see `ensembling.asked_for`."""
    flags.DEFINE_bool(
        "augment", False, "Detectors: look in several sizes, also mirrored, and merge."
    )
    flags.DEFINE_list(
        "scales",
        None,
        "Of --augment, m: mirrored; by default 1,0.83m,0.67. Where left and right are "
        "different classes, without m.",
    )
    flags.DEFINE_string(
        "merge", None, "Of views and --weights: wbf (weighted box fusion) or nms."
    )
    flags.DEFINE_float(
        "merge_iou", None, "Its overlap; by default the detectors' own; wbf: >= 0.55."
    )


def define_overwrite() -> None:
    """Define whether files of others in the output folder may go; see `outputs`."""
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Also write over what another command or somebody else wrote into --output, "
        "but never over what is read.",
    )


def define_views() -> None:
    """Define how classifiers look at pictures; see `classifying.Views`."""
    flags.DEFINE_integer("views", 0, "Classifiers: augmented views of each picture.", 0)
    flags.DEFINE_float("plain_weight", 0.5, "Share of the plain view.", 0.0, 1.0)
    flags.DEFINE_integer("seed", 0, "Decides the augmented views.", 0)


def run(
    main: Callable[..., int],
    *,
    usage: str | None,
    rest: str | None = None,
    changes: bool = False,
) -> None:
    """Parse the command line, call `main`, and exit with what it returns.

    A wrong flag, config key or value, and every `ValueError` that `main` raises,
    ends in one message on stderr and exit code 2; memory that does not suffice too.

    Args:
        main: the command; reads its flags from `FLAGS`.
        usage: the module's docstring, which `--help` prints before the flags.
        rest: the repeatable flag that takes what stands without a flag, as the names
            that a shell makes of a pattern.
        changes: whether `--config.KEY=VALUE` may stand without `--config`; then `main`
            is called with these values, by dotted key.
    """
    # Libraries log the errors that they raise, with tracebacks: once is enough.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = _print_unraisable
    _guard_streams()
    if {"-h", "--help", "-help"} & set(sys.argv[1:]):
        print(f"{(usage or '').strip()}\n\nFlags:\n{_flags_help()}")
        sys.exit(0)
    try:
        extra, found = _parse(sys.argv, changes)
        if extra and rest:
            FLAGS[rest].value = [*(FLAGS[rest].value or []), *extra]
        elif extra:
            raise ValueError(f"do not know what to do with {' '.join(extra)!r}")
        _expand_paths()
        _set_up_jax()
        code = main(found) if changes else main()
    except flags.Error as error:
        _fail(str(error).replace("flag --config=None: ", ""))
    except (ValueError, OSError) as error:
        if os.environ.get("YOLOJAX_TRACEBACK"):
            raise
        if isinstance(error, FileExistsError | NotADirectoryError) and error.filename:
            _fail(f"{error.filename} is a file, where a folder is needed")
        if isinstance(error, OSError) and error.strerror:
            _fail(_file_trouble(error) + _hint_for_strangers(error))
        _fail(str(error) + _hint_for_strangers(error))
    except RuntimeError as error:
        # jax's own error is a RuntimeError on every version.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _fail(
            "the memory does not suffice. Lower config.batch_size or "
            f"config.image_size, or take a smaller model\n{str(error)[:200]}"
        )
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
    else:
        sys.exit(code)


def _expand_paths() -> None:
    """Expand `~` and environment variables in every flag that is a path.

    Raises:
        ValueError: a folder or file to write has a variable that is not set.
    """
    for name in (name for name in PATHS if name in FLAGS):
        value = FLAGS[name].value
        if not value:
            continue
        if not isinstance(value, str):
            FLAGS[name].value = [expand_path(path) for path in value]
            continue
        FLAGS[name].value = path = expand_path(value)
        unset = re.search(r"\$\{?([A-Za-z_]\w*)", path)
        if unset and name in _WRITTEN and not os.path.lexists(path):
            raise ValueError(
                f"--{name} {path}: the environment variable {unset[1]} is not set"
            )


def _parse(argv: Sequence[str], changes: bool) -> tuple[list[str], dict[str, Any]]:
    """Set the flags from a command line.

    Args:
        argv: the command line.
        changes: see `run`.

    Returns:
        What stands without a flag, and the overrides of a command without a config.

    Raises:
        ValueError: there is no such config file, it refuses its variant, has an error,
            or knows a key not.
    """
    # Imported here: a second that a mere --help should not take.
    from yolojax import overriding

    path = _config_path(argv)
    if path is None:
        first = next((word for word in argv if overriding.is_override(word)), None)
        if first and "config" in FLAGS and not changes:
            raise ValueError(f"{first}: give --config, too")
        argv, found = overriding.take(argv, {}) if changes else (argv, {})
        return FLAGS(argv)[1:], found
    if (expanded := expand_path(path)) != path:
        # A word of its own, or behind --config=.
        words = {path: expanded, f"--config={path}": f"--config={expanded}"}
        argv, path = [words.get(word, word) for word in argv], expanded
    file = Path(path.partition(":")[0])
    if not file.is_file():
        near = sorted(str(p) for p in Path("configs").glob("*.py"))
        choices = f" Choices: {', '.join(near)}" if near else ""
        raise ValueError(f"no config file {str(file)!r}.{choices}")
    # The config's flags read the rest of its overrides from there.
    sys.argv, late = overriding.take(argv, _load_config(path))
    extra = FLAGS(sys.argv)[1:]
    overriding.put(FLAGS.config, late)
    return extra, {}


def _hint_for_strangers(error: BaseException) -> str:
    """How to see more of an error that was not raised by our own checks."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    ours = str(Path(__file__).parent)
    if frame is None or frame.tb_frame.f_code.co_filename.startswith(ours):
        return ""
    return "\n(YOLOJAX_TRACEBACK=1 shows where this was raised)"


def _print_unraisable(report: Any) -> None:
    """Print an error that nobody can catch, but for the aftermath of a failed write."""
    # The storage library's threads call a loop that ended when the error was raised.
    if "Event loop is closed" not in str(report.exc_value):
        sys.__unraisablehook__(report)


def _guard_streams() -> None:
    """Let no text of a file command the terminal, or fail on it; see `printable`."""
    for stream in (unguarded(sys.stdout), unguarded(sys.stderr)):
        if isinstance(stream, io.TextIOWrapper):
            # Some terminals have ASCII only.
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = PrintableStream(unguarded(sys.stdout))
    sys.stderr = PrintableStream(unguarded(sys.stderr))


def _file_trouble(error: OSError) -> str:
    """What went wrong with which file, and what to do where a disk is full."""
    where = os.fsdecode(error.filename) if error.filename else "a file"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "; free some space, then give the same command again" if full else ""
    return f"{where}: {error.strerror}{advice}"


def _fail(message: str) -> None:
    print(f"error: {message.strip()}", file=sys.stderr)
    sys.exit(WRONG_USE)


def _set_up_jax() -> None:
    """Turn the persistent compilation cache on, unless the user chose otherwise."""
    import jax

    if not getattr(jax.config, "jax_compilation_cache_dir", None):
        jax.config.update("jax_compilation_cache_dir", str(cache_home() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _flags_help() -> str:
    """A line a flag of the command at hand."""
    own = FLAGS.flags_by_module_dict().get(sys.argv[0], [])
    names = [flag.name for flag in FLAGS.flags_by_module_dict().get(__name__, [])]
    names = dict.fromkeys(["config", *names])
    shared = [FLAGS[name] for name in names if name in FLAGS]
    return "\n".join(
        f"  --{flag.name}: {flag.help}"
        + (f" (default: {flag.default})" if flag.default not in (None, "") else "")
        for flag in [*shared, *own]
    )


def _config_path(argv: Sequence[str]) -> str | None:
    """What `--config` says, with its variant."""
    for place, argument in enumerate(argv):
        name, _, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "config":
            return value or next(iter(argv[place + 1 :]), None)
    return None


def _load_config(path: str) -> dict[str, Any]:
    """The config of a file and variant, as nested dicts."""
    file, _, variant = path.partition(":")
    try:
        get_config = runpy.run_path(file)["get_config"]
        return (get_config(variant) if variant else get_config()).to_dict()
    except (ValueError, OSError):
        raise
    except Exception as error:
        lines = [
            f.lineno
            for f in traceback.extract_tb(error.__traceback__)
            if f.filename == file
        ]
        where = f"{file}, line {lines[-1]}" if lines else file
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from error
