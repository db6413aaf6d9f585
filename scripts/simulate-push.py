#!/usr/bin/env python3
"""Simulates Pub/Sub push in front of the service while Chargebee is down; see docs/SCALING.md.

    scripts/simulate-push.py            run all cases, print the tables (two minutes)
    scripts/simulate-push.py --write    also draw docs/scaling/*.svg and refresh docs/SCALING.md
    scripts/simulate-push.py --check    a small run, its invariants, and whether the document is stale

Only the standard library. The same seed gives the same numbers.
"""

import argparse
import hashlib
import math
import re
import sys
from pathlib import Path

sys.dont_write_bytecode = True

from scaling.costs import costs, limits, table, thousands  # noqa: E402
from scaling.model import (  # noqa: E402
    BREAKER_FAILURES, FIRST_REST, FIRST_WAIT, MAX_REST, MAX_WAIT, RETRIES, TRY_TIMEOUT, Setup,
    endurance, pause_after, simulate,
)
from scaling.svg import panel, picture, ticks  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "SCALING.md"
PLOTS = ROOT / "docs" / "scaling"


# -- the cases


def worst(seeds=(1, 2, 3), **changes):
    """The worst figure of several seeds, each for itself: it depends on when pauses happen to end."""
    all_figures = [simulate(seed=seed, **changes).figures() for seed in seeds]
    return {key: max((it[key] for it in all_figures if it[key] is not None), default=None)
            for key in all_figures[0]}


def span(seconds):
    if seconds is None:
        return "–"
    if seconds == math.inf:
        return "not yet"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def outages():
    rows = []
    cases = [
        ("refuses connections", {}),
        ("same, breaker off", {"breaker": False}),
        ("hangs", {"hangs": True}),
        ("same, breaker off", {"hangs": True, "breaker": False}),
        ("refuses, no push backoff", {"push_backoff": False}),
        ("same, `maximum_backoff_seconds` 60", {"push_backoff": False, "max_backoff": 60.0}),
        ("hangs, no push backoff", {"push_backoff": False, "hangs": True}),
        ("same, breaker off", {"push_backoff": False, "hangs": True, "breaker": False}),
    ]
    for name, changes in cases:
        for outage in (600.0, 3600.0):
            it = worst(outage=outage, after=2400.0, **changes)
            rows.append([name, span(outage), thousands(it["tries_in_outage"]), it["slots"],
                         it["attempts"], span(it["nearly"]), span(it["all"]), it["dead"]])
    head = ["Chargebee", "for", "requests to it meanwhile", "most slots busy",
            "most deliveries of an event", "99 % worked off after", "all after", "dead letters"]
    return table(head, rows)


def attempts():
    rows = []
    for most, low, high in ((5, 10, 600), (10, 10, 600), (20, 10, 600), (100, 10, 60),
                            (100, 10, 300), (100, 10, 600)):
        lasts = endurance(Setup(max_attempts=most, min_backoff=low, max_backoff=high))
        cells = [f"{most}", f"{low} s / {high} s", span(lasts)]
        for backoff, outage in ((False, 600.0), (False, 3600.0), (True, 3600.0)):
            it = simulate(max_attempts=most, min_backoff=low, max_backoff=high, outage=outage,
                          push_backoff=backoff, after=1200.0, rate=2.0).figures()
            lost = it["dead"] / it["in_outage"]
            cells.append("0" if it["dead"] == 0 else f"{lost:.0%}" if lost > 0.01 else "< 1 %")
        rows.append(cells)
    return table(["`max_delivery_attempts`", "backoff", "an event lasts at least",
                  "dead, 10 min", "dead, 1 h", "dead, 1 h, with push backoff"], rows)


def bystanders():
    rows = []
    for share in (0.05, 0.2, 0.5):
        for breaker in (True, False):
            it = worst(share=share, breaker=breaker, after=1800.0)
            five = worst(share=share, breaker=breaker, after=1800.0, max_attempts=5)
            rows.append([f"{share:.0%}", "on" if breaker else "off", span(it["bystander_p50"]),
                         span(it["bystander_p99"]), it["dead"], thousands(five["dead"])])
    return table(["events that need Chargebee", "breaker", "others' delay, median", "others' delay, p99",
                  "dead letters", "with 5 attempts"], rows)


def sensitivity():
    rows = []
    for name, changes in (("as above", {}), ("a nack takes a tenth of the window", {"cut": 0.9}),
                          ("nacks of 5 answers", {"remembered": 5}), ("nacks of 100 answers", {"remembered": 100})):
        it, mixed = worst(after=2400.0, **changes), worst(share=0.2, after=2400.0, **changes)
        rows.append([name, thousands(it["deliveries"] - it["settled"]), span(it["nearly"]), span(it["all"]), it["dead"],
                     span(mixed["bystander_p99"])])
    return table(["assumption", "deliveries in vain", "99 % worked off after", "all after", "dead letters",
                  "others' delay, p99, at 20 %"], rows)


SLOTS = ((2, 80), (1, 20), (1, 6), (1, 5), (1, 4))


def drains():
    rows, curves = [], []
    for instances, concurrency in SLOTS:
        run = simulate(rate=3.0, limit=1000.0, instances=instances, concurrency=concurrency, after=14400.0)
        it = run.figures()
        rows.append([f"{instances} × {concurrency}", thousands(it["limited"]), thousands(it["deliveries"] - it["settled"]),
                     span(it["nearly"]), span(it["all"]), it["dead"]])
        curves.append((f"{instances} × {concurrency}", [(at / 60, waiting) for at, waiting, *_ in run.samples]))
    head = ["`max_instances` × `concurrency`", "calls answered 429", "deliveries in vain", "99 % worked off after",
            "all after", "dead letters"]
    return table(head, rows), curves


# -- plots


def draw_outage():
    cases = [("defaults", {}), ("breaker off", {"breaker": False}), ("without push backoff", {"push_backoff": False})]
    runs = [(name, simulate(after=1500.0, **changes)) for name, changes in cases]
    waiting = [(name, [(at / 60, it) for at, it, *_ in run.samples]) for name, run in runs]
    window = [(name, [(at / 60, math.log10(max(1, it))) for at, _, it, *_ in run.samples]) for name, run in runs]
    rate = [(name, [(b[0] / 60, math.log10(max(1, (b[3] - a[3]) * 6))) for a, b in zip(run.samples, run.samples[3:])
                    ]) for name, run in runs]
    rate = [(name, [(at, value - math.log10(3)) for at, value in points]) for name, points in rate]
    x = ("minutes", 0, 95, ticks(95, 10))
    band = (10, 70)
    decades = [(power, f"{10 ** power:,}") for power in range(5)]
    picture(PLOTS / "outage.svg", "Chargebee is down for one hour: events waiting, deliveries, push window", 860, [
        panel(60, "Chargebee refuses connections for an hour, 5 events/s", waiting, x,
              ("events waiting", 0, 20000, ticks(20000, 5000)), band=band),
        panel(340, "Deliveries a minute, those in vain included", rate, x, ("deliveries/min", 0, 4, decades), band=band),
        panel(620, "Push window", window, x, ("requests at once", 0, 4, decades), band=band),
    ])


def draw_dead_letters():
    lengths = (1, 1.5, 2, 3, 4, 6, 8, 12, 18, 30, 60, 90, 120, 180, 240, 360, 480, 720, 960, 1080, 1200, 1440)
    curves = []
    for name, most, high in (("5 attempts", 5, 600.0), ("10", 10, 600.0), ("20", 20, 600.0),
                             ("100, at most 60 s apart", 100, 60.0), ("100 (default)", 100, 600.0)):
        points = []
        for minutes in lengths:
            outage = minutes * 60.0
            rate = min(10.0, 4000.0 / outage)
            it = simulate(rate=rate, outage=outage, starts=60.0, after=900.0, max_attempts=most, max_backoff=high,
                          push_backoff=False).figures()
            points.append((minutes, it["dead"] / it["in_outage"]))
        curves.append((name, points))
    marks = ((1, "1 min"), (5, "5"), (10, "10"), (30, "30"), (60, "1 h"), (240, "4 h"), (720, "12 h"), (1440, "24 h"))
    picture(PLOTS / "dead-letters.svg", "Share of events that become dead letters by length of the outage", 300, [
        panel(60, "Events that become dead letters, at worst: no push backoff", curves,
              ("length of the outage", 1, 1440, marks), ("of those published in it", 0, 1,
              [(0, "0"), (0.25, "25 %"), (0.5, "50 %"), (0.75, "75 %"), (1, "100 %")]), x_log=True)])


def draw_drains(curves):
    picture(PLOTS / "drain.svg", "Working off an hour's backlog under a limit of 1,000 calls a minute", 300, [
        panel(60, "An hour's backlog under 1,000 Chargebee calls a minute, 3 events/s, by slots", curves,
              ("minutes", 0, 240, ticks(240, 30)), ("events waiting", 0, 12000, ticks(12000, 3000)), band=(10, 70))])


# -- the document


def fingerprint():
    sources = [Path(__file__), *sorted((ROOT / "scripts" / "scaling").glob("*.py"))]
    return hashlib.sha256(b"".join(it.read_bytes() for it in sources)).hexdigest()[:12]


def put(text, name, block):
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    if not re.search(pattern, text, re.S):
        sys.exit(f"docs/SCALING.md has no place for {name}")
    return re.sub(pattern, lambda found: f"{found[1]}{block}\n{found[2]}", text, flags=re.S)


def read(*path):
    return ROOT.joinpath(*path).read_text(encoding="utf-8")


def check():
    """What has to hold, on small runs."""
    small = {"rate": 2.0, "outage": 600.0, "starts": 120.0, "after": 900.0}

    def claim(holds, what):
        if not holds:
            sys.exit(f"simulate-push: not true: {what}")
        print(f"ok    {what}")

    one, two = simulate(**small), simulate(**small)
    it = one.figures()
    claim(it == two.figures(), "the same seed gives the same figures")
    claim(it["published"] == it["settled"] + it["dead"] + it["waiting"], "every event is settled, dead or waiting")
    claim(sum(bool(m.settled) and m.dead for m in one.messages) == 0, "no event is both settled and dead")
    well = simulate(**{**small, "outage": 0.0}).figures()
    claim(well["dead"] == 0 and well["attempts"] == 1, "without an outage each event is delivered once")
    claim(it["dead"] == 0, "ten minutes without Chargebee kill nothing with the defaults")
    five = simulate(**small, max_attempts=5, push_backoff=False).figures()
    claim(five["dead"] > 500, "with 5 attempts and no push backoff they do")
    bare = simulate(**small, breaker=False, push_backoff=False).figures()
    full = simulate(**small, push_backoff=False).figures()
    claim(full["tries_in_outage"] * 10 < bare["tries_in_outage"], "the breaker spares Chargebee nine calls in ten")
    slots = simulate(**small, hangs=True, push_backoff=False).figures()["slots"]
    bare = simulate(**small, hangs=True, breaker=False, push_backoff=False).figures()["slots"]
    claim(slots <= bare == 160, "without a breaker a hanging Chargebee takes every slot")
    claim(0.4 <= pause_after(0.2) <= 0.6 and 30 <= pause_after(1.0) <= 60, "pauses fit Google's examples")
    claim(abs(endurance(Setup()) / 3600 - 15.7) < 0.1, "100 attempts, 10 to 600 s apart, last 15.7 hours")

    default = Setup()
    pubsub, service = read("terraform", "variables_pubsub.tf"), read("terraform", "variables_service.tf")
    for name, value in (("minimum_backoff_seconds", default.min_backoff), ("maximum_backoff_seconds", default.max_backoff),
                        ("max_delivery_attempts", default.max_attempts)):
        found = re.search(rf"{name}\s*= optional\(number, (\d+)\)", pubsub)
        claim(found and float(found[1]) == value, f"{name} is Terraform's default")
    for name, value, text in (("handler_timeout_seconds", default.handler_timeout, pubsub), ("concurrency", default.concurrency, service)):
        found = re.search(rf'variable "{name}".*?default\s*= (\d+)', text, re.S)
        claim(found and float(found[1]) == value, f"{name} is Terraform's default")
    policy = read("src", "clients", "retry.rs")
    for line in (f"retries: {RETRIES},", f"first_wait: Duration::from_secs({FIRST_WAIT:.0f})",
                 f"max_wait: Duration::from_secs({MAX_WAIT:.0f})", f"try_timeout: Duration::from_secs({TRY_TIMEOUT:.0f})",
                 f"breaker_failures: {BREAKER_FAILURES},", f"first_rest: Duration::from_secs({FIRST_REST:.0f})",
                 f"max_rest: Duration::from_secs({MAX_REST:.0f})"):
        claim(line in policy, f"src/clients/retry.rs still says {line}")
    document = read("docs", "SCALING.md")
    for name, block in (("costs", costs()), ("limits", limits())):
        claim(put(document, name, block) == document, f"docs/SCALING.md has these {name}")
    claim(f"script {fingerprint()}" in document, "docs/SCALING.md was written by this script (else run --write)")


def main():
    parser = argparse.ArgumentParser(description="Simulates Pub/Sub push during an upstream outage.")
    parser.add_argument("--write", action="store_true", help="draw docs/scaling/*.svg, refresh docs/SCALING.md")
    parser.add_argument("--check", action="store_true", help="small runs and their invariants; for CI")
    chosen = parser.parse_args()
    if chosen.check:
        return check()
    drained, curves = drains()
    blocks = {"outages": outages(), "attempts": attempts(), "bystanders": bystanders(), "sensitivity": sensitivity(), "drains": drained,
              "costs": costs(), "limits": limits(), "made by": f"<!-- script {fingerprint()} -->"}
    for name, block in blocks.items():
        print(f"\n{name}\n{block}")
    if chosen.write:
        draw_outage()
        draw_dead_letters()
        draw_drains(curves)
        text = DOCUMENT.read_text(encoding="utf-8")
        for name, block in blocks.items():
            text = put(text, name, block)
        DOCUMENT.write_text(text, encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
