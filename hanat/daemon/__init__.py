"""The daemon: the process of a node that takes part in the cluster, and all that it composes."""
