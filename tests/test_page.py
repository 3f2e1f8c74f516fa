"""The page asks nobody for anything, prints, and fits a phone."""

from __future__ import annotations

import re

from maquette.page import Exhibit, Section, figures, page

BODY = figures([Exhibit(b"png", "a <b> & its nearest")], "pairs")
PAGE = page("Audit of x", ["One.", "Two.", "Three."], "about", [Section("Copying", "lead", BODY)])


def test_the_page_makes_no_outside_request():
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//)|url\(|@import|<script|<link""", PAGE)
    assert "default-src 'none'" in PAGE


def test_the_page_has_rules_for_print_phone_and_dark():
    assert all(
        rule in PAGE
        for rule in ("@media print", "@media (max-width", "prefers-color-scheme: dark", "width=device-width")
    )


def test_every_picture_has_words_in_its_place_and_what_came_from_files_is_escaped():
    assert 'alt="a &lt;b&gt; &amp; its nearest"' in PAGE and "<b>" not in PAGE
