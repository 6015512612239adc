"""Connected to the cluster at ADDRESS, answers each line with its living nodes but the head, a list of ids as JSON."""

import json
import sys

import ray

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
for _ in sys.stdin:
    alive = [node for node in ray.nodes() if node["Alive"] and "node:__internal_head__" not in node["Resources"]]
    print(json.dumps([node["NodeID"] for node in alive]), flush=True)
