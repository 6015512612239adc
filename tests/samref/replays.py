"""Which parts of a network are replayed as CUDA graphs."""

from samref.refiner import recorded


def replayed(network):
    """Names of the stages of which something is recorded; none where recording failed."""
    return {name for part, name in recorded._parts(network) if getattr(vars(part).get(name), "_recordings", None)}
