"""Shapes and types of every call are checked in tests; real data comes from ROADWORTHY_DATA."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

# As PEP 484 has it, an int is good where a float is asked for.
install_import_hook(
    "roadworthy", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

# The networks here are too small to share among threads, and a busy machine makes threads wait.
torch.set_num_threads(1)
# A slow machine is no failure.
settings.register_profile("roadworthy", deadline=None, max_examples=50)
settings.load_profile("roadworthy")


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the real data sets."""
    folder = os.environ.get("ROADWORTHY_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ROADWORTHY_DATA does not name a folder with the real data sets")
    return Path(folder)
