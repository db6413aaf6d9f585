"""What a million events cost, and how many a rate limit allows."""

import math

# Prices in US dollars, region tier 1 (europe-west1), without free tiers.
PRICES = {
    "instance": {"cpu": 0.000018, "gib": 0.000002},  # a second, instance-based billing
    "request": {"cpu": 0.000024, "gib": 0.0000025, "million": 0.40},  # request-based billing
    "idle": {"cpu": 0.0000025, "gib": 0.0000025},  # min_instances, request-based billing
    "pubsub_tib": 40.0,
    "retained_gib_month": 0.27,
    "log_gib": 0.50,
    "egress_gib": 0.12,
}
# Bytes of an event: its message, the downstream one (at least 1,000 are billed), its log line and
# Cloud Run's, what leaves towards Chargebee.
BYTES = {"message": 1200, "downstream": 1000, "line": 560, "request_line": 1300, "egress": 2500}
# Processor seconds and time in a slot. Measured figures times a margin, see "Measured".
KINDS = {
    "skipped": {"cpu": 0.0001, "time": 0.01, "emits": False, "calls": 0},
    "full path": {"cpu": 0.001, "time": 0.6, "emits": True, "calls": 2},
}
TARGET = 0.6  # where Cloud Run adds an instance, of CPU and of concurrency alike
SIZES = {1: (1, 0.5, 80, 1), 100: (1, 0.5, 80, 1), 10000: (2, 2.0, 500, 3)}
MONTH = 30 * 86400


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def thousands(number):
    return f"{number:,}"


def cost(rate, kind):
    cpu, gib, concurrency, least = SIZES[rate]
    it = KINDS[kind]
    count = max(least, math.ceil(rate * it["cpu"] / (cpu * TARGET)),
                math.ceil(rate * it["time"] / (concurrency * TARGET)))
    seconds = 1e6 / rate  # in which a million events arrive
    price = PRICES["instance"]
    always = count * seconds * (cpu * price["cpu"] + gib * price["gib"])
    busy = count * (1.0 - math.exp(-rate * it["time"] / count))
    price, idle = PRICES["request"], PRICES["idle"]
    on_request = price["million"] + busy * seconds * (cpu * price["cpu"] + gib * price["gib"])
    on_request += max(0.0, least - busy) * seconds * (cpu * idle["cpu"] + gib * idle["gib"])
    out = BYTES["downstream"] if it["emits"] else 0
    moved = 2 * max(1000, BYTES["message"]) + 2 * out
    kept = (BYTES["message"] + out) * 7 / 30
    pubsub = moved * 1e6 / 2**40 * PRICES["pubsub_tib"] + kept * 1e6 / 2**30 * PRICES["retained_gib_month"]
    logs = (BYTES["line"] + BYTES["request_line"]) * 1e6 / 2**30 * PRICES["log_gib"]
    egress = BYTES["egress"] * 1e6 / 2**30 * PRICES["egress_gib"] if it["calls"] else 0.0
    return count, always, on_request, pubsub, logs, egress


def money(dollars):
    return f"{dollars:,.2f}" if dollars < 100 else f"{dollars:,.0f}"


def costs():
    rows = []
    for rate in SIZES:
        for kind in KINDS:
            count, always, on_request, pubsub, logs, egress = cost(rate, kind)
            cpu, gib, concurrency, _ = SIZES[rate]
            total = min(always, on_request) + pubsub + logs + egress
            rows.append([thousands(rate), kind, f"{count} × {cpu} CPU, {gib:g} GiB, {concurrency}", money(always),
                         money(on_request), money(pubsub), money(logs), money(egress), f"**{money(total)}**",
                         thousands(round(total * rate * MONTH / 1e6))])
    return table(["events/s", "of which all are", "instances, concurrency", "Cloud Run, instance-based",
                  "or request-based", "Pub/Sub", "logs", "egress", "a million, cheaper of the two", "a month"], rows)


def limits():
    rows = []
    for plan, limit in (("Starter, test sites", 150), ("Performance", 1000), ("Enterprise", 3500)):
        events = limit / 2 / 60
        slots = events * KINDS["full path"]["time"]
        rows.append([plan, thousands(limit), f"{events:.1f}", f"{events * 0.7:.1f}", f"{events * 0.7 * 86400:,.0f}",
                     f"{max(1, math.floor(slots))}"])
    return table(["plan", "calls/min", "full-path events/s", "with 30 % kept free", "a day", "slots that just fit"], rows)
