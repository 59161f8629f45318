"""The ways out: C-STORE and STOW-RS. Each answers with nothing, or with one of three errors."""

from __future__ import annotations

import logging
import ssl
from io import BytesIO
from typing import Any, Protocol

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association

from spinexr.errors import (
    ConfigurationError,
    DestinationDeniedError,
    DestinationUnavailableError,
    ObjectRefusedError,
)
from spinexr.node import network
from spinexr.node.configuration import Destination

# It logs addresses with study UIDs in them.
logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL + 1)

_OUT_OF_RESOURCES = 0xA7  # first byte; PS3.4 table B.2-1
_RESOURCE_LIMITATION = 0x0213  # PS3.7 annex C
_NOT_AUTHORISED = 0x0124
# The archive has the object already: UIDs are derived, so it is the same one.
_DUPLICATE = 0x0111
_DICOM_JSON = ("application/dicom+json", "application/json")
_UNCHUNKED = 1 << 31  # some servers take no chunked bodies
_CALLING_AE_NOT_KNOWN = (0x01, 0x01, 0x03)  # PS3.8 table 9-21
_CALLED_AE_NOT_KNOWN = (0x01, 0x01, 0x07)


class Sender(Protocol):
    """A way to one destination."""

    def send(self, data: bytes) -> None:
        """Deliver an object, given as a file; it has arrived when this returns.

        Raises:
            ObjectRefusedError: this object is not wanted.
            DestinationDeniedError: this node is not wanted.
            DestinationUnavailableError: there was no answer, or one that says “later”. Whether the
                object has arrived is then not known.
        """


def to(destination: Destination, *, ae_title: str) -> Sender:
    """The sender for a destination.

    Raises:
        ConfigurationError: its TLS files cannot be used.
    """
    if destination.scheme in ("dicom", "dicoms"):
        return DicomSender(destination, ae_title=ae_title)
    return WebSender(destination)


class DicomSender:
    """C-STORE, an association for each object."""

    def __init__(self, destination: Destination, *, ae_title: str) -> None:
        self._destination = destination
        self._tls = None
        if destination.scheme == "dicoms":
            self._tls = (network.client_context(destination.tls), destination.host)
        self._ae = AE(ae_title=ae_title)
        for name in ("acse", "dimse", "network", "connection"):
            setattr(self._ae, f"{name}_timeout", destination.timeout_s)

    def send(self, data: bytes) -> None:
        dataset = pydicom.dcmread(BytesIO(data))
        syntax = dataset.file_meta.TransferSyntaxUID
        name = self._destination.name
        try:
            association = self._ae.associate(
                self._destination.host,
                self._destination.port,
                contexts=[build_context(dataset.SOPClassUID, [syntax, ImplicitVRLittleEndian])],
                ae_title=self._destination.ae_title,
                tls_args=self._tls,
                evt_handlers=[(evt.EVT_CONN_OPEN, self._limit)],
            )
        except (OSError, RuntimeError) as e:
            raise _unavailable(name, type(e).__name__) from e
        if not association.is_established:
            raise self._not_let_in(association)
        try:
            status = association.send_c_store(dataset).get("Status")
        # The library's word for: this kind of object was not agreed on.
        except ValueError as e:
            raise ObjectRefusedError(f"{name} takes no objects of this kind.") from e
        # It aborts when there is no answer in time, and raises what then goes wrong.
        except (OSError, RuntimeError) as e:
            raise _unavailable(name, type(e).__name__) from e
        finally:
            if association.is_established:
                association.release()
        _judge(name, status)

    def _limit(self, event: evt.Event) -> None:
        """Wait no longer for each piece to be taken; the library would for ever."""
        connection: Any = event.assoc.dul.socket
        connection.socket.settimeout(self._destination.timeout_s)

    def _not_let_in(self, association: Association) -> Exception:
        name = self._destination.name
        answer = association.acceptor.primitive
        if association.is_rejected and answer is not None:
            given = (answer.result, answer.result_source, answer.diagnostic)
            if given in (_CALLING_AE_NOT_KNOWN, _CALLED_AE_NOT_KNOWN):
                side = "called" if given == _CALLED_AE_NOT_KNOWN else "calling"
                return DestinationDeniedError(f"{name} does not know the {side} AE title.")
            return _unavailable(name, "it rejected the association")
        # Aborted with contexts offered and none accepted, or no connection.
        if association.rejected_contexts:
            return ObjectRefusedError(f"{name} takes no objects of this kind.")
        return _unavailable(name, "no association")


def _judge(name: str, status: int | None) -> None:
    if status is None:
        raise _unavailable(name, "no answer")
    if status in (0x0000, _DUPLICATE) or status >> 12 == 0xB:  # a warning: stored, but changed
        return
    if status == _NOT_AUTHORISED:
        raise DestinationDeniedError(f"{name} answered 0x{status:04X}: not authorised.")
    if status >> 8 == _OUT_OF_RESOURCES or status == _RESOURCE_LIMITATION:
        raise _unavailable(name, f"it answered 0x{status:04X}: out of resources")
    raise ObjectRefusedError(f"{name} answered 0x{status:04X}.")


class WebSender:
    """STOW-RS (PS3.18 section 10.5)."""

    def __init__(self, destination: Destination) -> None:
        self._name, self._destination = destination.name, destination
        self._tls = network.client_context(destination.tls)
        with self._session() as session:
            self._client(session)

    def send(self, data: bytes) -> None:
        dataset = pydicom.dcmread(BytesIO(data))
        try:
            with self._session() as session:
                answer = self._client(session).store_instances([dataset])
        except requests.HTTPError as e:
            if (refusal := self._refusal(e.response)) is not None:
                raise refusal from e
            return
        except (requests.RequestException, OSError) as e:
            raise _unavailable(self._name, type(e).__name__) from e
        # What came is no answer of DICOMweb: a proxy's page, or cut off.
        except Exception as e:
            why = f"its answer is none of DICOMweb ({type(e).__name__})"
            raise _unavailable(self._name, why) from e
        # The other one is for what the archive could not even take for an instance.
        for failed in filter(None, map(answer.get, ("FailedSOPSequence", "OtherFailuresSequence"))):
            _judge(self._name, int(failed[0].get("FailureReason", 0xC000)))

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False  # no credentials or proxies but those of the file
        session.mount("https://", _TlsAdapter(self._tls))
        destination = self._destination
        if destination.user:
            session.auth = (destination.user, destination.secret)
        elif destination.secret:
            session.headers["Authorization"] = f"Bearer {destination.secret}"
        session.headers["Accept"] = "application/dicom+json"
        session.hooks["response"] += [_refuse_redirect, _refuse_others]
        return session

    def _client(self, session: requests.Session) -> DICOMwebClient:
        destination = self._destination
        try:
            client = DICOMwebClient(
                destination.url, session, timeout=destination.timeout_s, chunk_size=_UNCHUNKED
            )
        except ValueError as e:
            raise ConfigurationError(f"{self._name}: {e}.") from e
        client.set_http_retry_params(retry=False)  # the queue does that, and survives
        return client

    def _refusal(self, response: requests.Response | None) -> Exception | None:
        """What an answer other than success means; None where it is success all the same."""
        if response is None:
            return _unavailable(self._name, "no answer")
        status = response.status_code
        if status in (401, 403):
            return DestinationDeniedError(f"{self._name} answered {status}: check the login.")
        if status == 409:  # PS3.18 table 10.5.3-1: none was stored, the body says why
            try:
                failed = Dataset.from_json(response.json())["FailedSOPSequence"].value
                _judge(self._name, int(failed[0].FailureReason))
            except (DestinationDeniedError, DestinationUnavailableError, ObjectRefusedError) as e:
                return e
            # Whatever else the body is, the status says enough.
            except Exception:
                return ObjectRefusedError(f"{self._name} answered 409.")
            return None
        if status in (408, 425, 429) or status >= 500:
            return _unavailable(self._name, f"it answered {status}")
        return ObjectRefusedError(f"{self._name} answered {status}.")


class _TlsAdapter(requests.adapters.HTTPAdapter):
    """TLS as on the other way out; requests would trust a list of its own, not the system's."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=self._context, **options)

    def cert_verify(self, *_: Any, **__: Any) -> None:
        """The context does that."""


def _refuse_redirect(response: requests.Response, **_: object) -> None:
    """A redirect would send the object, and the login, where nobody said."""
    if response.is_redirect:
        response.close()  # nobody will read it
        raise requests.TooManyRedirects("redirected", response=response)


def _refuse_others(response: requests.Response, **_: object) -> None:
    """Success that is none of DICOMweb, such as a proxy's page; the client would take it as one.

    It also knows a media type only without parameters.
    """
    if not response.ok or not response.content:
        return
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind not in _DICOM_JSON:
        raise _NotDicomWebError
    response.headers["Content-Type"] = kind


class _NotDicomWebError(Exception):
    """An answer that is none of DICOMweb."""


def _unavailable(name: str, why: str) -> DestinationUnavailableError:
    return DestinationUnavailableError(f"{name} did not take the object: {why}.")
