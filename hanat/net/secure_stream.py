"""An encrypted stream of frames between two nodes, without any I/O.

Both sides prove that they know the cluster key before anything is believed.
Each sends a hello with a fresh nonce, authenticated with the cluster key; from both
nonces and that key follow two session keys, one a direction. Every later frame
is encrypted and authenticated with its number as the nonce, so a frame can be
neither read, forged, changed, dropped, repeated nor moved to another connection.

A hello is in clear. Whoever learns the cluster key later can read what was recorded before.
A TLS connection was considered: it costs a certificate a node to manage and
gives no more against a stranger on the segment, while the key is needed anyway
for the datagrams of the lease.

Hello: 4 bytes length of what follows, 16 bytes code, then magic, oldest feature level that the
sender speaks, cluster id, sender, receiver, lease in microseconds, members, nonce, newest level. A
later version may add to its end. Each content begins with its own level (`raft.messages`).
Frame: 4 bytes length of what follows, AES-128-GCM of the content, whose last 16 bytes are the tag.

Source: RFC 7693 (BLAKE2), section 2.9 (keyed hashing); RFC 5116 (authenticated encryption);
NIST SP 800-38D, section 8.2.1 (nonces by counter).
"""

from __future__ import annotations

from hmac import compare_digest
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hanat.core import members
from hanat.core.feature_level import LEVEL, OLDEST, readable, span
from hanat.core.identity import CODE_BYTES, Identity, code
from hanat.errors import WireError

MAGIC = b"hanat/1\n"
NONCE_BYTES = 16
FRAME_BYTES_MAX = 8 << 20  # a slice is 256 KiB; one entry may be larger than a slice
HELLO_BYTES_MAX = 256

_LENGTH = Struct("!I")
_HELLO = Struct(f"!{len(MAGIC)}sB8sBBI{members.BYTES}s{NONCE_BYTES}s")
_NEWEST_AT = _HELLO.size  # before there were levels, a hello ended here
_NONCE = Struct("!4xQ")


class SecureStream:
    """One end of a connection: bytes in, contents out; contents in, bytes out.

    The dialling end knows whom it calls and speaks first; the accepting end learns
    the peer from the hello. `established` becomes True with the first valid frame
    after the hellos: only then has the other end proved that it is alive now.

    Args:
        identity: This node.
        nonce: 16 random bytes, fresh for each session.
        peer: Whom we dialled; None on the accepting end.
    """

    def __init__(self, identity: Identity, *, nonce: bytes, peer: int | None) -> None:
        assert len(nonce) == NONCE_BYTES, nonce
        self._identity, self._nonce, self._key = identity, nonce, identity.key
        self._dialled = peer is not None
        self.peer = peer
        self.established = False
        self._buffer = bytearray()
        self._sender: AESGCM | None = None
        self._receiver: AESGCM | None = None
        self._sent = self._received = 0

    def opening(self) -> bytes:
        """Return what the dialling end sends first."""
        assert self.peer is not None, "the accepting end waits"
        return self._hello(self.peer)

    def _hello(self, peer: int) -> bytes:
        me = self._identity
        lease_us = round(me.lease_s * 1e6)
        content = _HELLO.pack(
            MAGIC, OLDEST, me.cluster_id, me.node_id, peer, lease_us,
            members.pack(me.members), self._nonce,
        ) + bytes((LEVEL,))  # fmt: skip
        return _framed(code(self._key, b"hello", content) + content)

    def seal(self, content: bytes) -> bytes:
        """Return the frame that carries `content`; hellos must have been exchanged."""
        assert self._sender is not None, "no session key yet"
        nonce = _NONCE.pack(self._sent)
        self._sent += 1
        return _framed(self._sender.encrypt(nonce, content, None))

    @property
    def keyed(self) -> bool:
        """Whether `seal` may be used."""
        return self._sender is not None

    def receive(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Take bytes from the other end.

        Returns:
            The contents of all whole frames, in order, and bytes to send back now.

        Raises:
            WireError: Not our protocol, another version, cluster or key, or a damaged
                or repeated frame. The connection must be closed.
        """
        self._buffer += data
        contents: list[bytes] = []
        reply = b""
        position = 0
        while len(self._buffer) - position >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer, position)
            self._check_size(size)
            end = position + _LENGTH.size + size
            if len(self._buffer) < end:
                break
            frame = bytes(self._buffer[position + _LENGTH.size : end])
            position = end
            if self._receiver is not None:
                contents.append(self._open(self._receiver, frame))
            else:
                reply += self._take_hello(frame[:CODE_BYTES], frame[CODE_BYTES:])
        del self._buffer[:position]
        return contents, reply

    def _check_size(self, size: int) -> None:
        # A recorded hello makes a key, too: only a frame under it shows that the peer is there.
        limit = FRAME_BYTES_MAX if self.established else HELLO_BYTES_MAX
        if not CODE_BYTES <= size <= limit:
            raise WireError(f"a frame of {size} bytes, allowed are {CODE_BYTES} to {limit}")

    def _open(self, receiver: AESGCM, frame: bytes) -> bytes:
        nonce = _NONCE.pack(self._received)
        self._received += 1
        try:
            content = receiver.decrypt(nonce, frame, None)
        except InvalidTag:
            raise WireError("a frame with a wrong tag: damaged, repeated or forged") from None
        self.established = True
        return content

    def _take_hello(self, given: bytes, content: bytes) -> bytes:
        me = self._identity
        if len(content) < _HELLO.size or not content.startswith(MAGIC):
            raise WireError("no hello of a hanat node")
        _, oldest, cluster_id, sender, receiver, lease_us, listed, nonce = _HELLO.unpack_from(
            content
        )
        newest = content[_NEWEST_AT] if len(content) > _NEWEST_AT else oldest
        if oldest > LEVEL or newest < OLDEST:
            raise WireError(
                f"node {sender} speaks feature level {span(oldest, newest)}, this node "
                f"{readable()}; upgrade one version after the other"
            )
        if cluster_id != me.cluster_id:
            raise WireError(f"node {sender} belongs to another cluster than {me.cluster!r}")
        # The dialling end chooses the key; the answer must have the same.
        keys = me.keys[:1] if self._dialled else me.keys
        fitting = [key for key in keys if compare_digest(given, code(key, b"hello", content))]
        if not fitting:
            raise WireError(f"node {sender} has another cluster key, or somebody forges its hello")
        self._key = fitting[0]
        if receiver != me.node_id or self.peer not in {None, sender}:
            raise WireError(
                f"node {sender} called node {receiver}, this is node {me.node_id}"
                "; compare id and addresses of the peers in both node files"
            )
        if lease_us != round(me.lease_s * 1e6):
            raise WireError(
                f"node {sender} has a lease of {lease_us / 1000:g} ms, this node of "
                f"{me.lease_s * 1000:g} ms; cluster.profile must be the same in all cluster files"
            )
        me.check_members(sender, members.unpack(listed))
        if nonce == self._nonce:
            raise WireError(f"the hello of node {sender} is a reflection")
        self.peer = sender
        first, second = (self._nonce, nonce) if self._dialled else (nonce, self._nonce)
        to_acceptor = code(self._key, b"to acceptor", first + second)
        to_dialler = code(self._key, b"to dialler", first + second)
        keys = (to_acceptor, to_dialler) if self._dialled else (to_dialler, to_acceptor)
        reply = b"" if self._dialled else self._hello(sender)
        self._sender, self._receiver = map(AESGCM, keys)
        return reply


def _framed(content: bytes) -> bytes:
    return _LENGTH.pack(len(content)) + content
