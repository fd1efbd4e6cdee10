"""Parameters of many tests."""

import pytest

from tests.netns.parameters import families
from tests.return_path.cluster import NODES

entries = pytest.mark.parametrize("entry", NODES, ids=[f"by-node{n}" for n in NODES])
places = pytest.mark.parametrize("place", NODES, ids=[f"on-node{n}" for n in NODES])

__all__ = ["entries", "families", "places"]
