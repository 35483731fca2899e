"""Messages between the server and its clients, as bytes."""

CODECS = {
    "dense": "fpcli.wire.codecs:Dense",
    "sparse": "fpcli.wire.codecs:Sparse",
    "float16": "fpcli.wire.codecs:float16",
    **{f"int{bits}": f"fpcli.wire.codecs:int{bits}" for bits in range(2, 17)},
    **{f"int{bits}-stochastic": f"fpcli.wire.codecs:int{bits}_stochastic" for bits in range(2, 17)},
    "ternary": "fpcli.wire.codecs:ternary",
    **{f"qsgd{bits}": f"fpcli.wire.codecs:qsgd{bits}" for bits in range(2, 9)},
}
"""Codec -> what makes it; see :class:`fpcli.wire.codecs.Codec`."""
