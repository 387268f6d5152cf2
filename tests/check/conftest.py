import pytest


@pytest.fixture(autouse=True)
def without_checks_of_shapes(as_users_run):
    """Mutants are compared by what they compute, which a check of shapes would stop."""
