"""The command `fp`: parse, call one function, show what it returns."""
