"""Messages between the server and its clients, as bytes."""

CODECS = {
    "dense": "fpcli.wire.codecs:Dense",
    "sparse": "fpcli.wire.codecs:Sparse",
    "float16": "fpcli.wire.codecs:float16",
    "int8": "fpcli.wire.codecs:int8",
    "int8-stochastic": "fpcli.wire.codecs:int8_stochastic",
    "ternary": "fpcli.wire.codecs:ternary",
    **{f"qsgd{bits}": f"fpcli.wire.codecs:qsgd{bits}" for bits in range(2, 9)},
}
"""Codec -> what makes it; see :class:`fpcli.wire.codecs.Codec`."""
