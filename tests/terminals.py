"""A stream that says what it is: a terminal or none, of an encoding."""

from __future__ import annotations

import io


class Stream(io.StringIO):
    def __init__(self, *, is_terminal: bool = False, encoding: str = "utf-8") -> None:
        super().__init__()
        self._is_terminal, self._encoding = is_terminal, encoding

    def isatty(self) -> bool:
        return self._is_terminal

    @property
    def encoding(self) -> str:
        return self._encoding
