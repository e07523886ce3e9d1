"""Where everything meets: the process that runs on a node."""
