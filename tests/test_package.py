"""``import dian`` gives everything by name, and waits for nothing."""

import importlib
import pkgutil
import subprocess
import sys
from importlib.metadata import version

import pytest

import dian

MODULES = [
    module.name
    for module in pkgutil.walk_packages(dian.__path__, "dian.")
    if module.name != "dian.__main__"
]


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import dian; dian.__version__;"
        "print([m for m in set(sys.modules) - before if m.startswith('dian.')"
        " or m in ('torch', 'numpy', 'matplotlib')])"
    )
    assert run(code) == "[]"


@pytest.mark.parametrize(
    "module", ["dian.rnn.networks", "dian.data", "dian.runs.train"]
)
def test_a_module_is_imported_when_it_is_used(module):
    assert run(f"import dian; print({module}.__name__)") == module


def test_every_module_is_an_attribute():
    for name in MODULES:
        package, _, attribute = name.rpartition(".")
        found = getattr(importlib.import_module(package), attribute)
        assert getattr(found, "__name__", name) == name


def test_names():
    assert dian.__version__ == version("dian")
    modules = {name.split(".")[1] for name in MODULES}
    functions = {"classify", "generate", "load", "__version__"}
    assert dir(dian) == sorted(modules | functions)
    assert {"networks", "recurrence"} < set(dir(dian.rnn))
    assert {"Claim", "verify"} < set(dir(dian.claims))
    assert dian.classify is dian.inference.classify
    assert dian.load("rnn-recipe-best").name == "rnn-recipe-best"
    for wrong in (dian, dian.rnn, dian.claims.rnn):
        with pytest.raises(
            AttributeError, match=f"module '{wrong.__name__}' has no .*'x"
        ):
            _ = wrong.x


def test_a_folder_of_data_is_no_module():
    with pytest.raises(AttributeError):
        _ = dian.recorded


def test_a_module_that_lacks_a_dependency_says_so():
    code = (
        "import sys, dian; sys.modules['safetensors.numpy'] = None\n"
        "try: dian.load\n"
        "except ImportError as error: print(error.name)"
    )
    assert run(code) == "safetensors.numpy"
