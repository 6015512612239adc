"""Uses `PLACE/net.py:build` on a node of the cluster at ADDRESS, from which PLACE is hidden meanwhile: PLACE ADDRESS.

Prints as JSON what it is here, what it is there, and the node's file of it.
"""

import json
import sys
from pathlib import Path

import ray

from samref import plugins
from samref_sweep.execution.ray.cluster import connected

PLACE, ADDRESS = Path(sys.argv[1]), sys.argv[2]


@ray.remote
def use(name: str, place: str, hidden: str) -> list[str]:
    """Call the plug-in where its folder is not."""
    from samref import plugins

    Path(place).rename(hidden)
    try:
        found, _ = plugins.load(name)
        return [plugins.source(name), found()]
    finally:
        Path(hidden).rename(place)


NAME = plugins.beside("./net.py:build", PLACE)
HERE = plugins.source(NAME)
with connected(ADDRESS):
    print(json.dumps([HERE, *ray.get(use.remote(NAME, str(PLACE), f"{PLACE}-hidden"))]))
