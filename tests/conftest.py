"""What all tests share: a seeded generator, the real data, and no network."""

import socket

import pytest
import torch
from jaxtyping import config


def pytest_configure(config):
    """Take the network away from the whole run, doctests included."""
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)

    def refusing(method):
        real = getattr(socket.socket, method)

        def refused(self, *arguments):
            if self.family == socket.AF_UNIX:
                return real(self, *arguments)
            raise ConnectionRefusedError(f"no network in the tests: {arguments[-1]}")

        return refused

    def unknown(host, *_, **__):
        raise socket.gaierror(socket.EAI_NONAME, f"no network in the tests: {host}")

    for method in ("connect", "connect_ex", "sendto"):
        patch.setattr(socket.socket, method, refusing(method))
    patch.setattr(socket, "getaddrinfo", unknown)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def as_users_run():
    """Turn off the shape checks, which would reject a wrong input before we do."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def real_data():
    """The whole of Fashion-MNIST; where it is not at hand, a failure, not a skip."""
    # Imported here: the shape checks must be in place before dian is.
    from dian.data import fashion_mnist
    from dian.errors import DianError

    try:
        return {split: fashion_mnist(split) for split in ("train", "test")}
    except DianError as error:
        pytest.fail(str(error), pytrace=False)
