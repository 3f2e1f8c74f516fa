"""The page asks nobody for anything, prints, and fits a phone."""

from __future__ import annotations

import re

from maquette.finding import Finding
from maquette.page import Exhibit, Section, figures, page, question, table

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


def finding(name: str = "precision", reference: float | None = 0.8, **values) -> Finding:
    return Finding(
        name,
        "judge",
        **{"value": 0.5, "low": 0.4, "high": 0.6} | values,
        reference=reference,
        n=9,
        direction="higher",
        sentence="so",
    )


def test_the_plot_has_a_bar_a_dot_and_a_floor_a_finding():
    plot = table([finding(), finding("near copies"), finding("rhyme", reference=None)])
    assert [plot.count(f'class="{mark}"') for mark in ("reach", "made", "floor")] == [3, 3, 2]
    assert 'class="floor" x1="98.00%"' in plot and 'cx="62.00%"' in plot  # 0 lies at 2%, the floor 0.8 at 98%


def test_the_plot_is_told_in_words_and_asks_nobody():
    plot = page("x", [], "", [Section("All figures", "", table([finding("a <b>")]))])
    assert (
        'role="img"' in plot
        and "<title>a &lt;b&gt; in judge 0.5, 0.4 to 0.6, floor 0.8, higher is better</title>" in plot
    )
    assert not re.search(r"https?:|//|url\(|<script", plot)


def test_a_value_stands_beside_its_unit_in_table_and_plot():
    text = table([finding(unit="<share>", value=0.25)])
    assert "<strong>0.25</strong> <span class=soft>&lt;share&gt;</span>" in text
    assert ">0.25 &lt;share&gt; ↑</text>" in text and "in judge 0.25 &lt;share&gt;, 0.4 to 0.6" in text


def test_findings_are_grouped_by_question():
    names = ("near copies", "nats a word of training", "nats a word", "KID", "coverage", "octave jumps")
    assert [question(finding(n)) for n in names] == ["Copying", "Copying", "Fidelity", "Fidelity", "Diversity", "Other"]


def test_what_is_no_number_is_not_drawn():
    plot = table([finding(value=float("nan"), low=float("nan"), high=float("inf"))])
    assert "nan%" not in plot and "inf%" not in plot and 'class="floor"' in plot


def test_the_table_scrolls_in_its_own_box():
    assert '<div class="scroll"><table>' in table([finding()]) and ".scroll { overflow-x: auto" in PAGE
