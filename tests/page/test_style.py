"""The page's style: no rule stands twice, and what is for the dark theme says so."""

import re

from madtp.page.style import CSS


def test_no_rule_stands_twice() -> None:
    plain = re.sub(r"@media[^{]*\{.*?\n\}", "", CSS, flags=re.DOTALL)
    rules = [rule.strip() for rule in re.findall(r"([^{}]+)\{[^{}]*\}", plain)]
    assert len(rules) > 20 and sorted(rules) == sorted(set(rules))


def test_a_problem_looks_otherwise_in_the_dark() -> None:
    assert re.search(r"^\.problem \{[^}]*background: #fdecea", CSS, re.MULTILINE)
    assert re.search(r"^\.dark \.problem \{[^}]*background: #3a1512", CSS, re.MULTILINE)
