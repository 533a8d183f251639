import time

import numpy as np
import pytest

from tests.fuzzing import Hang, fuzz


def draw(rng: np.random.Generator, number: int) -> int:
    return number * 1000 + int(rng.integers(1000))


def test_outcomes_are_counted_and_inputs_are_made_again_by_their_number():
    seen: list[int] = []

    def run(value: int) -> str:
        seen.append(value)
        if value // 1000 % 2:
            raise ValueError("a.json: odd")
        return "read"

    tally = fuzz(draw, run, seconds=0.05, seed=3, names="a.json")
    assert tally.inputs == len(seen) > 3
    assert tally.outcomes["read"] == (len(seen) + 1) // 2
    assert tally.outcomes["error"] == len(seen) // 2
    assert not tally.failures
    wanted = seen[2]
    seen.clear()
    assert fuzz(draw, run, seconds=9.0, seed=3, only=2).inputs == 1
    assert seen == [wanted]


def test_a_traceback_a_hang_and_a_message_without_the_file_are_failures():
    def run(value: int) -> str:
        kind = value // 1000 % 3
        if kind == 0:
            raise KeyError("id")
        if kind == 1:
            try:
                time.sleep(5)
            except Exception as error:
                raise AssertionError("a reader that catches everything") from error
        raise ValueError("it went wrong")

    tally = fuzz(draw, run, seconds=0.7, seed=0, limit=0.02, names="a.json")
    kinds = {text.split(" ")[2] for text in tally.failures.values()}
    assert kinds == {"KeyError", "Hang", "ValueError"}
    with pytest.raises(KeyError):
        fuzz(draw, run, seconds=9.0, seed=0, only=0)
    with pytest.raises(Hang):
        fuzz(draw, run, seconds=9.0, seed=0, limit=0.02, only=1)
