"""`verl-twgrpo doctor --ray`: what is missing on which node of a cluster, and no cluster started on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from verl_twgrpo import cli
from verl_twgrpo.doctor.checks import Finding
from verl_twgrpo.doctor.cluster import Node, findings_of, probe, screen

HERE = [Finding("verl", "0.9.1"), Finding("torch", "2.11.0")]


def answer(noise="", **checks: list[Finding]) -> dict[str, str]:
    found = {title: [asdict(finding) for finding in findings] for title, findings in checks.items()}
    return {"python": "/env/bin/python", "out": f"{noise}{json.dumps(found)}\n", "error": ""}


def test_a_node_like_this_one_has_nothing_to_mend():
    found = findings_of(answer("loading ...\n", versions=HERE), HERE, gpus=8)
    assert found == HERE


def test_another_version_is_to_mend_although_it_is_in_range():
    (verl, torch) = findings_of(answer(versions=[HERE[0], Finding("torch", "2.10.0")]), HERE, gpus=8)
    assert not verl.to_do
    assert torch.value == "2.10.0"
    assert torch.to_do.startswith("2.11.0 where this command runs")


def test_what_the_node_s_own_doctor_says_to_do_is_kept():
    missing = Finding("verl", "not installed", "pip install 'verl'")
    assert findings_of(answer(versions=[missing]), HERE, gpus=8) == [missing]


@pytest.mark.parametrize(("gpus", "to_mend"), [(0, False), (2, True)])
def test_a_node_without_a_visible_gpu_is_fit_only_if_it_offers_none(gpus, to_mend):
    (found,) = findings_of(answer(machine=[Finding("GPU", "none visible", "make a GPU visible")]), HERE, gpus)
    assert bool(found.to_do) == to_mend


def test_a_node_without_the_package_is_told_where_to_install_it():
    # what the probe itself meets where Python does not find the package
    met = probe()(["-c", "raise SystemExit('Error while finding module (No module named verl_twgrpo)')"])
    (found,) = findings_of(met, HERE, gpus=8)
    assert found.value == "not installed"
    assert f"in the environment of {sys.executable}: pip install" in found.to_do


def test_a_doctor_that_dies_is_shown_with_its_last_line():
    (found,) = findings_of(probe()(["-c", "raise RuntimeError('disk on fire')"]), HERE, gpus=8)
    assert found.value == "RuntimeError: disk on fire"
    assert found.to_do


@pytest.mark.slow
def test_the_probe_needs_nothing_of_this_package_where_it_runs():
    from ray import cloudpickle

    loader = (
        "import pickle, sys\n"
        "sys.modules['verl_twgrpo'] = None\n"  # importing it is an error
        "print(pickle.load(sys.stdin.buffer)(['-c', 'print(6 * 7)'])['out'])"
    )
    done = subprocess.run([sys.executable, "-c", loader], input=cloudpickle.dumps(probe()), capture_output=True)
    assert done.stdout.decode().split() == ["42"], done.stderr.decode()


def test_the_screen_counts_the_nodes_to_mend():
    fit, unfit = Node("a", 8, HERE), Node("b", 8, [Finding("verl", "0.8.0", "pip install 'verl<0.10'")])
    assert screen([fit]) == (
        ["ok node a: 8 GPUs, 2 checks", "ready: all 1 nodes pass, versions match"],
        0,
    )
    lines, failed = screen([fit, unfit])
    assert failed == 1
    assert lines[1] == "!! node b: 8 GPUs, 1 checks"
    assert "-> pip install 'verl<0.10'" in lines[3]
    assert lines[-1] == "not ready: 1 of 2 nodes have problems, marked !!"


def test_for_programs_the_nodes_come_as_json(monkeypatch, capsys):
    asked = [("a", 8.0, answer(versions=HERE)), ("b", 0.0, answer(versions=[Finding("verl", "0.8.0", "upgrade")]))]
    monkeypatch.setattr("verl_twgrpo.doctor.cluster.ask_nodes", lambda address: asked)
    monkeypatch.setattr("verl_twgrpo.doctor.cluster.versions", lambda: HERE)
    assert cli.main(["doctor", "--ray", "--json"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert (first["name"], first["gpus"], second["name"]) == ("a", 8, "b")
    assert second["findings"] == [{"what": "verl", "value": "0.8.0", "to_do": "upgrade"}]


@pytest.mark.parametrize("address", ["local", "no address", "127.0.0.1:1025"])
@pytest.mark.slow
def test_without_a_cluster_it_says_so_and_starts_none(address, capsys, monkeypatch):
    import ray

    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)  # whatever else runs on this machine
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert cli.main(["doctor", "--ray"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("verl-twgrpo: --ray: ")
    assert err.count("\n") == 1
    assert not ray.is_initialized()


@pytest.mark.e2e
def test_of_two_nodes_the_one_without_the_package_is_named(tmp_path):
    from ray.cluster_utils import Cluster

    # a second node on this machine, where Python finds everything but this package
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class NotInstalled:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'verl_twgrpo':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}')\n"
        "sys.meta_path.insert(0, NotInstalled())\n"
    )
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1, num_gpus=2, env_vars={"PYTHONPATH": str(tmp_path)})
        cluster.wait_for_nodes()
        command = [sys.executable, "-m", "verl_twgrpo.cli", "doctor", "--ray", cluster.address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    finally:
        cluster.shutdown()
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert sorted(line[:7] for line in lines if "node " in line[:8]) == ["!! node", "ok node"]
    (unfit,) = [k for k, line in enumerate(lines) if line.startswith("!! node")]
    assert "2 GPUs" in lines[unfit]
    assert "verl_twgrpo" in lines[unfit + 1] and "not installed" in lines[unfit + 1]
    assert lines[-1] == "not ready: 1 of 2 nodes have problems, marked !!"
