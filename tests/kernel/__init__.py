"""The real adapters on this kernel, in network namespaces."""
