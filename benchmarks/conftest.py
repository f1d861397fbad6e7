"""One table per network at the end of the run."""

from collections import defaultdict
from math import inf

import pytest
from contestants import AT_SCALE, CASES, KERNELS, LARGEST, TOLERANCE, N

_TABLE = pytest.StashKey()
_AT_SCALE = pytest.StashKey()
_SGD = pytest.StashKey()
_AGOP = pytest.StashKey()
_MONITOR = pytest.StashKey()
_EXTENDED = pytest.StashKey()

_OF_AGOP = {"plain": "plain pass", "ours": "ours", "peer": "torch.func"}


def pytest_configure(config):
    config.stash[_TABLE] = defaultdict(dict)
    config.stash[_AT_SCALE] = defaultdict(dict)
    config.stash[_SGD] = {}
    config.stash[_AGOP] = {}
    config.stash[_MONITOR] = {}
    config.stash[_EXTENDED] = {}


@pytest.fixture
def table(request):
    """case -> contestant -> (median, best, peak MiB), or why there is none, or the two steps' ratios."""
    return request.config.stash[_TABLE]


@pytest.fixture
def table_at_scale(request):
    """case -> number of samples -> medians of both steps and of our first one in seconds, their ratio, relative error
    of norm and split, MiB above the plain step's peak where it was measured."""
    return request.config.stash[_AT_SCALE]


@pytest.fixture
def table_of_sgd(request):
    """case -> medians of a plain step and of ours in seconds, the ratio of rounds, and what is allowed."""
    return request.config.stash[_SGD]


@pytest.fixture
def table_of_agop(request):
    """case -> medians of a plain pass, our AGOP and the peer's in seconds, our ratios to the others by rounds, and what
    is allowed of the first."""
    return request.config.stash[_AGOP]


@pytest.fixture
def table_of_monitor(request):
    """case -> how much longer a training takes, with what is allowed; and of a measurement by each contestant its time
    in plain steps, with its MiB."""
    return request.config.stash[_MONITOR]


@pytest.fixture
def table_of_extended(request):
    """network -> our step as a multiple of a plain pass, what is allowed, its MiB, what is allowed of these."""
    return request.config.stash[_EXTENDED]


def pytest_terminal_summary(terminalreporter, config):
    for name, rows in config.stash[_TABLE].items():
        terminalreporter.section(f"{name}, sizes {CASES[name].sizes}, n = {N}, float32")
        for line in [*_rows(rows), "", *_verdicts(CASES[name], rows)]:
            terminalreporter.write_line(line)
    for name, rows in config.stash[_AT_SCALE].items():
        terminalreporter.section(f"{name}, sizes {AT_SCALE[name].sizes}, by number of samples, float32")
        for line in _rows_at_scale(AT_SCALE[name], rows):
            terminalreporter.write_line(line)
    for name, row in config.stash[_SGD].items():
        terminalreporter.section(f"{name}: every step with its kernel and critical rate")
        times = f"plain {1e6 * row['plain']:.0f} us, ours {1e6 * row['ours']:.0f} us"
        terminalreporter.write_line(times)
        text = f"step: {row['ratio']:.2f} x plain"
        terminalreporter.write_line(_verdict(text, row["ratio"], row["allowed"]))
    for name, row in config.stash[_AGOP].items():
        terminalreporter.section(f"AGOP, {name}")
        times = ", ".join(f"{label} {1e3 * row[kind]:.1f} ms" for kind, label in _OF_AGOP.items())
        terminalreporter.write_line(times)
        text = f"AGOP: {row['x plain']:.2f} x plain"
        bounded = row["allowed"] < inf
        terminalreporter.write_line(_verdict(text, row["x plain"], row["allowed"]) if bounded else text)
        terminalreporter.write_line(_verdict(f"our AGOP: {row['x peer']:.2f} x torch.func", row["x peer"], 1))
    for name, (ratio, allowed, mib, allowed_mib) in config.stash[_EXTENDED].items():
        terminalreporter.section(f"Step with the kernel, {name}")
        text = f"step: {ratio:.2f} x plain"
        terminalreporter.write_line(_verdict(text, ratio, allowed) if allowed < inf else text)
        if mib is not None:
            text = f"memory: {mib:.0f} MiB"
            terminalreporter.write_line(_verdict(text, mib, allowed_mib) if allowed_mib < inf else text)
    for name, row in config.stash[_MONITOR].items():
        terminalreporter.section(f"Monitor, {name}")
        if "training" in row:
            ratio, allowed = row["training"]
            text = f"training, every 20 steps: {ratio:.2f} x plain"
            terminalreporter.write_line(_verdict(text, ratio, allowed) if allowed < inf else text)
        for contestant, (steps, mib) in row.get("measurement", {}).items():
            at_most = "" if mib is None else f", {mib:.0f} MiB"
            terminalreporter.write_line(f"a measurement by {contestant}: {steps:.1f} plain steps{at_most}")


def _rows_at_scale(bounds, rows):
    yield _line("n", "plain ms", "our ms", "first ms", "x plain step", "error", "above plain")
    for n, row in rows.items():
        times = [f"{1e3 * row[kind]:.1f}" for kind in ("plain", "ours", "first")]
        mib = "" if row["mib"] is None else f"{row['mib']:+.0f}"
        yield _line(f"{n:,}", *times, f"{row['ratio']:.2f}", f"{row['error']:.1e}", mib)
    yield ""
    worst = max(rows, key=lambda n: rows[n]["error"])
    yield _verdict(f"largest error, at n = {worst:,}: {rows[worst]['error']:.1e}", rows[worst]["error"], TOLERANCE)
    if (last := rows.get(LARGEST)) is not None:
        if bounds.allowed_ratio < inf:
            yield _verdict(f"step at n = {LARGEST:,}: {last['ratio']:.2f} x plain", last["ratio"], bounds.allowed_ratio)
        if last["mib"] is not None:
            text = f"memory at n = {LARGEST:,}: {last['mib']:+.0f} MiB above plain"
            yield _verdict(text, last["mib"], round(bounds.allowed_mib))


def _rows(rows):
    yield _line("", "median ms", "best ms", "x plain step", "peak MiB", "above plain")
    plain = rows.get("plain step")
    for contestant, row in rows.items():
        match row:
            case {"ratio": ratio}:
                yield _line("our step, round by round", "", "", f"{ratio:.2f}", "", "")
            case str(reason):
                yield f"{contestant:<26}left out: {reason}"
            case median, best, mib:
                ratio = f"{median / plain[0]:.2f}" if plain else ""
                above = "" if mib is None or not plain else f"{mib - plain[2]:+.0f}"
                mib = "" if mib is None else f"{mib:.0f}"
                yield _line(contestant, f"{median * 1e3:.1f}", f"{best * 1e3:.1f}", ratio, mib, above)


def _verdicts(bounds, rows):
    if figures := rows.get("round by round"):
        text = f"step: {figures['ratio']:.2f} x plain (best rounds: {figures['ratio_of_best']:.2f})"
        yield _verdict(text, figures["ratio"], bounds.allowed_ratio)
    match rows:
        case {"plain step": (_, _, float(plain)), "our step": (_, _, float(ours))}:
            yield _verdict(f"memory: {ours - plain:+.0f} MiB above plain", ours - plain, bounds.allowed_mib)
    for peer in KERNELS:
        match rows:
            case {"our kernel": (ours, *_), **others} if isinstance(others.get(peer), tuple):
                yield _verdict(f"our kernel: {ours / others[peer][0]:.2f} x {peer}", ours / others[peer][0], 1)
    disturbed = [name for name, row in rows.items() if isinstance(row, tuple) and row[0] > 1.3 * row[1]]
    if disturbed:
        yield f"Disturbed, the median being over 1.3 times the best round: {', '.join(disturbed)}"


def _verdict(text, value, allowed):
    return f"{text}, allowed {allowed}: {'holds' if value <= allowed else 'DOES NOT HOLD'}"


def _line(first, *others):
    return f"{first:<26}" + "".join(f"{cell:>14}" for cell in others)
