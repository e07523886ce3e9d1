"""The two TOML files: parse, validate, turn into the values of `core.configuration`.

``node.toml`` is one node's own (`load_node`), ``cluster.toml`` is one text for
all (`load_cluster`, `parse_cluster`, `amended`); `check` reads any number of either and
holds them against each other, `cross_check` does so for a pair. All raise or
return every problem at once, with its path in the file. pydantic does the work
and does not leave this package.
"""

from hanat.config.amendment import amended
from hanat.config.check import advice, check, check_advice, cross_check
from hanat.config.cluster_toml import load_cluster, parse_cluster
from hanat.config.document import read_text
from hanat.config.key import (
    Keys,
    add_key,
    drop_accepted,
    generate_key,
    read_keys,
    use_accepted,
)
from hanat.config.node_toml import load_node

__all__ = [
    "Keys",
    "add_key",
    "advice",
    "amended",
    "check",
    "check_advice",
    "cross_check",
    "drop_accepted",
    "generate_key",
    "load_cluster",
    "load_node",
    "parse_cluster",
    "read_keys",
    "read_text",
    "use_accepted",
]
