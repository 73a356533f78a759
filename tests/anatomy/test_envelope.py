"""The body in a CT: one piece, whole inside."""

import numpy as np
import pytest

from cardiosynth.anatomy.envelope import body_envelope


@pytest.mark.parametrize("shape", [(24, 24, 6), (24, 24)])
def test_a_body_with_lungs_on_a_table_is_the_whole_body_without_the_table(shape):
    image = np.full(shape, -1000.0)
    image[4:18, 4:20] = 40  # trunk
    image[6:10, 6:18] = -850  # a lung, open to the first and last slice but closed in every one of them
    image[21:23, 2:22] = 100  # a table, apart from the body
    wanted = np.zeros(shape, bool)
    wanted[4:18, 4:20] = True
    np.testing.assert_array_equal(body_envelope(image), wanted)


def test_air_alone_has_no_body():
    assert not body_envelope(np.full((8, 8, 8), -1000.0)).any()
