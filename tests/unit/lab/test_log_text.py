"""The logs of a cluster's parts, as `kproxy lab logs` shows them."""

import io
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from kproxy import errors, logs
from kproxy.lab.whole import inside, logtext


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("control1-apiserver.log", "control2-apiserver.log", "node1-kubelet.log"):
        (tmp_path / name).write_text("")
    (tmp_path / "etcd1-etcd.txt").write_text("its own words\n")
    (tmp_path / "kube-system_kube-dns-1_kube-dns.log").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("apiserver", ["control1-apiserver", "control2-apiserver"]),
        ("control1/apiserver", ["control1-apiserver"]),
        ("control1", ["control1-apiserver"]),
        ("etcd1-etcd", ["etcd1-etcd"]),
        ("kube-dns", ["kube-system_kube-dns-1_kube-dns"]),
        ("kube-system/kube-dns-1", ["kube-system_kube-dns-1_kube-dns"]),
    ],
)
def test_a_log_is_named_by_host_part_or_both(
    directory: Path, wanted: str, found: list[str]
) -> None:
    assert [path.stem for path in logtext.select(directory, [wanted])] == found


def test_an_unknown_name_is_told_with_those_there_are(directory: Path) -> None:
    with pytest.raises(errors.UsageError, match=r"no log 'nobody' .*node1-kubelet"):
        logtext.select(directory, ["nobody"])


def test_to_people_an_unknown_name_is_bad_usage_told_in_the_words_of_kproxy(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SimpleNamespace(logs=directory)
    cluster = SimpleNamespace(places=SimpleNamespace(files=files))
    monkeypatch.setattr(inside, "attached", lambda: nullcontext(cluster))
    assert inside.main(["logs", "--", "nobody"]) == 2
    assert capsys.readouterr().err.startswith("kproxy: there is no log 'nobody'")
    assert inside.main(["logs", "--", "etcd1"]) == 0
    assert capsys.readouterr().out == "its own words\n"


def test_lines_of_several_logs_come_in_the_order_of_their_times(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.Log("apiserver", stream=first).info("one", port=6443)
    logs.Log("apiserver", stream=second).warning("two", why="it is late")
    logs.Log("apiserver", stream=first).info("three")
    (directory / "control1-apiserver.log").write_text(first.getvalue())
    (directory / "control2-apiserver.log").write_text(second.getvalue() + "half a li")
    logtext.show(directory, ["apiserver"], follow=False, tail=-1, raw=False)
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [[words[0], *words[2:]] for words in shown] == [
        ["control1-apiserver", "one", "port=6443"],
        ["control2-apiserver", "warning:", "two", 'why="it', "is", 'late"'],
        ["control1-apiserver", "three"],
    ]
    logtext.show(directory, ["apiserver"], follow=False, tail=1, raw=True)
    last = first.getvalue().splitlines()[-1]
    assert capsys.readouterr().out == f"control1-apiserver       {last}\n"


def test_what_is_no_line_of_ours_is_shown_as_it_is(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logtext.show(directory, ["etcd1"], follow=False, tail=-1, raw=False)
    assert capsys.readouterr().out == "its own words\n"


def test_without_a_name_the_names_are_told(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logtext.show(directory, [], follow=False, tail=-1, raw=False)
    assert "node1-kubelet" in capsys.readouterr().out.splitlines()
