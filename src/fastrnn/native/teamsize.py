# SPDX-License-Identifier: BSD-3-Clause
"""How many threads calls get where the machine has other work to do.

The threads of a call wait for each other. While other programs use the processors too,
some thread is always without one, and the others wait until it gets its turn: a team
may take several times as long as one thread. `TeamSize` notices this by what calls
take, tries half of the threads, and keeps the number that does more arithmetic a
second. Then it tries twice as many again: at once, as the calls before may have met
with a moment's delay, and later after pauses. A trial that was in vain makes the next
pause longer, so that trials cost little where they never help: as long as no call waits
much, there is none.
"""

import threading
import time

# A number of threads is judged by calls of so many seconds, at least so many calls.
WINDOW, CALLS = 0.03, 4
WAITS = 0.25  # of the seconds of calls; fewer threads are tried where more are waited
# A trial ends at once when calls have taken so many times, and seconds, longer.
FACTOR, LOSS = 1.5, 0.02
GAIN = 0.95  # of the time: a number of threads is better if calls take less than that
# Seconds from a trial to the next: the first pause, the longest, and how many times as
# long as what the trial has lost.
PAUSE, LONGEST, OF_LOSS = 0.25, 4.0, 50


class TeamSize:
    """Finds the number of threads that is fastest now, for a whole process.

    Parameters
    ----------
    clock : callable, optional
        Gives seconds.

    Notes
    -----
    All threads of the process may call `observe`.
    """

    def __init__(self, clock=time.monotonic):
        self._clock, self._lock = clock, threading.Lock()
        self._most = 0
        self._begin(0)

    def _begin(self, most):
        self._most = self._n = most
        self._before = None  # in a trial: what is to be beaten, threads and rate
        self._pause = {"fewer": PAUSE, "more": PAUSE}  # after a trial of these in vain
        self._retry = 0.0
        self._forget()

    def _forget(self):
        self._calls, self._seconds, self._waited, self._flops = 0, 0.0, 0.0, 0.0

    def observe(self, most, n, calls, seconds, waited, flops):
        """Take in what some calls took; returns how many threads the next ones get.

        Parameters
        ----------
        most : int
            Threads that a call may use.
        n : int
            Threads that these calls were allowed.
        calls : int
        seconds : float
        waited : float
            Of these seconds, how many a call's own thread waited for others.
        flops : float
            Floating-point operations of the calls.

        Returns
        -------
        int
            From 1 to `most`.
        """
        with self._lock:
            if most != self._most:
                self._begin(most)
            if n == self._n:  # not of calls that began before it changed
                self._calls += calls
                self._seconds += seconds
                self._waited += waited
                self._flops += flops
                if self._is_judged():
                    self._decide()
                    self._forget()
            return self._n

    def _lost(self):
        """Seconds that calls took longer than those before the trial."""
        return self._seconds - self._before[1] * self._flops

    def _is_judged(self):
        if self._before is not None:
            expected = self._before[1] * self._flops
            if self._lost() > LOSS and self._seconds > FACTOR * expected:
                return True
        return self._seconds >= WINDOW and self._calls >= CALLS

    def _decide(self):
        rate, waits = self._seconds / self._flops, self._waited > WAITS * self._seconds
        now = self._clock()
        if self._before is not None:
            n, best = self._before
            tried = "fewer" if self._n < n else "more"
            lost = self._lost()
            if rate >= GAIN * best and 1 < self._n < n:
                self._n = 1  # the same trial goes on
                return
            self._before, self._retry = None, now
            if rate >= GAIN * best:
                self._n = n
                self._rest(tried, lost)
            elif self._n == self._most:  # to try fewer has been in vain
                self._rest("fewer", 0.0)
        elif now >= self._retry:
            if waits and self._n > 1:
                self._before = self._n, rate
                self._n //= 2
            elif self._n < self._most:
                self._before = self._n, rate
                self._n = min(2 * self._n, self._most)

    def _rest(self, tried, lost):
        """Let no trial begin for a while after one that was in vain."""
        pause = self._pause[tried]
        self._retry = self._clock() + max(pause, OF_LOSS * lost)
        self._pause[tried] = min(2 * pause, LONGEST)
        self._pause["more" if tried == "fewer" else "fewer"] = PAUSE
