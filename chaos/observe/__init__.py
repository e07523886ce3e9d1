"""What is seen of a cluster from outside, as facts of a history."""
