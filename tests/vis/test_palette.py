import numpy as np

from yolojax.vis import palette


def test_the_first_twenty_colours_differ_plainly_to_every_kind_of_eye():
    colours = np.array([palette.class_colour(label) for label in range(20)])
    seen = palette.perceived(colours)
    distances = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1)
    distances[:, range(20), range(20)] = np.inf
    # 0.02 is just noticeable.
    assert distances.min() > 0.06


def test_all_colours_differ_and_repeat_after_the_last():
    colours = [palette.class_colour(i) for i in range(palette.NUM_COLOURS)]
    assert len(set(colours)) == palette.NUM_COLOURS == 96
    assert palette.class_colour(96) == colours[0] == (230, 159, 0)


def test_text_is_black_on_bright_and_white_on_dark_tags():
    assert palette.text_colour((255, 255, 0)) == (0, 0, 0)
    assert palette.text_colour((0, 0, 128)) == (255, 255, 255)


def test_text_reaches_the_contrast_of_wcag_aa_on_every_colour():
    def luminance(colour):
        return palette.linear_rgb(np.array(colour)) @ [0.2126, 0.7152, 0.0722]

    for label in range(palette.NUM_COLOURS):
        tag = luminance(palette.class_colour(label))
        text = luminance(palette.text_colour(palette.class_colour(label)))
        assert (max(tag, text) + 0.05) / (min(tag, text) + 0.05) >= 4.5


def test_white_is_light_one_and_grey_has_no_hue():
    # Oklab is made so that white is (1, 0, 0); its matrices are printed to 10 digits.
    normal = palette.perceived(np.array([[255, 255, 255], [119, 119, 119]]))[0]
    np.testing.assert_allclose(normal[0], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(normal[1, 1:], [0, 0], atol=1e-6)
