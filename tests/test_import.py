"""Importing the package is cheap, and its public names are there when asked for."""

import subprocess
import sys

import pytest

import dsh_hf

HEAVY = ["torch", "timm", "datasets", "gradio", "hnswlib", "matplotlib", "h5py", "PIL", "pandas"]


def loaded_by(statement: str) -> set[str]:
    """Run a statement in a fresh interpreter; give which of the heavy packages it has loaded."""
    code = f"import sys\n{statement}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import dsh_hf") == set()


def test_a_config_needs_no_networks():
    assert loaded_by("from dsh_hf import DSHConfig; DSHConfig()") == set()


def test_a_model_needs_neither_datasets_nor_gradio():
    assert loaded_by("from dsh_hf import DSHModel") == {"torch", "PIL"}


@pytest.mark.parametrize("name", dsh_hf.__all__)
def test_every_public_name_is_found_and_listed(name):
    assert getattr(dsh_hf, name) is not None
    assert name in dir(dsh_hf)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'dsh_hf' has no attribute 'DSHModle'"):
        _ = dsh_hf.DSHModle
