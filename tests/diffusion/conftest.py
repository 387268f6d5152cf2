"""What the tests of diffusion share."""

import pytest
from jaxtyping import config


@pytest.fixture
def as_users_run():
    """Turn off the shape checks, which would reject a wrong input before we do."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
