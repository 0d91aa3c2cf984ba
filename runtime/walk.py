"""The native driver: walks a launch plan, and the workers' side of it. Source text for the kernel compiler.

This module is never imported; `driver.py` compiles its text (a warm start must not import Numba).

How threads share a launch. Only the thread that entered `walk` reads the plan. For a launch with several tasks it opens
a *phase*: it writes what to do into the team's block and gives every thread an equal share of the tasks, by storing

    claim word = phase number << 32 | tasks left in the share

into that thread's own cache line, which the thread is watching. Whoever wants tasks, the owner or a thread that has
finished its own share, takes some by compare-and-swap on the word, and only then reads what they are: having claimed
tasks it knows that the phase is open, and stays open until it has reported them done. Nobody waits for a thread that
has not claimed anything: one that sleeps, or lost its core, delays nothing.
"""
# mypy: allow-untyped-defs
# ruff: noqa: FURB136  (every min and max is one more function for Numba to compile)

from time import CLOCK_MONOTONIC

from numba import int64, njit

from graphc.codegen.cpu.atomics import (
    call_kernel,
    cells,
    clock_ns,
    compare_exchange,
    fence,
    fetch_add,
    futex_on_high_half,
    load_acquire,
    load_relaxed,
    pause,
    read_byte,
    sleep_us,
    store_relaxed,
    store_release,
    yield_core,
)
from graphc.runtime.driver import (
    ASLEEP,
    DONE,
    FUTEX,
    GRAIN,
    LINE,
    PHASE,
    ROWS,
    SCRATCH,
    SPIN_NS,
    STOP,
    TASKS,
    THREADS,
    TICKET,
    WIDTH,
    WOKEN,
)
from graphc.runtime.plan import ROW, Op

END, LAUNCH, JUMP, BRANCH_FALSE, BRANCH_LESS, SET, ADD, REBIND, TICK = (int(op) for op in Op)
FUTEX_WAIT, FUTEX_WAKE = 128, 129  # FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE
POLL_US = 100  # where there is no futex, a sleeping thread looks this often
LOW = 0xFFFFFFFF
native = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


@native
def take_part(team, thread, scratch):
    """A thread's work in a phase: its own share, then whatever others have left of theirs."""
    width = load_relaxed(team, WIDTH)
    if thread >= width:  # woken late, for a phase that is over: the one that is open now wants fewer threads
        return
    for i in range(width):
        owner = thread + i if thread + i < width else thread + i - width
        word = THREADS + LINE * owner
        done = 0
        while True:
            claim = load_acquire(team, word)
            left = claim & LOW
            if left == 0:
                break
            grain, take = load_relaxed(team, GRAIN), left >> 1  # halves: few claims, and small ones towards the end
            take = take if take > grain else grain
            take = take if take < left else left
            if compare_exchange(team, word, claim, claim - take):
                # A group's tasks are numbered through its launches.
                first = load_relaxed(team, TASKS) * (owner + 1) // load_relaxed(team, WIDTH) - left
                last = first + take
                row = load_relaxed(team, ROWS)
                while last > 0:
                    launch = cells(row)
                    end = last if last < launch[3] else launch[3]
                    if first < end:
                        call_kernel(launch[1], launch[2], first, end, scratch)
                    first = first - launch[3] if first > launch[3] else 0
                    last -= launch[3]
                    row += 8 * ROW
                done += take
        if done > 0:
            fetch_add(team, DONE, done)


@native
def run_phase(team, row, tasks, width, grain):
    """Do the tasks of the group whose first row is at address `row`, with `width` threads; this one is thread 0."""
    store_relaxed(team, ROWS, row)
    store_relaxed(team, TASKS, tasks)
    store_relaxed(team, WIDTH, width)
    store_relaxed(team, GRAIN, grain)
    store_relaxed(team, DONE, 0)
    phase = load_relaxed(team, PHASE) + 1 & LOW
    store_relaxed(team, PHASE, phase)
    end = tasks
    for thread in range(width - 1, -1, -1):
        start = tasks * thread // width
        store_release(team, THREADS + LINE * thread, phase << 32 | (end - start))
        end = start
    fence()  # a thread not seen asleep below sees its new claim word before it sleeps
    for thread in range(1, width):
        word = THREADS + LINE * thread
        ticket = load_relaxed(team, word + ASLEEP)
        if ticket != 0 and ticket != load_relaxed(team, word + WOKEN):  # and not woken already
            store_relaxed(team, word + WOKEN, ticket)
            if load_relaxed(team, FUTEX) != 0:
                futex_on_high_half(load_relaxed(team, FUTEX), team, word, FUTEX_WAKE, 1)
    take_part(team, int64(0), load_relaxed(team, THREADS + SCRATCH))
    spins = 0
    while load_acquire(team, DONE) != tasks:
        pause()
        spins += 1
        if spins & 255 == 0:  # a thread with claimed tasks may have lost its core to this one
            yield_core()


@native
def wait_for_phase(team, word, seen):
    """Watch a claim word until its phase is not `seen`: spin for a while, then sleep."""
    began = clock_ns(CLOCK_MONOTONIC)
    spins = 0
    while load_acquire(team, word) >> 32 & LOW == seen:
        pause()
        spins += 1
        if spins & 255 != 0:
            continue
        if clock_ns(CLOCK_MONOTONIC) - began < load_relaxed(team, SPIN_NS):
            yield_core()
            continue
        ticket = load_relaxed(team, word + TICKET) + 1
        store_relaxed(team, word + TICKET, ticket)
        store_relaxed(team, word + ASLEEP, ticket)
        fence()  # see run_phase
        if load_acquire(team, word) >> 32 & LOW == seen:
            if load_relaxed(team, FUTEX) != 0:
                futex_on_high_half(load_relaxed(team, FUTEX), team, word, FUTEX_WAIT, seen)
            else:
                sleep_us(POLL_US)
        store_relaxed(team, word + ASLEEP, 0)


@native
def serve(team, thread):
    """The life of a worker: take part in every phase that opens for it, until the team is dismissed."""
    word = THREADS + LINE * thread
    seen = load_acquire(team, word) >> 32 & LOW
    while load_acquire(team, STOP) == 0:
        wait_for_phase(team, word, seen)
        seen = load_acquire(team, word) >> 32 & LOW
        take_part(team, thread, load_relaxed(team, word + SCRATCH))


@native
def dismiss(team, threads):
    """Let `serve` return in threads 1 to `threads - 1`. No phase may be open."""
    store_release(team, STOP, 1)
    phase = load_relaxed(team, PHASE) + 1 & LOW
    for thread in range(1, threads):
        word = THREADS + LINE * thread
        store_release(team, word, phase << 32)
        if load_relaxed(team, FUTEX) != 0:
            futex_on_high_half(load_relaxed(team, FUTEX), team, word, FUTEX_WAKE, 1)


@native
def walk(team, address, threads, scratch):
    """Run the plan at `address` with this thread and `threads - 1` others of the team; `scratch` is this thread's."""
    plan = cells(address)
    at = 0
    while True:
        op = plan[at]
        after = at + ROW
        if op == LAUNCH:
            tasks, group, width = plan[at + 3], plan[at + 4], threads
            after = at + ROW * group
            for row in range(at + ROW, after, ROW):
                tasks += plan[row + 3]
            if plan[at + 5] != 0 and plan[at + 5] < width:
                width = plan[at + 5]
            if tasks < width:
                width = tasks
            if width > 1:
                run_phase(team, address + 8 * at, tasks, width, plan[at + 6])
            else:
                for row in range(at, after, ROW):
                    if plan[row + 3] > 0:
                        call_kernel(plan[row + 1], plan[row + 2], 0, plan[row + 3], scratch)
        elif op == END:
            return
        elif op == JUMP:
            after = ROW * plan[at + 1]
        elif op == BRANCH_FALSE:
            if read_byte(plan[at + 1]) == 0:
                after = ROW * plan[at + 2]
        elif op == BRANCH_LESS:
            if cells(plan[at + 1])[0] < cells(plan[at + 2])[0]:
                after = ROW * plan[at + 3]
        elif op == SET:
            cells(plan[at + 1])[0] = plan[at + 2]
        elif op == ADD:
            cells(plan[at + 1])[0] += plan[at + 2]
        elif op == REBIND:
            cells(plan[at + 1])[0] = cells(plan[at + 2])[0] + cells(plan[at + 3])[0] * plan[at + 4]
        elif op == TICK:
            clock = cells(plan[at + 1])
            now = clock_ns(CLOCK_MONOTONIC)
            last = cells(clock[0])
            clock[1] += now - last[0]
            clock[2] += 1
            last[0] = now
        at = after


def native_driver(team, job, operand, scratch):
    """The one native entry, with the kernel ABI. `job`: above 0, walk with so many threads; 0, serve; -1, dismiss."""
    if job > 0:
        walk(team, operand, job, scratch)
    elif job == 0:
        serve(team, operand)
    else:
        dismiss(team, operand)
