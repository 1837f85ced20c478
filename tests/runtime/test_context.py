from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st

from poller.runtime.context import uuid_text


@given(st.integers(min_value=0, max_value=2**128 - 1))
@example(0)
@example(2**128 - 1)
def test_a_random_uuid_has_the_text_that_the_library_gives_it(bits: int) -> None:
    assert uuid_text(bits) == str(UUID(int=bits, version=4))
