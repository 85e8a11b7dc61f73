"""TLS of the doors: one certificate for all, read again when it was renewed.

TLS 1.2 with forward secrecy and authenticated ciphers, or 1.3 (Mozilla's intermediate profile, RFC
7525 and RFC 9325). The contexts stay the same objects over a reload: a handshake takes the newest
certificate, connections that are open keep theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from engine.accounts import Certificate
from engine.config import TlsConfig
from engine.errors import ConfigError

# Of TLS 1.2; those of 1.3 are all good.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_CLIENTS = {"off": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class Tls:
    """The venue's certificate, and a context for each door that asks for one."""

    def __init__(self, config: TlsConfig) -> None:
        """Raises ConfigError when the files cannot be used."""
        self._config = config
        self._contexts: list[ssl.SSLContext] = []
        self._outgoing: list[ssl.SSLContext] = []
        if config.certificate_file:
            # A mistake is said at the start, not at the first handshake.
            self._new_context()

    def context(self, protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
        """For one door; `protocols` are offered by ALPN. Raises ConfigError."""
        context = self._new_context()
        if protocols:
            context.set_alpn_protocols(list(protocols))
        self._contexts.append(context)
        return context

    def outgoing(self) -> ssl.SSLContext:
        """For what the venue itself asks elsewhere. Raises ConfigError."""
        context = _new_client_context(self._config)
        self._outgoing.append(context)
        return context

    def reload(self) -> None:
        """Read the files again. Raises ConfigError, and then nothing has changed: everything is
        tried first on a context of its own."""
        self._try()
        for context in self._contexts:
            _load(context, self._config)
        for context in self._outgoing:
            if self._config.trust_file:
                with _blaming("tls.trust_file"):
                    context.load_verify_locations(self._config.trust_file)
            _load_identity(context, self._config)

    def renewal(self, _: object) -> Callable[[], None]:
        """Try the files as they are now; returns what puts them in force. Raises ConfigError."""
        self._try()
        return self.reload

    def _try(self) -> None:
        if self._contexts:
            self._new_context()
        if self._outgoing:
            _new_client_context(self._config)

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.options |= (ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
                            | ssl.OP_CIPHER_SERVER_PREFERENCE)
        _load(context, self._config)
        context.verify_mode = _CLIENTS[self._config.client_certificates]
        return context


def client_context(config: TlsConfig, wanted: bool = True) -> ssl.SSLContext | None:
    """For a command that goes to one of the doors, None when that one speaks no TLS. Raises
    ConfigError."""
    return _new_client_context(config) if wanted else None


def certificate_of(transport: asyncio.BaseTransport) -> Certificate | None:
    """The client's certificate, None without TLS or without one. It was verified: an unverified one
    ends the handshake."""
    connection: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    raw = connection.getpeercert(binary_form=True) if connection is not None else None
    if connection is None or raw is None:
        return None
    subject: Any = (connection.getpeercert() or {}).get("subject", ())
    names = [value for part in subject for name, value in part if name == "commonName"]
    return Certificate(names[0] if len(names) == 1 else "", hashlib.sha256(raw).hexdigest())


def _new_client_context(config: TlsConfig) -> ssl.SSLContext:
    with _blaming("tls.trust_file"):
        context = ssl.create_default_context(cafile=config.trust_file or None)
    _load_identity(context, config)
    return context


def _load_identity(context: ssl.SSLContext, config: TlsConfig) -> None:
    """What we show where a client's certificate is asked for. Raises ConfigError."""
    if config.identity_file:
        with _blaming("tls.identity_file and tls.identity_key_file"):
            context.load_cert_chain(config.identity_file, config.identity_key_file or None,
                                    _no_password)


def _load(context: ssl.SSLContext, config: TlsConfig) -> None:
    """Certificate, key and the authority of clients. Raises ConfigError with the key at fault."""
    with _blaming("tls.certificate_file and tls.key_file"):
        context.load_cert_chain(config.certificate_file, config.key_file or None, _no_password)
    if config.client_ca_file:
        with _blaming("tls.client_ca_file"):
            context.load_verify_locations(config.client_ca_file)


@contextlib.contextmanager
def _blaming(key: str) -> Iterator[None]:
    """Raises ConfigError with this key for whatever is wrong with its file."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {error.strerror if isinstance(error, OSError) else ''} "
                          f"({type(error).__name__}: {error})".replace("  ", " "),
                          "PEM files, a key without a pass phrase") from error


def _no_password() -> str:
    """Nobody is here to type one: asked for by a key that has a pass phrase."""
    raise ValueError("the key has a pass phrase")
