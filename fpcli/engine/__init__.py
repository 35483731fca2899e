"""The shared engine: one synchronous round, the ten hooks of a method, and its executors."""
