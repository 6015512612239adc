"""Embeddings of given features, as the embed stage writes them."""

from samref.embeddings import Embeddings, EmbeddingWriter, join
from samref.shards import Shards


def embedded(folder, keys, features, precision, *, wave=8):
    """The features (name -> N×channels×side×side) of images of these names, on disk in shards of `wave` at least."""
    shards = Shards(folder / "shards", len(keys), wave)
    channels = {name: (value.shape[1], value.shape[2]) for name, value in features.items()}
    for number in range(shards.count):
        rows = shards.rows(number)
        with shards.writing(number) as part:
            writer = EmbeddingWriter(part, keys[rows.start : rows.stop], channels, precision)
            writer.receive(0, {name: value[rows.start : rows.stop] for name, value in features.items()})()
            writer.close()
    out = folder / "embedded"
    out.mkdir()
    join(shards, out, list(keys), precision)
    return Embeddings(out)
