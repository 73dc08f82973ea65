"""The table: medians of interleaved rounds, their spread, and ratios taken within each round, so that a drifting machine does not show in them."""

import statistics

from cases import ROWS

NAMES = {"direct": "direct", "haproxy": "HAProxy", "envoy": "Envoy", "mitmproxy": "mitmproxy", "chaperone": "Chaperone"}


def values(results, case, name, metric):
    """By round; None where there is nothing."""
    return [found and found.get(metric) for found in results.get((case, name), [])]


def median(numbers):
    there = [number for number in numbers if number is not None]
    return statistics.median(there) if there else None


def number(value):
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def cell(numbers):
    there = [value for value in numbers if value is not None]
    middle = median(there)
    if middle is None:
        return "–"
    spread = (max(there) - min(there)) / 2 / middle * 100 if middle else 0
    return f"{number(middle)} ±{spread:.0f} %" if len(there) > 1 else number(middle)


def ratio(results, case, metric, of, to, allowed=0):
    """Median over rounds of one peer's value, less what is allowed on top, by another's of the same round."""
    pairs = zip(values(results, case, of, metric), values(results, case, to, metric))
    return median([(a - allowed) / b for a, b in pairs if a is not None and b])


def judge(results, row, name):
    """What the budget asks for, and whether it is met."""
    _, case, metric, unit, less, budgets = row
    words, met = [], True
    for peer, bound, *more in budgets:
        reached = ratio(results, case, metric, name, peer, *more) if peer else median(values(results, case, name, metric))
        sign = "≤" if less else "≥"
        added = "".join(f" + {value:,} {unit}" for value in more)
        words.append(f"{sign} {bound:g} × {NAMES[peer]}{added}" if peer else f"{sign} {bound:g} {unit}")
        if reached is None:
            met = None if met else met
        elif (reached > bound) if less else (reached < bound):
            met = False
    if not words:
        return ""
    return "; ".join(words) + {True: ": met", False: ": **missed**", None: ": not measured"}[met]


def table(results, names):
    ours = [name for name in names if name not in NAMES or name == "chaperone"]
    others = [name for name in ("haproxy", "envoy") if name in names]
    head = ["", *(NAMES.get(name, name) for name in names), *(f"{NAMES.get(name, name)} ÷ {NAMES[other]}" for name in ours for other in others), "budget"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in ROWS:
        title, case, metric, unit = row[:4]
        if not any((case, name) in results for name in names):
            continue
        cells = [cell(values(results, case, name, metric)) for name in names]
        ratios = [ratio(results, case, metric, name, other) for name in ours for other in others]
        lines.append("| " + " | ".join([f"{title} ({unit})", *cells, *(f"{r:.2f}" if r else "–" for r in ratios), judge(results, row, ours[-1]) if ours else ""]) + " |")
    return "\n".join(lines)
