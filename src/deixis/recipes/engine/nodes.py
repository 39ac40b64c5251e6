"""The nodes of a Ray cluster on which workers start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deixis.errors import DataError
from deixis.recipes.engine.cluster import AGAIN
from deixis.recipes.run.outputs import warn

NODE_ID = "ray.io/node-id"  # a label that Ray gives to every node
LIMIT_S = 60.0


def usable_nodes(ray: Any) -> tuple[dict[str, float], dict[str, str]]:
    """(resources, label selector) of the nodes where a worker starts; one where none does is left out with a warning.

    Ray itself starts workers on such a node, whose disk is full for example, again and again, then fails the whole run.
    One node alone is not looked at: it has no other in its place.

    Raises:
        DataError: no worker starts on any node.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    broken = _broken(ray, nodes) if len(nodes) > 1 else []
    if not broken:
        return dict(ray.cluster_resources()), {}
    named = ", ".join(node["NodeManagerAddress"] for node in broken)
    why = f"no worker starts on {named}; is the disk of Ray's temporary folder full there?"
    if len(broken) == len(nodes):
        raise DataError(f"--engine ray: {why} Free some space and {AGAIN}")
    warn(f"left out: {why}")
    resources: dict[str, float] = {}
    for node in nodes:
        if node not in broken:
            for name, amount in node["Resources"].items():
                resources[name] = resources.get(name, 0) + amount
    return resources, {NODE_ID: f"!in({','.join(node['NodeID'] for node in broken)})"}


def _broken(ray: Any, nodes: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those where a worker dies at its start; who is only slow is not among them."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    starts = {
        ray.remote(_start)
        # Without a CPU, so that it starts on a busy node too; False: on this node or nowhere.
        .options(num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], False))
        .remote(): node
        for node in nodes
    }
    ended, _ = ray.wait(list(starts), num_returns=len(starts), timeout=LIMIT_S)
    broken = []
    for start in ended:
        try:
            ray.get(start)
        except ray.exceptions.RayError:
            broken.append(starts[start])
    return broken


def _start() -> None:
    """What a worker does to show that it is there."""
