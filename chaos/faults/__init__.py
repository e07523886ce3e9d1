"""What is done to a cluster: faults with their undoing, and the plan of a run."""
