"""`--config.a.b=value` for keys that a config file leaves out.

The flags of a config file are those that it has. The keys of open sections, which are
a component's arguments, are in it only where they differ from the component's own;
others may be missing from a file that is older than they are. Both can be set here.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from yolojax.automatic import KEYS
from yolojax.lookup import hint
from yolojax.settings import DEFAULTS, OPEN

_START = ("--config.", "-config.")


def is_override(argument: str) -> bool:
    """Whether a word of a command line is `--config.KEY...`."""
    return argument.startswith(_START)


def take(
    argv: Sequence[str], given: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """Take the overrides that the flags of a config file would refuse.

    Args:
        argv: a command line.
        given: the config file's values, nested.

    Returns:
        The command line without them, and their values by dotted key, in its order:
        Python literals, or text where they are none.

    Raises:
        ValueError: a key that there is not, or one without a value.
    """
    rest, found = [], {}
    arguments = iter(argv)
    for argument in arguments:
        if not is_override(argument):
            rest.append(argument)
            continue
        name, sign, value = argument.lstrip("-").partition("=")
        key = name.removeprefix("config.")
        here = _holds(given, key)
        if not here:
            _check(key, given)
        if sign:
            # The last one counts; flags of tuples would put both together.
            again = tuple(f"{start}{key}=" for start in _START)
            rest = [word for word in rest if not word.startswith(again)]
        if here and key not in KEYS:
            rest.append(argument)
            continue
        following = [] if sign else list(itertools.islice(arguments, 1))
        if not sign and (not following or following[0].startswith("--")):
            raise ValueError(f"{argument} needs a value: {argument}=...")
        value = value if sign else following[0]
        read = value if _is_text(key) else _read(value)
        # Words such as `auto`, where the file has a number or sizes.
        if not here or isinstance(read, str):
            found[key] = read
        else:
            rest += [argument, *following]
    return rest, found


def put(config: Any, found: Mapping[str, Any]) -> None:
    """Set what `take` has taken in a config, also one that is locked."""
    for key, value in found.items():
        node, (*parents, last) = config, key.split(".")
        with config.unlocked(), config.ignore_type():
            for name in parents:
                if name not in node:
                    node[name] = ConfigDict()
                node = node[name]
        with node.unlocked(), node.ignore_type():
            node[last] = value


def _read(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _is_text(key: str) -> bool:
    """Whether a key's default is a text, as which its value is then taken."""
    node: Any = DEFAULTS
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return isinstance(node, str)


def _holds(tree: Any, key: str) -> bool:
    for name in key.split("."):
        if not isinstance(tree, Mapping) or name not in tree:
            return False
        tree = tree[name]
    return True


def _check(key: str, given: Mapping[str, Any]) -> None:
    """Check that a key may be set that the file does not have.

    Raises:
        ValueError: no config has it; names those that there are.
    """
    if _holds(DEFAULTS, key) or key.startswith(tuple(f"{name}." for name in OPEN)):
        return
    both, section = [DEFAULTS, given], []
    for name in key.split("."):
        deeper = [t[name] for t in both if isinstance(t.get(name), Mapping)]
        if not deeper:
            break
        both, section = deeper, [*section, name]
    beside = sorted(set().union(*both))
    prefix = "".join(f"{name}." for name in section)
    raise ValueError(
        f"the config has no key {key!r}.{hint(name, beside)} "
        f"Keys there: {', '.join(prefix + name for name in beside)}"
    )
