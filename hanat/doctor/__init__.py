"""Commands on a machine where no node runs: what is in its way, and making sure it is silent."""
