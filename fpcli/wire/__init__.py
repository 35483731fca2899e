"""Messages between the server and its clients, as bytes."""

CODECS = {
    "dense": "fpcli.wire.codecs:Dense",
    "sparse": "fpcli.wire.codecs:Sparse",
}
"""Codec -> class; see :class:`fpcli.wire.codecs.Codec`."""
