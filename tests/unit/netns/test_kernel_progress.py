"""What make prints becomes numbers; what a log says becomes a reason."""

from netns.kernels import job
from netns.kernels.progress import COMPILING, Meter, Progress


def test_objects_are_counted_and_named() -> None:
    reports: list[Progress] = []
    now = [100.0]
    meter = Meter(reports.append, lambda: now[0])
    meter.line("  CC      scripts/not_counted_before.o")
    meter.compiling(objects=7, estimate=20)
    now[0] = 103.5
    for line in (
        "  CC      net/core/dev.o",
        "  GEN     lib/oid.c",
        "warning: CC is old",
        "  AS x",
    ):
        meter.line(line)
    meter.line("  LD [M]  fs/ext4.o")
    meter.tick()
    assert reports[-1] == Progress(
        step=COMPILING, done=9, total=20, seconds=3.5, current="fs/ext4.o"
    )


def test_an_estimate_that_was_too_low_grows() -> None:
    reports: list[Progress] = []
    meter = Meter(reports.append, lambda: 0.0)
    meter.compiling(objects=1, estimate=2)
    for number in range(5):
        meter.line(f"  CC      {number}.o")
    meter.tick()
    assert (reports[-1].done, reports[-1].total) == (6, 6)


def test_a_failure_is_told_from_the_first_error_on_with_what_led_there() -> None:
    before = [f"  CC      {number}.o" for number in range(50)]
    wrong = ["net/x.c: In function 'f':", "net/x.c:3:1: error: expected ';'", "    3 | }"]
    after = ["make[2]: *** [net/x.o] Error 1", *before]
    told = job.telling([*before, *wrong, *after])
    assert told[1:4] == wrong
    assert len(told) == job.TOLD_LINES


def test_without_a_known_word_the_last_lines_are_told() -> None:
    lines = [str(number) for number in range(100)]
    assert job.telling(lines) == lines[-job.TOLD_LINES :]
    assert job.telling(["only"]) == ["only"]
    assert job.telling([]) == []
