"""The lab: network, nodes and servers as processes in namespaces, built and removed as one."""
