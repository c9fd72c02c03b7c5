"""What kubectl may ask of an API server alone, with every kubectl that is there.

``KPROXY_KUBECTLS`` names more programs than the one on the path, separated by colons.
"""

import os
import shutil

import api_process
import kubectl_script
import pytest

PROGRAMS = list(filter(None, os.environ.get("KPROXY_KUBECTLS", "").split(":")))
if found := shutil.which("kubectl"):
    PROGRAMS.insert(0, found)


@pytest.mark.needs_tool("kubectl")
@pytest.mark.parametrize("program", PROGRAMS)
def test_kubectl(program, tmp_path):
    with api_process.running(tmp_path) as server:
        kubectl = kubectl_script.Kubectl(
            program, server.admin, tmp_path, image="example.org/image", node="alone"
        )
        problems = kubectl_script.run(kubectl, whole=False)
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)
