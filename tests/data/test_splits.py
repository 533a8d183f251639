import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolojax.data.splits import SPLITS, check_split, counts_of, stratified_split

FRACTIONS = st.sampled_from(
    [(1.0,), (0.8, 0.2), (0.5, 0.5), (0.7, 0.2, 0.1), (0.1, 0.1, 0.8), (0.9, 0.0, 0.1)]
)


@given(st.integers(0, 60), FRACTIONS)
@settings(max_examples=60, deadline=None)
def test_counts_are_the_fractions_but_for_one_picture(total, fractions):
    counts = counts_of(total, fractions)
    wanted = [share > 0 for share in fractions]
    assert sum(counts) == total and min(counts) >= 0
    assert not any(n for n, want in zip(counts, wanted, strict=True) if not want)
    if total >= sum(wanted):
        assert all(n for n, want in zip(counts, wanted, strict=True) if want)
    if total:
        assert counts[0]
    if total < sum(wanted):
        # One each for the first of the splits that want any.
        first = [want and sum(wanted[:i]) < total for i, want in enumerate(wanted)]
        assert counts == [int(one) for one in first]
        return
    for count, share in zip(counts, fractions, strict=True):
        assert abs(count - share * total) <= 1.5


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    FRACTIONS,
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_splits_are_stratified_disjoint_and_blind_to_the_order(
    strata, fractions, seed, random
):
    names = [f"{label}/{number}.jpg" for number, label in enumerate(strata)]
    mixed = list(range(len(names)))
    random.shuffle(mixed)
    seen = []
    for number, split in enumerate(SPLITS):
        options = {"split": split, "fractions": fractions, "seed": seed}
        if number >= len(fractions) or not fractions[number]:
            with pytest.raises(ValueError, match=f"leave nothing for split '{split}'"):
                stratified_split(names, strata, **options)
            continue
        chosen = [names[i] for i in stratified_split(names, strata, **options)]
        again = stratified_split(
            [names[i] for i in mixed], [strata[i] for i in mixed], **options
        )
        assert {names[mixed[i]] for i in again} == set(chosen)
        for label in set(strata):
            own = [name for name in chosen if name.startswith(f"{label}/")]
            assert len(own) == counts_of(strata.count(label), fractions)[number]
        seen += chosen
    assert sorted(seen) == sorted(names)


def test_another_seed_deals_anew_and_another_picture_moves_few():
    names = [f"{number}.jpg" for number in range(100)]

    def train(names, seed):
        options = {"split": "train", "fractions": (0.8, 0.2), "seed": seed}
        rows = stratified_split(names, [0] * len(names), **options)
        return {names[i] for i in rows}

    assert train(names, 0) != train(names, 1)
    one_more = train([*names, "new.jpg"], 0)
    assert len(train(names, 0) - one_more) <= 1


@pytest.mark.parametrize(
    "split, fractions, message",
    [
        ("vall", (0.8, 0.2), r"train, val, test, not 'vall'. Did you mean 'val'"),
        ("val", (0.8, 0.3), "which sum up to 1"),
        ("val", (), "which sum up to 1"),
        ("val", (0.4, 0.2, 0.2, 0.2), "which sum up to 1"),
        ("val", 0.8, "which sum up to 1"),
        ("val", (1.2, -0.2), "which sum up to 1"),
        ("val", ("a", "b"), "which sum up to 1"),
        ("val", (0.0, 1.0), "nothing to train on"),
    ],
)
def test_splits_that_cannot_be(split, fractions, message):
    with pytest.raises(ValueError, match=message):
        check_split(split, fractions)


def test_a_seed_is_an_integer():
    with pytest.raises(ValueError, match="seed must be an integer, not 'a'"):
        check_split("val", (0.8, 0.2), "a")
