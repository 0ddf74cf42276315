"""``verl-twgrpo doctor --ray``: the doctor on every node of a running Ray cluster, and what differs between nodes."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from verl_twgrpo import __version__
from verl_twgrpo.doctor.checks import Finding, versions

# Importing torch, verl and vLLM from a network file system for the first time takes minutes.
PATIENCE = 600


@dataclass
class Node:
    """One node: its host and address, the GPUs that it offers to Ray, and what the doctor found there."""

    name: str
    gpus: float
    findings: list[Finding]

    @property
    def problems(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.to_do]


def check_cluster(address: str, as_json: bool = False) -> int:
    """Print what is missing on each alive node of the cluster at ``address`` ("auto": RAY_ADDRESS, or the one here).

    Returns 1 if a node could not take part in a training. Raises ``ValueError`` if no cluster runs there; it never
    starts one.
    """
    here = list(versions())
    nodes = [Node(name, gpus, findings_of(answer, here, gpus)) for name, gpus, answer in ask_nodes(address)]
    lines, failed = screen(nodes)
    print(json.dumps([asdict(node) for node in nodes]) if as_json else "\n".join(lines))
    return 1 if failed else 0


def ask_nodes(address: str) -> list[tuple[str, float, dict[str, str]]]:
    """Run the doctor on every alive node; its name, the GPUs that it offers, and what ``probe`` returned, by name."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    try:
        ray.init(address=running(address), log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(
            f"--ray: {reason}; start a cluster with `ray start --head`, or give HOST:PORT of one"
        ) from None
    try:
        asked = {}
        for node in ray.nodes():
            if node["Alive"]:
                # no resources: the answer does not wait for a training that has them all
                on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                task = ray.remote(probe()).options(num_cpus=0, scheduling_strategy=on_node, max_retries=0)
                name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
                reference = task.remote(["-m", "verl_twgrpo.cli", "doctor", "--json"])
                asked[reference] = name, node["Resources"].get("GPU", 0)
        ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE)
        answers = []
        for reference, (name, gpus) in asked.items():
            try:
                answer = ray.get(reference, timeout=1)
            except ray.exceptions.RayError as error:
                answer = {"python": "", "out": "", "error": f"{type(error).__name__}: {error}"}
            answers.append((name, gpus, answer))
        return sorted(answers, key=lambda answer: answer[0])
    finally:
        ray.shutdown()


def running(address: str) -> str:
    """HOST:PORT of a Ray cluster that answers; "auto" stands for RAY_ADDRESS, or for a cluster on this machine.

    ``ray.init`` would start a cluster for the address "local", and knock for minutes where none answers, such as at the
    address of the last cluster on this machine, which Ray remembers. Raises ``ConnectionError``.
    """
    from ray._private.services import canonicalize_bootstrap_address_or_die

    found = canonicalize_bootstrap_address_or_die(address)
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(f"no Ray cluster answers at {found} ({error})") from None
    return found


def probe() -> Callable[[list[str]], dict[str, str]]:
    """A function that runs this node's Python with some arguments and returns what it printed.

    It is made here, inside another one, so that it travels by value: a node without this package could not look it up.
    """

    def run_python(arguments: list[str]) -> dict[str, str]:
        import os
        import subprocess
        import sys
        import tempfile

        # Ray hides the accelerators from a task that asks for none.
        environment = {k: v for k, v in os.environ.items() if v or not k.endswith("_VISIBLE_DEVICES")}
        # A folder without any code: what counts is what is installed, not what lies in the working directory.
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=tempfile.gettempdir(), capture_output=True, text=True
        )
        return {"python": sys.executable, "out": done.stdout, "error": done.stderr}

    return run_python


def findings_of(answer: Mapping[str, str], here: list[Finding], gpus: float) -> list[Finding]:
    """What the probe's ``answer`` says about a node that offers ``gpus`` GPUs, compared with the versions ``here``."""
    try:
        found = json.loads(answer["out"].strip().splitlines()[-1])
    except (IndexError, ValueError):
        return [_no_doctor(answer)]
    ours = {finding.what: finding.value for finding in here}
    findings = []
    for title, entries in found.items():
        for finding in (Finding(**entry) for entry in entries):
            expected = ours.get(finding.what) if title == "versions" else None
            if not finding.to_do and expected not in (None, finding.value):
                finding.to_do = f"{expected} where this command runs; install the same version on every node"
            if finding.what == "GPU" and finding.to_do and not gpus:
                finding = Finding("GPU", "none, and none offered to Ray: no rank of a training comes here")
            findings.append(finding)
    return findings


def screen(nodes: list[Node]) -> tuple[list[str], int]:
    """The lines to print, and how many nodes have problems."""
    lines = []
    for node in nodes:
        mark = "!!" if node.problems else "ok"
        lines.append(f"{mark} node {node.name}: {node.gpus:g} GPUs, {len(node.findings)} checks")
        for finding in node.problems:
            lines += [f"  !! {finding.what:<26} {finding.value}", f"     -> {finding.to_do}"]
    failed = sum(bool(node.problems) for node in nodes)
    if failed:
        lines.append(f"not ready: {failed} of {len(nodes)} nodes have problems, marked !!")
    else:
        lines.append(f"ready: all {len(nodes)} nodes pass, versions match")
    return lines, failed


def _no_doctor(answer: Mapping[str, str]) -> Finding:
    last = (answer["error"].strip().splitlines() or ["no answer"])[-1]
    if "No module named" in last and "verl_twgrpo" in last:
        to_do = f"in the environment of {answer['python']}: pip install --no-deps verl-twgrpo=={__version__} wrapt"
        return Finding("verl_twgrpo", "not installed", to_do)
    return Finding("verl-twgrpo doctor", last[:160], "run `verl-twgrpo doctor` on that node; is it the same version?")
