"""The clients' simulated hardware and radio channel, and the seconds that their work takes."""

FLEETS = {
    "uniform": "fpcli.fleet.devices:uniform",
    "two-speed": "fpcli.fleet.devices:two_speed",
    "ten-speed": "fpcli.fleet.devices:ten_speed",
    "long-tail": "fpcli.fleet.devices:long_tail",
    "edge-boards": "fpcli.fleet.boards:edge_boards",
    "phones": "fpcli.fleet.boards:phones",
}
"""Profile -> function ``(seed, variation) -> Fleet``."""
