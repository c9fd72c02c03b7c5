"""How the doctor's findings become a verdict and lines."""

import json

import pytest
from click.testing import CliRunner

from kproxy.cli import doctor, doctor_checks
from kproxy.cli.doctor_checks import Check
from netns import errors
from netns.kernels import base, build, choice, native, registry, uml

GOOD = Check(group="tools", name="nft", ok=True, detail="1.0")
BAD = Check(group="tools", name="ip", ok=False, detail="not found", remedy="apt-get install it")
NO_BOOT = Check(group="embedded kernel", name="boots", ok=False, detail="it panicked")


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(base.GUEST_VARIABLE, raising=False)


def use(monkeypatch: pytest.MonkeyPatch, chosen: choice.Choice) -> None:
    monkeypatch.setattr(choice, "choose", lambda _name: chosen)


def test_what_is_missing_comes_with_its_remedy() -> None:
    text = "\n".join(doctor.lines([GOOD, BAD]))
    assert text.count("tools") == 1
    assert "nft: 1.0" in text
    assert "ip: not found" in text
    assert "remedy: apt-get install it" in text


def test_a_kernel_that_can_be_used_is_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, choice.Choice(native.Native()))
    assert doctor.judge([GOOD, BAD, NO_BOOT])[0] == "native"


def test_an_embedded_kernel_that_does_not_boot_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, choice.Choice(uml.Uml(), because="no IPVS"))
    assert doctor.judge([GOOD])[0] == "uml"
    kernel, verdict = doctor.judge([GOOD, NO_BOOT])
    assert kernel is None
    assert "no IPVS" in verdict
    assert "it panicked" in verdict


def test_the_exit_code_tells_whether_the_lab_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str) -> choice.Choice:
        raise errors.KernelUnusable("nothing here", remedy="install something")

    for group in ("native_kernel", "tools", "machine", "network_cards"):
        monkeypatch.setattr(doctor_checks, group, lambda: iter([GOOD]))
    monkeypatch.setattr(doctor_checks, "embedded_kernel", lambda boot: iter([BAD]))
    monkeypatch.setattr(choice, "choose", refuse)
    result = CliRunner().invoke(doctor.doctor, ["--json", "--no-boot"], standalone_mode=False)
    assert result.return_value == 1
    answer = json.loads(result.output)
    assert answer["usable"] is False
    assert "install something" in answer["verdict"]
    assert {"group", "name", "ok", "detail", "remedy"} == set(answer["checks"][0])
    use(monkeypatch, choice.Choice(native.Native()))
    result = CliRunner().invoke(doctor.doctor, ["--no-boot"], standalone_mode=False)
    assert result.return_value == 0


def test_the_packages_that_kproxy_demands_are_found() -> None:
    checks = {check.name: check for check in doctor_checks.python()}
    assert checks["click"].ok
    assert "pytest" not in checks  # an extra is no demand


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks.metadata, "requires", lambda _name: ["no-such-thing>=3"])
    missing = [check for check in doctor_checks.python() if not check.ok]
    assert [check.name for check in missing] == ["no-such-thing"]
    assert ">=3" in missing[0].detail
    assert missing[0].remedy


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "find_program", lambda _name: None)
    checks = {check.name: check for check in doctor_checks.tools()}
    assert not checks["nft"].ok
    assert "nftables" in checks["nft"].remedy


def test_a_kernel_of_our_own_is_recommended_with_what_it_brings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "built_kernels", list)
    monkeypatch.setattr(build, "missing_packages", lambda: ["flex", "bison"])
    check = doctor_checks.own_kernel("embedded kernel")
    assert not check.ok
    assert "virtual time" in check.detail
    assert "nftables" in check.detail
    assert check.remedy.startswith("apt-get install flex bison, then kproxy kernel build")


def test_a_kernel_of_our_own_is_told_with_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    class Built:
        name = "6.12.9-aaaaaaaa"
        features = (base.Feature.IPVS, base.Feature.TIME_TRAVEL)

    monkeypatch.setattr(registry, "built_kernels", lambda: [Built, Built])
    check = doctor_checks.own_kernel("embedded kernel")
    assert check.ok
    assert check.detail.startswith("6.12.9-aaaaaaaa: ipvs, time-travel; and 1 more")
