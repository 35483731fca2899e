"""Where client work happens: in this process, in a pool of processes, or elsewhere."""
