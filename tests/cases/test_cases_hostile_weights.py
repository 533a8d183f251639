"""Files of weights that hang, fill memory or end in a traceback elsewhere."""

import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from tests.shared import ROOT, shared
from tests.weights.test_pytorch_hostile import HARMLESS, HOSTILE
from tests.weights.test_safetensors import WRONG_HEADERS
from yolojax.weights.published import read_published

# A file of the folder, and what its error says.
CASES = {
    "deep_version.pt": "PyTorch's protocol is list; only 1001 is known",
    "kind_esc.pt": r"it holds a a\\n\\x1b.\\x1b\[31mX\\nY\\x1bZ",
    "laughs_dtype_v3.pt": "its pickle has a tensor of list: not read",
    "laughs_version.pt": "PyTorch's protocol is list; only 1001 is known",
    "meta06.safetensors": r"image_size must be two numbers .* not \[2147483648, 2147",
    "meta12.safetensors": r"image_size must be two numbers .* not \[2147483648, 2147",
    "metaconst.safetensors": "num_classes must be a whole number, not inf",
    "wide_tuple_key.pt": "a tuple as a key that is too deep or too long",
}


def test_the_folder_holds_these_files():
    there = {path.name for path in shared("cases", "hostile_weights").iterdir()}
    assert there == {*CASES, "README.md"}


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_of_weights_is_one_line(name, tmp_path):
    path = tmp_path / name
    shutil.copy(shared("cases", "hostile_weights", name), path)
    before = path.read_bytes()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=CASES[name]) as caught:
            read_published(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert peak < 60e6
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# The peak of this process: `ru_maxrss` begins with that of the parent.
START = """
import sys
peak = lambda: open("/proc/self/status").read().split("VmHWM:")[1].split()[0]
if sys.argv[1:2] == ["start"]:
    import yolojax.inference, yolojax.predicting
    print(peak())
    sys.exit()
from yolojax import predict  # defines the flags
from yolojax import command
try:
    command.run(predict.main, usage=predict.__doc__, rest="source")
finally:
    print(peak())
"""


def peak_of(*arguments):
    """Runs predict as its command does: the process, and its peak in MB."""
    done = subprocess.run(
        [sys.executable, "-c", START, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done, int(done.stdout.split()[-1]) / 1024


@pytest.mark.slow
def test_predict_with_each_hostile_file_is_one_line_in_little_memory(tmp_path):
    """All of the folder, and all that the tests of both readers make."""
    picture = tmp_path / "any.png"
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(picture)
    folder = tmp_path / "files"
    folder.mkdir()
    if (ROOT / "cases" / "hostile_weights").is_dir():
        for name in CASES:
            shutil.copy(shared("cases", "hostile_weights", name), folder / name)
    for number, (name, (content, _)) in enumerate(HOSTILE.items()):
        if name not in HARMLESS:
            content = content() if callable(content) else content
            (folder / f"p{number}.pt").write_bytes(content)
    for number, (content, _) in enumerate(WRONG_HEADERS.values()):
        (folder / f"h{number}.safetensors").write_bytes(content)
    paths = sorted(folder.iterdir())
    assert len(paths) > 150
    # Each takes seconds to start: the shared ones, and every sixth of the others.
    paths = [p for p in paths if p.name in CASES] + paths[::6]
    done, start = peak_of("start")
    assert done.returncode == 0
    for path in paths:
        output = tmp_path / "out"
        arguments = ["--weights", path, "--source", picture, "--output", output]
        done, peak = peak_of(*arguments)
        assert done.returncode == 2, (path, done.stderr[-500:])
        lines = done.stderr.splitlines()
        assert len(lines) == 1, (path, done.stderr[-500:])
        assert lines[0].startswith("error: ") and str(path) in lines[0]
        assert lines[0].isprintable()
        assert peak < start + 300, path
        assert not output.exists()
    assert sorted(folder.iterdir()) == paths
