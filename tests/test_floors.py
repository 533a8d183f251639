"""The layout of the package: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import yolojax

ROOT = Path(yolojax.__file__).parent
FLOORS = [
    {"printable", "utf8_names"},
    {"records", "trees", "lookup", "files", "yaml_text", "comparing"},
    {"run_lock", "json_files", "outputs"},
    {"class_file"},
    {"ops"},
    {"losses", "augment", "data"},
    {"models"},
    {"optim", "metrics", "weights", "compression"},
    {"engine", "vis", "automatic"},
    {"hyperparameters", "changes", "config_paths", "decoding"},
    {"settings", "datasets"},
    {"network", "objectives", "rows"},
    {"control"},
    {"recipe", "anchoring", "folding", "class_report", "unlabelled"},
    {"memory", "overriding"},
    {"experiment", "exporters", "tuning"},
    {"inference", "sizing", "previewing", "scheduling", "finding_lr", "averaging"},
    {"resuming"},
    {"evaluating"},
    {"results", "souping", "embedding", "ensembling", "pooling"},
    {"training", "converting", "classifying"},
    {"class_predictions"},
    {"predicting"},
    {"measuring"},
    {"crossvalidating"},
]
ENTRIES = len(FLOORS)
MODULES = sorted(ROOT.rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def package_of(name: str) -> str:
    return name.split(".")[1]


def floor_of(package: str) -> int:
    found = [i for i, packages in enumerate(FLOORS) if package in packages]
    return found[0] if found else ENTRIES


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_its_own_package_or_a_lower_floor(path):
    own = path.relative_to(ROOT).with_suffix("").parts[0]
    if own == "__init__":
        return
    for name in imports_of(path):
        if name.startswith("yolojax."):
            other = package_of(name)
            # Entry files share `command`, the floor's own module.
            below = floor_of(other) < floor_of(own) or other in (own, "command")
            assert below, f"{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_linen_stays_in_models_and_jax_out_of_data(path):
    own = path.relative_to(ROOT).parts[0]
    for name in imports_of(path):
        if name.startswith("flax"):
            assert own == "models", f"{path} imports {name}"
        if name.split(".")[0] in ("jax", "jaxlib"):
            assert own != "data", f"{path} imports {name}"
        assert name.split(".")[0] not in ("torch", "tensorflow"), path


def test_files_are_short():
    long = {p.name: n for p in MODULES if (n := len(p.read_text().splitlines())) > 420}
    assert not long


def test_importing_train_loads_neither_torch_nor_tensorflow():
    code = (
        "import sys, yolojax.train; "
        "bad = {'torch', 'tensorflow', 'sklearn', 'matplotlib'} & set(sys.modules); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
