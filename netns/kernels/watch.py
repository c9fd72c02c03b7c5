"""When an embedded kernel is to be killed: decisions, without a clock.

The clock's reading ``now`` (seconds, monotonic) is an argument; the caller does what is returned.
"""

from enum import StrEnum

from netns.kernels import base

BOOT_LIMIT = 60.0  # it takes 2 s; a loaded machine may need several times that
ANSWER_LIMIT = 30.0  # its first process takes what it is sent at once, unless it hangs
GRACE = 10.0  # from being asked to end until being killed


class Action(StrEnum):
    """What the caller has to do now."""

    NOTHING = "nothing"
    FORWARD = "forward the signal or key to the command"
    ASK = "send the command SIGTERM"
    KILL = "kill the kernel"


class Watch:
    """Follows one embedded kernel from its start.

    After KILL, ``failure`` and ``exit_code`` say why; ``booted`` is whether it is up. ``tick`` is
    to be asked at ``deadline`` at the latest. Without ``answers`` it need not take at once what it
    is sent: in virtual time no process gives way to another before it waits.
    """

    def __init__(self, now: float, time_limit: float, *, answers: bool = True) -> None:
        self.failure = ""
        self.exit_code = base.EXIT_GUEST_FAILED
        self.booted = False
        self._answers = answers
        self._asked = False
        self._seen = ""
        self._interrupted = False
        self._time_limit = time_limit
        self._end = now + time_limit
        self._boot_end = now + min(BOOT_LIMIT, time_limit)
        self._answer_end: float | None = None

    @property
    def deadline(self) -> float:
        """When time alone demands something."""
        if not self.booted:
            return self._boot_end
        return self._end if self._answer_end is None else min(self._end, self._answer_end)

    def hello(self) -> None:
        """The kernel is up and will run the command."""
        self.booted = True

    def sent(self, now: float) -> None:
        """Something was sent to the kernel, which has to take it."""
        if self._answers and self._answer_end is None:
            self._answer_end = now + ANSWER_LIMIT

    def taken(self) -> None:
        """Everything that was sent has been taken."""
        self._answer_end = None

    def tick(self, now: float) -> Action:
        """Tell what the passing of time demands."""
        if now < self.deadline:
            return Action.NOTHING
        if not self.booted:
            self.failure = f"it did not come up within {min(BOOT_LIMIT, self._time_limit):g} s"
            return Action.KILL
        if self._answer_end is not None and now >= self._answer_end:
            self.failure = f"it hangs: no sign of life for {ANSWER_LIMIT:g} s"
            return Action.KILL
        self.exit_code = base.EXIT_TIME_LIMIT
        self.failure = f"the time limit of {self._time_limit:g} s is over{self._seen}"
        if self._asked:
            return Action.KILL
        self._asked = True
        self._end = now + GRACE
        return Action.ASK

    def saw(self, doing: str) -> None:
        """Add what the guest did when its time was over, to be told to the user."""
        self._seen = f"; at that moment {doing}"
        self.failure += self._seen

    def fail(self, failure: str) -> Action:
        """Something that time alone does not tell demands the kernel's end."""
        self.failure = failure
        return Action.KILL

    @property
    def out_of_time(self) -> bool:
        """Whether the command was asked to end because of the time limit."""
        return self._asked

    def interrupt(self) -> Action:
        """Somebody wants to interrupt the command: the second time the kernel is killed."""
        if self._interrupted or not self.booted:
            self.failure = "interrupted"
            self.exit_code = base.EXIT_INTERRUPTED
            return Action.KILL
        self._interrupted = True
        return Action.FORWARD

    def was_mere_key(self) -> None:
        """What looked like an interrupt was a key to the command, as in an editor."""
        self._interrupted = False
