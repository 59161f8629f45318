"""What both directions of the DICOM network share. Importing this imports pynetdicom."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl

from pynetdicom import _config
from pynetdicom.transport import AssociationSocket

from spinexr.errors import ConfigurationError
from spinexr.node.configuration import Tls

# It logs what peers send, and what peers send may name a patient. The node writes its own lines.
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)


def _close(connection: AssociationSocket) -> None:
    if connection.socket is not None:
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            connection.socket.close()


# The library leaves a socket open where the peer has gone first, until some garbage collection.
AssociationSocket._shutdown_socket = _close  # type: ignore[method-assign, assignment]


def server_context(tls: Tls) -> ssl.SSLContext:
    """TLS of whoever is called (PS3.15 section B: 1.2 or newer).

    Raises:
        ConfigurationError: a file holds no certificate or key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, tls)
    if tls.authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """TLS of whoever calls; the other side's certificate is always judged, its name too.

    Raises:
        ConfigurationError: a file holds no certificate or key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.authority is None:
        context.load_default_certs()  # with an authority of one's own, that one alone
    _load(context, tls)
    return context


def _load(context: ssl.SSLContext, tls: Tls) -> None:
    try:
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
        if tls.authority is not None:
            context.load_verify_locations(tls.authority)
    except (OSError, ValueError) as e:  # ssl.SSLError is an OSError
        raise ConfigurationError(
            f"The TLS files of the node cannot be used ({e}): certificate {tls.certificate}, key "
            f"{tls.key}, authority {tls.authority}."
        ) from e
