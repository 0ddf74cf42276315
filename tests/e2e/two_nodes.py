"""Runs a command of verl's on a Ray cluster of two nodes on this machine, each with one logical device.

    python tests/e2e/two_nodes.py [--kill-when FILE] python -m verl.trainer.main_ppo ... trainer.nnodes=2

With ``--kill-when`` the second node dies as soon as that file is there. The exit code is the command's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from ray.cluster_utils import Cluster

# what recipe=demo_cpu gives ray.init for a Ray of its own, which takes neither beside an address
CONNECT = ["ray_kwargs.ray_init.num_cpus=null", "ray_kwargs.ray_init.num_gpus=null"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kill-when", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    share = {"num_cpus": 8, "num_gpus": 1, "object_store_memory": 500 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=share | {"include_dashboard": False})
    try:
        second = cluster.add_node(**share)
        run = subprocess.Popen([*args.command, *CONNECT, f"+ray_kwargs.ray_init.address={cluster.address}"])
        while run.poll() is None:
            if args.kill_when and args.kill_when.is_file():
                cluster.remove_node(second, allow_graceful=False)
                args.kill_when = None
            time.sleep(0.1)
        return run.returncode
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    sys.exit(main())
