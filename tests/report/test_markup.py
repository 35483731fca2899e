from __future__ import annotations

import pytest

from fpcli.report import markup


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("<script>\"&'", "&lt;script&gt;&quot;&amp;&#x27;"),
        ("a\x00\x1b\u202e\ud800b", "a����b"),
        ("two\n\tlines µ ü", "two\n\tlines µ ü"),
    ],
)
def test_no_text_is_markup(words: str, shown: str) -> None:
    assert markup.escape(words) == shown


def test_every_piece_escapes_its_texts() -> None:
    bad = "<img src=x>"
    pieces = [
        markup.make_table((bad, ""), [(bad, bad)], [1]),
        markup.make_facts([(bad, bad)]),
        markup.make_items([bad]),
        markup.fold(bad, ""),
        markup.make_code(bad),
    ]
    assert not any("<img" in piece for piece in pieces)
    assert all("&lt;img" in piece for piece in pieces)


def test_a_table_without_headers_has_no_head() -> None:
    assert "<thead>" not in markup.make_facts([("a", "b")])
    assert '<td class="n">1</td>' in markup.make_table(("a", "b"), [("x", "1")], [1])
