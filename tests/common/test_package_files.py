"""Where the shipped evals and the embedded model are, however the package was imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_tokenbudget.common.package_files import FOLDERS, package_folder

CHECKOUT = Path(__file__).resolve().parents[2]
# What `python -m pytest` does in a checkout where the package is installed elsewhere: the working
# directory comes first, and nothing there is called pytest_tokenbudget.evals.
FROM_THE_CHECKOUT = """
import sys
sys.meta_path = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "").lower()
                 and "editable" not in getattr(f, "__name__", "").lower()]
sys.path_hooks = sys.path_hooks[:2]
sys.path.insert(0, sys.argv[1])
import importlib.util
assert importlib.util.find_spec("pytest_tokenbudget.evals") is None
from pytest_tokenbudget.models.resolution import load_catalogue
from pytest_tokenbudget.common.package_files import suite
print(suite())
print(load_catalogue()["nano-reasoner"].source)
"""


def test_the_folders_hold_what_they_are_for():
    assert (package_folder("evals") / "test_saturation.py").is_file()
    assert (package_folder("embedded") / "models" / "nano-reasoner" / "config.json").is_file()


@pytest.mark.skipif(not (CHECKOUT / "evals").is_dir(), reason="these tests lie in no checkout")
def test_a_package_imported_from_a_checkout_finds_its_folders():
    done = subprocess.run(
        [sys.executable, "-c", FROM_THE_CHECKOUT, str(CHECKOUT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.split() == [
        str(CHECKOUT / FOLDERS["evals"]),
        str(CHECKOUT / FOLDERS["embedded"] / "models" / "nano-reasoner"),
    ], done.stderr
