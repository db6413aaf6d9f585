"""Pub/Sub push, Cloud Run, the service's client and Chargebee, as a simulation of single events."""

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, replace

# Documented by Google: the window starts with one digit and grows with each success; beyond 3,000
# outstanding it grows linearly; a nack pauses the whole subscription for 0.1 to 60 s.
WINDOW_START = 3.0
WINDOW_LINEAR = 3000.0
PAUSE_MIN, PAUSE_MAX = 0.1, 60.0
# Assumed: from which share on nacks are "too many". How fast the window shrinks and over how many
# answers nacks are counted is assumed, too, and stands in Setup.
MANY_NACKS = 0.05

# The service's own rules: src/clients/retry.rs and src/clients/breaker.rs.
TRY_TIMEOUT, RETRIES, FIRST_WAIT, MAX_WAIT = 10.0, 3, 1.0, 10.0
BREAKER_FAILURES, FIRST_REST, MAX_REST = 5, 10.0, 60.0

# Assumed: Cloud Run lets a request wait this long for a free slot.
QUEUE_PATIENCE = 10.0

PUBLISH, READY, PUMP, TRY, TRIED, ANSWER, GIVE_UP, SAMPLE = range(8)


@dataclass(frozen=True)
class Setup:
    """One case. Times in seconds."""

    rate: float = 5.0
    outage: float = 3600.0
    starts: float = 600.0
    after: float = 5400.0
    hangs: bool = False  # the sick upstream accepts connections and says nothing
    share: float = 1.0  # of the events that need the sick upstream
    calls: int = 2  # to Chargebee, one after the other
    call_time: float = 0.25
    rest_time: float = 0.1  # Hasura, publication
    quick_time: float = 0.01  # an event that needs no upstream
    breaker: bool = True
    instances: int = 2
    concurrency: int = 80
    handler_timeout: float = 50.0
    min_backoff: float = 10.0
    max_backoff: float = 600.0
    max_attempts: int = 100
    push_backoff: bool = True
    limit: float = math.inf  # Chargebee's, in calls a minute
    cut: float = 0.5  # what is left of the window after a nack, at most once a second
    remembered: int = 20  # answers of which nacks are counted
    seed: int = 1

    @property
    def ends(self):
        return self.starts + self.outage


def pause_after(nack_share):
    """How long a subscription rests after a nack. Fits both of Google's examples: 1 nack in 5
    answers gives 0.5 s, nothing but nacks 30 to 60 s."""
    if nack_share < MANY_NACKS:
        return 0.0
    return min(PAUSE_MAX, PAUSE_MIN * 5.0 ** (5.0 * nack_share))


def retry_delay(setup, attempts):
    return min(setup.max_backoff, setup.min_backoff * 2.0 ** min(attempts - 1, 30))


def endurance(setup):
    """Longest time from first delivery to dead letter, when each delivery fails at once."""
    return sum(retry_delay(setup, n) for n in range(1, setup.max_attempts))


class Message:
    __slots__ = ("born", "needs", "attempts", "delivered", "settled", "dead")

    def __init__(self, born, needs):
        self.born, self.needs = born, needs
        self.attempts, self.delivered = 0, 0.0
        self.settled, self.dead = None, False


class Breaker:
    """One per instance, as in src/clients/breaker.rs."""

    def __init__(self):
        self.failures, self.until, self.rest, self.state, self.era = 0, 0.0, FIRST_REST, "closed", 0

    def admit(self, now):
        if self.state == "probing" or (self.state == "open" and now < self.until):
            return False
        if self.state == "open":
            self.change("probing")
        return True

    def change(self, state):
        self.state, self.era = state, self.era + 1

    def open(self, now, rest):
        self.rest, self.until = rest, now + rest
        self.change("open")

    def tell(self, now, era, succeeded):
        if era != self.era:
            return
        if succeeded:
            self.failures = 0
            if self.state == "probing":
                self.change("closed")
        elif self.state == "probing":
            self.open(now, min(self.rest * 2.0, MAX_REST))
        else:
            self.failures += 1
            if self.failures >= BREAKER_FAILURES:
                self.failures = 0
                self.open(now, FIRST_REST)

    def resting(self, now):
        return self.state == "probing" or (self.state == "open" and now < self.until)


class Instance:
    def __init__(self):
        self.busy, self.breaker = 0, Breaker()


class Run:
    def __init__(self, setup):
        self.setup, self.random = setup, random.Random(setup.seed)
        self.now, self.heap, self.order = 0.0, [], 0
        self.messages, self.ready, self.queue = [], deque(), deque()
        self.window, self.outstanding, self.nacks = WINDOW_START, 0, 0.0
        self.paused_until, self.last_cut, self.pump_at = 0.0, -1.0, -1.0
        self.instances = [Instance() for _ in range(setup.instances)]
        self.minute, self.blocked_until = deque(), -1.0
        self.samples = []
        self.deliveries = self.tries = self.limited = self.settled = self.dead = 0
        self.tries_in_outage = self.busy_peak = 0

    def at(self, time, kind, *what):
        self.order += 1
        heapq.heappush(self.heap, (time, self.order, kind, what))

    def run(self):
        setup = self.setup
        end = setup.ends + setup.after
        self.at(self.random.expovariate(setup.rate), PUBLISH)
        self.at(0.0, SAMPLE)
        steps = [self.publish, self.on_ready, self.pump, self.attempt, self.tried, self.answer,
                 self.give_up, self.sample]
        while self.heap and self.heap[0][0] <= end:
            self.now, _, kind, what = heapq.heappop(self.heap)
            steps[kind](*what)
        return self

    # -- Pub/Sub

    def publish(self):
        setup = self.setup
        message = Message(self.now, self.random.random() < setup.share)
        self.messages.append(message)
        self.on_ready(message)
        self.at(self.now + self.random.expovariate(setup.rate), PUBLISH)

    def on_ready(self, message):
        self.ready.append(message)
        self.pump()

    def pump(self):
        if self.now < self.paused_until:
            if self.pump_at < self.paused_until:
                self.pump_at = self.paused_until
                self.at(self.paused_until, PUMP)
            return
        while self.ready and self.outstanding < max(1, int(self.window)):
            message = self.ready.popleft()
            message.attempts += 1
            message.delivered = self.now
            self.outstanding += 1
            self.deliveries += 1
            self.arrive(message)

    def answer(self, message, instance, acknowledged):
        setup = self.setup
        if instance:
            instance.busy -= 1
            if self.queue:
                self.start(self.queue.popleft(), instance)
        self.outstanding -= 1
        self.nacks += ((0.0 if acknowledged else 1.0) - self.nacks) / setup.remembered
        if acknowledged:
            message.settled = self.now
            self.settled += 1
            self.window += 1.0 if self.window < WINDOW_LINEAR else 1.0 / self.window
        else:
            if self.now - self.last_cut >= 1.0:
                self.window, self.last_cut = max(1.0, self.window * setup.cut), self.now
            if message.attempts >= setup.max_attempts:
                message.dead = True
                self.dead += 1
            else:
                # Best effort, as documented: a tenth more or less.
                delay = retry_delay(setup, message.attempts) * self.random.uniform(0.9, 1.1)
                self.at(self.now + delay, READY, message)
            if setup.push_backoff:
                self.paused_until = max(self.paused_until, self.now + pause_after(self.nacks))
        self.pump()

    # -- Cloud Run

    def arrive(self, message):
        free = [it for it in self.instances if it.busy < self.setup.concurrency]
        if free:
            self.start(message, free[self.random.randrange(len(free))])
        else:
            self.queue.append(message)
            self.at(self.now + QUEUE_PATIENCE, GIVE_UP, message)

    def give_up(self, message):
        if message in self.queue:
            self.queue.remove(message)
            self.answer(message, None, False)

    def start(self, message, instance):
        instance.busy += 1
        self.busy_peak = max(self.busy_peak, sum(it.busy for it in self.instances))
        if message.needs:
            self.attempt(message, instance, 0, 0, self.now + self.setup.handler_timeout)
        else:
            self.finish(message, instance, self.setup.quick_time, True)

    def finish(self, message, instance, after, acknowledged):
        self.at(self.now + after, ANSWER, message, instance, acknowledged)

    # -- the handler and its client

    def attempt(self, message, instance, call, retry, deadline):
        setup, now = self.setup, self.now
        breaker = instance.breaker
        if setup.breaker and not breaker.admit(now):
            self.finish(message, instance, 0.005, False)
            return
        self.tries += 1
        sick = setup.starts <= now < setup.ends
        self.tries_in_outage += sick
        if sick:
            took, succeeded = (min(TRY_TIMEOUT, deadline - now) if setup.hangs else 0.005), False
        elif self.over_limit():
            self.limited += 1
            took, succeeded = 0.05, False
        else:
            took, succeeded = setup.call_time * self.random.uniform(0.5, 1.5), True
        self.at(now + took, TRIED, message, instance, call, retry, deadline, succeeded, breaker.era)

    def tried(self, message, instance, call, retry, deadline, succeeded, era):
        setup, breaker = self.setup, instance.breaker
        breaker.tell(self.now, era, succeeded)
        if succeeded and call + 1 < setup.calls:
            self.attempt(message, instance, call + 1, 0, deadline)
        elif succeeded:
            self.finish(message, instance, setup.rest_time, True)
        else:
            wait = min(MAX_WAIT, FIRST_WAIT * 2.0**retry * self.random.uniform(0.5, 1.5))
            rests = setup.breaker and breaker.resting(self.now)
            if rests or retry >= RETRIES or self.now + wait >= deadline:
                self.finish(message, instance, 0.005, False)
            else:
                self.at(self.now + wait, TRY, message, instance, call, retry + 1, deadline)

    def over_limit(self):
        """Chargebee: beyond the limit it refuses everything for about a minute."""
        if self.setup.limit == math.inf:
            return False
        if self.now < self.blocked_until:
            return True
        while self.minute and self.minute[0] <= self.now - 60.0:
            self.minute.popleft()
        if len(self.minute) >= self.setup.limit:
            self.blocked_until = self.now + 60.0
            return True
        self.minute.append(self.now)
        return False

    # -- what came of it

    def sample(self):
        waiting = len(self.messages) - self.settled - self.dead
        busy = sum(it.busy for it in self.instances)
        self.samples.append((self.now, waiting, self.window, self.deliveries, self.tries, busy))
        self.at(self.now + 10.0, SAMPLE)

    def recovered(self, share):
        """Seconds from the end of the outage until this share of what waited then is settled."""
        ends = self.setup.ends
        late = [it for it in self.messages
                if it.born < ends and not it.dead and (it.settled is None or it.settled > ends)]
        times = sorted(math.inf if it.settled is None else it.settled - ends for it in late)
        return times[min(len(times) - 1, int(share * len(times)))] if times else 0.0

    def figures(self):
        setup = self.setup
        quick = sorted(it.settled - it.born for it in self.messages
                       if not it.needs and it.settled and setup.starts <= it.born < setup.ends)
        return {
            "published": len(self.messages),
            "settled": self.settled,
            "dead": self.dead,
            "waiting": len(self.messages) - self.settled - self.dead,
            "in_outage": sum(setup.starts <= it.born < setup.ends for it in self.messages),
            "deliveries": self.deliveries,
            "attempts": max(it.attempts for it in self.messages),
            "tries_in_outage": self.tries_in_outage,
            "limited": self.limited,
            "slots": self.busy_peak,
            "lasting": sum(1 for it in self.messages if it.settled and it.settled - it.born > 600),
            "half": self.recovered(0.5),
            "nearly": self.recovered(0.99),
            "all": self.recovered(1.0),
            "bystander_p50": quick[len(quick) // 2] if quick else None,
            "bystander_p99": quick[int(len(quick) * 0.99)] if quick else None,
        }


def simulate(**changes):
    return Run(replace(Setup(), **changes)).run()
