"""Images in memory are decoded like files of the same pixels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from anomaly.detector.in_memory import decode_array
from anomaly.imaging.decode import decode
from tests.test_scorer import file_of

PICTURES = st.sampled_from([(), (1,), (3,), (4,)]).flatmap(
    lambda channels: arrays(
        np.uint8,
        st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda size: (*size, *channels)),
    )
)


@given(PICTURES)
def test_an_array_is_decoded_like_a_file_of_the_same_pixels(array: np.ndarray) -> None:
    found = decode_array(array)
    expected = decode(
        file_of(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array), "PNG")
    )
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert (found.width, found.height, found.grey) == (
        expected.width,
        expected.height,
        expected.grey,
    )
