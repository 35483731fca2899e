"""The version of fpcli: below all other files, so that each of them may tell it."""

__version__ = "0.1.0"
