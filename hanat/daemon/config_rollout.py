"""Take a committed configuration into force on this node."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from hanat.config.settings import NodeSettings
from hanat.core.configuration import Configuration
from hanat.core.inputs import (
    ConfigurationApplied,
    ConfigurationCommitted,
    ConfigurationRefused,
    Input,
)
from hanat.daemon.ruleset_installer import RulesetInstaller
from hanat.errors import ConfigError
from hanat.raft.state import State

log = logging.getLogger(__name__)


class ConfigRollout:
    """Reads what was committed, and lets everybody know.

    What is committed while another one is being read waits, the newest alone: a node that starts
    finds all revisions of its log at once, and each costs the parser and the kernel their time.

    Args:
        settings: This node's own file.
        own: The configuration of the cluster file that it names.
        rulesets: Reads texts.
        feed: Tells the core.
        heed: Called with each configuration before it comes into force, and with what lets it:
            that may be called later, or never if a newer one is heeded meanwhile.
    """

    def __init__(
        self,
        settings: NodeSettings,
        own: Configuration,
        *,
        rulesets: RulesetInstaller,
        feed: Callable[[Input], None],
        heed: Callable[[Configuration, Callable[[], None]], None],
    ) -> None:
        self._settings, self._own = settings, own
        self._rulesets, self._feed, self._heed = rulesets, feed, heed
        self._newest = 0, ""  # revision and text
        self._reading = False
        self._other_profile = ""  # of the replicated configuration, told already

    def committed(self, state: State) -> None:
        """A configuration was committed, alone or in a snapshot; without one do nothing."""
        revision = state.revision
        if not revision:
            return
        self._feed(ConfigurationCommitted(revision))
        self._newest = revision, state.text
        if not self._reading:
            self._read_newest()

    def _read_newest(self) -> None:
        revision, text = self._newest
        self._reading = True
        self._rulesets.read(text, file=f"revision {revision}", done=partial(self._read, revision))

    def _read(self, revision: int, found: Configuration | ConfigError) -> None:
        self._reading = False
        if self._newest[0] != revision:
            self._read_newest()
        if isinstance(found, ConfigError):
            log.error("configuration revision=%d found=%r", revision, str(found))
            self._feed(ConfigurationRefused(revision, str(found)))
            return
        if found != self._own:
            log.warning(
                "configuration revision=%d differs_from=%s in_force=replicated",
                revision,
                self._settings.cluster_file,
            )
        self._tell_profile(found.profile.name)
        self._heed(found, lambda: self._feed(ConfigurationApplied(revision, found)))

    def _tell_profile(self, replicated: str) -> None:
        """Say once that timing is not what the replicated configuration says."""
        mine = self._own.profile.name
        if replicated not in {mine, self._other_profile}:
            self._other_profile = replicated
            log.warning(
                "profile=%s in_force=%s source=%s", replicated, mine, self._settings.cluster_file
            )
