import pytest

from yolojax import trees

TREE = {"backbone": {"stem": {"kernel": 1, "bias": 2}}, "head": {"bias": 3}}


def test_unflatten_is_the_inverse_of_flatten():
    leaves = trees.flatten(TREE)
    assert leaves == {
        "backbone/stem/kernel": 1,
        "backbone/stem/bias": 2,
        "head/bias": 3,
    }
    assert trees.unflatten(leaves) == TREE


def test_match_mask_marks_what_any_pattern_finds():
    mask = trees.match_mask(TREE, ["^backbone/.*kernel$", "^head/"])
    assert trees.flatten(mask) == {
        "backbone/stem/kernel": True,
        "backbone/stem/bias": False,
        "head/bias": True,
    }


def test_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(ValueError, match="'\\^neck/' matches no parameter.*backbone"):
        trees.match_mask(TREE, ["^neck/"])


def test_variables_have_both_collections_even_where_one_is_empty():
    leaves = {"params/head/bias": 3}
    expected = {"params": {"head": {"bias": 3}}, "batch_stats": {}}
    assert trees.unflatten_variables(leaves) == expected
    leaves["batch_stats/norm/mean"] = 1
    assert trees.unflatten_variables(leaves) == trees.unflatten(leaves)
