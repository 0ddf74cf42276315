"""What a machine, or each node of a cluster, lacks for training."""
